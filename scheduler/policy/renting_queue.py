"""Who could have a rented node: those that wait, and those that run on something worse. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..types import Estimate, Placement, Situation, WorkloadView
from .bidding import left_s
from .candidates import Supply
from .fleet import UNKNOWN_S, Job, job, late_usd
from .prices import value_of_time_usd_h

MOVERS = 16
"""For so many of what runs it is asked whether a rented node would be better, ..."""
MOVES = 0.75
"""... which it must be by a quarter: less may not be worth a restart to the plan that the node then comes to."""
DECLINES_S = 1800.0
"""Who would begin again if it were moved waits for a better node, though not when it has waited for so long."""


@dataclass(frozen=True)
class Wait:
    """A workload that gets nothing in this plan."""

    view: WorkloadView
    time_usd_h: float
    """What its time is worth."""
    total_usd: float | None
    """Least predicted money, waiting included; None: nobody can say, or it can only run on rented nodes."""
    wait_s: float | None
    """Until it starts, at that money."""


def waiting(situation: Situation, waits: Iterable[Wait]) -> list[Job]:
    """What each may have, there or rented. What it may never have is left out, deadlines are not: late is better than
    never."""
    supply = Supply(situation.snapshot)
    found = []
    for wait in waits:
        usable = []
        for estimate in wait.view.estimates:
            reason = supply.objection(wait.view, estimate)
            if reason is None or reason.code == "unavailable":
                usable.append(estimate)
        found.append(job(wait.view, usable, wait.time_usd_h, (wait.total_usd, wait.wait_s), situation.now_s))
    return found


def movers(situation: Situation, placements: Mapping[str, Placement]) -> list[Job]:
    """What runs, or would start, on something slow for want of something better: what has the most left to pay, first.
    It is taken to pay less than it will, so that only what moves for certain counts."""
    supply = Supply(situation.snapshot)
    found: list[tuple[float, Job]] = []
    for view in situation.workloads:
        placement = placements.get(view.id)
        here = next((e for e in view.estimates if placement and e.configuration == placement.configuration), None)
        seconds = None if here is None or not _may_move(view) else left_s(view, here)
        if here is None or seconds is None:
            continue
        time_usd_h = value_of_time_usd_h(view.objective)
        deadline_in_s = math.inf if view.deadline_s is None else view.deadline_s - situation.now_s
        usd = _usd(here, seconds, time_usd_h) + late_usd(seconds, deadline_in_s)
        better = [each for each in view.estimates if _is_better(view, each, here, MOVES * usd, time_usd_h, supply)]
        if better:
            found.append((usd, job(view, better, time_usd_h, (MOVES * usd, None), situation.now_s)))
    return [each for _, each in sorted(found, key=lambda row: (-row[0], row[1].view.id))[:MOVERS]]


def _may_move(view: WorkloadView) -> bool:
    """What can go on elsewhere may; what would begin again, until it has started."""
    if view.stopping:
        return False
    return view.resumes or (view.placement is None and view.waited_s <= DECLINES_S)


def _is_better(
    view: WorkloadView, estimate: Estimate, here: Estimate, usd: float, time_usd_h: float, supply: Supply
) -> bool:
    """Whether a configuration would be less money than this, were it there at once."""
    if estimate is here or estimate.seconds is None:
        return False
    reason = supply.objection(view, estimate)
    if reason is not None and reason.code != "unavailable":
        return False
    work_s = max(estimate.seconds - estimate.startup_s, 0.0) * view.remaining
    return _usd(estimate, estimate.startup_s + work_s, time_usd_h) < usd


def _usd(estimate: Estimate, seconds: float, time_usd_h: float) -> float:
    return seconds / 3600 * (time_usd_h + (estimate.price_usd_h or 0.0))


def busy_s(situation: Situation, placements: Mapping[str, Placement]) -> dict[str, dict[str, list[float]]]:
    """By node and device type: when each device that is held becomes free. What others hold stays a while."""
    found: dict[str, dict[str, list[float]]] = {}
    ours: Counter[tuple[str, str]] = Counter()
    for view in situation.workloads:
        if view.placement is not None:
            ours.update((node_id, name) for name, node_id in view.placement.devices)
        placement = placements.get(view.id)
        if placement is None:
            continue
        listed = next((e for e in view.estimates if e.configuration == placement.configuration), None)
        ends_s = None if listed is None else left_s(view, listed)
        for name, node_id in placement.devices:
            free = found.setdefault(node_id, {}).setdefault(name, [])
            free.append(max(UNKNOWN_S, view.held_s) if ends_s is None else ends_s)
    for node in situation.snapshot.nodes:
        for each in node.devices:
            others = each.total - each.free - ours[node.node_id, each.device_type]
            if others > 0:
                found.setdefault(node.node_id, {}).setdefault(each.device_type, []).extend([UNKNOWN_S] * others)
    return found
