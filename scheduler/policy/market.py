"""The cost-aware policy: every workload takes the configuration of least `money(c)`, at prices that include what
others would pay for the same devices.

A first version: it keeps what runs where it runs, orders the queue by priority and by what waiting has cost so far,
lets a workload wait for a better configuration only where that is cheaper than starting now, and lets smaller ones go
ahead only where they cannot delay the one that waits (backfill).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ..types import Configuration, Estimate, Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from .capacity import Capacity
from .prices import congestion_usd, find_prices, money_usd, value_of_time_usd_h

MAX_WAIT_S = 600.0
"""A workload that has waited this long goes first, whatever its size, and what becomes free is kept for it."""


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
        shadow_s = math.inf  # until then a reserved workload waits: others may only run beside it or end before
        for workload in sorted(ready, key=lambda w: _rank(w, situation.now_s)):
            options = _options(workload, situation, capacity, prices, shadow_s)
            best = min(
                (o for o in options if o.total_usd is not None and o.reason is None), key=_cheapest, default=None
            )
            if best is None or best.wait_s:
                explanations[workload.id] = _waits(best, options)
                if best is not None and best.wait_s is not None:
                    shadow_s = min(shadow_s, best.wait_s)
                reserved = _reserved(best, options, starving=situation.now_s - workload.queued_s > MAX_WAIT_S)
                if reserved is not None:
                    capacity.reserve(reserved)
                continue
            placement = capacity.place(best.estimate.configuration)
            assert placement is not None
            capacity.take(placement)
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
            explanations[workload.id] = Explanation(None, f"tries again in {seconds:.0f} s")
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
    """Starving ones first, then priority, then the shortest remaining work less what it has waited."""
    waited_s = now_s - workload.queued_s
    seconds = [e.seconds for e in workload.estimates if e.seconds is not None]
    shortest = min(seconds, default=0.0) * workload.remaining
    starving = waited_s > MAX_WAIT_S
    return not starving, -workload.priority, -waited_s if starving else shortest - waited_s, workload.id


def _options(
    workload: WorkloadView, situation: Situation, capacity: Capacity, prices: Mapping[str, float], shadow_s: float
) -> list[Option]:
    """Every configuration with its money, waiting included, or the reason why it is out of the question."""
    options = []
    for raw in workload.estimates:
        estimate = _remaining(raw, workload.remaining)
        if estimate.infeasible is not None:
            options.append(Option(estimate, reason=estimate.infeasible))
            continue
        wait_s = 0.0 if capacity.fits(estimate.configuration) else _free_in_s(estimate, situation)
        congestion = congestion_usd(estimate, prices)
        if wait_s is None:
            busy = Reason("capacity", "busy: nothing predicts until when")
            options.append(Option(estimate, None, congestion, None, busy))
            continue
        total = money_usd(estimate, value_of_time_usd_h(workload.objective), prices, wait_s)
        options.append(Option(estimate, total, congestion, wait_s, _objection(workload, estimate, situation, wait_s)))
    if not any(o.reason is None for o in options):
        options = _least_bad(options)
    elif shadow_s < math.inf:
        options = [_held_back(option, shadow_s) for option in options]
    return options


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
            return Reason("budget", f"would cost ${over:.4f} more than the budget leaves")
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


def _held_back(option: Option, shadow_s: float) -> Option:
    """Backfill: what cannot start now does not jump the queue for later."""
    if option.reason is None and option.wait_s and option.wait_s > shadow_s:
        return replace(option, reason=Reason("reserved", "kept for a workload ahead of it"))
    return option


def _free_in_s(estimate: Estimate, situation: Situation) -> float | None:
    """Seconds until enough devices of every type are free, as far as running work can be predicted; else None."""
    held = [w.placement for w in situation.workloads if w.placement is not None]
    capacity, wait_s = Capacity(situation.snapshot, held), 1.0
    for name, count in estimate.configuration.groups:
        free = capacity.free(name)
        for seconds, devices in sorted(_ends(situation, name)):
            if free >= count:
                break
            free, wait_s = free + devices, max(wait_s, seconds)
        if free < count:
            return None
    return wait_s


def _ends(situation: Situation, device_type: str) -> list[tuple[float, int]]:
    """(seconds until it ends, devices of the type it gives back) of each running workload that can be predicted."""
    ends = []
    for workload in situation.workloads:
        if workload.placement is None:
            continue
        configuration = workload.placement.configuration
        devices = dict(configuration.groups).get(device_type, 0)
        seconds = next((e.seconds for e in workload.estimates if e.configuration == configuration), None)
        if devices and seconds is not None:
            ends.append((max(1.0, seconds * workload.remaining), devices))
    return ends


def _runs_on(workload: WorkloadView) -> Explanation:
    assert workload.placement is not None
    return Explanation(workload.placement.configuration, "keeps running: nothing is gained by moving it")


def _taken(best: Option, options: list[Option]) -> Explanation:
    rows = tuple(option if option is best else _compared(option, best) for option in options)
    summary = f"{best.estimate.configuration} is the least money"
    if best.total_usd is not None and best.estimate.seconds is not None:
        summary += f": ${best.total_usd:.4f} with the time it takes"
        if best.congestion_usd > 0:
            summary += f" and ${best.congestion_usd:.4f} of congestion"
    elif best.estimate.seconds is None:
        summary = f"{best.estimate.configuration} is the cheapest an hour; its run time is not known yet"
    return Explanation(best.estimate.configuration, summary, rows)


def _compared(option: Option, best: Option) -> Option:
    if option.reason is not None or option.total_usd is None or best.total_usd is None:
        return option
    dearer = option.total_usd - best.total_usd
    how = f"${dearer:.4f} dearer in all"
    if option.wait_s:
        how += f", free in about {option.wait_s:.0f} s"
    return replace(option, reason=Reason("dearer", how))


def _waits(best: Option | None, options: list[Option]) -> Explanation:
    if best is None:
        reasons = sorted({option.reason.message for option in options if option.reason is not None})
        busy = any(option.reason is not None and option.reason.code in ("capacity", "reserved") for option in options)
        how = "waits: " if busy else "cannot run: "
        return Explanation(None, how + ("; ".join(reasons) or "no configuration"), tuple(options))
    summary = f"waits for {best.estimate.configuration}: free in about {best.wait_s:.0f} s"
    now = [o for o in options if o.wait_s == 0 and o.reason is None and o.total_usd is not None]
    if now and best.total_usd is not None:
        other = min(now, key=_cheapest)
        assert other.total_usd is not None
        extra = other.total_usd - best.total_usd
        summary += f"; would start now on {other.estimate.configuration} for ${extra:.4f} more"
    rows = tuple(
        option
        if option.reason is not None or not option.wait_s
        else replace(option, reason=Reason("capacity", f"busy: free in about {option.wait_s:.0f} s"))
        for option in options
    )
    return Explanation(None, summary, rows)
