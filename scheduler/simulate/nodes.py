"""When nodes of the simulated cluster are lost and come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cluster.types import DeviceType, Node, Snapshot

from .world import SimulatedCluster


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
    """Losses and returns to come, drawn in the order of the nodes: the same seed is the same run."""

    cluster: SimulatedCluster
    types: Mapping[str, DeviceType]
    failures: Failures
    random: np.random.Generator
    losses: list[tuple[float, Node]] = field(default_factory=list)
    returns: list[tuple[float, Node]] = field(default_factory=list)

    @classmethod
    def of(cls, cluster: SimulatedCluster, snapshot: Snapshot, failures: Failures, seed: int) -> Nodes:
        """Every node's first loss is drawn."""
        nodes = cls(cluster, snapshot.device_types, failures, np.random.default_rng([seed, 1]))
        for node in snapshot.nodes:
            nodes._live(node, 0.0)
        return nodes

    def _live(self, node: Node, now_s: float) -> None:
        per_h = self.failures.per_h
        if node.market == "spot":
            rates_per_h = (self.types[each.device_type].interruptions_per_h or 0.0 for each in node.devices)
            per_h += max(rates_per_h, default=0.0)
        if per_h > 0 and not node.is_head:
            self.losses.append((now_s + float(self.random.exponential(3600 / per_h)), node))

    def next_s(self) -> float:
        """When something happens to a node next."""
        return min((at_s for at_s, _ in (*self.losses, *self.returns)), default=math.inf)

    def apply(self, now_s: float) -> bool:
        """What has happened by now; whether anything has."""
        if self.next_s() > now_s:
            return False
        for at_s, node in sorted((each for each in self.losses if each[0] <= now_s), key=lambda each: each[0]):
            self.losses.remove((at_s, node))
            self.cluster.lose_node(node.node_id)
            tries = int(self.random.geometric(1 - self.failures.launch_failures))
            self.returns.append((at_s + tries * self.failures.launch_s, node))
        for at_s, node in sorted((each for each in self.returns if each[0] <= now_s), key=lambda each: each[0]):
            self.returns.remove((at_s, node))
            self.cluster.add_node(node)
            self._live(node, at_s)
        return True
