"""Which devices are free on which node, and where a gang would go. Shared by all policies. Pure, deterministic.

A *slot* is the devices of one type on one node; what is free is an array over the slots, so that a cluster of thousands
of nodes is looked through at once.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cluster.types import Snapshot

from ..types import Configuration, Placement

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_FAR = np.iinfo(np.int64).max
_TIMES = 1 << 32
"""More than there are devices in a slot: two numbers are compared one after the other as one."""


class Known(Protocol):
    """Configurations by number."""

    types: list[str]

    @property
    def use(self) -> Ints:
        """Devices that each holds: configurations x types."""
        ...


@dataclass(frozen=True)
class _Layout:
    """The slots of a cluster; it does not change."""

    slot: dict[tuple[str, str], int]
    """By (node, device type)."""
    of_device: dict[tuple[str, str], int]
    """By (device type, node), as placements name them."""
    nodes: list[str]
    """Of each slot."""
    total: Ints
    """Devices of each slot."""
    of_type: dict[str, Ints]
    """Slots of each type, by node id: the order in which equally good ones are taken."""
    as_listed: dict[str, list[int]]
    """Slots of each type, as the snapshot lists them."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Layout:
        slot: dict[tuple[str, str], int] = {}
        total: list[int] = []
        listed: dict[str, list[int]] = {}
        for node in snapshot.nodes:
            for each in node.devices:
                slot[node.node_id, each.device_type] = len(total)
                listed.setdefault(each.device_type, []).append(len(total))
                total.append(each.total)
        nodes = [node for node, _ in slot]
        ordered = {name: np.array(sorted(rows, key=nodes.__getitem__)) for name, rows in listed.items()}
        of_device = {(name, node): number for (node, name), number in slot.items()}
        return cls(slot, of_device, nodes, np.array(total, dtype=np.int64), ordered, listed)


class Capacity:
    """Free devices per slot. What Ray reports as used and what our own placements hold overlap in ways that cannot be
    seen for a few seconds after a start, so the larger of the two is taken."""

    def __init__(
        self, snapshot: Snapshot, held: Iterable[Placement] = (), given_back: Iterable[Placement] = ()
    ) -> None:
        """`held`: placements that keep their devices; `given_back`: those whose devices count as free, although they
        are not yet."""
        self._layout = _Layout.of(snapshot)
        reported = [each.free for node in snapshot.nodes for each in node.devices]
        back, ours = self._counts(given_back), self._counts(held)
        total = self._layout.total
        free = np.minimum(total, np.array(reported, dtype=np.int64) + back)
        self._free: Ints = np.maximum(0, total - np.maximum(total - free, ours))
        self._lent: Ints = np.zeros(len(total), dtype=np.int64)
        self._totals: Counter[str] = Counter(
            {name: int(self._free[rows].sum()) for name, rows in self._layout.of_type.items()}
        )
        self._placed: dict[tuple[Configuration, bool], Placement | None] = {}
        self._enough: Flags | None = None
        self.changes = 0
        """How often what is free has changed."""

    def _changed(self) -> None:
        """What was found out about places is true no more."""
        self.changes += 1
        self._placed.clear()
        self._enough = None

    def _counts(self, placements: Iterable[Placement]) -> Ints:
        """Devices of each slot that these hold."""
        held = self._slots(placements)
        return np.bincount(held[held >= 0], minlength=len(self._layout.total)).astype(np.int64)

    def _slots(self, placements: Iterable[Placement]) -> Ints:
        """The slot of each of their devices; -1 where there is none."""
        devices = chain.from_iterable(each.devices for each in placements)
        return np.fromiter(map(self._layout.of_device.get, devices, repeat(-1)), dtype=np.int64)

    def copy(self) -> Capacity:
        """One that changes by itself."""
        found = copy.copy(self)
        found._free, found._lent, found._totals = self._free.copy(), self._lent.copy(), self._totals.copy()
        found._placed, found._enough = {}, None
        return found

    def free(self, device_type: str) -> int:
        """Free devices of a type on all nodes."""
        return self._totals[device_type]

    @property
    def any_free(self) -> bool:
        """Whether any device is free."""
        return any(count > 0 for count in self._totals.values())

    def has(self, configuration: Configuration) -> bool:
        """Whether as many are free as are wanted, on whatever nodes."""
        return all(self._totals[name] >= count for name, count in configuration.groups)

    def enough(self, known: Known) -> Flags:
        """By number of a configuration: whether as many are free as are wanted, on whatever nodes."""
        if self._enough is None or len(self._enough) != len(known.use):
            free = np.array([self._totals[name] for name in known.types], dtype=np.int64)
            self._enough = np.asarray((known.use <= free).all(axis=1))
        return self._enough

    def fits(self, configuration: Configuration, *, one_node: bool = False) -> bool:
        """Whether the whole gang could start now."""
        return self.place(configuration, one_node=one_node) is not None

    def holds(self, placement: Placement) -> bool:
        """Whether every device of a placement is free on the node it names."""
        wanted = Counter(placement.devices)
        slot = self._layout.slot
        return all(
            (number := slot.get((node, name))) is not None and self._free[number] >= count
            for (name, node), count in wanted.items()
        )

    def place(self, configuration: Configuration, *, one_node: bool = False) -> Placement | None:
        """Nodes for the whole gang, or None: the tightest node that holds a group whole, else the emptiest nodes
        first (never with `one_node`). Takes nothing."""
        if not self.has(configuration):
            return None
        key = configuration, one_node
        if key not in self._placed:  # many ask for the same
            self._placed[key] = self._place(configuration, one_node)
        return self._placed[key]

    def _place(self, configuration: Configuration, one_node: bool) -> Placement | None:
        if one_node and len(configuration.groups) > 1:
            return self._on_one_node(configuration)
        devices: list[tuple[str, str]] = []
        for name, count in configuration.groups:
            chosen = self._nodes_for(name, count)
            devices += [(name, node_id) for node_id in chosen]
        if one_node and len(set(devices)) > 1:
            return None
        return Placement(configuration, tuple(devices))

    def _on_one_node(self, configuration: Configuration) -> Placement | None:
        """The node with the least of the first type to spare that has all of them."""
        (first, most), *others = configuration.groups
        slot = self._layout.slot
        rows = []
        for number in self._layout.of_type.get(first, ()):
            node = self._layout.nodes[number]
            rest = [(slot.get((node, name)), count) for name, count in others]
            if self._free[number] >= most and all(n is not None and self._free[n] >= count for n, count in rest):
                rows.append((max(0, most - int(self._free[number] - self._lent[number])), self._free[number], node))
        if not rows:
            return None
        node = min(rows)[2]
        return Placement(
            configuration, tuple((name, node) for name, count in configuration.groups for _ in range(count))
        )

    def take(self, placement: Placement) -> None:
        """Mark the devices of a placement as held, as far as they are not kept for others."""
        self._changed()
        for name, node in placement.devices:
            number = self._layout.slot.get((node, name))
            if number is not None and self._free[number] > 0:
                self._free[number] -= 1
                self._totals[name] -= 1

    def release(self, placement: Placement) -> None:
        """Undo `take`."""
        self._changed()
        for name, node in placement.devices:
            self._free[self._layout.slot[node, name]] += 1
            self._totals[name] += 1

    def lend(self, placement: Placement, times: int = 1) -> None:
        """Of the free devices, these run something that may be moved or stopped: they are taken after others. With
        -1, they are free like the others again."""
        self._changed()
        for name, node in placement.devices:
            number = self._layout.slot.get((node, name))
            if number is not None:
                self._lent[number] += times

    def lend_all(self, placements: Iterable[Placement]) -> None:
        """`lend` of many placements."""
        self._changed()
        self._lent += self._counts(placements)

    def take_all(self, placements: Iterable[Placement]) -> bool:
        """`take` of many placements that are lent: all of them, or none where one does not hold beside the others."""
        slots = self._slots(placements)
        if not len(slots):
            return True
        if slots.min() < 0:
            return False
        counts = np.bincount(slots, minlength=len(self._free))
        if (counts > self._free).any():
            return False
        self._changed()
        self._free -= counts
        self._lent -= counts
        self._totals.subtract({name: int(counts[rows].sum()) for name, rows in self._layout.of_type.items()})
        return True

    def reserve(self, configuration: Configuration, *, one_node: bool = False) -> None:
        """Keep what is free of these types from those that come after, up to the counts wanted; for who needs one node,
        on the one that has the most of it free of those that are large enough."""
        self._changed()
        only = self._best_node(configuration) if one_node else None
        for name, count in configuration.groups:
            rows = self._layout.as_listed.get(name, []) if only is None else [self._layout.slot[only, name]]
            for number in rows:
                taken = min(count, int(self._free[number]))
                self._free[number] -= taken
                self._totals[name] -= taken
                count -= taken  # noqa: PLW2901  (what is still to be reserved)

    def _best_node(self, configuration: Configuration) -> str | None:
        slot, total = self._layout.slot, self._layout.total
        large = [
            node
            for number in self._layout.as_listed.get(configuration.groups[0][0], ())
            if all(
                (other := slot.get((node := self._layout.nodes[number], name))) is not None and total[other] >= count
                for name, count in configuration.groups
            )
        ]
        free = {
            node: sum(min(n, int(self._free[slot[node, name]])) for name, n in configuration.groups) for node in large
        }
        return min(large, key=lambda node: (-free[node], node), default=None)

    def _nodes_for(self, device_type: str, count: int) -> list[str]:
        """A node for each device; as many as wanted are free."""
        slots = self._layout.of_type[device_type]
        free = self._free[slots]
        idle = free - self._lent[slots]
        whole = free >= count
        if whole.any():
            tight = np.where(whole, np.maximum(0, count - idle) * _TIMES + free, _FAR)
            return [self._layout.nodes[slots[tight.argmin()]]] * count
        chosen: list[str] = []
        for place in np.lexsort((-free, -idle)):
            if free[place] > 0:
                chosen += [self._layout.nodes[slots[place]]] * min(int(free[place]), count - len(chosen))
            if len(chosen) == count:
                break
        return chosen
