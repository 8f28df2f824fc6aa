"""Rents nodes through Ray's own autoscaler, whatever it launches them with.

A node is asked for by a *seat*: each rented node has one, and a placement group that wants a seat of a type, and is
not placed, makes Ray launch a node of that very type. Ray Data and Ray Train overwrite what `request_resources` asks
for, but no placement groups. Seats are detached and their names say when they were asked for: a service that starts
again finds what is on its way. When all have joined, the seats are given up, and who runs there is Ray's own affair.

Ray asks for what it could not have again and again. So a launch that failed, or that takes far too long, is given up
here: its seat goes, its type is not to be had for a while, and the next plan takes another.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .backoff import FIRST_S, Backoff
from .gcs import ControlService, Launches, NamedThing
from .inventory import NodeFacts, Offer
from .protocols import ClusterUnreachable
from .types import NODE_TYPE_LABEL, Launching

log = logging.getLogger(__name__)

SEAT_NAME = "raywise-seat"
LATE_FACTOR, LATE_S = 3.0, 60.0
"""A launch that takes so many times as long as it should, and so many seconds more, is given up."""
STALE_S = 15.0
"""What Ray's autoscaler says may be so old: it looks every 5 s."""
REMEMBERED = 5
"""So many launches of each type say how long one takes."""
FORCE_S = 5.0
"""A node that was given notice has so long after it to go by itself."""
NOT_LAUNCHED = "Ray's autoscaler could not launch it (its log, monitor.log on the head, says why)"


@dataclass(frozen=True)
class _Seat:
    node_type: str
    asked_s: float
    group: NamedThing


class RayProvider:
    """A `Provider` on a cluster that Ray's autoscaler runs. What may be rented are the `offers`; `first_backoff_s` is
    for clusters whose launches take seconds."""

    def __init__(
        self,
        service: ControlService,
        offers: Iterable[Offer],
        clock: Callable[[], float],
        first_backoff_s: float = FIRST_S,
    ) -> None:
        self._service, self._clock = service, clock
        self._offers = {each.node_type: each for each in offers}
        self._backoff = Backoff(first_backoff_s)
        self._lock = threading.Lock()
        self._seats: dict[str, list[_Seat]] = {name: [] for name in self._offers}
        self._joined: Counter[str] = Counter()
        self._took_s: dict[str, list[float]] = {name: [] for name in self._offers}
        self._joined_s: dict[str, list[float]] = {name: [] for name in self._offers}
        """When the last of each type joined."""
        self._why: dict[str, str] = {}
        self._counted: set[tuple[str, float, str]] = set()
        self._begun = False
        self._leaving: Counter[str] = Counter()
        self._type_of: dict[str, str] = {}
        self._ends_s: dict[str, float] = {}
        """Nodes that were given notice from here, and when they are to be gone."""
        self._strange: set[str] = set()
        """Nodes that joined with other devices than promised: they are given back."""
        self.failures: Counter[str] = Counter()
        """Launches of each type that failed, since this provider was made."""

    # Provider

    def request(self, node_type: str, count: int) -> None:
        """Ask for nodes of a type until so many are there or on their way. Raises KeyError for a type that is not
        offered, ClusterUnreachable."""
        offer = self._offers[node_type]
        with self._lock:
            now_s = self._clock()
            if self._backoff.until_s(node_type, now_s) is not None:
                return
            seats = self._seats[node_type]
            # Each that is there takes a seat as well, so that Ray launches one for each that is missing. One that will
            # be gone takes none, though it is among those that are there.
            for _ in range(min(count, offer.most) - self._leaving[node_type] - len(seats)):
                name = f"{SEAT_NAME}:{node_type}:{now_s:.3f}:{len(seats)}"
                group = self._service.ask_for_seat(name, node_type)
                seats.append(_Seat(node_type, now_s, group))

    def release(self, node_id: str) -> bool:
        """Give a node back; False where something runs on it, or it holds the only copy of something. Raises
        ClusterUnreachable."""
        return self._service.drain(node_id, "nobody needs it")

    def drain(self, node_id: str, leaves_s: float, cause: str) -> None:
        """Give a node notice: nothing begins there any more, and at `leaves_s` (Unix seconds) it is ended, whatever
        runs there. What is on its way of its type is not waited for any longer. Raises ClusterUnreachable."""
        with self._lock:
            self._service.drain(node_id, cause, leaves_s)
            self._ends_s[node_id] = leaves_s
            if node_id in self._type_of:
                self._give_up(self._type_of[node_id], len(self._seats[self._type_of[node_id]]))

    # Observation

    def observed(self, nodes: Sequence[NodeFacts], launches: Launches) -> dict[str, Launching]:
        """What is on its way of each type, and what is not to be had just now. Raises ClusterUnreachable."""
        with self._lock:
            now_s = self._clock()
            self._find_seats()
            self._end_what_is_over(nodes, now_s)
            if not self._begun:  # what was before this service is no news
                self._begun = True
                self._counted = {(each.node_type, each.at_s, each.why) for each in launches.failed}
                for name in self._offers:
                    self._joined[name] = len(self._staying(name, nodes))
            for offer in self._offers.values():
                self._settle(offer, nodes, launches, now_s)
            return {
                name: self._launching(offer, launches.pending.get(name, 0), now_s)
                for name, offer in self._offers.items()
            }

    def _find_seats(self) -> None:
        found: dict[str, list[_Seat]] = {name: [] for name in self._offers}
        for group in self._service.placement_groups():
            seat = _seat_of(group)
            if seat is None:
                continue
            if seat.node_type in found:
                found[seat.node_type].append(seat)
            else:  # of a type that is offered no more
                self._service.remove_placement_group(group)
        for seats in found.values():
            seats.sort(key=lambda each: (each.asked_s, each.group.name))
        self._seats = found

    def _settle(self, offer: Offer, nodes: Sequence[NodeFacts], launches: Launches, now_s: float) -> None:
        """Give up the seats of what has joined, failed, or takes too long."""
        name = offer.node_type
        there = self._there(name, nodes)
        self._look_at(offer, there, now_s)
        self._type_of |= {node.node_id: name for node in there}
        joined = len(self._staying(name, nodes))
        self._leaving[name] = len(there) - joined
        if joined < self._joined[name]:  # their seats would have Ray launch others in their place
            self._give_up(name, self._joined[name] - joined, oldest=0)
        self._joined_s[name] = [each for each in self._joined_s[name] if now_s - each < STALE_S]
        if joined > self._joined[name]:
            self._joined_s[name] += [now_s] * (joined - self._joined[name])
            took_s = [now_s - each.asked_s for each in self._seats[name][self._joined[name] : joined]]
            self._took_s[name] = (self._took_s[name] + took_s)[-REMEMBERED:]
            self._backoff.forget(name)
        self._joined[name] = joined
        coming = self._seats[name][joined:]
        if not coming:
            self._give_up(name, len(self._seats[name]))
            return
        for failure in launches.failed:
            key = (name, failure.at_s, failure.why)
            if failure.node_type == name and failure.at_s >= int(coming[0].asked_s) and key not in self._counted:
                self._counted.add(key)
                self._failed(name, now_s, failure.why or NOT_LAUNCHED)
                self._give_up(name, failure.count)
        late_s = max(offer.launch_s, self._launch_s(offer)) * LATE_FACTOR + LATE_S
        late = [each for each in self._seats[name][joined:] if now_s > each.asked_s + late_s]
        if late:
            self._failed(name, now_s, f"it was asked for and had not joined after {late_s:.0f} s")
            self._give_up(name, len(late), oldest=joined)

    def _there(self, name: str, nodes: Sequence[NodeFacts]) -> list[NodeFacts]:
        return [node for node in nodes if node.labels.get(NODE_TYPE_LABEL) == name and not node.is_head]

    def _staying(self, name: str, nodes: Sequence[NodeFacts]) -> list[NodeFacts]:
        there = self._there(name, nodes)
        return [node for node in there if node.node_id not in self._strange and node.leaves_s is None]

    def _end_what_is_over(self, nodes: Sequence[NodeFacts], now_s: float) -> None:
        """Ray lets a drained node be until nothing runs there: whoever drained it ends it when its time is over."""
        here = {node.node_id for node in nodes}
        self._ends_s = {name: at_s for name, at_s in self._ends_s.items() if name in here}
        for node_id in [name for name, at_s in self._ends_s.items() if now_s > at_s + FORCE_S]:
            log.warning("node %s has not gone by itself: it is ended", node_id)
            try:
                self._service.end_node(node_id)
            except ClusterUnreachable as error:  # the others must not wait for it
                log.warning("node %s does not end: %s", node_id, error)

    def _look_at(self, offer: Offer, there: Iterable[NodeFacts], now_s: float) -> None:
        """A node that has other devices than promised is given back: nothing was planned for it."""
        for node in there:
            if node.node_id in self._strange or node.leaves_s is not None:
                continue
            wrong = [
                f"{node.total.get(name, 0.0):g} {name} in place of {amount:g}"
                for name, amount in offer.devices.items()
                if node.total.get(name, 0.0) < amount
            ]
            if not wrong:
                continue
            try:
                self._service.drain(node.node_id, "it has other devices than promised", now_s + 1.0)
            except ClusterUnreachable as error:  # it is tried again; the others must not wait for it
                log.warning("node %s cannot be drained: %s", node.node_id, error)
                continue
            self._ends_s[node.node_id] = now_s + 1.0
            self._strange.add(node.node_id)
            self._failed(offer.node_type, now_s, f"a node of it joined with {', '.join(wrong)}")
            self._give_up(offer.node_type, 1, oldest=0)

    def _failed(self, name: str, now_s: float, why: str) -> None:
        self.failures[name] += 1
        self._why[name] = why
        self._backoff.failed(name, now_s)
        log.warning("node type %s could not be had: %s", name, why)

    def _give_up(self, name: str, count: int, oldest: int | None = None) -> None:
        """Remove so many seats: the newest, or the oldest from a place on."""
        seats = self._seats[name]
        gone = seats[oldest : oldest + count] if oldest is not None else seats[max(0, len(seats) - count) :]
        for seat in gone:
            self._service.remove_placement_group(seat.group)
        self._seats[name] = [each for each in seats if each not in gone]

    def _launch_s(self, offer: Offer) -> float:
        """What the last launches of a type took; as it was written where there was none."""
        took_s = self._took_s[offer.node_type]
        return median(took_s) if took_s else offer.launch_s

    def _launching(self, offer: Offer, pending: int, now_s: float) -> Launching:
        """What Ray launches is on its way, whether it is still asked for or not: it is paid for. Ray says so for some
        time of what has just joined."""
        name = offer.node_type
        until_s, launch_s = self._backoff.until_s(name, now_s), self._launch_s(offer)
        joins_s = [each.asked_s + launch_s for each in self._seats[name][self._joined[name] :]]
        joins_s += [now_s + launch_s] * (pending - len(joins_s) - len(self._joined_s[name]))
        return Launching(
            joins_s=tuple(joins_s),
            unavailable_until_s=until_s,
            why="" if until_s is None else self._why[name],
            launch_s=launch_s if self._took_s[name] else None,
        )


def _seat_of(group: NamedThing) -> _Seat | None:
    """The seat that a placement group stands for; None of any other group."""
    prefix, _, rest = group.name.partition(":")
    if prefix != SEAT_NAME:
        return None
    node_type, asked_s, _ = rest.rsplit(":", 2)
    return _Seat(node_type, float(asked_s), group)
