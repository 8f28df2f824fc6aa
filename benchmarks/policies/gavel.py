"""Gavel's traces under Gavel's policies and ours, by the simulator that runs the service's own engine. Writes
docs/benchmarks.md: how near Gavel's own simulator ours comes (anchors), and who is better on the same work.

python -m benchmarks.policies.gavel [--traces NAME,...] [--json FILE] [--from FILE ...]
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.types import Snapshot
from scheduler.policy import create
from scheduler.simulate.bounds import lower_bounds
from scheduler.simulate.metrics import summary
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.traces import gavel
from scheduler.simulate.types import Trace

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
ROUND_S = 360.0
"""Of Gavel's simulator."""
ANCHORS = {
    "gavel-fifo": "fifo_perf",
    "gavel-las": "max_min_fairness",
    "gavel-las-het": "max_min_fairness_perf",
    "gavel-ftf": "finish_time_fairness_perf",
    "gavel-makespan": "min_total_duration_perf",
    "gavel-throughput-per-cost": "max_sum_throughput_normalized_by_cost_perf",
}
"""Our names of Gavel's policies, and theirs."""
OBJECTIVES = ("time", "balanced", "cost")
"""Of all jobs of a trace: what their time is worth."""
OTHERS = ("first-fit", "srtf", "sia")
TYPES = ("V100-SXM2-16GB", "P100-PCIE-16GB", "K80")
TRACES = {
    "poisson240-single-s0": (12, 12, 12),
    "poisson240-multi-s0": (12, 12, 12),
    "physical-continuous": (8, 16, 24),
    "physical-static": (8, 16, 24),
}
"""Name of a trace, and its cluster: V100, P100, K80, a device a node, as Gavel's driver has it."""


@dataclass(frozen=True)
class Case:
    """A policy, and how it is run."""

    label: str
    policy: str
    options: Options
    objective: str = "balanced"
    priced: bool = True
    startup_s: float = 0.0


def cases() -> list[Case]:
    """All that are compared."""
    rounds = Options(round_s=ROUND_S)
    # Gavel's anchors were made without prices: its policies then take them as equal.
    found = [Case(name, name, rounds, priced=False) for name in ANCHORS]
    found += [Case(name, name, rounds) for name in OTHERS]
    for objective in OBJECTIVES:
        found += [
            Case(f"market, {objective}", "market", rounds, objective),
            Case(f"market, {objective}, 20% error", "market", replace(rounds, noise=0.2), objective),
        ]
    found += [Case("market, time, at any time", "market", Options(), "time")]
    found += [Case("gavel-las-het, restarts of 60 s", "gavel-las-het", rounds, startup_s=60.0)]
    found += [Case("market, time, restarts of 60 s", "market", rounds, "time", startup_s=60.0)]
    return found


def cluster(name: str, priced: bool = True) -> Snapshot:
    """The trace's cluster; without prices where they are not wanted."""
    catalog = Catalog.load()
    nodes = [
        {"name": kind.split("-")[0].lower(), "device": kind, "number": number}
        for kind, number in zip(TYPES, TRACES[name], strict=True)
    ]
    found = ClusterDefinition.parse({"nodes": nodes}, catalog).snapshot(None, catalog)
    if priced:
        return found
    return replace(found, device_types={n: replace(kind, price_usd_h=None) for n, kind in found.device_types.items()})


def dollars(result_hours: Mapping[str, float]) -> float:
    """What device-hours cost at the catalog's prices on demand."""
    catalog = Catalog.load()
    prices = {name: price.usd_h for name in TYPES if (price := catalog.price(name)) is not None}
    return sum(hours * prices[name] for name, hours in result_hours.items() if name in prices)


def run(name: str) -> dict[str, Any]:
    """One trace under all policies."""
    path = SHARED / "data" / "gavel" / f"{name}.trace"
    rows = []
    for case in cases():
        trace = gavel.read(path, objective=case.objective, startup_s=case.startup_s)
        result = simulate(trace, cluster(name, case.priced), create(case.policy), case.options)
        found = summary(result)
        rows.append(
            {
                "policy": case.label,
                "finished": found.finished,
                "mean_jct_s": found.mean_jct_s,
                "p99_jct_s": found.p99_jct_s,
                "makespan_s": found.makespan_s,
                "usd": dollars(found.device_hours_by_type),
                "restarts": found.restarts,
                "decision_s": found.decision_mean_s or 0.0,
            }
        )
        print(name, rows[-1], flush=True)
    trace = gavel.read(path)
    bounds = lower_bounds(trace, dict(zip(TYPES, TRACES[name], strict=True)))
    return {
        "trace": name,
        "rows": rows,
        "bound_jct_s": bounds.mean_jct_s,
        "bound_makespan_s": bounds.makespan_s,
        "bound_usd": least_dollars(trace),
    }


def least_dollars(trace: Trace) -> float:
    """Of every job on the configuration that is cheapest for it."""
    return sum(
        min(
            dollars({name: seconds / 3600 * count for name, count in configuration.groups})
            for configuration in job.configurations
            if (seconds := job.seconds(configuration)) is not None
        )
        for job in trace.jobs
    )


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", default=",".join(TRACES))
    parser.add_argument("--json", type=Path, help="write the numbers here and no document")
    parser.add_argument("--from", dest="before", type=Path, nargs="*", help="numbers that --json wrote before")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    if arguments.before:
        found = [each for file in arguments.before for each in json.loads(file.read_text())]
    else:
        found = [run(name) for name in arguments.traces.split(",")]
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
        return
    arguments.out.write_text(document(found), encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


def document(found: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    anchors = json.loads((SHARED / "anchors" / "gavel.json").read_text())["results"]
    parts = [_HEAD.format(date=datetime.date.today().isoformat(), machine=platform.machine())]  # noqa: DTZ011
    for each in found:
        known = next((v for k, v in anchors.items() if k.startswith(each["trace"])), {})
        parts += [f"## {each['trace']}, {':'.join(map(str, TRACES[each['trace']]))}\n", _table(each, known)]
    return "\n".join(parts)


def _table(each: Mapping[str, Any], anchors: Mapping[str, Any]) -> str:
    lines = [
        "| policy | mean JCT h | of best Gavel | p99 JCT h | makespan h | of best | dollars | restarts | ms "
        "| JCT against Gavel's own simulator | makespan |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    best = min(v["mean_jct_s"] for v in anchors.values()) if anchors else None
    ends = [v["makespan_s"] for v in anchors.values()]
    soonest = min([*ends, *(row["makespan_s"] for row in each["rows"] if row["policy"] in ANCHORS)])
    for row in each["rows"]:
        theirs = anchors.get(ANCHORS.get(row["policy"], ""), {})
        cells = [
            row["policy"],
            f"{row['mean_jct_s'] / 3600:.2f}",
            f"{row['mean_jct_s'] / best:.2f}" if best else "-",
            f"{row['p99_jct_s'] / 3600:.1f}",
            f"{row['makespan_s'] / 3600:.1f}",
            f"{row['makespan_s'] / soonest:.2f}",
            f"{row['usd']:.0f}",
            str(row["restarts"]),
            f"{row['decision_s'] * 1e3:.0f}",
            f"{row['mean_jct_s'] / theirs['mean_jct_s'] - 1:+.1%}" if theirs else "-",
            f"{row['makespan_s'] / theirs['makespan_s'] - 1:+.1%}" if theirs else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, theirs in anchors.items():
        if name in ("allox", "gandiva"):
            jct, makespan = theirs["mean_jct_s"], theirs["makespan_s"]
            ratio = f"{jct / best:.2f}" if best else "-"
            row_text = f"{name} (Gavel's simulator) | {jct / 3600:.2f} | {ratio} | - | {makespan / 3600:.1f}"
            row_text += f" | {makespan / soonest:.2f}"
            lines.append(f"| {row_text} | - | - | - | - | - |")
    lines.append(
        f"| lower bound | {each['bound_jct_s'] / 3600:.2f} | {each['bound_jct_s'] / best:.2f} | - "
        f"| {each['bound_makespan_s'] / 3600:.1f} | {each['bound_makespan_s'] / soonest:.2f} "
        f"| {each['bound_usd']:.0f} | - | - | - | - |"
        if best
        else ""
    )
    return "\n".join(lines) + "\n"


_HEAD = """# Policies on the work of others

Made by `make bench-policy` on {date} ({machine}, one core). `raywise simulate` runs the same numbers one by one.

The traces and throughputs are those of Gavel (OSDI 2020). Every policy is run by the engine of the service on a virtual
clock, in rounds of 360 s as Gavel's own simulator has them, and restarts cost nothing, as there; `at any time` plans
whenever something happens instead. `market, time` (`balanced`, `cost`): all jobs have this objective. "Of best Gavel"
is the mean JCT over the best of any policy in Gavel's own simulator on that trace (AlloX included where it was run);
"of best", the makespan over the best of any of Gavel's policies in either simulator; "ms" is the time of a decision.
The last two columns are how far our engine with Gavel's policy is from Gavel's own simulator with it. Dollars are
device-hours at the catalog's prices on demand. `20% error`: every family's predicted speed on every device type is off
by a factor that never gets corrected (log-normal, 0.2). `restarts of 60 s`: every attempt takes a minute to start. The
lower bounds hold for every schedule, whatever it knows: of dollars, every job on the device type that is cheapest for
it.
"""

if __name__ == "__main__":
    main()
