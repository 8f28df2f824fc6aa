"""Policies on one trace side by side: a table for the terminal, and the same as JSON. Reads, decides nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text

from scheduler.simulate.metrics import Bounds, Summary
from scheduler.simulate.types import JobResult, SimulationResult

from .sheet import Column, Row, Sheet

Number = float | int | None


@dataclass(frozen=True)
class Measure:
    """One number of a policy as a column: `scale` of it is one of the unit in the head."""

    name: str
    unit: str
    value: Callable[[Summary], Number]
    scale: float = 1.0
    best: Callable[..., Any] = min
    """Whether the least or the greatest is the best."""
    bound: Callable[[Bounds], Number] | None = None
    rank: int = 0
    """As in `Column`: the highest is left out first where there is no room."""
    means: str = ""
    """The whole name, for a page where there is room."""
    headline: bool = False
    """Of what matters most."""


@dataclass(frozen=True)
class Cells:
    """One measure of all policies, as it is shown."""

    measure: Measure
    texts: Sequence[str]
    best: Sequence[bool]
    bound: str
    """What no policy can be better than; empty where nothing is known."""


def time_unit(seconds: Iterable[Number]) -> tuple[str, float]:
    """Hours, minutes or seconds: the largest of which there are at least two in the greatest."""
    greatest = max((each for each in seconds if each is not None), default=0.0)
    return next(((name, scale) for name, scale in (("h", 3600.0), ("min", 60.0)) if greatest >= 2 * scale), ("s", 1.0))


def measures(summaries: Sequence[Summary]) -> list[Measure]:
    """What policies are compared by, in units that suit them. What no policy has a number of is left out."""
    unit, scale = time_unit(each.p99_jct_s for each in summaries)
    whole, long = time_unit(each.makespan_s for each in summaries)
    every = [
        Measure(
            "mean\nJCT",
            unit,
            lambda s: s.mean_jct_s,
            scale,
            bound=lambda b: b.mean_jct_s,
            means="mean completion time",
            headline=True,
        ),
        Measure("median\nJCT", unit, lambda s: s.median_jct_s, scale, rank=2, means="median completion time"),
        Measure(
            "p99\nJCT", unit, lambda s: s.p99_jct_s, scale, means="99th percentile of completion times", headline=True
        ),
        Measure(
            "make-\nspan",
            whole,
            lambda s: s.makespan_s,
            long,
            bound=lambda b: b.makespan_s,
            means="start to last end",
            headline=True,
        ),
        Measure(
            "waiting\nmean", unit, lambda s: s.waiting_mean_s, scale, rank=8, means="mean wait for the first start"
        ),
        Measure("cost", "$", lambda s: s.usd, means="dollars of all jobs", headline=True),
        Measure(
            "rented", "$", lambda s: s.rented_usd, means="dollars of rented nodes, idle time included", headline=True
        ),
        Measure("idle\nrented", "$", lambda s: s.idle_usd, rank=11, means="dollars of rented nodes while nothing ran"),
        Measure("node\nhours", "h", lambda s: s.node_hours, rank=12, means="hours that nodes were rented"),
        Measure("launches", "nodes", lambda s: s.launches, rank=13, means="nodes that were asked for"),
        Measure("failed\nlaunches", "nodes", lambda s: s.failed_launches, rank=14, means="nodes that never joined"),
        Measure("device\nhours", "h", lambda s: s.device_hours, rank=7, means="hours that devices were held"),
        Measure("in use", "%", lambda s: s.utilisation, 0.01, best=max, rank=1, means="share of device time held"),
        Measure("fairness\nmean", "ratio", lambda s: s.fairness_mean, rank=4, means="mean of time over fair time"),
        Measure("fairness\nworst", "ratio", lambda s: s.fairness_worst, rank=9, means="worst time over fair time"),
        Measure("unfair\n>1.1", "%", lambda s: s.unfair_share, 0.01, means="jobs over 1.1 of their fair time"),
        Measure("late", "%", lambda s: s.deadline_miss_share, 0.01, means="of jobs with a deadline, missed"),
        Measure(
            "over\nbudget", "jobs", lambda s: s.budgets_missed if s.budgets else None, rank=5, means="over their budget"
        ),
        Measure("preempted", "/job", lambda s: s.preemptions_per_job, rank=10, means="preemptions a job"),
        Measure("restarts", "/job", lambda s: s.restarts_per_job, rank=3, means="restarts a job"),
        Measure("decision\nmean", "ms", lambda s: s.decision_mean_s, 1e-3, means="mean real time of one plan"),
        Measure("decision\np99", "ms", lambda s: s.decision_p99_s, 1e-3, rank=6, means="99th percentile of plans"),
    ]
    return [each for each in every if any(each.value(one) is not None for one in summaries)]


def cells(summaries: Sequence[Summary], bounds: Bounds | None = None) -> list[Cells]:
    """All measures, each with as many decimals as suit its greatest value."""
    made = []
    for measure in measures(summaries):
        scaled = [_scaled(measure.value(each), measure.scale) for each in summaries]
        bound = _scaled(measure.bound(bounds), measure.scale) if bounds and measure.bound else None
        whole = all(isinstance(measure.value(each), int | None) for each in summaries)
        places = _places([value for value in (*scaled, bound) if value is not None], whole)
        texts = ["-" if value is None else f"{value:,.{places}f}" for value in scaled]
        least = "" if bound is None else f"{bound:,.{places}f}"
        made.append(Cells(measure, texts, _best(measure, scaled, texts, summaries), least))
    return made


def _scaled(value: Number, scale: float) -> float | None:
    return None if value is None else value / scale


def _places(values: Sequence[float], whole: bool) -> int:
    greatest = max(map(abs, values), default=0.0)
    if greatest >= 1000 or greatest == 0 or whole:
        return 0
    return 1 if greatest >= 9.95 else 2 if greatest >= 1 else min(2 - math.floor(math.log10(greatest)), 6)


def _best(
    measure: Measure, values: Sequence[float | None], texts: Sequence[str], summaries: Sequence[Summary]
) -> list[bool]:
    """Which show the best value: of those that finished as many jobs as any, and none where all are equal."""
    most = max((each.finished for each in summaries), default=0)
    known = {
        text: value
        for value, text, one in zip(values, texts, summaries, strict=True)
        if value is not None and one.finished == most
    }
    if len(known) < 2:
        return [False] * len(texts)
    best = measure.best(known, key=lambda text: known[text])
    return [text == best and one.finished == most for text, one in zip(texts, summaries, strict=True)]


def labels(results: Sequence[SimulationResult]) -> list[str]:
    """A name for each result that no other has: its policy, and where several are of one the seed or options that
    tell them apart, or a number."""
    names = [result.policy for result in results]
    for extra in (lambda result: f"seed {result.seed}", _options):
        groups: dict[str, set[str]] = {}
        for name, result in zip(names, results, strict=True):
            groups.setdefault(name, set()).add(extra(result))
        names = [
            f"{name}, {extra(result)}" if len(groups[name]) > 1 else name
            for name, result in zip(names, results, strict=True)
        ]
    counts, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = f"{name} ({seen[name]})" if counts[name] > 1 else name
    return names


def _options(result: SimulationResult) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.options.items()) or "no options"


def jobs_text(summary: Summary) -> str:
    """`240`, or `238/240` where not all finished."""
    return f"{summary.finished}" if summary.finished == summary.jobs else f"{summary.finished}/{summary.jobs}"


def comparison_table(
    results: Sequence[SimulationResult], summaries: Sequence[Summary], bounds: Bounds | None = None
) -> Sheet:
    """One row a policy, the best of each column bold, and last what no policy can be better than."""
    columns = cells(summaries, bounds)
    heads = [Column("policy", "left"), Column("\n\ndone"), *(_head(each.measure) for each in columns)]
    rows = []
    for index, (name, one) in enumerate(zip(labels(results), summaries, strict=True)):
        shown = [Text(each.texts[index], style="bold" if each.best[index] else "") for each in columns]
        rows.append(Row([name, jobs_text(one), *shown]))
    if bounds is not None and bounds.jobs:
        rows.append(Row(["lower bound", "", *(each.bound for each in columns)], style="dim"))
    trace = summaries[0].trace if summaries else "no results"
    return Sheet(heads, rows, "", f"Simulation of {trace}", notes(results, summaries, bounds))


def _head(measure: Measure) -> Column:
    """Three lines: the name on two, the unit below."""
    lines = measure.name.split("\n")
    return Column("\n".join([*[""] * (2 - len(lines)), *lines, measure.unit]), rank=measure.rank)


def notes(results: Sequence[SimulationResult], summaries: Sequence[Summary], bounds: Bounds | None = None) -> list[str]:
    """What a reader must know of the numbers, a sentence each; what is the same of all policies is said once."""
    found: dict[str, list[str]] = {}
    names = labels(results)
    for name, result, one in zip(names, results, summaries, strict=True):
        for sentence in [*_counts(one), *result.notes]:
            found.setdefault(sentence, []).append(name)
    said = [text if len(who) == len(names) else f"{', '.join(who)}: {text}" for text, who in found.items()]
    if len({one.finished for one in summaries}) > 1:
        said.append("Only policies that finished the most jobs are compared for the best of a column.")
    if bounds is not None and bounds.jobs:
        said.append("Lower bound: no schedule of these jobs on these devices is better, whatever it knows.")
    if bounds is not None and bounds.impossible:
        said.append(f"The lower bound leaves out {_plural(bounds.impossible, 'job')} that the cluster cannot hold.")
    return said


def _counts(one: Summary) -> list[str]:
    """What is missing in the numbers of one policy."""
    said = []
    if one.failed:
        said.append(f"{_plural(one.failed, 'job')} failed or {'was' if one.failed == 1 else 'were'} cancelled.")
    if one.unfinished:
        said.append(f"{_plural(one.unfinished, 'job')} did not finish; completion times are of those that did.")
    if one.unpriced:
        said.append(f"{_plural(one.unpriced, 'job')} without known dollars: not in the cost.")
    return said


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def to_json(
    results: Sequence[SimulationResult], summaries: Sequence[Summary], bounds: Bounds | None = None
) -> dict[str, Any]:
    """Plain values: the bounds, and for each policy its options, notes, summary and jobs, without spans and samples."""
    return {
        "trace": summaries[0].trace if summaries else None,
        "bounds": None if bounds is None else asdict(bounds),
        "policies": [
            {
                "label": label,
                "policy": result.policy,
                "seed": result.seed,
                "options": dict(result.options),
                "notes": list(result.notes),
                "summary": one.to_json(),
                "jobs": [_job(job) for job in result.jobs],
            }
            for label, result, one in zip(labels(results), results, summaries, strict=True)
        ],
    }


def _job(job: JobResult) -> Mapping[str, Any]:
    return {name: value for name, value in vars(job).items() if name != "spans"}
