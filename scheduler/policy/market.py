"""The cost-aware policy: every workload takes the configuration of least `money(c)`, at prices that include what
others would pay for the same devices.

A first version: it keeps what runs where it runs, orders the queue by priority and by what waiting has cost so far,
lets a workload wait for a better configuration only where that is cheaper than starting now, and lets smaller ones go
ahead only where they cannot delay the one that waits (backfill).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from workloads.quantities import usd_text

from ..types import (
    Configuration,
    Estimate,
    Explanation,
    Money,
    Option,
    Placement,
    Plan,
    Reason,
    Situation,
    WorkloadView,
)
from .capacity import Capacity
from .prices import congestion_usd, find_prices, money_usd, value_of_time_usd_h

MAX_WAIT_S = 600.0
"""A workload that has waited this long goes first, whatever its size, and what becomes free is kept for it."""
_UNTIL_WHEN = "busy, and nothing predicts when what runs there ends"
_NAMED = 3
"""So many of the configurations that are waited for are named."""


class Market:
    """Least money, congestion prices, backfill behind a reservation."""

    name = "market"

    def plan(self, situation: Situation) -> Plan:
        """Keep what runs; give each waiting workload its cheapest configuration, or a reason to wait."""
        running = [w for w in situation.workloads if w.placement is not None]
        held = {w.id: w.placement for w in running if w.placement is not None}
        capacity = Capacity(situation.snapshot, held.values())
        ready, explanations = _ready(situation)
        prices = _prices(situation, ready, capacity)
        placements: dict[str, Placement] = dict(held)
        for workload in running:
            explanations[workload.id] = _runs_on(workload)
        changes = _changes(running)
        for workload in sorted(ready, key=lambda w: _rank(w, situation.now_s)):
            options = _options(workload, situation, capacity, changes, prices)
            best = min(
                (o for o in options if o.total_usd is not None and o.reason is None), key=_cheapest, default=None
            )
            starving = situation.now_s - workload.queued_s > MAX_WAIT_S
            if best is None or best.wait_s:
                explanations[workload.id] = _waits(best, options)
                reserved = _reserved(best, options, starving=starving)
                if reserved is not None:
                    _promise(reserved, best, capacity, changes)
                    capacity.reserve(reserved)
                continue
            placement = capacity.place(best.estimate.configuration, one_node=workload.one_node)
            assert placement is not None
            capacity.take(placement)
            _give_back(best.estimate, 0.0, changes)
            placements[workload.id] = placement
            explanations[workload.id] = _taken(best, options)
        return Plan(situation.cycle, placements, explanations, prices)


def _cheapest(option: Option) -> tuple[float, float, str]:
    assert option.total_usd is not None
    return option.total_usd, option.wait_s or 0.0, str(option.estimate.configuration)


def _reserved(best: Option | None, options: list[Option], *, starving: bool) -> Configuration | None:
    """What is kept free for a workload that waits: its best configuration, or, where nobody can say how long the wait
    is, the smallest one as soon as it has waited too long."""
    if best is not None:
        return best.estimate.configuration
    busy = [o.estimate.configuration for o in options if o.reason is not None and o.reason.code == "capacity"]
    return min(busy, key=lambda c: (c.devices, c), default=None) if starving else None


def _ready(situation: Situation) -> tuple[list[WorkloadView], dict[str, Explanation]]:
    ready, explanations = [], {}
    for workload in situation.workloads:
        if workload.placement is not None:
            continue
        if workload.not_before_s is not None and workload.not_before_s > situation.now_s:
            seconds = workload.not_before_s - situation.now_s
            explanations[workload.id] = Explanation(
                None, f"waits after a failed attempt: tries again in {seconds:.0f} s"
            )
        else:
            ready.append(workload)
    return ready, explanations


def _prices(situation: Situation, ready: list[WorkloadView], capacity: Capacity) -> dict[str, float]:
    free = {name: capacity.free(name) for name in sorted(situation.snapshot.device_types)}
    choices = []
    for workload in ready:
        feasible = [e for e in workload.estimates if e.infeasible is None and capacity.fits(e.configuration)]
        if feasible:
            choices.append((value_of_time_usd_h(workload.objective), feasible))
    return find_prices(choices, free, situation.congestion_usd_h)


def _rank(workload: WorkloadView, now_s: float) -> tuple[bool, int, float, str]:
    """Starving ones first, then priority, then the shortest remaining work, weighed by what its time is worth, less
    what it has waited."""
    waited_s = now_s - workload.queued_s
    seconds = [e.seconds for e in workload.estimates if e.seconds is not None]
    shortest = min(seconds, default=0.0) * workload.remaining
    starving = waited_s > MAX_WAIT_S
    weight = value_of_time_usd_h(workload.objective) / value_of_time_usd_h("balanced")
    return not starving, -workload.priority, -waited_s if starving else shortest / weight - waited_s, workload.id


def _options(
    workload: WorkloadView,
    situation: Situation,
    capacity: Capacity,
    changes: _Changes,
    prices: Mapping[str, float],
) -> list[Option]:
    """Every configuration with its money, waiting included, or the reason why it is out of the question."""
    options = []
    fastest_s = min((e.seconds for e in workload.estimates if e.seconds is not None), default=None)
    for raw in workload.estimates:
        estimate = _remaining(raw, workload.remaining)
        if estimate.infeasible is not None:
            options.append(Option(estimate, reason=estimate.infeasible))
            continue
        free = capacity.fits(estimate.configuration, one_node=workload.one_node)
        wait_s = 0.0 if free else _free_in_s(estimate, capacity, changes, workload.one_node)
        congestion = 0.0 if wait_s else congestion_usd(estimate, prices)
        if wait_s is None:
            busy = Reason("capacity", _UNTIL_WHEN)
            options.append(Option(estimate, None, congestion, None, busy))
            continue
        # What waits does not pay for the congestion of now: the time it waits is its price.
        time_usd_h = value_of_time_usd_h(workload.objective)
        total = money_usd(_hopeful(estimate, fastest_s), time_usd_h, {} if wait_s else prices, wait_s)
        options.append(Option(estimate, total, congestion, wait_s, _objection(workload, estimate, situation, wait_s)))
    if not any(option.reason is None for option in options):
        options = _least_bad(options)
    return _impatient(options) if situation.now_s - workload.queued_s > MAX_WAIT_S else options


def _hopeful(estimate: Estimate, fastest_s: float | None) -> Estimate:
    """A configuration of unknown speed is judged as if it were as fast as the fastest known one, so that it is tried;
    where none is known, all are compared by the price of an hour."""
    if estimate.seconds is not None or fastest_s is None or estimate.price_usd_h is None:
        return estimate
    return replace(estimate, seconds=fastest_s, money=Money(fastest_s / 3600 * estimate.price_usd_h))


def _impatient(options: list[Option]) -> list[Option]:
    """What has waited too long waits no longer for something better while something else is free."""
    if not any(option.reason is None and option.wait_s == 0 for option in options):
        return options
    late = Reason("capacity", "busy, and it has waited long enough")
    return [replace(o, reason=late) if o.reason is None and o.wait_s else o for o in options]


def _remaining(estimate: Estimate, share: float) -> Estimate:
    """The estimate for what is left of the work; start-up is paid again in full."""
    if share >= 1.0 or estimate.seconds is None:
        return estimate
    seconds = estimate.startup_s + (estimate.seconds - estimate.startup_s) * share
    money = estimate.money
    if money is not None:
        money = replace(money, compute_usd=money.compute_usd * seconds / max(estimate.seconds, 1e-9))
    return replace(estimate, seconds=seconds, money=money)


def _objection(workload: WorkloadView, estimate: Estimate, situation: Situation, wait_s: float) -> Reason | None:
    if estimate.price_usd_h is None:
        return Reason("unpriced", "no price is known for it")
    if estimate.seconds is not None and workload.deadline_s is not None:
        late_s = situation.now_s + wait_s + estimate.seconds - workload.deadline_s
        if late_s > 0:
            return Reason("deadline", f"would be done {late_s:.0f} s after the deadline")
    if estimate.money is not None and workload.budget_usd is not None:
        over = estimate.money.total_usd - workload.budget_usd
        if over > 0:
            return Reason("budget", f"would cost {usd_text(over)} more than the budget leaves")
    return None


def _least_bad(options: list[Option]) -> list[Option]:
    """Nothing meets every wish: what is late runs as soon as it can, what is unpriced may run; budgets stay."""
    softened = []
    for option in options:
        soft = option.reason is not None and option.reason.code in ("deadline", "unpriced")
        if soft:
            # Only the time counts now, in dollars like every other total.
            hours = ((option.wait_s or 0.0) + (option.estimate.seconds or 0.0)) / 3600
            total = hours * value_of_time_usd_h("time")
            softened.append(replace(option, reason=None, total_usd=total))
        else:
            softened.append(option)
    return softened


def _free_in_s(estimate: Estimate, capacity: Capacity, changes: _Changes, one_node: bool) -> float | None:
    """Seconds until enough devices of every type are free, as far as it can be predicted; else None."""
    wait_s = 1.0
    for name, count in estimate.configuration.groups:
        # What is free on several nodes is not enough for one node: at least one device more must come free.
        free = min(capacity.free(name), count - 1) if one_node else capacity.free(name)
        for seconds, devices in sorted(changes[name]):
            if free >= count:
                break
            free, wait_s = free + devices, max(wait_s, seconds)
        if free < count:
            return None
    return wait_s


_Changes = dict[str, list[tuple[float, int]]]
"""By device type: in so many seconds, so many devices more (or, promised to somebody, fewer) are free."""


def _changes(running: list[WorkloadView]) -> _Changes:
    changes: _Changes = defaultdict(list)
    for workload in running:
        assert workload.placement is not None
        configuration = workload.placement.configuration
        estimate = next((e for e in workload.estimates if e.configuration == configuration), None)
        left_s = None if estimate is None else _left_s(workload, estimate)
        if estimate is not None and left_s is not None:
            _give_back(replace(estimate, seconds=left_s), 0.0, changes)
    return changes


def _left_s(workload: WorkloadView, estimate: Estimate) -> float | None:
    """Seconds that a running workload will still hold its devices: by the work it reports done, or by the clock where
    it reports nothing. None once it has outlasted all that was thought likely: nobody knows then."""
    if estimate.seconds is None or workload.held_s > (estimate.high_s or 2 * estimate.seconds):
        return None
    if workload.remaining < 1.0:
        return max(1.0, estimate.seconds * workload.remaining)
    return max(1.0, estimate.seconds - workload.held_s)


def _give_back(estimate: Estimate, start_s: float, changes: _Changes) -> None:
    """What starts then gives its devices back when it ends; where nobody knows when, it never does."""
    if estimate.seconds is not None:
        for name, count in estimate.configuration.groups:
            changes[name].append((start_s + estimate.seconds, count))


def _promise(reserved: Configuration, best: Option | None, capacity: Capacity, changes: _Changes) -> None:
    """What a waiting workload will hold, beside what is free and kept for it now, is not there for others."""
    if best is None or best.wait_s is None:
        return
    for name, count in reserved.groups:
        changes[name].append((best.wait_s, min(count, capacity.free(name)) - count))
    _give_back(best.estimate, best.wait_s, changes)


def _runs_on(workload: WorkloadView) -> Explanation:
    assert workload.placement is not None
    return Explanation(workload.placement.configuration, "keeps running: nothing is gained by moving it")


def _taken(best: Option, options: list[Option]) -> Explanation:
    rows = tuple(_told(option if option is best else _compared(option, best)) for option in options)
    summary = f"{best.estimate.configuration} is the least money"
    if best.total_usd is not None and best.estimate.seconds is not None:
        summary += f": {usd_text(best.total_usd)} with the time it takes"
        if best.congestion_usd > 0:
            summary += f" and {usd_text(best.congestion_usd)} of congestion"
    elif best.estimate.seconds is None:
        summary = f"{best.estimate.configuration} is the cheapest to try; its run time is not known yet"
    return Explanation(best.estimate.configuration, summary, rows)


def _compared(option: Option, best: Option) -> Option:
    if option.reason is not None or option.total_usd is None or best.total_usd is None:
        return option
    dearer = option.total_usd - best.total_usd
    how = f"{usd_text(dearer)} dearer in all" if dearer > 0 else "costs the same in all"
    if option.estimate.seconds is None:
        # Compared by the price of an hour, or as if it were as fast as the fastest known one.
        how = f"{usd_text(dearer)} an hour dearer" if dearer > 0 else "costs the same an hour"
        if best.estimate.seconds is not None:
            how = "run time not known; dearer even at the speed of the fastest"
    if option.wait_s:
        how += f", free in about {option.wait_s:.0f} s"
    return replace(option, reason=Reason("dearer", how))


def _told(option: Option) -> Option:
    """As it is shown: nobody can say what something costs in all whose time is not known, though it is ranked."""
    return option if option.estimate.seconds is not None else replace(option, total_usd=None)


def _stuck(options: list[Option]) -> str:
    """What is waited for where nobody can say until when, or why nothing is possible."""
    reasons = {option.reason.message for option in options if option.reason is not None}
    busy = [str(o.estimate.configuration) for o in options if o.reason is not None and o.reason.code == "capacity"]
    if not busy:
        return "cannot run: " + ("; ".join(sorted(reasons)) or "no configuration")
    return f"waits for {' or '.join(busy[:_NAMED])}: " + "; ".join([_UNTIL_WHEN, *sorted(reasons - {_UNTIL_WHEN})])


def _waits(best: Option | None, options: list[Option]) -> Explanation:
    if best is None:
        return Explanation(None, _stuck(options), tuple(_told(option) for option in options))
    summary = f"waits for {best.estimate.configuration}: free in about {best.wait_s:.0f} s"
    now = [o for o in options if o.wait_s == 0 and o.reason is None and o.total_usd is not None]
    if now and best.total_usd is not None:
        other = min(now, key=_cheapest)
        assert other.total_usd is not None
        extra = other.total_usd - best.total_usd
        summary += f"; would start now on {other.estimate.configuration} for {usd_text(extra)} more"
    return Explanation(None, summary, tuple(_told(_passed_over(option, best)) for option in options))


def _passed_over(option: Option, best: Option) -> Option:
    """Every option with its reason: busy, or waiting for the best one is less."""
    if option.reason is not None:
        return option
    if option.wait_s:
        return replace(option, reason=Reason("capacity", f"busy: free in about {option.wait_s:.0f} s"))
    compared = _compared(option, best)
    return compared if compared.reason is not None else replace(option, reason=Reason("dearer", "waiting costs less"))
