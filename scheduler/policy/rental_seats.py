"""What is free on nodes that are there, on their way or asked for in this plan: for simple policies that rent. Pure.

`market` predicts a whole queue instead (`fleet`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cluster.types import NodeType, Snapshot

from ..types import Configuration, NodeRequest, Placement

ROUNDING = 1e-9
"""Relative, of the cap."""


@dataclass
class Seat:
    """One node with what is free on it."""

    node_id: str
    """Empty of one that is not there yet."""
    kind: NodeType | None
    """None of a node that stays."""
    free: dict[str, int]
    joins_s: float = 0.0
    """Seconds from now."""
    wanted: bool = False
    """Whether somebody who waits will have a part of it."""

    @property
    def there(self) -> bool:
        """Whether it has joined."""
        return bool(self.node_id)


Take = list[tuple[Seat, str, int]]
"""So many devices of a type from each seat."""


class Seats:
    """All nodes of a situation, those on their way, and those that are asked for as the plan is made."""

    def __init__(self, snapshot: Snapshot, held: Iterable[Placement], now_s: float, *, patience_s: float) -> None:
        """`held`: placements that keep their devices. `patience_s`: a type that is not to be had now is waited
        for as long as that, and counts as if it could be asked for."""
        ours = Counter(device for placement in held for device in placement.devices)
        self._snapshot, self._now_s, self._patience_s = snapshot, now_s, patience_s
        self._asked: Counter[str] = Counter()
        self._usd_h = snapshot.rented_usd_h()
        self.all: list[Seat] = []
        for node in snapshot.nodes:
            free = {
                each.device_type: min(each.free, each.total - ours[each.device_type, node.node_id])
                for each in node.devices
            }
            self.all.append(Seat(node.node_id, snapshot.type_of(node), free))
        for kind in snapshot.node_types:
            self.all += [Seat("", kind, dict(kind.devices), max(1.0, at_s - now_s)) for at_s in sorted(kind.joins_s)]

    def find(
        self,
        configuration: Configuration,
        *,
        one_node: bool,
        may: Callable[[Seat], bool] = lambda _: True,
        short: bool = False,
    ) -> Take | None:
        """Seats for a whole gang: for each type the tightest that holds it whole, else the emptiest first; those that
        are there before the others. None where there is not enough; with `short` as much as there is."""
        if one_node:
            return self._on_one(configuration, may)
        found: Take = []
        for name, count in configuration.groups:
            rows = [seat for seat in self.all if seat.free.get(name, 0) > 0 and may(seat)]
            whole = [seat for seat in rows if seat.free[name] >= count]
            if whole:
                found.append((min(whole, key=lambda seat: (seat.joins_s, seat.free[name])), name, count))
                continue
            left = count
            for seat in sorted(rows, key=lambda seat: (seat.joins_s, -seat.free[name])):
                taken = min(left, seat.free[name])
                left -= taken
                if taken:
                    found.append((seat, name, taken))
            if left and not short:
                return None
        return found

    def _on_one(self, configuration: Configuration, may: Callable[[Seat], bool]) -> Take | None:
        rows = [seat for seat in self.all if may(seat) and _holds(seat.free, configuration)]
        best = min(
            rows,
            key=lambda seat: (seat.joins_s, sum(seat.free[name] for name, _ in configuration.groups)),
            default=None,
        )
        return None if best is None else [(best, name, count) for name, count in configuration.groups]

    def take(self, found: Take) -> None:
        """They are free no more, and not to be given back."""
        for seat, name, count in found:
            seat.free[name] -= count
            seat.wanted = True

    def room(self, kind: NodeType) -> int:
        """How many more of a type may be asked for: up to its most, within the cap."""
        until_s = kind.unavailable_until_s
        if until_s is not None and until_s - self._now_s > self._patience_s:
            return 0
        more = kind.most - len(self._snapshot.rented(kind.name)) - kind.launching - self._asked[kind.name]
        cap_usd_h = self._snapshot.rent_cap_usd_h
        if cap_usd_h is not None and kind.price_usd_h > 0:
            more = min(more, int((cap_usd_h - self._usd_h) / kind.price_usd_h + ROUNDING))
        return max(0, more)

    def may_ask(self, kinds: Mapping[str, int]) -> bool:
        """Whether so many of each may be asked for together."""
        known = {kind.name: kind for kind in self._snapshot.node_types}
        cap_usd_h = self._snapshot.rent_cap_usd_h
        usd_h = self._usd_h + sum(known[name].price_usd_h * count for name, count in kinds.items())
        within = cap_usd_h is None or usd_h <= cap_usd_h * (1 + ROUNDING)
        return within and all(self.room(known[name]) >= count for name, count in kinds.items())

    def ask(self, kind: NodeType) -> Seat:
        """One more of a type."""
        self._asked[kind.name] += 1
        self._usd_h += kind.price_usd_h
        seat = Seat("", kind, dict(kind.devices), max(1.0, kind.launch_s))
        self.all.append(seat)
        return seat

    def requests(self, cause: str) -> tuple[NodeRequest, ...]:
        """All that were asked for and are to be had now."""
        away = {
            kind.name
            for kind in self._snapshot.node_types
            if kind.unavailable_until_s is not None and kind.unavailable_until_s > self._now_s
        }
        return tuple(NodeRequest(name, n, cause) for name, n in sorted(self._asked.items()) if name not in away)


def placement(configuration: Configuration, found: Take) -> Placement:
    """On seats that are there."""
    return Placement(configuration, tuple((name, seat.node_id) for seat, name, count in found for _ in range(count)))


def shares_usd_h(found: Take) -> float:
    """Dollars an hour of what is taken, as a part of each rented node's price; what stays is paid for anyway."""
    return sum(
        seat.kind.price_usd_h * count / max(1, sum(n for _, n in seat.kind.devices))
        for seat, _, count in found
        if seat.kind is not None
    )


def sets_for(configuration: Configuration, kinds: Iterable[NodeType], *, one_node: bool) -> Iterator[Counter[str]]:
    """Sets of equal new nodes for each group of a gang: as many of one type as hold it."""
    offered = list(kinds)
    if one_node:
        yield from (Counter({kind.name: 1}) for kind in offered if _holds(dict(kind.devices), configuration))
        return
    found = [Counter[str]()]
    for name, count in configuration.groups:
        each = [(kind.name, dict(kind.devices)[name]) for kind in offered if dict(kind.devices).get(name)]
        found = [before | Counter({kind: -(-count // size)}) for before in found for kind, size in each]
    yield from found


def _holds(free: Mapping[str, int], configuration: Configuration) -> bool:
    return all(free.get(name, 0) >= count for name, count in configuration.groups)
