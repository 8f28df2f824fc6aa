"""Desired against observed: the list of actions that bring them together. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cluster.types import Snapshot

from ..policy.capacity import Capacity
from ..store import Record
from ..types import Placement, Plan
from .limits import WORTH_A_START_S, Closed
from .resuming import resumes


@dataclass(frozen=True)
class Start:
    """Begin an attempt of a queued workload on these devices."""

    workload_id: str
    placement: Placement


@dataclass(frozen=True)
class Stop:
    """End the run of a workload."""

    workload_id: str
    cause: str


@dataclass(frozen=True)
class Drop:
    """A workload that does not run is cancelled: nothing to stop."""

    workload_id: str
    cause: str


@dataclass(frozen=True)
class Hold:
    """A workload that waits is paused."""

    workload_id: str


@dataclass(frozen=True)
class Unhold:
    """A paused workload waits again."""

    workload_id: str


@dataclass(frozen=True)
class Rent:
    """Ask for nodes of a type until `total` are there or on their way, which are `more` than now."""

    node_type: str
    more: int
    total: int
    cause: str


@dataclass(frozen=True)
class GiveBack:
    """Give a rented node back."""

    node_id: str
    cause: str


_ROUNDING = 1e-9
"""Of dollars an hour: a cap that is met exactly is not passed."""

Action = Start | Stop | Drop | Hold | Unhold
NodeAction = Rent | GiveBack


@dataclass(frozen=True)
class Refusal:
    """A placement of the plan that does not hold against the fresh snapshot; it is planned anew next cycle."""

    workload_id: str
    message: str


def validate(
    placements: Mapping[str, Placement], records: Sequence[Record], fresh: Snapshot
) -> tuple[dict[str, Placement], list[Refusal]]:
    """Keep what still holds against a fresh snapshot: every device of a new placement is there and free, no device is
    given twice. What runs already is kept as it is."""
    held = {record.id: record.placement for record in records if record.placement is not None}
    capacity = Capacity(fresh, [placement for placement in held.values() if placement is not None])
    valid: dict[str, Placement] = {}
    refused: list[Refusal] = []
    for workload_id, placement in placements.items():
        if workload_id in held:
            valid[workload_id] = placement
        elif capacity.holds(placement):
            capacity.take(placement)
            valid[workload_id] = placement
        else:
            refused.append(Refusal(workload_id, f"{placement.configuration} is no longer free"))
    return valid, refused


def within_month(
    valid: Mapping[str, Placement], records: Sequence[Record], plan: Plan, closed: Closed
) -> tuple[dict[str, Placement], list[Refusal]]:
    """Of what may begin, that which its queue's month can pay for: what could not be stopped and go on later as a
    whole, the others for a while."""
    if not closed.left_usd:
        return dict(valid), []
    left = dict(closed.left_usd)
    kept, refused = dict(valid), list[Refusal]()
    for record in records:
        if record.id not in valid or record.state != "queued" or record.queue not in left:
            continue
        usd = _first_usd(plan, record, valid[record.id])
        if usd <= left[record.queue]:
            left[record.queue] -= usd
            continue
        del kept[record.id]
        message = (
            f"it would need ${usd:.2f} to begin, and queue {record.queue} has ${left[record.queue]:.2f} left this month"
        )
        refused.append(Refusal(record.id, message))
    return kept, refused


def _first_usd(plan: Plan, record: Record, placement: Placement) -> float:
    """Dollars without which it is not begun; 0 where nothing is known."""
    explanation = plan.explanations.get(record.id)
    for option in explanation.options if explanation is not None else ():
        estimate = option.estimate
        if estimate.configuration != placement.configuration or estimate.money is None:
            continue
        if not resumes(record):
            return estimate.money.total_usd
        least_s = estimate.startup_s + record.grace_s + WORTH_A_START_S
        return min(estimate.money.total_usd, least_s / 3600 * (estimate.price_usd_h or 0.0))
    return 0.0


def reconcile(
    plan: Plan,
    valid: Mapping[str, Placement],
    records: Sequence[Record],
    closed: Closed | None = None,
    leaving: Mapping[str, str] | None = None,
    must_go: Collection[str] = (),
) -> list[Action]:
    """What to do now, stops before starts so that devices are free in time. `closed` are the queues that hold nothing
    more this month; `leaving` says of workloads whose nodes will be gone why they are stopped, those in
    `must_go` even where they would begin again."""
    stops: list[Action] = []
    starts: list[Action] = []
    for record in records:
        if record.state in ("starting", "running"):
            cause = _why_stop(record, plan, closed.why if closed is not None else {}, leaving or {})
            if cause is None and record.id in must_go and leaving is not None:
                cause = leaving[record.id]
            if cause is not None:
                stops.append(Stop(record.id, cause))
        elif record.cancel_requested and record.state in ("pending", "queued", "paused"):
            stops.append(Drop(record.id, "cancelled by the user"))
        elif record.paused and record.state == "queued":
            stops.append(Hold(record.id))
        elif record.state == "paused" and not record.paused:
            starts.append(Unhold(record.id))
        elif record.state == "queued" and record.id in valid and not record.cancel_requested:
            starts.append(Start(record.id, valid[record.id]))
    return stops + starts


def _why_stop(record: Record, plan: Plan, spent: Mapping[str, str], leaving: Mapping[str, str]) -> str | None:
    """Why what runs is to be stopped; None where it goes on. What would begin again only stops for its user: it may end
    before its node does."""
    if record.cancel_requested or record.paused:
        return "cancelled by the user" if record.cancel_requested else record.pause_cause or "paused by the user"
    if not resumes(record):
        return None
    if record.queue in spent or record.id in leaving:
        return spent.get(record.queue) or leaving[record.id]
    if record.id not in plan.placements:
        return _why(plan, record, "the plan wants its devices")
    if plan.placements[record.id] != record.placement:
        return _why(plan, record, f"the plan moves it to {plan.placements[record.id].configuration}")
    return None


def _why(plan: Plan, record: Record, otherwise: str) -> str:
    explanation = plan.explanations.get(record.id)
    return explanation.summary if explanation is not None and explanation.summary else otherwise


def reconcile_nodes(
    plan: Plan, valid: Mapping[str, Placement], records: Sequence[Record], fresh: Snapshot
) -> list[NodeAction]:
    """Of the nodes that the plan would rent or give back what still holds against a fresh snapshot: within the most of
    each type and the cap of all, only what is rented, and only what nothing runs on or is about to start on."""
    actions: list[NodeAction] = []
    usd_h = fresh.rented_usd_h()
    kinds = {kind.name: kind for kind in fresh.node_types}
    for request in plan.requests:
        kind = kinds.get(request.node_type)
        if kind is None:
            continue
        present = len(fresh.rented(kind.name)) + kind.launching
        more = min(request.count, kind.most - present)
        if fresh.rent_cap_usd_h is not None and kind.price_usd_h > 0:
            more = min(more, int((fresh.rent_cap_usd_h - usd_h) / kind.price_usd_h + _ROUNDING))
        if more > 0:
            usd_h += more * kind.price_usd_h
            actions.append(Rent(kind.name, more, present + more, request.cause))
    placements = [*valid.values(), *(record.placement for record in records if record.placement is not None)]
    used = {node_id for placement in placements for _, node_id in placement.devices}
    idle = {
        node.node_id
        for node in fresh.nodes
        if fresh.type_of(node) is not None
        and node.leaves_s is None
        and all(each.free >= each.total for each in node.devices)
    }
    spare = {kind.name: len(fresh.rented(kind.name)) - kind.least for kind in fresh.node_types}
    types = {node.node_id: node.node_type for node in fresh.nodes}
    for each in plan.releases:
        if each.node_id in idle - used and spare[types[each.node_id]] > 0:
            spare[types[each.node_id]] -= 1
            actions.append(GiveBack(each.node_id, each.cause))
    return actions
