"""Which devices are free on which node, and where a gang would go. Shared by all policies. Pure, deterministic."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from cluster.types import Snapshot

from ..types import Configuration, Placement


class Capacity:
    """Free devices per (node, type). What Ray reports as used and what our own placements hold overlap in ways that
    cannot be seen for a few seconds after a start, so the larger of the two is taken."""

    def __init__(self, snapshot: Snapshot, held: Iterable[Placement] = ()) -> None:
        ours: Counter[tuple[str, str]] = Counter()
        for placement in held:
            ours.update((node_id, device_type) for device_type, node_id in placement.devices)
        self._free: dict[tuple[str, str], int] = {}
        self._lent: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()
        self._nodes: dict[str, list[str]] = {}
        self._whole: dict[tuple[str, str], int] = {}
        for node in snapshot.nodes:
            for devices in node.devices:
                key = (node.node_id, devices.device_type)
                used = max(devices.total - devices.free, ours[key])
                self._free[key] = max(0, devices.total - used)
                self._totals[devices.device_type] += self._free[key]
                self._nodes.setdefault(devices.device_type, []).append(node.node_id)
                self._whole[key] = devices.total

    def copy(self) -> Capacity:
        """One that changes by itself."""
        found = copy.copy(self)
        found._free, found._lent, found._totals = dict(self._free), self._lent.copy(), self._totals.copy()
        return found

    def free(self, device_type: str) -> int:
        """Free devices of a type on all nodes."""
        return self._totals[device_type]

    def fits(self, configuration: Configuration, *, one_node: bool = False) -> bool:
        """Whether the whole gang could start now."""
        return self.place(configuration, one_node=one_node) is not None

    def holds(self, placement: Placement) -> bool:
        """Whether every device of a placement is free on the node it names."""
        wanted = Counter((node_id, device_type) for device_type, node_id in placement.devices)
        return all(self._free.get(key, 0) >= count for key, count in wanted.items())

    def place(self, configuration: Configuration, *, one_node: bool = False) -> Placement | None:
        """Nodes for the whole gang, or None: the tightest node that holds a group whole, else the emptiest nodes
        first (never with `one_node`). Takes nothing."""
        devices: list[tuple[str, str]] = []
        for name, count in configuration.groups:
            chosen = self._nodes_for(name, count)
            if chosen is None:
                return None
            devices += [(name, node_id) for node_id in chosen]
        if one_node and len({node_id for _, node_id in devices}) > 1:
            return None
        return Placement(configuration, tuple(devices))

    def take(self, placement: Placement) -> None:
        """Mark the devices of a placement as held, as far as they are not kept for others."""
        for device_type, node_id in placement.devices:
            if self._free.get((node_id, device_type), 0) > 0:
                self._free[node_id, device_type] -= 1
                self._totals[device_type] -= 1

    def release(self, placement: Placement) -> None:
        """Undo `take`."""
        for device_type, node_id in placement.devices:
            self._free[node_id, device_type] += 1
            self._totals[device_type] += 1

    def lend(self, placement: Placement, times: int = 1) -> None:
        """Of the free devices, these run something that may be moved or stopped: they are taken after others. With
        -1, they are free like the others again."""
        for device_type, node_id in placement.devices:
            self._lent[node_id, device_type] += times

    def reserve(self, configuration: Configuration, *, one_node: bool = False) -> None:
        """Keep what is free of these types from those that come after, up to the counts wanted; for who needs one node,
        on the one that has the most of it free of those that are large enough."""
        only = self._best_node(configuration) if one_node else None
        for name, count in configuration.groups:
            for node in self._nodes.get(name, ()) if only is None else [only]:
                key = (node, name)
                taken = min(count, self._free.get(key, 0))
                self._free[key] -= taken
                self._totals[name] -= taken
                count -= taken  # noqa: PLW2901  (what is still to be reserved)

    def _best_node(self, configuration: Configuration) -> str | None:
        large = [
            node
            for node in self._nodes.get(configuration.groups[0][0], ())
            if all(self._whole.get((node, name), 0) >= count for name, count in configuration.groups)
        ]
        free = {
            node: sum(min(n, self._free.get((node, name), 0)) for name, n in configuration.groups) for node in large
        }
        return min(large, key=lambda node: (-free[node], node), default=None)

    def _nodes_of(self, device_type: str) -> list[tuple[str, int]]:
        return [(node, self._free[node, device_type]) for node in self._nodes.get(device_type, ())]

    def _nodes_for(self, device_type: str, count: int) -> list[str] | None:
        if self._totals[device_type] < count:
            return None
        nodes = [(free, node) for node, free in self._nodes_of(device_type) if free > 0]
        idle = {node: free - self._lent[node, device_type] for free, node in nodes}
        whole = [(max(0, count - idle[node]), free, node) for free, node in nodes if free >= count]
        if whole:
            return [min(whole)[2]] * count
        chosen: list[str] = []
        for free, node in sorted(nodes, key=lambda item: (-idle[item[1]], -item[0], item[1])):
            chosen += [node] * min(free, count - len(chosen))
        return chosen
