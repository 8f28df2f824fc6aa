"""Simple policies that rent nodes, to compare `market` with: `cheapest-fit` and `no-packing`; `ray_autoscaler` has
another. Pure.

First come, first served; what runs stays where it is. They obey budgets, the most of each type and the cap, and look at
neither deadlines, objectives nor priorities. They differ in where what waits goes, in what is rented for it, and in
when a node goes back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cluster.types import NodeType
from workloads.quantities import usd_text

from ..types import Configuration, Estimate, Explanation, NodeRelease, Option, Placement, Plan, Situation, WorkloadView
from .candidates import BUSY, Supply, hopeless, remaining_s, resting
from .fleet import UNKNOWN_S, interrupted_s
from .idle import IDLE, idle_since
from .rental_seats import Seat, Seats, Take, placement, sets_for, shares_usd_h

IDLE_TIMEOUT_S = 300.0
"""After so long an idle node goes back: Ray's `idle_timeout_minutes` is 5 unless it is set."""
PATIENCE_S = 600.0
"""A type whose launch failed is waited for if it is to be had again within this: to take a dearer one is worse."""
HAD_WORK = "had_work"
"""The note of `no-packing` that says which nodes had their job."""


@dataclass
class Draft:
    """A plan in the making."""

    situation: Situation
    seats: Seats
    supply: Supply
    placements: dict[str, Placement]
    explanations: dict[str, Explanation]
    options: dict[str, tuple[list[Estimate], list[Option]]] = field(default_factory=dict)
    """By workload that waits: what it may have, rented nodes included, and what it may not."""

    def starts(self, view: WorkloadView, configuration: Configuration, found: Take, why: str) -> None:
        """On nodes that are there."""
        self.seats.take(found)
        self.placements[view.id] = placement(configuration, found)
        self.explain(view, configuration, why)

    def waits(self, view: WorkloadView, why: str) -> None:
        """For nodes, or for devices."""
        self.explain(view, None, why)

    def explain(self, view: WorkloadView, chosen: Configuration | None, why: str) -> None:
        """What it got of what it may have."""
        usable, refused = self.options[view.id]
        rows = [Option(each, reason=None if each.configuration == chosen else BUSY) for each in usable]
        self.explanations[view.id] = Explanation(chosen, why, (*rows, *refused))


class Rents:
    """What all of them have in common."""

    name = ""
    idle_s = IDLE_TIMEOUT_S
    patience_s = PATIENCE_S
    """A type that is not to be had for so long is waited for; in place of one that is away for longer, another."""

    def plan(self, situation: Situation) -> Plan:
        """Keep what runs; serve who waits, in the order they came; give back what stands idle."""
        draft = self._begun(situation)
        self.serve(draft, list(_waiting(draft)))
        if not situation.snapshot.node_types:
            return Plan(situation.cycle, draft.placements, draft.explanations)
        idle = idle_since(situation, draft.placements)
        wanted = {seat.node_id for seat in draft.seats.all if seat.wanted}
        releases = [
            NodeRelease(node_id, f"idle for {situation.now_s - since_s:.0f} s")
            for node_id, since_s in sorted(idle.items())
            if node_id not in wanted and situation.now_s - since_s >= self.idle_s
        ]
        return Plan(
            situation.cycle,
            draft.placements,
            draft.explanations,
            memory={IDLE: idle, **self.notes(draft)},
            requests=draft.seats.requests("for what waits"),
            releases=tuple(releases),
        )

    def _begun(self, situation: Situation) -> Draft:
        running = {view.id: view.placement for view in situation.workloads if view.placement is not None}
        said = {name: Explanation(there.configuration, "runs on") for name, there in running.items()}
        held, now_s = running.values(), situation.now_s
        seats = Seats(situation.snapshot, held, now_s, patience_s=self.patience_s)
        return Draft(situation, seats, Supply(situation.snapshot), dict(running), said)

    def serve(self, draft: Draft, queue: Sequence[WorkloadView]) -> None:
        """A place, or a reason to wait, for everybody in the queue."""
        raise NotImplementedError

    def notes(self, draft: Draft) -> dict[str, list[str]]:
        """What else the next plan must know."""
        del draft
        return {}


class CheapestFit(Rents):
    """Each takes what is the least dollars for it alone, whatever the others do: devices that are free, on their way or
    on new nodes. Devices of a node that is there cost their part of its price, a new node all of it from its request
    on. Idle nodes go back after a fixed time."""

    name = "cheapest-fit"

    def serve(self, draft: Draft, queue: Sequence[WorkloadView]) -> None:
        """One after the other."""
        for view in queue:
            rows = [
                row
                for number, estimate in enumerate(draft.options[view.id][0])
                for row in _offers(draft, view, estimate, number)
            ]
            if not rows:
                draft.waits(view, "waits: no more nodes may be rented for it")
                continue
            best = min(rows, key=lambda row: row.rank)
            seats = [draft.seats.ask(kind) for kind in _kinds(draft, best.new)]
            found = best.found or draft.seats.find(best.wanted, one_node=view.one_node)
            text = f"{best.wanted} is the least dollars: {usd_text(best.usd)}"
            if not seats and found is not None and all(seat.there for seat, _, _ in found):
                draft.starts(view, best.wanted, found, text)
                continue
            draft.seats.take(found or [])
            draft.waits(view, f"waits for nodes: {text}")


@dataclass(frozen=True)
class _Offer:
    """One way to run a workload."""

    wanted: Configuration
    usd: float
    wait_s: float
    number: int
    found: Take
    new: Counter[str]

    @property
    def rank(self) -> tuple[float, float, int]:
        """The least dollars, then the soonest, then as listed."""
        return round(self.usd, 9), self.wait_s, self.number


def _offers(draft: Draft, view: WorkloadView, estimate: Estimate, number: int) -> Iterator[_Offer]:
    """On what is there, on what is on its way as well, and on what new nodes add to either."""
    wanted, seconds = estimate.configuration, _seconds(view, estimate)
    for may in (lambda seat: seat.there, lambda _: True):
        found = draft.seats.find(wanted, one_node=view.one_node, may=may)
        if found is not None:
            kinds = [seat.kind for seat, _, _ in found if seat.kind is not None]
            usd = shares_usd_h(found) * _on_spot_s(seconds, estimate.startup_s, view, kinds) / 3600
            yield _Offer(
                wanted, usd, max((seat.joins_s for seat, _, _ in found), default=0.0), number, found, Counter()
            )
    have = [] if view.one_node else draft.seats.find(wanted, one_node=False, short=True) or []
    for part in (have, []) if have else ([],):
        held = Counter(dict(wanted.groups))
        for _, name, count in part:
            held[name] -= count
        missing = Configuration.of(+held)
        for new in sets_for(missing, draft.situation.snapshot.node_types, one_node=view.one_node):
            if not new or not draft.seats.may_ask(new):
                continue
            kinds = _kinds(draft, new)
            launch_s = max(kind.launch_s for kind in kinds)
            run_s = _on_spot_s(seconds, estimate.startup_s, view, kinds)
            usd = sum(kind.price_usd_h for kind in kinds) * (launch_s + run_s) / 3600
            usd += shares_usd_h(part) * (launch_s + run_s) / 3600
            yield _Offer(wanted, usd, launch_s, number, [], new)


class NoPacking(Rents):
    """One instance a task: every job has nodes of its own, of the type that is the least dollars for it, and they go
    back when it ends. What stays is used first, as it costs nothing more."""

    name = "no-packing"
    idle_s = 0.0

    def serve(self, draft: Draft, queue: Sequence[WorkloadView]) -> None:
        """Nodes that never had work are for the next in the queue that wants such; the rest is asked for."""
        had = _had_work(draft)
        for view in queue:
            owned = next(
                (
                    (each.configuration, found)
                    for each in draft.options[view.id][0]
                    if (found := draft.seats.find(each.configuration, one_node=view.one_node, may=_stays)) is not None
                ),
                None,
            )
            if owned is not None:
                draft.starts(view, *owned, f"{owned[0]} fits on what stays")
                continue
            best = self._best(draft, view, had)
            if best is None:
                draft.waits(view, "waits: no more nodes may be rented for it")
                continue
            wanted, found, usd = best
            for seat, _, _ in found:
                seat.free = dict.fromkeys(seat.free, 0)  # nobody else has anything of it
                seat.wanted = True
            text = f"{wanted} on nodes of its own is the least dollars: {usd_text(usd)}"
            if all(seat.there for seat, _, _ in found):
                draft.placements[view.id] = placement(wanted, found)
                draft.explain(view, wanted, text)
            else:
                draft.waits(view, f"waits for nodes: {text}")

    def _best(self, draft: Draft, view: WorkloadView, had: set[str]) -> tuple[Configuration, Take, float] | None:
        """The set of nodes of least dollars that can be had, with those that are asked for it."""
        rows: list[tuple[float, int, Configuration, Counter[str]]] = []
        for number, estimate in enumerate(draft.options[view.id][0]):
            for new in sets_for(estimate.configuration, draft.situation.snapshot.node_types, one_node=view.one_node):
                kinds = _kinds(draft, new)
                missing = Counter({name: count - len(_fresh(draft, name, had)[:count]) for name, count in new.items()})
                if not kinds or not draft.seats.may_ask(+missing):
                    continue
                run_s = _on_spot_s(_seconds(view, estimate), estimate.startup_s, view, kinds)
                usd_h = sum(kind.price_usd_h for kind in kinds)
                usd = usd_h * (max(kind.launch_s for kind in kinds) + run_s) / 3600
                rows.append((round(usd, 9), number, estimate.configuration, new))
        if not rows:
            return None
        usd, _, wanted, new = min(rows, key=lambda row: (row[0], row[1], sum(row[3].values())))
        seats: list[Seat] = []
        for name, count in sorted(new.items()):
            fresh = _fresh(draft, name, had)[:count]
            kind = next(each for each in draft.situation.snapshot.node_types if each.name == name)
            seats += [*fresh, *(draft.seats.ask(kind) for _ in range(count - len(fresh)))]
        return wanted, _dealt(wanted, seats), usd

    def notes(self, draft: Draft) -> dict[str, list[str]]:
        """Which nodes had their job."""
        used = {node for each in draft.placements.values() for _, node in each.devices}
        rented = {seat.node_id for seat in draft.seats.all if seat.there and seat.kind is not None}
        return {HAD_WORK: sorted((used | _had_work(draft)) & rented)}


def _stays(seat: Seat) -> bool:
    return seat.there and seat.kind is None


def _had_work(draft: Draft) -> set[str]:
    noted = draft.situation.memory.get(HAD_WORK)
    return {each for each in noted if isinstance(each, str)} if isinstance(noted, list | tuple) else set()


def _fresh(draft: Draft, name: str, had: set[str]) -> list[Seat]:
    """Whole nodes of a type that nobody had yet, those that are there first."""
    rows = [
        seat
        for seat in draft.seats.all
        if seat.kind is not None
        and seat.kind.name == name
        and not seat.wanted
        and seat.node_id not in had
        and seat.free == dict(seat.kind.devices)
    ]
    return sorted(rows, key=lambda seat: seat.joins_s)


def _dealt(wanted: Configuration, seats: Sequence[Seat]) -> Take:
    """A gang over whole nodes."""
    found: Take = []
    for name, count in wanted.groups:
        left = count
        for seat in seats:
            taken = min(left, seat.free.get(name, 0))
            left -= taken
            if taken:
                found.append((seat, name, taken))
    return found


def _waiting(draft: Draft) -> Iterator[WorkloadView]:
    """Who could run, there or on rented nodes, in the order they came; the others are explained."""
    queued = [view for view in draft.situation.workloads if view.placement is None]
    for view in sorted(queued, key=lambda view: (view.submitted_s, view.queued_s, view.id)):
        waits = resting(view, draft.situation.now_s)
        usable, refused = list[Estimate](), list[Option]()
        for estimate in view.estimates:
            reason = draft.supply.objection(view, estimate)
            if reason is None or reason.code == "unavailable":
                usable.append(estimate)
            else:
                refused.append(Option(estimate, reason=reason))
        if waits is None and usable:
            draft.options[view.id] = usable, refused
            yield view
        else:
            draft.explanations[view.id] = waits or hopeless(refused)


def _kinds(draft: Draft, new: Counter[str]) -> list[NodeType]:
    """One for each node of a set."""
    return [kind for kind in draft.situation.snapshot.node_types for _ in range(new[kind.name])]


def _seconds(view: WorkloadView, estimate: Estimate) -> float:
    """To the end of what is left, its start-up included; an hour where nothing is known."""
    known = remaining_s(view, estimate)
    return UNKNOWN_S if known is None else known


def _on_spot_s(seconds: float, startup_s: float, view: WorkloadView, kinds: Sequence[NodeType]) -> float:
    """Of a run on such nodes, with what interruptions repeat."""
    spot = [kind for kind in kinds if kind.market == "spot"]
    per_h = sum(kind.interruptions_per_h or 0.0 for kind in spot)
    if not spot or per_h <= 0:
        return seconds
    launch_s = max(kind.launch_s for kind in spot)
    found = interrupted_s(max(1.0, seconds - startup_s), startup_s, per_h, view.resumes, launch_s)
    return found if math.isfinite(found) else 1e9
