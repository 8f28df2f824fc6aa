"""When nodes of the simulated cluster are lost, and come back or are rented anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cluster.fake_provider import FakeProvider
from cluster.types import Node, Snapshot

from .world import SimulatedCluster

GIVE_UP = 1000
"""So many launches of a type that failed in a row show that none ever succeeds."""


@dataclass(frozen=True)
class Failures:
    """How often nodes are lost, and what it takes to have them back."""

    per_h: float
    """Of each node; spot nodes are taken back as often as their catalog says besides."""
    launch_s: float
    """Until a lost node is there again."""
    launch_failures: float
    """Share of the launches that fail, and are tried again."""


@dataclass
class Nodes:
    """Losses and returns to come, drawn in the order of the nodes: the same seed is the same run. What is rented does
    not come back by itself: who wants it again asks the provider."""

    cluster: SimulatedCluster
    snapshot: Snapshot
    failures: Failures
    random: np.random.Generator
    provider: FakeProvider = field(init=False)
    losses: list[tuple[float, Node]] = field(default_factory=list)
    returns: list[tuple[float, Node]] = field(default_factory=list)

    @classmethod
    def of(
        cls, cluster: SimulatedCluster, snapshot: Snapshot, failures: Failures, seed: int, now: Callable[[], float]
    ) -> Nodes:
        """Every node's first loss is drawn."""
        nodes = cls(cluster, snapshot, failures, np.random.default_rng([seed, 1]))
        launches = np.random.default_rng([seed, 2])
        nodes.provider = FakeProvider(
            cluster, now, lambda _: bool(launches.random() < failures.launch_failures), nodes.joined
        )
        for node in snapshot.nodes:
            nodes.joined(node, 0.0)
        return nodes

    def joined(self, node: Node, now_s: float) -> None:
        """A node is there; when it will be lost, if it ever is."""
        per_h = self.failures.per_h
        if node.market == "spot":
            per_h += self._taken_back_per_h(node)
        if per_h > 0 and not node.is_head:
            self.losses.append((now_s + float(self.random.exponential(3600 / per_h)), node))

    def _taken_back_per_h(self, node: Node) -> float:
        kind = self.snapshot.type_of(node)
        if kind is not None:
            return kind.interruptions_per_h or 0.0
        types = self.snapshot.device_types
        return max((types[each.device_type].interruptions_per_h or 0.0 for each in node.devices), default=0.0)

    @property
    def may_come(self) -> bool:
        """Whether a node will or may still join without anything else happening."""
        failed = self.provider.backoff.in_a_row
        waits = not math.isinf(self.provider.next_s()) and all(count < GIVE_UP for count in failed.values())
        return bool(self.returns) or waits

    def next_s(self) -> float:
        """When something happens to a node next."""
        own_s = min((at_s for at_s, _ in (*self.losses, *self.returns)), default=math.inf)
        return min(own_s, self.provider.next_s())

    def apply(self, now_s: float) -> bool:
        """What has happened by now; whether anything has. Nodes that were asked for join when the cluster is looked
        at."""
        if self.next_s() > now_s:
            return False
        for at_s, node in sorted((each for each in self.losses if each[0] <= now_s), key=lambda each: each[0]):
            self.losses.remove((at_s, node))
            if self.snapshot.type_of(node) is not None:
                self.provider.lose(node.node_id)
                continue
            self.cluster.lose_node(node.node_id)
            tries = int(self.random.geometric(1 - self.failures.launch_failures))
            self.returns.append((at_s + tries * self.failures.launch_s, node))
        for at_s, node in sorted((each for each in self.returns if each[0] <= now_s), key=lambda each: each[0]):
            self.returns.remove((at_s, node))
            self.cluster.add_node(node)
            self.joined(node, at_s)
        return True
