"""A policy after Sia, as a baseline: one integer program over all workloads and configurations each round. Pure.

Jayaram Subramanya et al., "Sia: Heterogeneity-aware, goodput-optimized ML-cluster scheduling", SOSP 2023, section 3.4,
with the defaults of the authors' code: p = -0.5, a penalty of 1.1 for each workload without devices. What differs here:
every configuration has an estimate from the start, so there is no profiling and no doubling from one device on; devices
of one gang may be on any nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from ..types import Estimate, Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from .candidates import BUSY, Supply, hopeless, refused, resting, settle, vacated
from .capacity import Capacity
from .rounds import as_places, repeat, round_over

POWER = -0.5
WAITING = 1.1
"""What a workload without devices adds to the sum; one on its slowest configuration of one device adds 1."""
ROUND_S = 60.0
_WORST = 100.0
"""No configuration adds more than this."""


@dataclass(frozen=True)
class Choice:
    """One workload's configurations with what each adds to the sum."""

    view: WorkloadView
    estimates: tuple[Estimate, ...]
    costs: tuple[float, ...]

    @property
    def present(self) -> int | None:
        """Which of them it runs on."""
        here = None if self.view.placement is None else self.view.placement.configuration
        return next((n for n, e in enumerate(self.estimates) if e.configuration == here), None)


class Sia:
    """Least sum of normalised goodput to the power of -0.5, restarts discounted, within the devices of each type.

    The solver stops after `time_limit_s` at the latest and after `node_limit` nodes of its search; its best solution so
    far counts then, and the explanations and `Plan.memory["limited"]` say so. Only where the clock stops it can the
    same situation give another plan.
    """

    name = "sia"

    def __init__(self, time_limit_s: float = 10.0, node_limit: int = 20_000) -> None:
        self._time_limit_s, self._node_limit = time_limit_s, node_limit

    def plan(self, situation: Situation) -> Plan:
        """Choose anew where a round is over, else keep to what was chosen."""
        capacity, supply = vacated(situation), Supply(situation.snapshot)
        memory = situation.memory if situation.memory.get("policy") == self.name else {}
        choices: list[Choice] = []
        options: dict[str, list[Option]] = {}
        explanations: dict[str, Explanation] = {}
        for view in sorted(situation.workloads, key=lambda view: (view.submitted_s, view.id)):
            waits = resting(view, situation.now_s)
            usable, options[view.id] = ([], []) if waits is not None else refused(view, supply)
            if usable:
                restarts = int(memory.get("restarts", {}).get(view.id, 0))
                choices.append(Choice(view, tuple(usable), costs(view, usable, situation.now_s, restarts)))
            else:
                explanations[view.id] = waits or hopeless(options[view.id])
        ids, places = [choice.view.id for choice in choices], memory.get("places", {})
        if round_over(situation.now_s - memory.get("began_s", -math.inf), ROUND_S, places, ids):
            placements, memory = self._begin(choices, capacity, memory, situation.now_s)
        else:
            placements = repeat(places, ids, capacity)
        for choice in choices:
            name = choice.view.id
            explanations[name] = _explain(choice, placements.get(name), options[name], limited=memory["limited"])
        return Plan(situation.cycle, placements, explanations, memory=memory)

    def _begin(
        self, choices: Sequence[Choice], capacity: Capacity, memory: Mapping[str, Any], now_s: float
    ) -> tuple[dict[str, Placement], dict[str, Any]]:
        names = {name for choice in choices for e in choice.estimates for name, _ in e.configuration.groups}
        free = {name: capacity.free(name) for name in sorted(names)}
        picked, limited = solve(choices, free, self._time_limit_s, self._node_limit)
        chosen = {
            c.view.id: c.estimates[n].configuration for c, n in zip(choices, picked, strict=True) if n is not None
        }
        before = {c.view.id: c.view.placement for c in choices if c.view.placement is not None}
        placements = settle(chosen, before, {c.view.id for c in choices if c.view.one_node}, capacity)
        moved = {name for name, there in before.items() if name in placements and placements[name] != there}
        counted = memory.get("restarts", {})
        restarts = {c.view.id: int(counted.get(c.view.id, 0)) + (c.view.id in moved) for c in choices}
        kept = {"policy": self.name, "began_s": now_s, "restarts": restarts, "limited": limited}
        return placements, {**kept, "places": as_places(placements)}


def costs(view: WorkloadView, estimates: Sequence[Estimate], now_s: float, restarts: int) -> tuple[float, ...]:
    """What each configuration adds to the sum: normalised goodput to the power of -0.5.

    Goodput is normalised so that the slowest configuration has its number of devices. Another configuration than the
    present one is discounted by the part of its life that the workload would have been at work after one more restart:
    (age - restarts * start-up) / (age + start-up), from when it is older than one start-up. A speed that is not known
    counts as the slowest that is.
    """
    known = [None if e.seconds is None else 1.0 / max(e.seconds - e.startup_s, 1e-6) for e in estimates]
    slowest = min((speed for speed in known if speed is not None), default=1.0)
    speeds = [slowest if speed is None else speed for speed in known]
    base = min(e.configuration.devices for e, speed in zip(estimates, speeds, strict=True) if speed == slowest)
    here = None if view.placement is None else view.placement.configuration
    age_s = max(0.0, now_s - view.submitted_s)
    found = []
    for estimate, speed in zip(estimates, speeds, strict=True):
        goodput = max(base, 1) * speed / slowest
        if here is not None and here != estimate.configuration and age_s >= estimate.startup_s:
            goodput *= max(0.0, age_s - restarts * estimate.startup_s) / max(age_s + estimate.startup_s, 1e-9)
        found.append(min(_WORST, max(goodput, 1e-9) ** POWER))
    return tuple(found)


def solve(
    choices: Sequence[Choice], free: Mapping[str, int], time_limit_s: float, node_limit: int
) -> tuple[list[int | None], bool]:
    """Which configuration each workload gets, if any, and whether the solver was stopped before it was sure.

    Starts from what runs now, so that there always is a solution.
    """
    pairs = [(row, n) for row, choice in enumerate(choices) for n in range(len(choice.estimates))]
    picked: list[int | None] = [None] * len(choices)
    if not pairs:
        return picked, False
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in (("output_flag", False), ("threads", 1), ("mip_rel_gap", 1e-4)):
        highs.setOptionValue(option, value)
    highs.setOptionValue("time_limit", time_limit_s)
    highs.setOptionValue("mip_max_nodes", node_limit)
    highs.passModel(_program(choices, pairs, free))
    start = [float(choices[row].present == n) for row, n in pairs]
    if _within(choices, [choice.present for choice in choices], free):
        known = highspy.HighsSolution()
        known.col_value = start
        highs.setSolution(known)
    highs.run()
    limited = highs.getModelStatus() != highspy.HighsModelStatus.kOptimal
    values = list(highs.getSolution().col_value)
    for (row, n), taken in zip(pairs, values if len(values) == len(pairs) else start, strict=True):
        if taken > 0.5:
            picked[row] = n
    if not _within(choices, picked, free):
        return [None] * len(choices), True
    return picked, limited


def _program(choices: Sequence[Choice], pairs: Sequence[tuple[int, int]], free: Mapping[str, int]) -> highspy.HighsLp:
    """Binary variables, at most one for each workload, at most what is there of each type."""
    names = {name: len(choices) + place for place, name in enumerate(free)}
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(pairs), len(choices) + len(free)
    lp.col_cost_ = np.array([choices[row].costs[n] - WAITING for row, n in pairs])
    lp.offset_ = WAITING * len(choices)
    lp.col_lower_, lp.col_upper_ = np.zeros(len(pairs)), np.ones(len(pairs))
    lp.integrality_ = [highspy.HighsVarType.kInteger] * len(pairs)
    lp.row_lower_ = np.full(lp.num_row_, -highspy.kHighsInf)
    lp.row_upper_ = np.array([1.0] * len(choices) + [float(count) for count in free.values()])
    starts, rows, values = [0], [], []
    for row, n in pairs:
        rows.append(row)
        values.append(1.0)
        for name, count in choices[row].estimates[n].configuration.groups:
            rows.append(names[name])
            values.append(float(count))
        starts.append(len(rows))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = np.array(starts), np.array(rows), np.array(values)
    return lp


def _within(choices: Sequence[Choice], picked: Sequence[int | None], free: Mapping[str, int]) -> bool:
    left = dict(free)
    for choice, n in zip(choices, picked, strict=True):
        for name, count in choice.estimates[n].configuration.groups if n is not None else ():
            left[name] -= count
    return all(count >= 0 for count in left.values())


def _explain(choice: Choice, placement: Placement | None, others: list[Option], *, limited: bool) -> Explanation:
    chosen = None if placement is None else placement.configuration
    taken = next((cost for e, cost in zip(choice.estimates, choice.costs, strict=True) if e.configuration == chosen), 0)
    options = list(others)
    for estimate, cost in zip(choice.estimates, choice.costs, strict=True):
        if estimate.configuration == chosen:
            options.append(Option(estimate))
        elif chosen is None:
            options.append(Option(estimate, wait_s=None, reason=BUSY))
        else:
            worth = "adds more to the sum" if cost > taken else "others gain more from its devices"
            options.append(Option(estimate, reason=Reason("dearer", f"{worth}: {cost:.2f}, {taken:.2f} there")))
    listed = {estimate.configuration: place for place, estimate in enumerate(choice.view.estimates)}
    options.sort(key=lambda option: listed[option.estimate.configuration])
    said = "the solver ran out of time, this is the best so far" if limited else "the best for all together"
    summary = f"waits for the next round: {said}" if chosen is None else f"{chosen} for this round: {said}"
    return Explanation(chosen, summary, tuple(options))
