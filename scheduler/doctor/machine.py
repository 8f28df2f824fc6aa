"""Judges the machine and what is installed on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .facts import DiskFacts, MachineFacts
from .findings import Finding, by_limit, fail, ok, warn

MIN_PYTHON = (3, 11)
RAY = "2.60"
"""Raywise speaks to the control service of this Ray in its own messages: another may not understand them."""
MIN_VERSIONS = {"torch": (2, 6), "transformers": (5, 0)}
MIN_OPEN_FILES, GOOD_OPEN_FILES = 1024, 65_536
GIB = 2**30
SHM = "/dev/shm"  # noqa: S108
_SPILL_STOPS = 0.95
"""Ray stops to write objects to a disk that is fuller."""


def judge_machine(facts: MachineFacts, *, runs_ray: bool) -> list[Finding]:
    """What this machine needs for a service; with `runs_ray`, for the nodes of a cluster too."""
    found = [python(facts), ray(facts), *packages(facts), user(facts), open_files(facts), memory(facts)]
    found += [disk(each) for each in facts.disks]
    if runs_ray:
        found.append(shared_memory(facts))
    return [*found, *driver(facts)]


def python(facts: MachineFacts) -> Finding:
    """The Python this runs in."""
    version = ".".join(str(part) for part in facts.python)
    if facts.python[:2] < MIN_PYTHON:
        return fail("python", f"{version}, too old", "install Python 3.11 or newer")
    return ok("python", version)


def ray(facts: MachineFacts) -> Finding:
    """Whether Ray is there, of the right version, and whole."""
    version = facts.packages.get("ray")
    if version is None:
        return fail("ray", "not installed", f"install ray[default,data,train,serve]=={RAY}.*")
    if facts.ray_error is not None:
        return fail("ray", f"{version} cannot be imported: {facts.ray_error}", "install it again")
    if not version.startswith(f"{RAY}."):
        return fail("ray", f"{version}; Raywise needs {RAY}", f"install ray=={RAY}.*")
    return ok("ray", version)


def packages(facts: MachineFacts) -> list[Finding]:
    """torch and transformers."""
    found = []
    for name, least in MIN_VERSIONS.items():
        version, wanted = facts.packages.get(name), ".".join(str(part) for part in least)
        if version is None:
            found.append(fail(name, "not installed", f"install {name} {wanted} or newer"))
        elif _numbers(version) < least:
            found.append(fail(name, f"{version}, too old", f"install {name} {wanted} or newer"))
        else:
            found.append(ok(name, version))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def user(facts: MachineFacts) -> Finding:
    """Who runs this."""
    if facts.is_root:
        return warn("user", "root", "run the service as a user of its own: a workload's code runs with its rights")
    return ok("user", "not root")


def open_files(facts: MachineFacts) -> Finding:
    """The limit on open files: Ray keeps a connection to each worker."""
    found = f"at most {facts.open_files:,} open files"
    do = f"raise it to {GOOD_OPEN_FILES}: `ulimit -n {GOOD_OPEN_FILES}`, or LimitNOFILE= in the systemd unit"
    if facts.open_files < MIN_OPEN_FILES:
        return fail("open files", found, do)
    return warn("open files", found, do) if facts.open_files < GOOD_OPEN_FILES else ok("open files", found)


def memory(facts: MachineFacts) -> Finding:
    """Memory that is left."""
    free, total = facts.memory_available_bytes, max(1, facts.memory_bytes)
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB available"
    do = "end something: Ray kills workers on a node whose memory is 95% in use"
    return by_limit("memory", found, 1 - free / total, warn_at=0.85, fail_at=0.95, do=do)


def disk(facts: DiskFacts) -> Finding:
    """Space that is left on one disk."""
    used = 1 - facts.free_bytes / max(1, facts.total_bytes)
    subject, found = f"disk: {facts.what}", f"{facts.free_bytes / GIB:.1f} GiB free ({used:.0%} used) at {facts.path}"
    if facts.what == "spill":
        do = f"free some: Ray spills no objects to a disk that is {_SPILL_STOPS:.0%} full"
        return by_limit(subject, found, used, warn_at=0.9, fail_at=_SPILL_STOPS, do=do)
    do = "free some, or move the folder: what is submitted is refused when the store cannot be written"
    if facts.free_bytes < GIB // 10:
        return fail(subject, found, do)
    return warn(subject, found, do) if facts.free_bytes < GIB else ok(subject, found)


def shared_memory(facts: MachineFacts) -> Finding:
    """Shared memory, where Ray's object store lives."""
    if facts.shm_bytes is None:
        return warn(SHM, "not there", "mount it: without it Ray's object store is on disk, and slow")
    found = f"{facts.shm_bytes / GIB:.1f} GiB"
    if facts.shm_bytes < 2 * GIB:
        do = "make it larger (docker run --shm-size=..., an emptyDir of medium Memory): objects go to disk without it"
        return warn(SHM, found, do)
    return ok(SHM, found)


def driver(facts: MachineFacts) -> Sequence[Finding]:
    """The NVIDIA driver, where there is one."""
    if facts.gpu_error is not None:
        return [fail("gpu driver", f"nvidia-smi fails: {facts.gpu_error}", "repair the driver, or reboot")]
    if not facts.gpus:
        return [ok("gpu driver", "no NVIDIA GPU on this machine")]
    kinds = sorted(set(facts.gpus))
    return [ok("gpu driver", ", ".join(f"{facts.gpus.count(kind)} x {kind}" for kind in kinds))]
