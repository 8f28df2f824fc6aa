"""What Ray's autoscaler would rent, to compare `market` with. Pure.

After Ray's own code (python/ray/autoscaler/v2/scheduler.py): what is pending goes on nodes that are there or on their
way; then, one after the other, the new node that scores best is asked for. The score is, in this order: labels match;
no node with accelerators for what needs none; the number of resource types used; the least and the mean utilisation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cluster.types import NodeType

from ..types import Configuration, WorkloadView
from .rental_baselines import Draft, Rents
from .rental_seats import Take


class RayAutoscaler(Rents):
    """What Ray's autoscaler (v2) does with jobs that name a number of devices and no type, but keep to one type: first
    fit, and new nodes by Ray's own score, in which there is no price. A type that cannot be had is asked for again and
    again."""

    name = "ray-autoscaler"
    patience_s = math.inf

    def serve(self, draft: Draft, queue: Sequence[WorkloadView]) -> None:
        """First fit on what is there; then nodes for gangs, the largest first, then for all single devices together."""
        left = [view for view in queue if not self._first_fit(draft, view)]
        gangs = [view for view in left if _size(draft, view) > 1]
        for view in sorted(gangs, key=lambda view: -_size(draft, view)):
            self._gang(draft, view)
        self._singles(draft, [view for view in left if _size(draft, view) <= 1])

    def _first_fit(self, draft: Draft, view: WorkloadView) -> bool:
        for estimate in draft.options[view.id][0]:
            wanted = estimate.configuration
            found = draft.seats.find(wanted, one_node=view.one_node, may=lambda seat: seat.there)
            if found is not None:
                draft.starts(view, wanted, found, f"{wanted} is the first configuration that fits")
                return True
        return False

    def _gang(self, draft: Draft, view: WorkloadView) -> None:
        """On nodes that are on their way, or on new ones: the type of the node that scores best, then node by node."""
        usable = draft.options[view.id][0]
        for estimate in usable:
            found = draft.seats.find(estimate.configuration, one_node=view.one_node)
            if found is not None:
                draft.seats.take(found)
                return draft.waits(view, f"waits for nodes that are on their way: {estimate.configuration}")
        ranked = sorted(usable, key=lambda each: _best_score(draft, each.configuration, view), reverse=True)
        for estimate in ranked:
            if self._grows(draft, view, estimate.configuration):
                return draft.waits(view, f"waits for new nodes: {estimate.configuration}")
        return draft.waits(view, "waits: no more nodes may be rented for it")

    def _grows(self, draft: Draft, view: WorkloadView, wanted: Configuration) -> bool:
        """Ask for what a gang lacks; nothing where it cannot be had whole."""
        missing = Counter(dict(wanted.groups))
        have = draft.seats.find(wanted, one_node=False, short=True) or []
        for _, name, count in () if view.one_node else have:
            missing[name] -= count
        new: Counter[str] = Counter()
        while +missing:
            rows = [
                (_score(kind, missing), -number, kind)
                for number, kind in enumerate(draft.situation.snapshot.node_types)
                if draft.seats.may_ask(new + Counter({kind.name: 1})) and _fits(kind, missing, one_node=view.one_node)
            ]
            if not rows:
                return False
            kind = max(rows, key=lambda row: row[:2])[2]
            new[kind.name] += 1
            missing -= Counter(dict(kind.devices))
        for kind in draft.situation.snapshot.node_types:
            for _ in range(new[kind.name]):
                draft.seats.ask(kind)
        found = draft.seats.find(wanted, one_node=view.one_node)
        if found is not None:
            draft.seats.take(found)
        return True

    def _singles(self, draft: Draft, queue: Sequence[WorkloadView]) -> None:
        """Each on what is on its way; then new nodes for all that are left, each time the node that scores best with
        as many of them on it as fit."""
        left = []
        for view in queue:
            found = _anywhere(draft, view)
            if found is None:
                left.append(view)
                continue
            draft.seats.take(found)
            draft.waits(view, "waits for a node that is on its way")
        while left:
            rows = [
                (_score(kind, on), -number, kind, names)
                for number, kind in enumerate(draft.situation.snapshot.node_types)
                if draft.seats.room(kind)
                for on, names in [_filled(draft, kind, left)]
                if names
            ]
            if not rows:
                break
            _, _, kind, names = max(rows, key=lambda row: row[:2])
            seat = draft.seats.ask(kind)
            for view in [each for each in left if each.id in names]:
                found = [(seat, name, 1) for name in [names[view.id]] if name]
                draft.seats.take(found)
                draft.waits(view, f"waits for a new node: {kind.name}")
            left = [each for each in left if each.id not in names]
        for view in left:
            draft.waits(view, "waits: no more nodes may be rented for it")


def _score(kind: NodeType, wanted: Counter[str]) -> tuple[int, float, float]:
    """Ray's: the number of resource types used, the least and the mean utilisation, the larger node's counting for more
    (`v * util ** 3` in `SchedulingNode._compute_score`). That all labels match is known; only devices are counted."""
    sizes = dict(kind.devices)
    used = {name: min(count, wanted[name]) for name, count in sizes.items()}
    worth = [size * (used[name] / size) ** 3 for name, size in sizes.items() if size]
    return sum(count > 0 for count in used.values()), min(worth, default=0.0), sum(worth) / max(1, len(worth))


def _best_score(draft: Draft, wanted: Configuration, view: WorkloadView) -> tuple[int, float, float, int]:
    """Of the nodes that may be had for it; equal scores go to the type that is listed first."""
    need = Counter(dict(wanted.groups))
    return max(
        (
            (*_score(kind, need), -number)
            for number, kind in enumerate(draft.situation.snapshot.node_types)
            if draft.seats.room(kind) and _fits(kind, need, one_node=view.one_node)
        ),
        default=(0, 0.0, 0.0, -len(draft.situation.snapshot.node_types)),
    )


def _fits(kind: NodeType, missing: Counter[str], *, one_node: bool) -> bool:
    sizes = dict(kind.devices)
    if one_node:
        return all(sizes.get(name, 0) >= count for name, count in missing.items())
    return any(sizes.get(name, 0) > 0 and count > 0 for name, count in missing.items())


def _filled(draft: Draft, kind: NodeType, queue: Sequence[WorkloadView]) -> tuple[Counter[str], dict[str, str]]:
    """As many single devices as one such node holds: by type, and the type that each workload gets."""
    left, used, names = Counter(dict(kind.devices)), Counter[str](), dict[str, str]()
    for view in queue:
        for estimate in draft.options[view.id][0]:
            held = [name for name, _ in estimate.configuration.groups]
            if all(left[name] > 0 for name in held):
                names[view.id] = held[0] if held else ""
                left.subtract(held)
                used.update(held)
                break
    return used, names


def _anywhere(draft: Draft, view: WorkloadView) -> Take | None:
    for estimate in draft.options[view.id][0]:
        found = draft.seats.find(estimate.configuration, one_node=view.one_node)
        if found is not None:
            return found
    return None


def _size(draft: Draft, view: WorkloadView) -> int:
    return max((each.configuration.devices for each in draft.options[view.id][0]), default=0)
