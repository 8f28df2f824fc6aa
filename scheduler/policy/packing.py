"""On which node a request goes, so that what stays free there can still be used. Pure, deterministic, numpy.

    Room(types, milli, cpu, memory) of each node -> Nodes -> Packer(nodes, scoring).choose(request) -> Spot | None

The default scoring, `Stranding`, adds up what typical demand could no longer use of the free devices: by one more
request of each kind, as in fragmentation gradient descent (Weng et al., USENIX ATC 2023), and by as many more of each
kind as CPU and memory allow. The second part sees a node whose devices outlast its CPU long before the last one is
stuck. Devices are in thousandths, so that shares of one add up exactly; CPU and memory in any unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

WHOLE = 1000
"""Thousandths of a device."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Request:
    """What is asked of one node: `milli` thousandths of each of so many devices, and CPU and memory in all."""

    devices: int
    milli: int = WHOLE
    cpu: float = 0.0
    memory: float = 0.0
    types: frozenset[str] = frozenset()
    """Device types it may have; empty: any."""


@dataclass(frozen=True)
class Room:
    """What is free on one node."""

    types: tuple[str, ...]
    """Of each device."""
    milli: tuple[int, ...]
    """Free thousandths of each device."""
    cpu: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Spot:
    """Where a request goes: the index of a node and the places of its devices there."""

    node: int
    devices: tuple[int, ...]
    request: Request


class Space(NamedTuple):
    """What is free in some cases: on nodes, or on a node after each way to place a request. Any leading shape."""

    free: Floats
    """[..., devices] thousandths."""
    kind: Ints
    """[..., devices] index of the device type, -1 where there is no device."""
    cpu: Floats
    memory: Floats


class Nodes:
    """What is free on all nodes, as arrays; it changes with what is taken and given back."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        most = max((len(room.milli) for room in rooms), default=0)
        self.types = tuple(sorted({name for room in rooms for name in room.types}))
        index = {name: place for place, name in enumerate(self.types)}
        self.free = np.zeros((len(rooms), most), np.int64)
        self.kind = np.full((len(rooms), most), -1, np.int64)
        for row, room in enumerate(rooms):
            self.free[row, : len(room.milli)] = room.milli
            self.kind[row, : len(room.types)] = [index[name] for name in room.types]
        self.cpu = np.array([room.cpu for room in rooms], np.float64)
        self.memory = np.array([room.memory for room in rooms], np.float64)
        self.changed = np.zeros(len(rooms), np.int64)
        """When each node changed last, in changes."""
        self.changes = 0

    def __len__(self) -> int:
        return len(self.cpu)

    def space(self, rows: Ints) -> Space:
        """What is free on some nodes."""
        return Space(self.free[rows].astype(np.float64), self.kind[rows], self.cpu[rows], self.memory[rows])

    def usable(self, request: Request, rows: Ints | None = None) -> Bools:
        """[nodes, devices]: which devices could serve the request, one by one."""
        free, kind = (self.free, self.kind) if rows is None else (self.free[rows], self.kind[rows])
        return np.asarray((free >= request.milli) & _allowed(request.types, self.types)[kind])

    def fits(self, request: Request, rows: Ints | None = None) -> Bools:
        """[nodes]: where the whole request fits."""
        cpu, memory = (self.cpu, self.memory) if rows is None else (self.cpu[rows], self.memory[rows])
        enough = (cpu >= request.cpu) & (memory >= request.memory)
        return np.asarray(enough & (self.usable(request, rows).sum(axis=1) >= request.devices))

    def take(self, spot: Spot) -> None:
        """Hold a spot. Raises ValueError where it is not free."""
        row, request, devices = spot.node, spot.request, list(spot.devices)
        free = len(set(devices)) == request.devices and bool(self.usable(request, np.array([row]))[0, devices].all())
        if not free or self.cpu[row] < request.cpu or self.memory[row] < request.memory:
            raise ValueError(f"node {row} has no room for {request} on devices {devices}")
        self._add(spot, -1)

    def give_back(self, spot: Spot) -> None:
        """Release a spot that was held."""
        self._add(spot, 1)

    def _add(self, spot: Spot, sign: int) -> None:
        self.free[spot.node, list(spot.devices)] += sign * spot.request.milli
        self.cpu[spot.node] += sign * spot.request.cpu
        self.memory[spot.node] += sign * spot.request.memory
        self.changes += 1
        self.changed[spot.node] = self.changes


class Scoring(Protocol):
    """Says how bad it would be to place a request: the least is taken, the first node of equals."""

    def __call__(self, before: Space, after: Space, request: Request) -> Floats:
        """[nodes, ways] from what is free on each node [nodes] and after each way to place it there [nodes, ways]."""
        ...


class Packer:
    """Chooses nodes by a scoring. What was scored is kept until the node changes: a choice costs only the nodes that
    have changed since a request of the same kind."""

    def __init__(self, nodes: Nodes, scoring: Scoring) -> None:
        self.nodes, self._scoring = nodes, scoring
        self._known: dict[Request, _Scores] = {}

    def choose(self, request: Request) -> Spot | None:
        """The best spot on one node, or None where none has room. Takes nothing."""
        scores = self._known.setdefault(request, _Scores.none(len(self.nodes)))
        rows = np.flatnonzero(scores.seen < self.nodes.changed)
        if len(rows):
            self._score(request, scores, rows)
        if not len(self.nodes) or np.isinf(best := scores.least.min()):
            return None
        row = int(np.flatnonzero(scores.least == best)[0])
        ways, _ = _ways(self.nodes, request, np.array([row]))
        chosen = np.flatnonzero(ways[0, scores.way[row]])
        return Spot(row, tuple(int(device) for device in chosen), request)

    def gang(self, request: Request, count: int) -> tuple[Spot, ...] | None:
        """Spots for `count` shards that each need `request`, on as few nodes as can be found, the fullest last; None
        where they do not fit. Takes nothing."""
        spots: list[Spot] = []
        try:
            while len(spots) < count:
                together = self.choose(_times(request, count - len(spots)))
                row = together.node if together is not None else self._emptiest(request)
                found = self._on_node(request, row, count - len(spots))
                if not found:
                    return None
                spots += found
        finally:
            for spot in spots:
                self.nodes.give_back(spot)
        return tuple(spots)

    def _on_node(self, request: Request, row: int, most: int) -> list[Spot]:
        """Takes up to `most` spots on one node."""
        taken: list[Spot] = []
        while len(taken) < most and bool(self.nodes.fits(request, np.array([row]))[0]):
            usable = np.flatnonzero(self.nodes.usable(request, np.array([row]))[0])
            fullest = usable[np.argsort(self.nodes.free[row, usable], kind="stable")][: request.devices]
            spot = Spot(row, tuple(int(device) for device in fullest), request)
            self.nodes.take(spot)
            taken.append(spot)
        return taken

    def _emptiest(self, request: Request) -> int:
        """The node that holds most of such requests."""
        return int(np.argmax(_copies(self.nodes, request)))

    def _score(self, request: Request, scores: _Scores, rows: Ints) -> None:
        scores.least[rows] = np.inf
        scores.seen[rows] = self.nodes.changes
        rows = rows[self.nodes.fits(request, rows)]
        if not len(rows):
            return
        ways, possible = _ways(self.nodes, request, rows)
        before = self.nodes.space(rows)
        after = Space(
            before.free[:, None, :] - ways * request.milli,
            np.repeat(before.kind[:, None, :], ways.shape[1], axis=1),
            np.repeat(before.cpu[:, None] - request.cpu, ways.shape[1], axis=1),
            np.repeat(before.memory[:, None] - request.memory, ways.shape[1], axis=1),
        )
        found = np.where(possible, self._scoring(before, after, request), np.inf)
        scores.way[rows] = found.argmin(axis=1)
        scores.least[rows] = found.min(axis=1)


@dataclass
class _Scores:
    """What is known of one kind of request: per node the least score, the way that has it, and when it was found."""

    least: Floats
    way: Ints
    seen: Ints

    @classmethod
    def none(cls, nodes: int) -> _Scores:
        return cls(np.full(nodes, np.inf), np.zeros(nodes, np.int64), np.full(nodes, -1, np.int64))


def _ways(nodes: Nodes, request: Request, rows: Ints) -> tuple[Bools, Bools]:
    """Ways to place a request on each node: which devices it takes [nodes, ways, devices], and whether it can
    [nodes, ways]. A share of one device may go on any that has room; else the fullest that have room are taken."""
    usable = nodes.usable(request, rows)
    if request.devices == 1 and request.milli < WHOLE:
        ways = np.eye(usable.shape[1], dtype=np.bool_)[None] & usable[:, :, None]
        return ways, usable
    order = np.argsort(np.where(usable, nodes.free[rows], np.iinfo(np.int64).max), axis=1, kind="stable")
    ways = np.zeros_like(usable)
    np.put_along_axis(ways, order[:, : request.devices], True, axis=1)
    ways &= usable
    return ways[:, None, :], (ways.sum(axis=1) == request.devices)[:, None]


def _allowed(types: frozenset[str], known: Sequence[str]) -> Bools:
    """[device types + 1]: which types serve; the last stands for no device."""
    return np.array([*(not types or name in types for name in known), False], np.bool_)


def _times(request: Request, count: int) -> Request:
    """So many requests as one."""
    devices, cpu, memory = request.devices * count, request.cpu * count, request.memory * count
    return Request(devices, request.milli, cpu, memory, request.types)


def _copies(nodes: Nodes, request: Request) -> Floats:
    """[nodes] how many such requests fit on each node."""
    limits = [np.full(len(nodes), np.inf)]
    if request.devices:
        limits.append(nodes.usable(request).sum(axis=1) // request.devices)
    limits += [free // need for free, need in ((nodes.cpu, request.cpu), (nodes.memory, request.memory)) if need > 0]
    return np.asarray(np.min(limits, axis=0), np.float64)


class Demand:
    """Typical requests with their weights, as arrays: what may still come."""

    def __init__(self, requests: Mapping[Request, float], types: Sequence[str], share: float = 0.95) -> None:
        """The most frequent requests that make up `share` of all; those without devices strand none."""
        kept = [(request, weight) for request, weight in typical(requests, share) if request.devices]
        self.weight = _column(weight for _, weight in kept) / max(sum(weight for _, weight in kept), 1e-9)
        self.devices = _column(request.devices for request, _ in kept)
        self.milli = _column(request.milli for request, _ in kept)
        self.cpu = _column(request.cpu for request, _ in kept)
        self.memory = _column(request.memory for request, _ in kept)
        shapes = sorted({(request.milli, tuple(sorted(request.types))) for request, _ in kept})
        self._shape = np.array([shapes.index((r.milli, tuple(sorted(r.types)))) for r, _ in kept], np.int64)
        self._size = _column(milli for milli, _ in shapes)
        allowed = [_allowed(frozenset(names), types) for _, names in shapes]
        self._allowed = np.array(allowed, np.bool_).reshape(len(shapes), len(types) + 1).T

    def __len__(self) -> int:
        return len(self.weight)

    def usable(self, space: Space) -> tuple[Floats, Floats, Floats]:
        """[..., requests]: devices with room for it, thousandths of these, and how often it fits on them one by one."""
        ratio = np.where(self._allowed[space.kind], space.free[..., None] / self._size, 0.0)
        room = ratio >= 1
        count, milli = room.sum(axis=-2), (space.free[..., None] * room).sum(axis=-2)
        times = np.floor(ratio).sum(axis=-2)
        return count[..., self._shape], milli[..., self._shape], times[..., self._shape]

    def fits(self, space: Space, count: Floats) -> Bools:
        """[..., requests]: whether one more would find devices, CPU and memory."""
        enough = (space.cpu[..., None] >= self.cpu) & (space.memory[..., None] >= self.memory)
        return np.asarray((count >= self.devices) & enough)


def typical(requests: Mapping[Request, float], share: float) -> list[tuple[Request, float]]:
    """The heaviest requests that together have `share` of all weight, the heaviest first."""
    ranked = sorted(requests.items(), key=lambda item: (-item[1], _order(item[0])))
    upto = np.cumsum([weight for _, weight in ranked])
    return [] if not ranked else ranked[: int(np.searchsorted(upto, share * upto[-1])) + 1]


class Stranding:
    """Thousandths of devices that placing a request strands, in expectation over typical demand; of equals the node
    and devices that are left the fullest."""

    TIE = 1e-6

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def __call__(self, before: Space, after: Space, request: Request) -> Floats:
        del request
        rise = self.stranded(after) - self.stranded(before)[:, None]
        return np.asarray(np.round(rise, 3) + self.TIE * (after.free.sum(axis=-1) + 0.1 * after.cpu))

    def stranded(self, space: Space) -> Floats:
        """Free thousandths that one more typical request could not use, plus those that as many as fit could not."""
        demand = self._demand
        total = space.free.sum(axis=-1)
        if not len(demand):
            return np.zeros_like(total)
        count, milli, times = demand.usable(space)
        one_more = np.where(demand.fits(space, count), milli, 0.0)
        times = np.where(demand.devices > 1, np.floor(count / demand.devices), times)
        for free, need in ((space.cpu, demand.cpu), (space.memory, demand.memory)):
            limit = np.divide(free[..., None], need, out=np.full_like(times, np.inf), where=need > 0)
            times = np.minimum(times, limit)
        as_many = times * demand.devices * demand.milli
        return np.asarray(2 * total - (one_more + as_many) @ demand.weight)


def _column(values: Iterable[float]) -> Floats:
    return np.array(list(values), np.float64)


def _order(request: Request) -> tuple[object, ...]:
    return request.cpu, request.milli, request.devices, request.memory, sorted(request.types)
