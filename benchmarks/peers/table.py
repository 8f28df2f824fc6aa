"""What `sia_adapter` printed of Sia and of ours, as docs/benchmarks-sia.md.

python -m benchmarks.peers.table RUNS.jsonl [MORE.jsonl ...] [--service TRACE=RESULT.json ...]

Each file of runs has one JSON object a line; of several runs of one kind the last counts. RESULT.json is what
`raywise simulate TRACE --json` printed of the same workload: the whole service, not only its core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks-sia.md"
TUNED = ("philly-1", "saturn-1")
"""The traces that settings were chosen on."""
SETTINGS = {"least-jct": "least JCT", "thrifty": "no more GPU-hours than Sia"}
CAUSES = {
    "least": "the least that the work needs",
    "slower_type": "a slower device type",
    "communication": "scaling out: throughput per device",
    "large_batches": "scaling out: progress per example",
    "restarts": "starts and restarts",
}
PHASES = {"waiting": "waiting", "restarting": "starting and restarting", "training": "training"}
HEAD = """# Inside Sia's simulator

Made by `python -m benchmarks.peers.table` on {date} ({machine}) from what
`python -m benchmarks.peers.sia_adapter SIMULATOR TRACE... [--policy sia] [--setting NAME] [--no-declared-epochs]`
prints, for the simulator of siasosp23/artifacts: 64 GPUs (24 T4, 24 RTX 2080 Ti, 16 A100), 160 jobs a trace. Ours is
the allocation core (`scheduler/policy/allocation.py`) behind Sia's own policy interface, Sia is its authors' code with
the options of their `run_experiment.sh` (its integer programs solved with GLPK), run beside ours on the same machine.
Settings were chosen on {tuned}; the other traces were only run. One run each: nothing in it is random,
but any small change leads to other decisions, and moves a trace's mean JCT by up to four percent either way.

Ours uses what Sia's policy does not: which family a job is of (what was measured of one job tells the speed of the
others, and how its gradients change from epoch to epoch), the simulator's own restart seconds, and the epochs that a
job declares, so that what is left is known. Without declared epochs it is guessed by the last job of the family that
ended or, before one has, taken to be as much as was done.

Two settings of `allocation.Rules`: {settings}.
The `device` of the second was raised after earlier values had been run on the other traces too, and held 2 to 3 % more
GPU-hours than Sia there and on the two.
"""


SERVICE = """## Through our own simulator

The same workloads under the policies of the service (`raywise simulate --objective time`, see
[simulation.md](simulation.md)) on the same 64 GPUs in the same nodes. Every configuration has its true speed from the
start, so nothing is tried or learnt, and plans are made when something happens: not to be compared with the numbers
above. No schedule can have a mean JCT below {bounds} h.

The catalog has no price for an RTX 2080 Ti, and `market` leaves alone what has no price as long as a job can run on
what has one: with the catalog's prices it uses none of the 24. The rows "priced" assume $0.60 an hour for each.

"""


@dataclass(frozen=True)
class Pair:
    """Ours and Sia's on one trace."""

    trace: str
    ours: Mapping[str, Any]
    sia: Mapping[str, Any]

    def ratio(self, name: str) -> float:
        """Ours over Sia's."""
        return float(self.ours[name] / self.sia[name])


def page(
    records: Iterable[Mapping[str, Any]],
    service: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, Mapping[str, float]],
    date: str,
    machine: str,
) -> str:
    """The whole page. `rules`: by setting, what differs between them."""
    kept = {(r["policy"], r.get("setting"), r["declared_epochs"], r["trace"]): r for r in records}
    sia = {key[3]: r for key, r in kept.items() if key[0] == "sia"}
    groups = {
        (setting, declared): [
            Pair(trace, kept["raywise", setting, declared, trace], sia[trace])
            for trace in sorted(sia)
            if ("raywise", setting, declared, trace) in kept
        ]
        for setting in SETTINGS
        for declared in (True, False)
    }
    said = "; ".join(
        f"{SETTINGS[name]} ({', '.join(f'`{n}` {v:g}' for n, v in of.items())})" for name, of in rules.items()
    )
    parts = [HEAD.format(date=date, machine=machine, tuned=" and ".join(TUNED), settings=said), _summary(groups)]
    for (setting, declared), pairs in groups.items():
        if pairs:
            parts.append(f"## {_title(setting, declared)}\n\n" + _table(pairs))
    parts.append(_shares(sia, groups))
    parts += [_service(service)] if service else []
    return "\n".join(parts)


def _title(setting: str, declared: bool) -> str:
    name = SETTINGS[setting]
    return name[0].upper() + name[1:] + ("" if declared else ", without declared epochs")


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _summary(groups: Mapping[tuple[str, bool], Sequence[Pair]]) -> str:
    """Means of the ratios to Sia, over all traces and over those that nothing was chosen on."""
    head = ["ours over Sia's, mean of traces", "mean JCT", "not tuned on", "p99 JCT", "not tuned on"]
    head += ["GPU-hours", "not tuned on", "restarts", "traces"]
    rows = []
    for (setting, declared), pairs in groups.items():
        fresh = [pair for pair in pairs if pair.trace not in TUNED]
        if fresh:
            rows.append([_title(setting, declared)])
            for name in ("mean_jct_h", "p99_jct_h", "gpu_hours_per_job"):
                rows[-1] += [f"{fmean(pair.ratio(name) for pair in group):.3f}" for group in (pairs, fresh)]
            rows[-1] += [f"{fmean(pair.ratio('restarts_per_job') for pair in pairs):.2f}", str(len(pairs))]
    return _rows(head, rows)


def _table(pairs: Sequence[Pair]) -> str:
    head = ["trace", "mean JCT h", "Sia", "ratio", "p99 JCT h", "Sia", "GPU-hours a job", "Sia", "ratio"]
    head += ["restarts a job", "Sia"]
    rows = []
    for pair in pairs:
        rows.append([pair.trace + (" (tuned on)" if pair.trace in TUNED else "")])
        for name, places, both in (
            ("mean_jct_h", 3, True),
            ("p99_jct_h", 2, False),
            ("gpu_hours_per_job", 2, True),
            ("restarts_per_job", 1, False),
        ):
            rows[-1] += [f"{of[name]:.{places}f}" for of in (pair.ours, pair.sia)]
            rows[-1] += [f"{pair.ratio(name):.3f}"] if both else []
    return _rows(head, rows)


def _shares(sia: Mapping[str, Mapping[str, Any]], groups: Mapping[tuple[str, bool], Sequence[Pair]]) -> str:
    """Where GPU-hours and time go: means over the traces."""
    told = {_title(*key): [pair.ours for pair in pairs] for key, pairs in groups.items() if pairs and key[1]}
    columns: dict[str, Sequence[Mapping[str, Any]]] = {"Sia": list(sia.values()), **told}
    text = """## Where GPU-hours and time go

Means over all traces, of a job (`benchmarks/peers/sia_hours.py`). The least is one device of the most efficient type at
its best batch size; a slower type and scaling out are what is held beyond that.

"""
    for head, field, names in (
        ("GPU-hours a job", "gpu_hours_by_cause", CAUSES),
        ("hours of a job", "jct_h_by_phase", PHASES),
    ):
        text += _rows([head, *columns], _means(columns, field, names)) + "\n"
    return text.rstrip("\n") + "\n"


def _means(columns: Mapping[str, Sequence[Mapping[str, Any]]], field: str, names: Mapping[str, str]) -> list[list[str]]:
    sums = {name: [fmean(run[field][name] for run in runs) for runs in columns.values()] for name in names}
    rows = [[names[name], *(f"{value:.3f}" for value in values)] for name, values in sums.items()]
    return [*rows, ["all", *(f"{sum(column):.3f}" for column in zip(*sums.values(), strict=True))]]


def _service(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What `raywise simulate --json` said of the same workloads."""
    columns: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
        ("mean JCT h", lambda s: f"{s['mean_jct_s'] / 3600:.3f}"),
        ("p99 JCT h", lambda s: f"{s['p99_jct_s'] / 3600:.2f}"),
        ("GPU-hours a job", lambda s: f"{s['device_hours'] / s['jobs']:.2f}"),
        ("restarts a job", lambda s: f"{s['restarts_per_job']:.1f}"),
    )
    bounds = {
        trace.partition(",")[0]: f"{result['bounds']['mean_jct_s'] / 3600:.3f}" for trace, result in results.items()
    }
    families = sorted({job["family"] for result in results.values() for job in result["policies"][0]["jobs"]})
    rows = [
        [f"{trace}, {one['policy']}", *(value(one["summary"]) for _, value in columns)]
        + [_family_jct(one["jobs"], family) for family in families]
        for trace, result in results.items()
        for one in result["policies"]
    ]
    text = SERVICE.format(bounds=" and ".join(f"{value} ({trace})" for trace, value in bounds.items()))
    return text + _rows(["", *(name for name, _ in columns), *(f"{family}: h" for family in families)], rows)


def _family_jct(jobs: Iterable[Mapping[str, Any]], family: str) -> str:
    hours = [(job["ended_s"] - job["arrived_s"]) / 3600 for job in jobs if job["family"] == family]
    return f"{fmean(hours):.2f}" if hours else "-"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--service", action="append", default=[], metavar="TRACE=FILE")
    arguments = parser.parse_args()
    lines = (line for file in arguments.runs for line in file.read_text(encoding="utf-8").splitlines())
    records = [json.loads(line) for line in lines if line.startswith("{")]
    named = (each.partition("=") for each in arguments.service)
    service = {trace: json.loads(Path(file).read_text(encoding="utf-8")) for trace, _, file in named}
    rules = {r["setting"]: r["rules"] for r in records if r["policy"] == "raywise"}
    varied = sorted(
        {name for of in rules.values() for name, value in of.items() if len({r[name] for r in rules.values()}) > 1}
    )
    told = {name: {each: of[each] for each in varied} for name, of in sorted(rules.items())}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one process at a time"
    text = page(records, service, told, datetime.date.today().isoformat(), machine)  # noqa: DTZ011
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
