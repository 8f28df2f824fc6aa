"""Dollars and completion times of policies that rent nodes, on Alibaba's and Philly's jobs at AWS prices, by the
simulator that runs the service's own engine. Prints what docs/autoscaling.md shows.

python -m benchmarks.autoscaling --data ../shared/data [--seed 0] [--traces philly,alibaba] [--cases exact,off,spot]
    [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.types import Snapshot
from scheduler.policy import create
from scheduler.simulate.metrics import summary
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import SimulationResult, Trace

from .need import Need, need_of, owned_nodes
from .work import least_usd, named, offers, trace

REFERENCE = "no-packing"
OBJECTIVES = ("cost", "balanced", "time")
LAUNCH_FAILURES = 0.1
"""Share of launches that fail."""
INTERRUPTIONS_PER_H = 0.05
"""Of each spot node: one in twenty hours. The catalog knows no rate of these; what is assumed elsewhere, a fifth of
them in a month, would hardly be seen in a day."""
CASES = {"exact": ("on-demand", 0.0), "off": ("on-demand", 0.2), "spot": ("spot", 0.2)}
"""Market, and the error of the estimates."""


@dataclass(frozen=True)
class Row:
    """What came of one policy. Hours and dollars."""

    policy: str
    finished: int
    usd: float
    mean_jct_h: float
    median_jct_h: float
    p99_jct_h: float
    makespan_h: float
    node_hours: float
    utilisation: float
    """Device-hours that jobs held / device-hours that were paid for."""
    launches: int
    failed_launches: int
    interruptions: int
    """Attempts of jobs that ended with their node."""
    restarts: int
    decision_ms: float
    decision_p99_ms: float


def run(
    label: str, work: Trace, where: Snapshot, policy: str, options: Options, seed: int, fixed: Need | None = None
) -> tuple[Row, SimulationResult]:
    """One policy; `fixed` is a cluster that is always there, whose nodes are paid for until the last job ends."""
    result = simulate(work, where, create(policy), options, seed)
    found = summary(result)
    held_h = sum(found.device_hours_by_type.values())
    makespan_h = (found.makespan_s or 0.0) / 3600
    if fixed is not None:
        usd, node_hours, paid_h = (
            each * makespan_h for each in (fixed.usd_h, float(fixed.nodes), float(fixed.devices))
        )
    else:
        rentals = [each for each in result.rentals or () if not each.failed]
        usd, node_hours = found.rented_usd or 0.0, found.node_hours or 0.0
        paid_h = sum(each.devices * (each.ended_s - each.asked_s) for each in rentals) / 3600
    row = Row(
        policy=label,
        finished=found.finished,
        usd=usd,
        mean_jct_h=(found.mean_jct_s or 0.0) / 3600,
        median_jct_h=(found.median_jct_s or 0.0) / 3600,
        p99_jct_h=(found.p99_jct_s or 0.0) / 3600,
        makespan_h=makespan_h,
        node_hours=node_hours,
        utilisation=held_h / paid_h if paid_h else 0.0,
        launches=found.launches or 0,
        failed_launches=found.failed_launches or 0,
        interruptions=sum(job.failures for job in result.jobs),
        restarts=found.restarts,
        decision_ms=(found.decision_mean_s or 0.0) * 1e3,
        decision_p99_ms=(found.decision_p99_s or 0.0) * 1e3,
    )
    print(f"# {work.name}: {row}", file=sys.stderr, flush=True)
    return row, result


def rows(name: str, data: Path, market: str, error: float, seed: int) -> Iterator[Row]:
    """All policies on one trace, `no-packing` first."""
    where = offers(name, (market,), INTERRUPTIONS_PER_H)
    options = Options(noise=error, launch_failures=LAUNCH_FAILURES)
    work = trace(name, data, seed, "balanced")
    first, result = run(REFERENCE, work, where, REFERENCE, options, seed)
    yield first
    yield run("cheapest-fit", work, where, "cheapest-fit", options, seed)[0]
    yield run("ray-autoscaler, any type", work, where, "ray-autoscaler", options, seed)[0]
    for how in ("V100", "fastest"):
        yield run(f"ray-autoscaler, {how}", named(work, how), where, "ray-autoscaler", options, seed)[0]
    for size in ("mean", "peak") if market == "on-demand" else ():
        owned = owned_nodes(need_of(result, where, size), work, where)
        there, fixed = offers(name, owned=owned), Need.of(owned, where)
        print(f"# {size} need: {owned}", file=sys.stderr)
        yield run(f"fixed for the {size} need, market", work, there, "market", options, seed, fixed)[0]
    for objective in OBJECTIVES:
        yield run(f"market, {objective}", trace(name, data, seed, objective), where, "market", options, seed)[0]
    if market == "spot":
        both = offers(name, ("on-demand", "spot"), INTERRUPTIONS_PER_H)
        yield run("market, balanced, on demand as well", work, both, "market", options, seed)[0]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """As the page has it."""
    base = found[0]
    lines = [
        "| policy | dollars | of no-packing | mean JCT h | of no-packing | p50 | p99 | makespan h | node h | used "
        "| launches (failed) | lost with a node | restarts | plan ms (p99) |",
        "| --- |" + " ---: |" * 13,
    ]
    for row in found:
        cells = [
            row["policy"],
            f"{row['usd']:.0f}",
            f"{row['usd'] / base['usd']:.2f}",
            f"{row['mean_jct_h']:.2f}",
            f"{row['mean_jct_h'] / base['mean_jct_h']:.2f}",
            f"{row['median_jct_h']:.2f}",
            f"{row['p99_jct_h']:.1f}",
            f"{row['makespan_h']:.1f}",
            f"{row['node_hours']:.0f}",
            f"{row['utilisation']:.0%}",
            f"{row['launches']} ({row['failed_launches']})" if row["launches"] else "-",
            str(row["interruptions"]),
            str(row["restarts"]),
            f"{row['decision_ms']:.1f} ({row['decision_p99_ms']:.0f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `sia` and `alibaba-gpu-2023`")
    parser.add_argument("--traces", default="philly,alibaba")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {platform.machine()}, one process\n")
    kept = []
    for name in arguments.traces.split(","):
        for market, error in (CASES[case] for case in arguments.cases.split(",")):
            work = trace(name, arguments.data, arguments.seed, "balanced")
            found = [asdict(row) for row in rows(name, arguments.data, market, error, arguments.seed)]
            least = least_usd(name, work, (market,))
            print(f"{work.name}, {len(work.jobs)} jobs, {market}, estimates off by {error:.0%}\n")
            print(table(found) + f"\n\nNo policy can cost less than ${least:.0f}.\n", flush=True)
            kept.append({"trace": work.name, "market": market, "error": error, "least_usd": least, "rows": found})
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
