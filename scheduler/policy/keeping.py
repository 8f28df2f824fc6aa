"""Who need not be stopped for others, as those could have a rented node. Pure.

The auction gives out what is there: who gains the most from a device has it, and a long job is stopped for a short one.
Where more can be rented that is not all there is: the short one may wait for a node, and the long one saves a restart.
Both are predicted, and what is less money is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import Explanation, Placement, Plan, Situation, WorkloadView
from .bidding import left_s
from .fleet import UNKNOWN_S, Machine
from .prices import value_of_time_usd_h


@dataclass(frozen=True)
class Kept:
    """A plan without stops."""

    placements: Mapping[str, Placement]
    stays: frozenset[str]
    """Workloads that would have been stopped."""
    waits: tuple[WorkloadView, ...]
    """Those that would have begun on their devices, in order of turn."""


def kept(situation: Situation, plan: Plan) -> Kept | None:
    """The plan with everybody left where they run who would be stopped for what begins and is of no higher priority;
    None where nobody is."""
    views = {view.id: view for view in situation.workloads}
    taker: dict[tuple[str, str], set[str]] = {}
    for name, given in plan.placements.items():
        if given != views[name].placement:
            for device in given.devices:
                taker.setdefault(device, set()).add(name)
    stays: set[str] = set()
    gone: set[str] = set()
    nodes = {node.node_id for node in situation.snapshot.nodes if node.devices}
    for view in situation.workloads:
        there = view.placement
        if there is None or view.id in plan.placements or not view.resumes or view.stopping:
            continue
        if any(node_id not in nodes for _, node_id in there.devices):
            continue
        takers = {name for device in there.devices for name in taker.get(device, ())}
        if takers and all(_may_wait(views[name], view) for name in takers):
            stays.add(view.id)
            gone |= takers
    if not stays:
        return None
    placements = {name: each for name, each in plan.placements.items() if name not in gone}
    placements |= {view.id: view.placement for view in situation.workloads if view.id in stays and view.placement}
    waits = tuple(views[name] for name in plan.explanations if name in gone)
    return Kept(placements, frozenset(stays), waits)


def _may_wait(begins: WorkloadView, stays: WorkloadView) -> bool:
    return begins.placement is None and begins.priority <= stays.priority and begins.deadline_s is None


def running_usd(situation: Situation, placements: Mapping[str, Placement], fleet: list[Machine]) -> float:
    """What the time of all that have a place is worth until they end, and the rented nodes until then."""
    usd = sum(each.node_type.price_usd_h * each.busy_until_s / 3600 for each in fleet if each.node_type is not None)
    for view in situation.workloads:
        there = placements.get(view.id)
        listed = next((e for e in view.estimates if there and e.configuration == there.configuration), None)
        if there is not None:
            seconds = None if listed is None else left_s(view, listed)
            usd += value_of_time_usd_h(view.objective) * (UNKNOWN_S if seconds is None else seconds) / 3600
    return usd


def waits_for_a_node(explanation: Explanation) -> Explanation:
    """Of one that would have begun."""
    return Explanation(None, f"waits for a rented node: less money than to stop others for {explanation.chosen}")


def stays_on(view: WorkloadView) -> Explanation:
    """Of one that would have been stopped."""
    assert view.placement is not None
    return Explanation(view.placement.configuration, "stays: others wait for a rented node, which is less money")
