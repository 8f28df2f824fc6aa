"""What was seen of how fast workloads run, where that is not what was estimated. Pure.

A run says how far it is, so after some minutes its speed is known. Devices that turn out not to suit it are given to
others then, and turns are taken by what is really left. Workloads of one family are equally fast: what was estimated
alike for them was wrong alike, so what was seen of one corrects all. It counts for estimates that say just the same
seconds for a unit of the work. Once the calibration has learnt from a run that ended, the next estimates say something
else, and nothing is corrected twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..types import Estimate, Situation, WorkloadView

NOTED_EVERY_S = 300.0
"""A speed is measured over at least this long."""
SURE_S = 60.0
"""What was seen for so long counts as much as what was estimated."""
LASTS_S = 3600.0
"""What was seen before counts as much as so long of it, at most: speeds change."""
LIMIT = 5.0
"""Nothing is believed to be more than so many times faster or slower than was estimated."""
STEP = math.log(1.02)
"""Corrections are rounded to this: nothing is planned anew for less."""
MOST_RUNS, MOST_KNOWN = 5_000, 2_000
"""Of no more runs is anything noted, and no more speeds; the oldest are forgotten."""

Factors = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """How far a run was when that was noted last."""

    on: str
    """Its configuration."""
    began_s: float
    at_s: float | None
    """None: it has not got any further yet, since it starts up."""
    remaining: float
    """Share of the work."""


@dataclass(frozen=True)
class Speed:
    """Of what was estimated alike."""

    off: float
    """Logarithm of measured / estimated seconds, on average."""
    seconds: float
    """That it was seen for."""

    def after(self, off: float, seconds: float) -> Speed:
        """With so many seconds more."""
        before_s, limit = min(self.seconds, LASTS_S), math.log(LIMIT)
        whole_s = before_s + seconds
        return Speed((self.off * before_s + min(max(off, -limit), limit) * seconds) / whole_s, whole_s)

    @property
    def steps(self) -> int:
        """How much slower than estimated it is taken to be."""
        return round(self.off * self.seconds / (self.seconds + SURE_S) / STEP)


@dataclass(frozen=True)
class Speeds:
    """What was seen until now."""

    runs: Mapping[str, Run] = field(default_factory=dict)
    """By workload."""
    known: Mapping[str, Speed] = field(default_factory=dict)
    """By what was estimated (`said`)."""

    @classmethod
    def of(cls, situation: Situation) -> Speeds:
        """What the last plan noted, and what is seen now."""
        before = cls._read(situation.memory.get("speeds"))
        runs, known = dict[str, Run](), dict(before.known)
        for view in situation.workloads:
            if view.placement is None or view.stopping or not view.resumes or len(runs) >= MOST_RUNS:
                continue
            on, began_s = str(view.placement.configuration), situation.now_s - view.held_s
            run = before.runs.get(view.id)
            if run is None or run.on != on or abs(run.began_s - began_s) > 1.0:
                run = Run(on, began_s, None, view.remaining)
            runs[view.id] = _seen(run, view, situation.now_s, known)
        return cls(runs, dict(list(known.items())[-MOST_KNOWN:]))

    @classmethod
    def _read(cls, noted: Any) -> Speeds:
        """Whoever wrote it, what is not as `noted` has it is left out."""
        runs, known = dict[str, Run](), dict[str, Speed]()
        parts = noted if isinstance(noted, Mapping) else {}
        for name, row in _rows(parts.get("runs"), 4):
            if isinstance(row[0], str) and _finite(row[1:2] + row[3:]) and (row[2] is None or _finite(row[2:3])):
                runs[name] = Run(row[0], row[1], row[2], row[3])
        for name, row in _rows(parts.get("known"), 2):
            if _finite(row) and row[1] > 0:
                known[name] = Speed(row[0], row[1])
        return cls(runs, known)

    def noted(self) -> dict[str, Any]:
        """For the next plan."""
        runs = {name: [each.on, each.began_s, each.at_s, each.remaining] for name, each in self.runs.items()}
        known = {name: [each.off, each.seconds] for name, each in self.known.items()}
        return {"runs": runs, "known": known} if runs or known else {}


def _seen(run: Run, view: WorkloadView, now_s: float, known: dict[str, Speed]) -> Run:
    """The run as it is now; what it has shown is added to `known`."""
    if view.remaining > run.remaining:  # it went back to a checkpoint
        return replace(run, at_s=None, remaining=view.remaining)
    if view.remaining == run.remaining:
        return run
    if run.at_s is None:
        return replace(run, at_s=now_s, remaining=view.remaining)
    seconds = now_s - run.at_s
    if seconds < NOTED_EVERY_S:
        return run
    for each in view.estimates:
        if str(each.configuration) == run.on and _work_s(each) > 0:
            off = math.log(seconds / (run.remaining - view.remaining) / _work_s(each))
            key = said(view, each)
            known[key] = known.pop(key, Speed(0.0, 0.0)).after(off, seconds)
    return replace(run, at_s=now_s, remaining=view.remaining)


def said(view: WorkloadView, each: Estimate) -> str:
    """What was estimated: of what family, on what, and the seconds of a unit."""
    return f"{view.family or view.id}, {each.configuration}: {_work_s(each) / (view.units or 1.0):.4g}"


@dataclass
class Corrected:
    """Estimates with what was seen. A table that was corrected once is the same object the next time."""

    _said: dict[int, tuple[WorkloadView, tuple[str, ...]]] = field(default_factory=dict)
    _known: dict[tuple[int, Factors], tuple[Estimate, ...]] = field(default_factory=dict)

    def of(self, views: Sequence[WorkloadView], known: Mapping[str, Speed]) -> Sequence[WorkloadView]:
        """The same workloads, in the same order."""
        steps = {name: each.steps for name, each in known.items() if each.steps}
        said_before, known_before = self._said, self._known
        self._said, self._known = {}, {}
        if not steps:
            return views
        found = []
        for view in views:
            key = id(view.estimates)
            what = said_before.get(key)
            if what is None or (what[0].family, what[0].units, what[0].id) != (view.family, view.units, view.id):
                what = view, tuple(said(view, each) for each in view.estimates)
            self._said[key] = what
            factors = tuple(steps.get(name, 0) for name in what[1])
            found.append(self._times(view, factors, known_before) if any(factors) else view)
        return found

    def _times(
        self, view: WorkloadView, factors: Factors, before: Mapping[tuple[int, Factors], tuple[Estimate, ...]]
    ) -> WorkloadView:
        key = id(view.estimates), factors
        table = self._known.get(key) or before.get(key) or tuple(map(_times, view.estimates, factors))
        self._known[key] = table
        return replace(view, estimates=table)


def _work_s(each: Estimate) -> float:
    return 0.0 if each.seconds is None else each.seconds - each.startup_s


def _times(each: Estimate, steps: int) -> Estimate:
    """With all of its work so many steps slower."""
    if not steps or not each.seconds:
        return each
    seconds = each.startup_s + _work_s(each) * math.exp(steps * STEP)
    whole = seconds / each.seconds
    money = None if each.money is None else replace(each.money, compute_usd=each.money.compute_usd * whole)
    low_s, high_s = (None if limit is None else limit * whole for limit in (each.low_s, each.high_s))
    return replace(each, seconds=seconds, low_s=low_s, high_s=high_s, money=money)


def _rows(noted: Any, length: int) -> Iterable[tuple[str, list[Any]]]:
    rows = noted.items() if isinstance(noted, Mapping) else ()
    return [(str(name), list(row)) for name, row in rows if isinstance(row, list | tuple) and len(row) == length]


def _finite(row: Iterable[Any]) -> bool:
    return all(isinstance(each, int | float) and math.isfinite(each) for each in row)
