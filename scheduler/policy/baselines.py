"""Simple rules to compare with: `fifo`, `srtf`, `least-loaded`, `cheapest`. Pure.

All obey budgets and take whole gangs; none looks at deadlines, objectives or priorities. All but `srtf` leave what runs
where it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from workloads.quantities import usd_text

from ..types import Configuration, Estimate, Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from .candidates import BUSY, Supply, hopeless, refused, remaining_s, remaining_usd, resting, vacated
from .capacity import Capacity


@dataclass(frozen=True)
class _Room:
    """What is free, and what there is."""

    capacity: Capacity
    supply: Supply


@dataclass(frozen=True)
class _Verdict:
    """What one waiting workload gets: a configuration, or a reason to wait."""

    chosen: Estimate | None
    summary: str
    reasons: Callable[[Estimate], Reason]
    """Why another configuration was not taken."""
    keeps: Configuration | None = None
    """What is kept free for it while it waits."""
    blocks: bool = False
    """Whether nobody behind it may start."""


class _Queue:
    """One waiting workload after the other, in the order they came; what runs stays."""

    name = ""

    def plan(self, situation: Situation) -> Plan:
        """Keep what runs; decide for each waiting workload in turn."""
        placements = {view.id: view.placement for view in situation.workloads if view.placement is not None}
        explanations = {
            view.id: Explanation(view.placement.configuration, "runs on")
            for view in situation.workloads
            if view.placement is not None
        }
        capacity, supply = Capacity(situation.snapshot, placements.values()), Supply(situation.snapshot)
        blocker: str | None = None
        for view, usable, options in _waiting(situation, supply, explanations):
            if blocker is not None:
                explanations[view.id] = _behind(blocker, usable, options)
                continue
            verdict = self.decide(view, usable, _Room(capacity, supply))
            rows = [Option(e, reason=None if e is verdict.chosen else verdict.reasons(e)) for e in usable]
            chosen = None if verdict.chosen is None else verdict.chosen.configuration
            explanations[view.id] = Explanation(chosen, verdict.summary, _as_listed(view, [*rows, *options]))
            if chosen is not None:
                placement = capacity.place(chosen, one_node=view.one_node)
                assert placement is not None
                capacity.take(placement)
                placements[view.id] = placement
            elif verdict.keeps is not None:
                capacity.reserve(verdict.keeps)
            blocker = view.name if verdict.blocks else None
        return Plan(situation.cycle, placements, explanations)

    def decide(self, view: WorkloadView, usable: Sequence[Estimate], room: _Room) -> _Verdict:
        """What a workload gets that has at least one usable configuration."""
        raise NotImplementedError


class Fifo(_Queue):
    """Strictly in the order of submission: each takes the fastest configuration that is free, and whoever finds none
    holds up all behind it."""

    name = "fifo"

    def decide(self, view: WorkloadView, usable: Sequence[Estimate], room: _Room) -> _Verdict:
        """The fastest that fits, or the end of the queue."""
        best = min(_fitting(view, usable, room.capacity), key=_speed_of(view), default=None)
        if best is None:
            return _Verdict(None, "waits at the head of the queue: not enough devices are free", _busy, blocks=True)

        def slower(other: Estimate) -> Reason:
            fits = room.capacity.fits(other.configuration, one_node=view.one_node)
            return Reason("dearer", _slower(view, other, best)) if fits else BUSY

        return _Verdict(best, f"{best.configuration} is the fastest that is free", slower)


class LeastLoaded(_Queue):
    """The device type with the largest free share, in the order of submission; what fits nowhere is passed over."""

    name = "least-loaded"

    def decide(self, view: WorkloadView, usable: Sequence[Estimate], room: _Room) -> _Verdict:
        """The configuration whose types are the least loaded, then the narrowest, then the fastest."""

        def free_share(estimate: Estimate) -> float:
            groups = estimate.configuration.groups
            return min((room.capacity.free(name) / max(room.supply.total[name], 1) for name, _ in groups), default=0.0)

        def rank(estimate: Estimate) -> tuple[float, int, float]:
            return -free_share(estimate), estimate.configuration.devices, _speed_of(view)(estimate)[0]

        best = min(_fitting(view, usable, room.capacity), key=rank, default=None)
        if best is None:
            return _Verdict(None, "waits: not enough devices are free", _busy)

        def fuller(other: Estimate) -> Reason:
            if not room.capacity.fits(other.configuration, one_node=view.one_node):
                return BUSY
            return Reason("capacity", f"{free_share(other):.0%} of its devices are free, {free_share(best):.0%} there")

        return _Verdict(best, f"{best.configuration}: {free_share(best):.0%} of its devices are free", fuller)


class Cheapest(_Queue):
    """The least dollars of the estimate, however long that takes or is waited for. What it waits for is kept for it, so
    that it is not passed for ever."""

    name = "cheapest"

    def decide(self, view: WorkloadView, usable: Sequence[Estimate], room: _Room) -> _Verdict:
        """The cheapest configuration, now or later. Where no time is known, the cheapest hour."""
        unknown = all(remaining_usd(e, view.remaining) is None for e in usable)

        def usd(estimate: Estimate) -> float:
            known = estimate.price_usd_h if unknown else remaining_usd(estimate, view.remaining)
            return math.inf if known is None else known

        best = min(usable, key=lambda e: (usd(e), _speed_of(view)(e)))
        unit = " an hour" if unknown else ""

        def dearer(other: Estimate) -> Reason:
            if other is best:
                return BUSY
            if math.isinf(usd(other)):
                return Reason("unpriced", "nobody can say what it would cost")
            more = usd(other) - usd(best)
            return Reason("dearer", f"{usd_text(more)}{unit} dearer" if more > 0 else f"costs the same{unit}")

        text = "no price is known" if math.isinf(usd(best)) else f"{usd_text(usd(best))}{unit}"
        if room.capacity.fits(best.configuration, one_node=view.one_node):
            return _Verdict(best, f"{best.configuration} is the cheapest: {text}", dearer)
        waits = f"waits for {best.configuration}: the cheapest ({text}) is not free"
        return _Verdict(None, waits, dearer, keeps=best.configuration)


class Srtf:
    """Shortest remaining time first: whoever would be done the soonest chooses the fastest configuration first, and
    what runs is stopped for it."""

    name = "srtf"

    def plan(self, situation: Situation) -> Plan:
        """Everything is placed anew, shortest first; who chooses the same configuration again stays."""
        supply, capacity = Supply(situation.snapshot), vacated(situation)
        placements: dict[str, Placement] = {}
        explanations: dict[str, Explanation] = {}
        rows = list(_ready(situation.workloads, situation.now_s, supply, explanations))
        for view, usable, options in sorted(rows, key=_shortest):
            speed = _speed_of(view)
            here = view.placement
            fits = [e for e in usable if _there(view, e, capacity) is not None]
            best = min(fits, key=lambda e: (speed(e), e.configuration), default=None)
            if best is None:
                summary = "waits: shorter ones need the devices" if here is None else "stops: shorter ones go first"
                busy = [Option(e, reason=BUSY) for e in usable]
                explanations[view.id] = Explanation(None, summary, _as_listed(view, [*busy, *options]))
                continue
            placement = _there(view, best, capacity)
            assert placement is not None
            capacity.take(placement)
            placements[view.id] = placement
            others = [Option(e, reason=_second(view, e, best, e in fits)) for e in usable if e is not best]
            explanations[view.id] = Explanation(
                best.configuration,
                f"{best.configuration} is the fastest that shorter ones leave",
                _as_listed(view, [Option(best), *others, *options]),
            )
        return Plan(situation.cycle, placements, explanations)


_Row = tuple[WorkloadView, list[Estimate], list[Option]]


def _ready(
    views: Iterable[WorkloadView], now_s: float, supply: Supply, explanations: dict[str, Explanation]
) -> Iterable[_Row]:
    """Those that could run, with their usable configurations; the others are explained."""
    for view in views:
        waits = resting(view, now_s)
        usable, options = ([], []) if waits is not None else refused(view, supply)
        if usable:
            yield view, usable, options
        else:
            explanations[view.id] = waits or hopeless(options)


def _waiting(situation: Situation, supply: Supply, explanations: dict[str, Explanation]) -> Iterable[_Row]:
    queued = [view for view in situation.workloads if view.placement is None]
    queued.sort(key=lambda view: (view.submitted_s, view.queued_s, view.id))
    return _ready(queued, situation.now_s, supply, explanations)


def _shortest(row: _Row) -> tuple[float, float, str]:
    view, usable, _ = row
    return min(_speed_of(view)(e)[0] for e in usable), view.submitted_s, view.id


def _speed_of(view: WorkloadView) -> Callable[[Estimate], tuple[float, bool]]:
    """A key: seconds to the end, what runs already before what would have to be started; unknown times last."""

    def key(estimate: Estimate) -> tuple[float, bool]:
        seconds = remaining_s(view, estimate)
        stays = view.placement is not None and view.placement.configuration == estimate.configuration
        return math.inf if seconds is None else seconds, not stays

    return key


def _fitting(view: WorkloadView, usable: Iterable[Estimate], capacity: Capacity) -> list[Estimate]:
    return [e for e in usable if capacity.fits(e.configuration, one_node=view.one_node)]


def _there(view: WorkloadView, estimate: Estimate, capacity: Capacity) -> Placement | None:
    """Where a configuration would go: where it is, if it may stay."""
    here = view.placement
    if here is not None and here.configuration == estimate.configuration and capacity.holds(here):
        return here
    return capacity.place(estimate.configuration, one_node=view.one_node)


def _busy(_: Estimate) -> Reason:
    return BUSY


def _second(view: WorkloadView, other: Estimate, best: Estimate, fits: bool) -> Reason:
    return Reason("dearer", _slower(view, other, best)) if fits else BUSY


def _slower(view: WorkloadView, other: Estimate, best: Estimate) -> str:
    seconds, least = remaining_s(view, other), remaining_s(view, best)
    if seconds is None or least is None:
        return "its time is not known"
    return f"{seconds - least:.0f} s slower" if seconds > least else "takes as long"


def _behind(blocker: str, usable: Iterable[Estimate], options: Iterable[Option]) -> Explanation:
    reason = Reason("capacity", "whoever came before goes first")
    rows = (*(Option(e, reason=reason) for e in usable), *options)
    return Explanation(None, f"waits in the queue: behind {blocker}", rows)


def _as_listed(view: WorkloadView, options: Iterable[Option]) -> tuple[Option, ...]:
    """In the order of the workload's estimates."""
    listed = {estimate.configuration: place for place, estimate in enumerate(view.estimates)}
    return tuple(sorted(options, key=lambda option: listed[option.estimate.configuration]))
