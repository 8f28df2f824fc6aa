"""What a workload offers for each configuration it may take. Pure.

`money(c)` of the design says which configuration is best for a workload alone: dollars, and the time until it is done
at what its time is worth. Who goes first among several is another question, since summed money is ruled by the longest.
A device is worth the most to who has the least left to do on it, so a workload bids what its time is worth for each
hour that its best configuration would take to the end, and for every other as much less as that is dearer:

    bid(c) = value of time / seconds(best) x money(best) / money(c)

On devices of one type the largest sum of bids is shortest remaining time first; over several, each goes where its money
is least. Moving is charged with what the restart loses, by how long a placement is likely to last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..types import Configuration, Estimate, Money, Option, Reason, WorkloadView
from .candidates import Supply
from .prices import value_of_time_usd_h

OVERDUE_S = 48 * 3600.0
"""What has waited this long in all goes before everything else, first come, first served."""
SOONER_TIMES = 10.0
"""A short workload is overdue sooner: after so many of its own run times, ..."""
SOONEST_S = 1800.0
"""... though not before this."""
OVERDUE_TIMES = 3.0
"""A very long one is overdue later: after so many of its own run times."""
LEAST_S = 1.0
"""What has less to do than this is taken to have this."""
UNKNOWN_S = 3600.0
"""What nothing is known of is taken to have this much left, or as much again as it has taken."""
STAYS = 1.02
"""What runs is worth this much more where it is, restarts not counted: nothing moves for nothing."""
LATE_USD_H = value_of_time_usd_h("time")
"""What the time of a workload is worth that cannot meet its deadline any more, or has nothing priced to run on."""
URGENT = 20.0
"""What has little time to lose before its deadline bids so many times as much."""
URGENT_S = 600.0
"""Time to spare, beside half of a workload's whole run time, below which a deadline makes it urgent."""
LOST_TIMES = 2.0
"""Nobody knows when something ends that takes so many times as long as was thought likely, whatever it reports."""


@dataclass(frozen=True)
class Offer:
    """One configuration that a workload may take."""

    view: WorkloadView
    listed: Estimate
    """For the whole work."""
    configuration: Configuration
    left_s: float | None
    """Until it is done, started now; None: not known."""
    seconds: float
    """The same; assumed where it is not known."""
    money_usd: float
    """Dollars and the value of that time."""
    bid: float

    @cached_property
    def estimate(self) -> Estimate:
        """For what is left of the work."""
        return _left(self.view, self.listed)


@dataclass(frozen=True)
class Bidder:
    """A workload with all that it may take."""

    view: WorkloadView
    offers: tuple[Offer, ...]
    refused: tuple[Option, ...]
    """What it may not take, and why."""
    time_usd_h: float
    """What its time is worth."""
    running: Configuration | None
    """What it runs on and could go on with."""
    waited_s: float
    """How long it has waited in all."""

    def offer(self, configuration: Configuration | None) -> Offer | None:
        """Its offer for this configuration."""
        return next((each for each in self.offers if each.configuration == configuration), None)

    @property
    def overdue(self) -> bool:
        """Whether it goes before all others, of whatever priority: it has waited so long, or had its turn already."""
        return self.view.interrupted or (self.late and self.waited_s > OVERDUE_S)

    @property
    def late(self) -> bool:
        """Whether it goes before the others of its priority."""
        return self.waited_s > overdue_s(min(offer.seconds for offer in self.offers))

    @property
    def cheapest(self) -> Offer:
        """The offer of least money."""
        return min(self.offers, key=lambda each: (each.money_usd, each.configuration))


def bidder(view: WorkloadView, supply: Supply, now_s: float, stay_s: float) -> Bidder:
    """All offers of a workload. `stay_s` is how long a placement is likely to last."""
    time_usd_h = value_of_time_usd_h(view.objective)
    running = None if view.placement is None or view.stopping else view.placement.configuration
    usable, refused = [], []
    misses = _misses_its_deadline(view, supply, now_s)
    time_usd_h = LATE_USD_H if misses else time_usd_h
    for raw in view.estimates:
        reason = supply.objection(view, raw) or _objection(view, raw, math.inf if misses else now_s, running)
        if reason is None:
            usable.append(raw)
        else:
            refused.append(Option(_left(view, raw), reason=reason))
    if not usable:
        usable, refused = _unpriced(view, refused)
    offers = _offers(view, usable, time_usd_h, running, now_s, stay_s) if usable else ()
    waited_s = max(view.waited_s, now_s - view.queued_s if view.placement is None else 0.0)
    return Bidder(view, offers, tuple(refused), time_usd_h, running, waited_s)


def overdue_s(seconds: float) -> float:
    """How long a workload of so many seconds waits at most until it goes before the others of its priority."""
    return max(min(OVERDUE_S, max(SOONEST_S, SOONER_TIMES * seconds)), OVERDUE_TIMES * seconds)


def left_s(view: WorkloadView, estimate: Estimate) -> float | None:
    """Seconds to the end of what is left: start-up counts unless it runs on just this already. None: not known.

    What reports no progress is judged by the clock; once it has outlasted all that was thought likely, nobody knows."""
    if estimate.seconds is None:
        return None
    work_s = max(estimate.seconds - estimate.startup_s, 0.0) * view.remaining
    if view.placement is None or view.stopping or view.placement.configuration != estimate.configuration:
        return max(LEAST_S, work_s + estimate.startup_s)
    likely_s = estimate.high_s or 2 * estimate.seconds
    if view.remaining < 1.0 and view.held_s <= LOST_TIMES * likely_s:
        return max(LEAST_S, work_s + max(0.0, estimate.startup_s - view.held_s))
    if view.held_s > likely_s:
        return None
    return max(LEAST_S, estimate.seconds - view.held_s)


def _left(view: WorkloadView, estimate: Estimate) -> Estimate:
    """The estimate for what is left of the work."""
    seconds = estimate.seconds if view.remaining >= 1.0 and view.placement is None else left_s(view, estimate)
    if seconds is None or seconds == estimate.seconds or estimate.seconds is None:
        return estimate
    money = estimate.money
    if money is not None:
        money = replace(money, compute_usd=money.compute_usd * seconds / max(estimate.seconds, 1e-9))
    high_s = None if estimate.high_s is None else estimate.high_s * seconds / max(estimate.seconds, 1e-9)
    return replace(estimate, seconds=seconds, high_s=high_s, money=money)


def _misses_its_deadline(view: WorkloadView, supply: Supply, now_s: float) -> bool:
    """Whether nothing that it may take is done in time: then it is missed by as little as can be."""
    if view.deadline_s is None:
        return False
    known = [left_s(view, each) for each in view.estimates if supply.objection(view, each) is None]
    return all(seconds is not None and now_s + seconds > view.deadline_s for seconds in known)


def _objection(view: WorkloadView, estimate: Estimate, now_s: float, running: Configuration | None) -> Reason | None:
    """`now_s` of infinity: deadlines do not count any more."""
    if estimate.configuration == running:
        return None
    if estimate.price_usd_h is None:
        return Reason("unpriced", "no price is known for it")
    seconds = left_s(view, estimate)
    if seconds is not None and view.deadline_s is not None and view.deadline_s < now_s + seconds < math.inf:
        return Reason("deadline", f"would be done {now_s + seconds - view.deadline_s:.0f} s after the deadline")
    return None


def _unpriced(view: WorkloadView, refused: Sequence[Option]) -> tuple[list[Estimate], list[Option]]:
    """Nothing priced is possible: what has no price may run."""
    raw = {each.configuration: each for each in view.estimates}
    soft = [option for option in refused if option.reason is not None and option.reason.code == "unpriced"]
    free = [replace(raw[o.estimate.configuration], money=Money(0.0), price_usd_h=0.0) for o in soft]
    return free, [option for option in refused if option not in soft]


def _offers(
    view: WorkloadView,
    usable: Sequence[Estimate],
    time_usd_h: float,
    running: Configuration | None,
    now_s: float,
    stay_s: float,
) -> tuple[Offer, ...]:
    known = [left_s(view, each) for each in usable]
    fastest_s = min((seconds for seconds in known if seconds is not None), default=None)
    if fastest_s is None:
        fastest_s = max(UNKNOWN_S, view.held_s)
    times = [fastest_s if seconds is None else max(LEAST_S, seconds) for seconds in known]
    money = [_usd(each, seconds) + seconds / 3600 * time_usd_h for each, seconds in zip(usable, times, strict=True)]
    least = min(range(len(usable)), key=lambda n: (money[n], usable[n].configuration))
    weight = value_of_time_usd_h(view.objective) / value_of_time_usd_h("balanced")
    weight *= _urgency(view, usable[least], times[least], now_s)
    best = weight * 3600.0 / times[least]
    found = []
    for n, estimate in enumerate(usable):
        bid = best * money[least] / money[n]
        lost = (estimate.startup_s + view.unsaved_s) / stay_s
        if running is not None:
            bid *= STAYS + lost if estimate.configuration == running else max(0.0, 1.0 - lost)
        found.append(Offer(view, estimate, estimate.configuration, known[n], times[n], money[n], bid))
    return tuple(found)


def _usd(estimate: Estimate, seconds: float) -> float:
    """Dollars for what is left of the work, which takes so many seconds."""
    money = estimate.money
    if money is None:
        return seconds / 3600 * (estimate.price_usd_h or 0.0)
    if estimate.seconds is None or seconds == estimate.seconds:
        return money.total_usd
    return money.total_usd + money.compute_usd * (seconds / max(estimate.seconds, 1e-9) - 1.0)


def _urgency(view: WorkloadView, estimate: Estimate, seconds: float, now_s: float) -> float:
    """How much more a workload bids since its deadline is near. A step, of what is to spare against its whole run time:
    neither changes while it runs, so two that are urgent do not take turns."""
    if view.deadline_s is None:
        return 1.0
    spare_s = view.deadline_s - now_s - seconds
    return URGENT if 0.0 <= spare_s < 0.5 * (estimate.seconds or seconds) + URGENT_S else 1.0
