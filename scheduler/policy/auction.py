"""Every cycle all devices are given out anew, to those who get done soonest by them. Pure.

A device is worth the most to who has the least left to do on it: a workload bids 1 / (remaining seconds) for each of
its configurations, times the value of its time. The choice for all together is the one of the largest sum of bids
(`allocation`); its dual variables are the congestion prices. On devices of one type this is shortest remaining
processing time, which has the least mean completion time there; over several types each goes where it is faster than
others would be, first of all. Dollars count for the objective `cost`: what is dearer is bid less for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workloads.quantities import usd_text

from ..types import Configuration, Estimate, Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from .allocation import WAIT, Floats, solve
from .candidates import BUSY, Supply, hopeless, refused, remaining_s, remaining_usd, resting, settle, vacated
from .prices import value_of_time_usd_h

LEAST_S = 1.0
"""What has less to do than this is taken to have this."""
STAY_S = 600.0
"""How long a placement lasts at least, as far as it can be known: what a restart takes is weighed against it."""
STARVING_S = 4 * 3600.0
"""From this long without devices on, a workload's bid grows with the time that it waits."""
PAYS = 2.0
"""How much dollars count for the objective `cost`: twice as dear is worth a quarter."""


@dataclass(frozen=True)
class _Bidder:
    """One workload with what it may take, and seconds, dollars and bids for each."""

    view: WorkloadView
    estimates: tuple[Estimate, ...]
    seconds: tuple[float, ...]
    bids: tuple[float, ...]

    @property
    def present(self) -> int | None:
        """Which of them it runs on."""
        here = None if self.view.placement is None else self.view.placement.configuration
        return next((n for n, e in enumerate(self.estimates) if e.configuration == here), None)


class Auction:
    """The largest sum of bids. Moves are charged with the start-up they take; what has waited long bids more, until it
    runs. Deadlines, and on which nodes devices are, are not looked at."""

    name = "auction"

    def plan(self, situation: Situation) -> Plan:
        """Bids of all that may run; what wins is placed, or stays where it is."""
        capacity, supply = vacated(situation), Supply(situation.snapshot)
        explanations: dict[str, Explanation] = {}
        options: dict[str, list[Option]] = {}
        bidders = []
        for view in sorted(situation.workloads, key=lambda view: (view.submitted_s, view.id)):
            waits = resting(view, situation.now_s)
            usable, options[view.id] = ([], []) if waits is not None else refused(view, supply)
            if usable:
                bidders.append(_bidder(view, usable, situation.now_s))
            else:
                explanations[view.id] = waits or hopeless(options[view.id])
        bidders = _hurried(bidders, supply)
        types = sorted({name for each in bidders for e in each.estimates for name, _ in e.configuration.groups})
        configurations = sorted({e.configuration for each in bidders for e in each.estimates})
        free = np.array([capacity.free(name) for name in types], dtype=np.int64)
        chosen, prices = _chosen(bidders, configurations, types, free)
        before = {each.view.id: each.view.placement for each in bidders if each.view.placement is not None}
        placements = settle(chosen, before, {each.view.id for each in bidders if each.view.one_node}, capacity)
        scale = _usd_per_bid(bidders, placements)
        congestion = {name: round(float(price) * scale, 4) for name, price in zip(types, prices, strict=True)}
        for each in bidders:
            name = each.view.id
            explanations[name] = _explain(each, placements.get(name), options[name], congestion)
        return Plan(situation.cycle, placements, explanations, congestion)


def _bidder(view: WorkloadView, usable: Sequence[Estimate], now_s: float) -> _Bidder:
    known = [remaining_s(view, estimate) for estimate in usable]
    fastest = min((s for s in known if s is not None), default=3600.0)
    seconds = tuple(max(LEAST_S, fastest if s is None else s) for s in known)
    bids = tuple(_bid(view, e, s, now_s) for e, s in zip(usable, seconds, strict=True))
    return _Bidder(view, tuple(usable), seconds, bids)


def _bid(view: WorkloadView, estimate: Estimate, seconds: float, now_s: float) -> float:
    """Value an hour of giving this configuration to this workload now."""
    weight = 2.0**view.priority * value_of_time_usd_h(view.objective) / value_of_time_usd_h("balanced")
    waited_s = 0.0 if view.placement is not None else now_s - view.queued_s
    weight *= 1.0 + max(0.0, waited_s / STARVING_S - 1.0)
    bid = weight * 3600.0 / seconds
    if view.objective == "cost":
        usd = remaining_usd(estimate, view.remaining)
        least = min((u for e in view.estimates if (u := remaining_usd(e, view.remaining)) is not None), default=None)
        if usd is not None and least:
            bid *= (least / usd) ** PAYS
    here = view.placement is not None and view.placement.configuration == estimate.configuration
    if view.placement is not None and not here:
        bid *= max(0.0, 1.0 - estimate.startup_s / STAY_S)
    return bid * (1.02 if here else 1.0)


def _hurried(bidders: Sequence[_Bidder], supply: Supply) -> list[_Bidder]:
    """Those that alone take longer than all work together would, were it a fluid, decide when the last one is done:
    their bids grow with the square of how much longer."""
    if not bidders:
        return []
    kinds = max(1, len({name for each in bidders for e in each.estimates for name, _ in e.configuration.groups}))
    fluid_s = 0.0
    for each in bidders:
        fluid_s += min(
            s * sum(n / supply.total[name] for name, n in e.configuration.groups) / kinds
            for e, s in zip(each.estimates, each.seconds, strict=True)
        )
    found = []
    for each in bidders:
        longer = max(1.0, min(each.seconds) / max(fluid_s, 1.0))
        found.append(replace(each, bids=tuple(bid * longer**2 for bid in each.bids)))
    return found


def _chosen(
    bidders: Sequence[_Bidder], configurations: Sequence[Configuration], types: Sequence[str], free: np.ndarray
) -> tuple[dict[str, Configuration], Floats]:
    place = {configuration: n for n, configuration in enumerate(configurations)}
    cost = np.full((len(bidders), len(configurations)), np.inf)
    for row, each in enumerate(bidders):
        for estimate, bid in zip(each.estimates, each.bids, strict=True):
            cost[row, place[estimate.configuration]] = -bid
    use = np.array([[dict(c.groups).get(name, 0) for name in types] for c in configurations], dtype=np.int64)
    use = use.reshape(len(configurations), len(types))
    found = solve(cost, np.zeros(len(bidders)), use, free)
    pairs = zip(bidders, found.choice.tolist(), strict=True)
    return {each.view.id: configurations[n] for each, n in pairs if n != WAIT}, found.prices


def _usd_per_bid(bidders: Sequence[_Bidder], placements: Mapping[str, Placement]) -> float:
    """Bids are not dollars: they are put on the scale of what those that run are worth an hour."""
    worth, bids = 0.0, 0.0
    for each in bidders:
        there = placements.get(each.view.id)
        if there is not None:
            worth += value_of_time_usd_h(each.view.objective)
            bids += max(
                (b for e, b in zip(each.estimates, each.bids, strict=True) if e.configuration == there.configuration),
                default=0.0,
            )
    return worth / bids if bids > 0 else 0.0


def _explain(
    bidder: _Bidder, placement: Placement | None, others: list[Option], congestion: Mapping[str, float]
) -> Explanation:
    chosen = None if placement is None else placement.configuration
    rows = list(others)
    for estimate, seconds in zip(bidder.estimates, bidder.seconds, strict=True):
        held = sum(count * congestion.get(name, 0.0) for name, count in estimate.configuration.groups)
        usd = remaining_usd(estimate, bidder.view.remaining)
        time_usd = seconds / 3600 * value_of_time_usd_h(bidder.view.objective)
        extra = seconds / 3600 * held
        total = None if usd is None else usd + time_usd + extra
        if estimate.configuration == chosen:
            rows.append(Option(estimate, total, extra))
        elif chosen is None:
            rows.append(Option(estimate, total, extra, None, BUSY))
        else:
            rows.append(Option(estimate, total, extra, reason=Reason("dearer", "others get more done by its devices")))
    listed = {estimate.configuration: place for place, estimate in enumerate(bidder.view.estimates)}
    rows.sort(key=lambda option: listed[option.estimate.configuration])
    if chosen is None:
        return Explanation(None, "waits for its turn: others get more done by the devices there are", tuple(rows))
    here = bidder.view.placement is not None and bidder.view.placement.configuration == chosen
    said = "stays on" if here else "runs on"
    held = sum(count * congestion.get(name, 0.0) for name, count in chosen.groups)
    return Explanation(chosen, f"{said} {chosen}, worth {usd_text(held)} an hour to those who wait", tuple(rows))
