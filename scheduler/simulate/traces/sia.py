"""Sia's workloads and profiles (Jayaram Subramanya et al., SOSP 2023; github.com/siasosp23/artifacts).

    workload   name,time,application,num_replicas,batch_size
    profiles   <application>/{placements,scalability}-<machine>.csv, <application>/validation-<batch size>.csv

A job is done after so many steps of its smallest batch size as all its epochs take; with an adaptive batch size it
makes more or less of them a second in every epoch (see `sia_profiles`). `num_replicas` and `batch_size` are what the
job's user would ask for where nothing adapts: `rigid` holds jobs to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.catalog import Catalog

from ...types import Configuration
from ..types import Phase, Trace, TraceJob
from .sia_profiles import Profile, read_profile
from .tables import Row, nearest, read_csv, refused

COLUMNS = ("name", "time", "application", "num_replicas", "batch_size")
MERGED = 0.05
"""Epochs whose speeds differ by no more than this share, on every configuration, become one phase."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine that was measured."""

    device: str
    """As the catalog knows it."""
    per_node: int
    nodes: int
    """The most that were measured together: Sia uses no more of them for one job."""


MACHINES: Mapping[str, Machine] = {
    "aws": Machine("T4", 4, 16),
    "rtx": Machine("2080Ti", 8, 3),
    "dgx-ext": Machine("A100-40GB", 8, 2),
    "quad": Machine("RTX-6000", 4, 1),
    "azure": Machine("V100-32GB", 8, 5),
}
"""simulator_config.py: g4dn.12xlarge; 8x RTX 2080Ti; DGX A100 40GB; 4x Quadro RTX 6000; ND40rs_v2."""
RESTART_S: Mapping[str, float] = {"cifar10": 50, "deepspeech2": 25, "bert": 120, "yolov3": 80, "imagenet": 250}
"""Seconds to save and load a job again (applications.py)."""
OTHER_RESTART_S = 30.0
SLOWER: Mapping[str, float] = {"cifar10": 1.8, "imagenet": 1.2, "yolov3": 1.2, "bert": 1.2, "deepspeech2": 1.2}
"""How much slower jobs were on the authors' real cluster than measured alone (simulator_config.py): their simulator
divides all speeds by it, and so does this."""


def read(
    path: Path,
    profiles: Path | None = None,
    objective: str = "balanced",
    *,
    rigid: bool = False,
    machines: Sequence[str] = tuple(MACHINES),
) -> Trace:
    """A workload with the speeds of its profiles (in `../profiles` of its folder unless given). Raises SpecError."""
    rows = read_csv(path, COLUMNS, "jobs")
    folder = profiles or path.parent.parent / "profiles"
    if not folder.is_dir():
        raise refused(folder, "there is no such folder", "a workload needs the folder of Sia's profiles: name it")
    known = sorted(each.name for each in folder.iterdir() if each.is_dir())
    speeds, jobs = _Speeds(folder, machines), list[TraceJob]()
    for row in rows:
        arrives_s, application = row.number("time"), row.text("application")
        replicas, batch = row.number("num_replicas", 1, whole=True), row.number("batch_size", 1, whole=True)
        if application not in known:
            row.wrong("application", f"unknown model {application!r}", nearest(application, known, "models"))
        elif arrives_s is not None and replicas is not None and batch is not None:
            phases = speeds.phases(application, (int(replicas), batch) if rigid else None)
            if phases:
                jobs.append(_job(row, arrives_s, speeds.profile(application), phases, objective))
            else:
                message = f"no device type can hold {application} with batches of {batch:g} on {replicas:g} devices"
                row.wrong("num_replicas", message, "measured are at most 16 nodes of one kind: ask for fewer devices")
    rows[0].problems.check()
    name = path.stem + (" (rigid)" if rigid else "")
    return Trace(name, tuple(sorted(jobs, key=lambda job: job.arrives_s)))


def _job(row: Row, arrives_s: float, profile: Profile, phases: tuple[Phase, ...], objective: str) -> TraceJob:
    application = row.text("application")
    restart_s = RESTART_S.get(application, OTHER_RESTART_S)
    return TraceJob(
        row.text("name"), application, arrives_s, profile.work, phases, objective=objective, startup_s=restart_s
    )


class _Speeds:
    """Reads each profile, and works out each kind of job, once."""

    def __init__(self, folder: Path, machines: Sequence[str]) -> None:
        self._folder, self._machines, catalog = folder, machines, Catalog.load()
        self._devices = {name: catalog.device(MACHINES[name].device).name for name in machines}
        self._profiles: dict[str, Profile] = {}
        self._phases: dict[tuple[str, tuple[int, float] | None], tuple[Phase, ...]] = {}

    def profile(self, application: str) -> Profile:
        """What was measured of a model."""
        if application not in self._profiles:
            self._profiles[application] = read_profile(self._folder / application, self._machines)
        return self._profiles[application]

    def phases(self, application: str, fixed: tuple[int, float] | None) -> tuple[Phase, ...]:
        """Speeds from epoch to epoch; with `fixed` only on so many replicas with that batch size."""
        key = application, fixed
        if key not in self._phases:
            self._phases[key] = self._find(application, fixed)
        return self._phases[key]

    def _find(self, application: str, fixed: tuple[int, float] | None) -> tuple[Phase, ...]:
        profile, slower = self.profile(application), SLOWER.get(application, 1.0)
        speeds: dict[tuple[Configuration, bool], Sequence[float]] = {}
        batch = None if fixed is None else fixed[1]
        for name in self._machines:
            machine = MACHINES[name]
            for count in counts(machine) if fixed is None else (fixed[0],):
                held = Configuration.of({self._devices[name]: count})
                for spread, nodes in placements(machine, count):
                    found = profile.goodput(name, nodes, count, batch)
                    if found is not None:
                        speeds[held, spread] = [float(speed) / slower for speed in found]
        possible = {held for held, spread in speeds if not spread}
        kept = {key: found for key, found in speeds.items() if key[0] in possible}
        return merged(kept, [float(done) for done in profile.progress]) if kept else ()


def counts(machine: Machine) -> list[int]:
    """Devices that Sia gives a job: powers of two on one node, then whole nodes (its CONFIGS_4GPU and CONFIGS_8GPU)."""
    within = [2**power for power in range(8) if 2**power < machine.per_node]
    return within + [machine.per_node * nodes for nodes in range(1, machine.nodes + 1)]


def placements(machine: Machine, count: int) -> Iterator[tuple[bool, int]]:
    """(spread, nodes): on as few as hold them; and evenly on twice as many, or as many as were measured together."""
    fewest = -(-count // machine.per_node)
    if fewest > machine.nodes:
        return
    yield False, fewest
    apart = min(2 * fewest, count, machine.nodes)
    if apart > fewest:
        yield True, apart


def merged(
    speeds: Mapping[tuple[Configuration, bool], Sequence[float]], done: Sequence[float], tolerance: float = MERGED
) -> tuple[Phase, ...]:
    """Phases of like speeds, out of one speed per epoch; `done` is the work before each epoch and at the end. Each
    phase takes exactly the time of its epochs."""
    work = [after - before for before, after in itertools.pairwise(done)]
    phases, first = list[Phase](), 0
    for epoch in range(1, len(work) + 1):
        if epoch < len(work) and all(_alike(found[first : epoch + 1], tolerance) for found in speeds.values()):
            continue
        total = sum(work[first:epoch])
        rates = {
            key: total / sum(w / v for w, v in zip(work[first:epoch], found[first:epoch], strict=True))
            for key, found in speeds.items()
        }
        packed = {held: rate for (held, spread), rate in rates.items() if not spread}
        phases.append(Phase(done[first] / done[-1], packed, {h: rate for (h, spread), rate in rates.items() if spread}))
        first = epoch
    return tuple(phases)


def _alike(speeds: Sequence[float], tolerance: float) -> bool:
    return max(speeds) <= (1 + tolerance) * min(speeds)
