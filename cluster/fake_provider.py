"""A cloud without a cloud: a `Provider` whose nodes join a `FakeCluster` after their launch time on a virtual clock.
Supported code: unit tests and the simulator run on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from .backoff import Backoff
from .fake import FakeCluster
from .types import Node, NodeType


@dataclass(frozen=True)
class Rental:
    """One node that was asked for: paid for from then until it is given back, taken back, or its launch has failed."""

    node_id: str
    node_type: NodeType
    asked_s: float
    joins_s: float
    """When it joins, or its launch fails."""
    fails: bool = False
    ended_s: float | None = None

    def usd(self, now_s: float) -> float:
        """What it has cost by now; a launch that failed costs nothing."""
        if self.fails:
            return 0.0
        ended_s = now_s if self.ended_s is None else min(now_s, self.ended_s)
        return max(0.0, ended_s - self.asked_s) / 3600 * self.node_type.price_usd_h


class FakeProvider:
    """Rents the `node_types` of a cluster's snapshot; those of its nodes that are of such a type can be given back.

    `fails` says of each launch whether it fails; `on_join` is told of each node that joined, and when. Nodes join and
    launches fail whenever somebody looks at the cluster.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        now: Callable[[], float],
        fails: Callable[[NodeType], bool] = lambda _: False,
        on_join: Callable[[Node, float], None] = lambda *_: None,
    ) -> None:
        self._cluster, self._now, self._fails, self._on_join = cluster, now, fails, on_join
        snapshot = cluster.snapshot()
        self._types = {each.name: replace(each, joins_s=(), unavailable_until_s=None) for each in snapshot.node_types}
        kinds = {node.node_id: kind for node in snapshot.nodes if (kind := snapshot.type_of(node)) is not None}
        began_s = now()
        self._there = {node_id: Rental(node_id, kind, began_s, began_s) for node_id, kind in kinds.items()}
        self._launching: list[Rental] = []
        self._over: list[Rental] = []
        self._leave_s: dict[str, float] = {}
        self._asked: Counter[str] = Counter()
        self.backoff = Backoff()
        cluster.offers_from(self.node_types)

    # Provider

    def request(self, node_type: str, count: int) -> None:
        """Launch as many as are missing to `count`, but never more than may be, and none while the type is not to be
        had. Raises KeyError for a type that is not offered."""
        self._settle()
        kind, now_s = self._types[node_type], self._now()
        if self.backoff.until_s(node_type, now_s) is not None:
            return
        for _ in range(min(count, kind.most) - self._present(node_type)):
            self._asked[node_type] += 1
            taken = {*self._there, *(each.node_id for each in self._over)}
            while (node_id := f"{node_type}-{self._asked[node_type]}") in taken:
                self._asked[node_type] += 1
            self._launching.append(Rental(node_id, kind, now_s, now_s + kind.launch_s, self._fails(kind)))

    def release(self, node_id: str) -> bool:
        """Give a node back; what runs on it fails. Nothing where it is not there, or was never rented."""
        self._settle()
        self.lose(node_id)
        return True

    def drain(self, node_id: str, leaves_s: float, cause: str) -> None:  # noqa: ARG002
        """A rented node is given back at that time; nothing where it is not there, or was never rented."""
        self._settle()
        if node_id in self._there:
            self._leave_s[node_id] = min(leaves_s, self._leave_s.get(node_id, math.inf))
            self._cluster.give_notice(node_id, self._leave_s[node_id])

    # What happens to it

    def lose(self, node_id: str) -> bool:
        """A rented node is gone, given back or taken back: it costs nothing from now on. False where it is no such."""
        rental = self._there.pop(node_id, None)
        if rental is None:
            return False
        self._over.append(replace(rental, ended_s=self._now()))
        self._cluster.lose_node(node_id)
        return True

    def node_types(self) -> tuple[NodeType, ...]:
        """What may be rented now, and what is on its way."""
        self._settle()
        return tuple(
            replace(
                kind,
                joins_s=tuple(each.joins_s for each in self._launching if each.node_type.name == name),
                unavailable_until_s=self.backoff.until_s(name, self._now()),
            )
            for name, kind in self._types.items()
        )

    def rentals(self) -> list[Rental]:
        """All nodes that were ever rented or asked for, in the order they were."""
        return sorted((*self._over, *self._there.values(), *self._launching), key=lambda each: each.asked_s)

    @property
    def launching(self) -> int:
        """How many nodes are on their way, as far as anybody knows."""
        return len(self._launching)

    def next_s(self) -> float:
        """When the next node joins, the next launch fails, or a type may be asked for again; infinite where nothing
        will happen by itself."""
        waits = self.backoff.waits(self._now())
        leave = [at_s for node_id, at_s in self._leave_s.items() if node_id in self._there]
        return min([*(each.joins_s for each in self._launching), *waits, *leave], default=math.inf)

    def _present(self, node_type: str) -> int:
        return sum(each.node_type.name == node_type for each in (*self._there.values(), *self._launching))

    def _settle(self) -> None:
        """Everything that was due by now."""
        for node_id in [name for name, at_s in self._leave_s.items() if at_s <= self._now()]:
            del self._leave_s[node_id]
            self.lose(node_id)
        due = sorted((each for each in self._launching if each.joins_s <= self._now()), key=lambda each: each.joins_s)
        for rental in due:
            self._launching.remove(rental)
            name = rental.node_type.name
            if rental.fails:
                self._over.append(replace(rental, ended_s=rental.joins_s))
                self.backoff.failed(name, rental.joins_s)
                continue
            self.backoff.succeeded(name)
            self._there[rental.node_id] = rental
            node = rental.node_type.node(rental.node_id)
            self._cluster.add_node(node)
            self._on_join(node, rental.joins_s)
