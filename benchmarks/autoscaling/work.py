"""What is run: traces, and the nodes that may be rented for them.

The folder of data has Sia's workloads and profiles (github.com/siasosp23/artifacts) in `sia`, and Alibaba's trace of
2023 (github.com/alibaba/clusterdata) in `alibaba-gpu-2023`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.types import CPU, Node, Snapshot
from scheduler.simulate.traces import alibaba, sia
from scheduler.simulate.types import Phase, Trace, TraceJob
from scheduler.types import Configuration

LAUNCH_S = 180.0
"""From the request of a node until it has joined."""
MOST = 100
"""Nodes of each type at once; nobody comes near."""
INSTANCES = {
    "philly": ("g4dn.12xlarge", "p3.16xlarge", "p4d.24xlarge"),
    "alibaba": ("g4dn.12xlarge", "g4dn.xlarge", "p3.16xlarge", "p3.2xlarge", "p3.8xlarge", "p4d.24xlarge"),
}
"""AWS, us-east-1, by name, which is the order of the file. Of Philly's jobs, gangs of 4 to 16, speeds were measured on
nodes of these sizes; Alibaba's are nearly all of one device."""
MACHINES = {"aws": "T4", "azure": "V100-SXM2-16GB", "dgx-ext": "A100-SXM4-40GB"}
"""Sia's measurements, and the devices of AWS that they are taken for. Its V100 had 32 GB; here they cost what those
with 16 GB do."""
REFERENCE = "V100-SXM2-16GB"
"""A task of Alibaba's takes on this as long as it really took."""
GAP = 4.0
"""Alibaba's tasks come so many times as fast as they did."""
FIRST_DAY = 115
"""Of Alibaba's list: before it hardly any task came that had an end."""
LAST_DAY = 147
"""The list ends on day 149."""
LONGEST_S = 86_400.0
"""Longer tasks of Alibaba's are left out."""
ALIBABA_JOBS = 400
RESTART_S = 60.0
"""Of Alibaba's tasks, every attempt."""


def trace(name: str, data: Path, seed: int, objective: str) -> Trace:
    """`philly` or `alibaba`."""
    return philly(data, seed, objective) if name == "philly" else tasks(data, seed, objective)


def philly(data: Path, seed: int, objective: str) -> Trace:
    """One of the four samples of 160 jobs that Sia's authors drew from Philly, on as many devices as its user asked for
    and with that batch size."""
    path = data / "sia" / "workloads" / f"philly-{1 + seed % 4}.csv"
    found = sia.read(path, objective=objective, rigid=True, machines=tuple(MACHINES))
    names = {Catalog.load().device(sia.MACHINES[machine].device).name: kind for machine, kind in MACHINES.items()}
    return replace(found, name=path.stem, jobs=tuple(_renamed(job, names) for job in found.jobs))


def _renamed(job: TraceJob, names: dict[str, str]) -> TraceJob:
    def rates(of: dict[Configuration, float]) -> dict[Configuration, float]:
        return {Configuration.of({names[name]: n for name, n in each.groups}): rate for each, rate in of.items()}

    phases = tuple(Phase(each.begins, rates(dict(each.rates)), rates(dict(each.spread_rates))) for each in job.phases)
    return replace(job, phases=phases)


def tasks(data: Path, seed: int, objective: str) -> Trace:
    """So many tasks of Alibaba's list that came one after the other, from a place that the seed draws, with gaps a
    quarter as long. The list says nothing of speeds: each task is given one of Sia's five models, drawn by the seed as
    often as Philly's jobs have them, and is as much faster or slower on each device type."""
    path = data / "alibaba-gpu-2023" / "openb_pod_list_default.csv"
    whole = alibaba.read(path, objective=objective)
    known = sorted((job for job in whole.jobs), key=lambda job: job.arrives_s)
    fits = [job for job in known if _whole_s(job) <= LONGEST_S]
    first = next(n for n, job in enumerate(fits) if job.arrives_s >= FIRST_DAY * 86_400)
    last = next(n for n, job in enumerate(fits) if job.arrives_s >= LAST_DAY * 86_400)
    chance = random.Random(seed)
    begin = chance.randrange(first, last - ALIBABA_JOBS)
    speeds = _Relative(data)
    jobs = []
    for job in fits[begin : begin + ALIBABA_JOBS]:
        count, model = job.configurations[0].devices, chance.choice(speeds.models)
        seconds = {name: _whole_s(job) * factor for name, factor in speeds.of(model, count).items()}
        rates = {Configuration.of({name: count}): 1.0 / each for name, each in seconds.items()}
        arrives_s = (job.arrives_s - fits[begin].arrives_s) / GAP
        jobs.append(
            replace(job, family=model, arrives_s=arrives_s, work=1.0, phases=(Phase(0.0, rates),), startup_s=RESTART_S)
        )
    return Trace(f"alibaba-{begin}", tuple(jobs))


def _whole_s(job: TraceJob) -> float:
    return job.seconds(job.configurations[0]) or 0.0


class _Relative:
    """How long Sia's models take on each device type, over what they take on the reference."""

    def __init__(self, data: Path) -> None:
        jobs = philly(data, 0, "balanced").jobs
        self.models = [job.family for job in jobs]
        elastic = sia.read(data / "sia" / "workloads" / "philly-1.csv", machines=tuple(MACHINES))
        names = {Catalog.load().device(sia.MACHINES[each].device).name: kind for each, kind in MACHINES.items()}
        self._jobs = {job.family: _renamed(job, names) for job in elastic.jobs}

    def of(self, model: str, count: int) -> dict[str, float]:
        """By device type, with so many devices."""
        job = self._jobs[model]
        found = {name: job.seconds(Configuration.of({name: count})) for name in MACHINES.values()}
        base = found[REFERENCE]
        assert base is not None
        return {name: seconds / base for name, seconds in found.items() if seconds is not None}


def named(found: Trace, how: str) -> Trace:
    """The trace of users who name a device type for each job: `V100`, of which Alibaba's durations are taken to be, or
    `fastest`. What cannot run on it takes the fastest that it can."""
    return replace(found, jobs=tuple(_only(job, how) for job in found.jobs))


def _only(job: TraceJob, how: str) -> TraceJob:
    held = sorted(job.configurations, key=lambda each: job.seconds(each) or math.inf)
    kept = next((each for each in held if how == "V100" and each.groups[0][0] == REFERENCE), held[0])
    phases = tuple(Phase(each.begins, _of(each.rates, kept), _of(each.spread_rates, kept)) for each in job.phases)
    return replace(job, phases=phases)


def _of(rates: Mapping[Configuration, float], kept: Configuration) -> dict[Configuration, float]:
    return {kept: rates[kept]} if kept in rates else {}


def offers(
    name: str,
    markets: Sequence[str] = ("on-demand",),
    interruptions_per_h: float = 0.0,
    owned: Mapping[str, int] | None = None,
) -> Snapshot:
    """The nodes that may be rented for a trace, each on these markets; with `owned` none may, and so many of each are
    always there."""
    catalog, nodes = Catalog.load(), []
    for instance in INSTANCES[name]:
        kind = catalog.instance(f"aws/{instance}")
        for market in markets:
            title = instance.replace(".", "-") + ("-spot" if market == "spot" else "")
            node = {"name": title, "device": kind.device, "count": int(kind.device_count), "market": market}
            node["instance"] = f"aws/{instance}"
            if owned is None:
                nodes.append({**node, "rent": {"most": MOST, "launch_s": LAUNCH_S}})
            elif owned.get(title):
                nodes.append({**node, "number": owned[title]})
    whole = ClusterDefinition.parse({"nodes": nodes}, catalog).snapshot(None, catalog)
    types = {each: kind for each, kind in whole.device_types.items() if each != CPU}
    rented = tuple(
        replace(kind, interruptions_per_h=interruptions_per_h if kind.market == "spot" else None)
        for kind in whole.node_types
    )
    return replace(whole, nodes=_without_cores(whole.nodes), device_types=types, node_types=rented)


def least_usd(name: str, found: Trace, markets: Sequence[str] = ("on-demand",)) -> float:
    """No policy is cheaper: every job on the devices that are the least dollars for it, at the lowest price of each on
    any node, every node full and nothing paid for boots, starts and idle devices."""
    usd_h: dict[str, float] = {}
    for kind in offers(name, markets).node_types:
        for device, count in kind.devices:
            usd_h[device] = min(usd_h.get(device, math.inf), kind.price_usd_h / count)
    return sum(
        min(
            (job.seconds(each) or math.inf) / 3600 * sum(usd_h[device] * n for device, n in each.groups)
            for each in job.configurations
        )
        for job in found.jobs
    )


def _without_cores(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    kept = (replace(node, devices=tuple(each for each in node.devices if each.device_type != CPU)) for node in nodes)
    return tuple(node for node in kept if node.devices)
