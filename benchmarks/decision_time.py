"""How long one plan takes, from 16 workloads to 100,000: CPU seconds of one core, which other work on the machine does
not change much. Writes docs/benchmarks-decisions.md.

python -m benchmarks.decision_time [--most N] [--out FILE]

cold: a policy that has seen nothing plans for a queue in front of idle nodes. warm: half an
hour later what has ended is gone, the rest of what was placed runs, 1% of the workloads were replaced by new ones, and
the same policy plans again.
words: the explanation of every workload of the cold plan, with all of its configurations, put into words.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.types import DeviceType, Node, NodeDevices, Snapshot
from scheduler.policy import create
from scheduler.types import Configuration, Estimate, Money, Plan, Situation, WorkloadView

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
PER_NODE = 8
CHANGED = 0.01
HELD_S = 600.0
KINDS = {
    "T4": (0.53, 1.0),
    "V100": (3.06, 3.0),
    "A100": (3.67, 6.0),
    "L4": (0.80, 1.8),
    "A10G": (1.01, 2.2),
    "RTX6000": (0.99, 2.0),
    "H100": (6.88, 12.0),
    "K80": (0.90, 0.4),
}
"""Price in dollars an hour and relative speed of one device."""
CASES = (
    (16, 64, 3),
    (256, 768, 3),
    (1024, 768, 3),
    (4000, 4000, 8),
    (10_000, 10_000, 8),
    (30_000, 30_000, 8),
    (100_000, 100_000, 8),
)
"""Workloads, devices and device types."""


@dataclass(frozen=True)
class Cluster:
    """Nodes of eight devices, and the configurations that are shared by all tables."""

    snapshot: Snapshot
    configurations: tuple[Configuration, ...]

    @classmethod
    def of(cls, devices: int, types: int) -> Cluster:
        """About so many devices, the types in turn."""
        names = list(KINDS)[:types]
        nodes = tuple(
            Node(f"n{i}", f"n{i}", devices=(NodeDevices(names[i % types], names[i % types], PER_NODE, PER_NODE),))
            for i in range(devices // PER_NODE)
        )
        kinds = {name: DeviceType(name, "gpu", price_usd_h=KINDS[name][0]) for name in names}
        wanted = tuple(Configuration.of({name: count}) for name in names for count in (1, 2, 4, 8))
        return cls(Snapshot(1000.0, nodes, kinds), wanted)


def workload(name: str, cluster: Cluster, rng: random.Random, now_s: float) -> WorkloadView:
    """A training that can be stopped, on any of the configurations."""
    seconds, estimates = rng.uniform(600, 72_000), []
    for configuration in cluster.configurations:
        ((device_type, count),) = configuration.groups
        price, speed = KINDS[device_type]
        time_s = seconds / speed / count**0.9
        money, held = Money(time_s / 3600 * count * price), count * price
        estimates.append(Estimate(configuration, time_s, 30.0, money=money, price_usd_h=held, source="roofline"))
    objective = rng.choice(("cost", "balanced", "time"))
    came_s = now_s - rng.uniform(0, 1000)
    return WorkloadView(
        name, name, objective=objective, queued_s=came_s, submitted_s=came_s, estimates=tuple(estimates), resumes=True
    )


def queue(workloads: int, cluster: Cluster, seed: int) -> Situation:
    """All of them wait."""
    rng = random.Random(seed)
    views = tuple(workload(f"w{i}", cluster, rng, 1000.0) for i in range(workloads))
    return Situation(1, 1000.0, seed, cluster.snapshot, views)


def later(before: Situation, plan: Plan, cluster: Cluster) -> Situation:
    """What was placed runs and has a tenth of its work done; 1% of the workloads are new ones in place of others."""
    rng = random.Random(before.seed + 1)
    new = set(rng.sample(range(len(before.workloads)), max(1, int(CHANGED * len(before.workloads)))))
    now_s, views, held = before.now_s + HELD_S, [], dict[tuple[str, str], int]()
    for number, view in enumerate(before.workloads):
        placement = plan.placements.get(view.id)
        if number in new:
            views.append(workload(f"new{number}", cluster, rng, now_s))
        elif placement is None:
            views.append(view)
        else:
            views.append(replace(view, placement=placement, held_s=HELD_S, remaining=0.9))
            for name, node in placement.devices:
                held[node, name] = held.get((node, name), 0) + 1
    nodes = tuple(
        replace(
            node,
            devices=tuple(replace(d, free=d.total - held.get((node.node_id, d.device_type), 0)) for d in node.devices),
        )
        for node in before.snapshot.nodes
    )
    snapshot = replace(before.snapshot, at_s=now_s, nodes=nodes)
    return Situation(2, now_s, before.seed, snapshot, tuple(views), plan.congestion_usd_h, plan.memory)


def measure(workloads: int, devices: int, types: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each repeat."""
    cluster = Cluster.of(devices, types)
    found: dict[str, list[float]] = {name: [] for name in ("cold", "warm", "words", "first-fit", "placed")}
    for seed in range(repeats):
        situation, policy = queue(workloads, cluster, seed), create("market")
        plan, seconds = _timed(lambda policy=policy, situation=situation: policy.plan(situation))
        found["cold"].append(seconds)
        found["placed"].append(len(plan.placements))
        found["words"].append(_timed(lambda plan=plan: list(plan.explanations.values()))[1])
        second = later(situation, plan, cluster)
        found["warm"].append(_timed(lambda policy=policy, second=second: policy.plan(second))[1])
        if workloads <= 10_000:
            found["first-fit"].append(_timed(lambda situation=situation: create("first-fit").plan(situation))[1])
    return found


def _timed(work):  # type: ignore[no-untyped-def]
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def row(workloads: int, devices: int, types: int, found: dict[str, list[float]]) -> str:
    """One line of the table."""

    def told(name: str) -> str:
        values = found[name]
        if not values:
            return "-"
        return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    placed = f"{statistics.median(found['placed']):.0f}"
    return (
        f"| {workloads:,} | {devices:,} | {types} | {placed} | {told('cold')} | {told('warm')} | {told('words')} "
        f"| {told('first-fit')} |"
    )


HEAD = """# How long a decision takes

Made by `python -m benchmarks.decision_time` on {date} ({machine}, Python {python}, one core). CPU seconds: median
(least and most) of {repeats} situations, of one from 30,000 workloads on. Every workload has 4 counts of every device
type to choose from, and can be stopped and moved.

`cold`: a plan of `market` for a queue in front of idle nodes, by a policy that has seen nothing. `warm`: then what was
placed runs, a tenth of its work is done, and 1% of the workloads are replaced by new ones. `words`: every workload's
explanation with all of its configurations, which a plan leaves to who asks for it. `first-fit` is what Ray alone would
do.

For comparison, as published by their authors: Gavel's linear program with space sharing for 1,024 jobs on 768 devices
1,837 s, POP with 8 parts 4.5 s (Narayanan et al., SOSP 2021).

| workloads | devices | types | placed | cold s | warm s | words s | first-fit s |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def document(lines: Sequence[str]) -> str:
    """The page."""
    date = datetime.date.today().isoformat()  # noqa: DTZ011
    head = HEAD.format(date=date, machine=platform.machine(), python=platform.python_version(), repeats=REPEATS)
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=100_000, help="workloads of the largest case")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks-decisions.md")
    arguments = parser.parse_args()
    lines = []
    for workloads, devices, types in CASES:
        if workloads <= arguments.most:
            found = measure(workloads, devices, types, REPEATS if workloads <= 10_000 else 1)
            lines.append(row(workloads, devices, types, found))
            print(lines[-1], flush=True)
    arguments.out.write_text(document(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
