"""Finds processes to kill: those of one home folder's service and cluster, and no others."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.processes import MARKER

WEIGHTS = {"service": 20, "worker": 32, "driver": 26, "supervisor": 12, "raylet": 4, "node": 2, "head": 3}
"""How often each kind is chosen. `node` is the process that runs a node in the foreground, `raylet` what it watches;
`head` is the cluster's control service or the head's raylet."""
BODIES = ("ray::CommandRunner", "ray::Replica", "ray::RayTrainWorker", "ray::TrainController", "ray::Token")


@dataclass(frozen=True)
class Victim:
    """A process to kill, and the workload that it works for, where it does."""

    kind: str
    pid: int
    title: str
    workload_id: str | None = None


def choose(home: Path, service_pid: int, rng: random.Random, wanted: str | None = None) -> Victim | None:
    """A victim by chance, of a kind of which there is one; of a wanted kind None where there is none."""
    found = sorted(processes(home), key=lambda each: each.pid)
    found.append(Victim("service", service_pid, "raywise up"))
    there = [kind for kind in WEIGHTS if wanted in (None, kind) and any(each.kind == kind for each in found)]
    if not there:
        return None
    kind = rng.choices(there, [WEIGHTS[each] for each in there])[0]
    return rng.choice([each for each in found if each.kind == kind])


def processes(home: Path) -> Iterator[Victim]:
    """What may be killed of this home's cluster."""
    try:
        cluster_id = json.loads((home / "cluster" / "cluster.json").read_text())["cluster_id"]
    except (OSError, ValueError, KeyError):
        return
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARKER) != cluster_id:
                continue
            title = " ".join(process.cmdline())
            kind = _kind(title)
            if kind is not None:
                job = environment.get("RAYWISE_JOB")
                yield Victim(kind, process.pid, title[:80], json.loads(job)["workload_id"] if job else None)


def _kind(title: str) -> str | None:
    is_head = "--head" in title or "--head_node" in title
    if title.startswith(BODIES):
        return "worker"
    if title.startswith("ray::JobSupervisor"):
        return "supervisor"
    if "-m raywise_workloads" in title and "bash" not in title and "/bin/sh" not in title:
        return "driver"
    if "gcs_server" in title.split(" ", maxsplit=1)[0]:
        return "head"
    if title.split(" ", maxsplit=1)[0].endswith("/raylet"):
        return "head" if is_head else "raylet"
    if "ray.scripts.scripts start" in title and not is_head:
        return "node"
    return None
