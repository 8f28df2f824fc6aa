"""What a queue would cost on a fleet of nodes: those that are there, on their way, or thought of. Pure.

The queue is predicted by list scheduling: one after the other, in order of turn, takes the configuration of least money
at the earliest moment its devices are free. That is no plan, and which node a gang gets is not looked at closely; but
with and without some nodes it errs alike, so the difference says what the nodes are worth to the whole queue: to those
that run on them, and to those that move up behind them.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cluster.types import Node, NodeType, Snapshot

from ..estimate.money import interruption_rate, spot_run_s
from ..types import Configuration, Estimate, WorkloadView
from .prices import value_of_time_usd_h

NEVER_S = 30 * 24 * 3600.0
"""What cannot run on a fleet is taken to wait this long: worth more than any node it could have."""
CHECKPOINT_EVERY_S = 600.0
"""How often what can go on writes a checkpoint, as far as a loss on spot is concerned."""
UNKNOWN_S = 3600.0
"""What nothing is known of is taken to take this long; what runs and says nothing of its end, to go on as long."""
LATE_USD_H = value_of_time_usd_h("time")
"""What an hour past a deadline is worth on top."""


@dataclass(frozen=True)
class Machine:
    """One node of a fleet."""

    node_id: str
    """Empty of one that is only thought of."""
    devices: tuple[tuple[str, int], ...]
    usd_h: Mapping[str, float]
    """Of one device, by type."""
    node_type: NodeType | None = None
    """Of a rented one."""
    joins_s: float = 0.0
    """Seconds from now until it is there."""
    busy_s: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Seconds from now until each device that is held now becomes free, by type."""
    interruptions_per_h: float = 0.0

    @property
    def busy_until_s(self) -> float:
        """When what runs on it now has ended."""
        return max((at_s for free in self.busy_s.values() for at_s in free), default=0.0)

    @classmethod
    def rented(cls, kind: NodeType, joins_s: float, node_id: str = "") -> Machine:
        """One of a type that may be rented."""
        each_usd_h = kind.price_usd_h / max(1, sum(count for _, count in kind.devices))
        rate = interruption_rate(kind.interruptions_per_h)[0] if kind.market == "spot" else 0.0
        prices = {name: each_usd_h for name, _ in kind.devices}
        return cls(node_id, kind.devices, prices, kind, joins_s, {}, rate)


@dataclass(frozen=True)
class Choice:
    """One configuration that a workload of the queue may have."""

    configuration: Configuration
    work_s: float
    """What is left, without start-up and without what interruptions repeat."""
    startup_s: float
    rest_usd: float
    """Dollars that do not depend on the time."""


@dataclass(frozen=True)
class Job:
    """A workload of the queue. `total_usd`: what it would pay in all without anything new, where somebody says."""

    view: WorkloadView
    time_usd_h: float
    choices: tuple[Choice, ...]
    total_usd: float | None = None
    deadline_in_s: float = math.inf

    def usd(self, end_s: float) -> float:
        """What its time is worth until then."""
        return end_s / 3600 * self.time_usd_h + late_usd(end_s, self.deadline_in_s)


@dataclass(frozen=True)
class Turn:
    """When and where a workload of the queue would run."""

    start_s: float
    machines: frozenset[int]
    """Indices in the fleet."""


@dataclass(frozen=True)
class Prediction:
    """A queue on a fleet."""

    usd: float
    """Money of all workloads, and dollars of the rented nodes they use or that are new."""
    new_usd: float
    """Dollars of the new ones in this."""
    turns: Mapping[str, Turn]
    """By workload; what could never run is missing."""


def job(
    view: WorkloadView,
    usable: Iterable[Estimate],
    time_usd_h: float,
    told: tuple[float | None, float | None],
    now_s: float,
) -> Job:
    """A workload with the configurations that it may have. One whose time is not known is as long as the fastest.
    `told`: the money that somebody predicts for it without anything new, and the seconds that it waits for that."""
    known = [each.seconds for each in view.estimates if each.seconds is not None]
    assumed_s = min(known, default=UNKNOWN_S)
    choices = tuple(_choice(view, each, each.seconds or assumed_s) for each in usable)
    deadline_in_s = math.inf if view.deadline_s is None else view.deadline_s - now_s
    total_usd, wait_s = told
    if total_usd is not None and wait_s is not None:  # what is late costs more than what was predicted
        shortest_s = min((each.startup_s + each.work_s for each in choices), default=0.0)
        total_usd += late_usd(wait_s + shortest_s, deadline_in_s)
    return Job(view, time_usd_h, choices, total_usd, deadline_in_s)


def late_usd(end_s: float, deadline_in_s: float) -> float:
    """What it costs to be done so much after a deadline, on top of the time."""
    late_s = end_s - max(0.0, deadline_in_s)
    return late_s / 3600 * LATE_USD_H if late_s > 0 else 0.0


def _choice(view: WorkloadView, estimate: Estimate, seconds: float) -> Choice:
    rework_s = estimate.breakdown.rework_s if estimate.breakdown is not None and estimate.market == "spot" else 0.0
    work_s = max(1.0, (seconds - estimate.startup_s - rework_s) * view.remaining)
    money = estimate.money
    rest_usd = 0.0 if money is None else money.total_usd - money.compute_usd
    return Choice(estimate.configuration, work_s, estimate.startup_s, rest_usd)


def there(snapshot: Snapshot, node: Node, busy_s: Mapping[str, Sequence[float]]) -> Machine:
    """A node that has joined, rented or not."""
    node_id, kind = node.node_id, snapshot.type_of(node)
    if kind is not None:
        return replace(Machine.rented(kind, 0.0, node_id), busy_s=busy_s)
    devices = tuple((each.device_type, each.total) for each in node.devices)
    types = [snapshot.device_types[name] for name, _ in devices]
    rates = [interruption_rate(each.interruptions_per_h)[0] for each in types if node.market == "spot"]
    prices = {each.name: each.price_usd_h or 0.0 for each in types}
    return Machine(node_id, devices, prices, None, 0.0, busy_s, max(rates, default=0.0))


def predict(fleet: Sequence[Machine], jobs: Sequence[Job], tail_s: Mapping[str, float]) -> Prediction:
    """The queue on this fleet. A rented node that is used is paid for to its last end, a new one (without an id) from
    its request on and for `tail_s` of its type after its last end as well: nobody gives it back at once."""
    line = _Line(fleet)
    usd, turns = 0.0, {}
    for each in jobs:
        found = line.best(each)
        if found is None:
            usd += each.usd(NEVER_S) if each.total_usd is None else each.total_usd
            continue
        on_rented = any(fleet[index].node_type is not None for index in found.turn.machines)
        if on_rented and each.total_usd is not None and each.total_usd <= found.usd:
            usd += each.total_usd  # it pays less without them
            continue
        line.take(found)
        alone = found.usd if on_rented or each.total_usd is None else min(found.usd, each.total_usd)
        usd += alone - found.rented_usd
        turns[each.view.id] = found.turn
    new_usd = 0.0
    for index, machine in enumerate(fleet):
        kind, last_s = machine.node_type, line.last_s.get(index)
        if kind is None or (last_s is None and machine.node_id):
            continue
        seconds = machine.joins_s if last_s is None else last_s
        if machine.node_id:
            usd += max(0.0, seconds - machine.busy_until_s) / 3600 * kind.price_usd_h
        else:
            new_usd += (seconds + tail_s[kind.name]) / 3600 * kind.price_usd_h
    return Prediction(usd + new_usd, new_usd, turns)


_Entry = tuple[float, int]
"""When a device is free, and the machine it is on."""


@dataclass(frozen=True)
class _Found:
    """The best that a workload can have."""

    usd: float
    rented_usd: float
    """The part of it that is dollars of rented devices: they are paid for by the node."""
    turn: Turn
    end_s: float
    devices: Sequence[tuple[str, Sequence[_Entry]]]


class _Line:
    """When each device of a fleet is free, as the queue is served."""

    def __init__(self, fleet: Sequence[Machine]) -> None:
        self._fleet = fleet
        self._on_spot = any(machine.interruptions_per_h > 0 for machine in fleet)
        self._pools: dict[str, list[_Entry]] = {}
        self.last_s: dict[int, float] = {}
        """When the last workload of the queue leaves each machine that any has."""
        for index, machine in enumerate(fleet):
            for name, count in machine.devices:
                busy = list(machine.busy_s.get(name, ()))[:count]
                free = [*busy, *[0.0] * (count - len(busy))]
                pool = self._pools.setdefault(name, [])
                pool += [(max(machine.joins_s, at_s), index) for at_s in free]
        for pool in self._pools.values():
            pool.sort()

    def best(self, each: Job) -> _Found | None:
        """What it takes; None where the fleet holds none of its configurations."""
        found: _Found | None = None
        for choice in each.choices:
            devices = self._devices(choice.configuration, one_node=each.view.one_node)
            if devices is None:
                continue
            start_s = max([entries[-1][0] for _, entries in devices])
            least_usd = each.usd(start_s + choice.startup_s + choice.work_s) + choice.rest_usd
            if found is not None and least_usd >= found.usd:
                continue  # its dollars need not be added up
            used = frozenset([index for _, entries in devices for _, index in entries])
            run_s = self._run_s(each, choice, used)
            if math.isinf(run_s):
                continue
            held_usd, rented_usd = self._dollars(devices, run_s)
            usd = each.usd(start_s + run_s) + held_usd + choice.rest_usd
            if found is None or usd < found.usd:
                found = _Found(usd, rented_usd, Turn(start_s, used), start_s + run_s, devices)
        return found

    def take(self, found: _Found) -> None:
        """It has them until its end."""
        for name, entries in found.devices:
            pool = self._pools[name]
            for entry in entries:
                pool.remove(entry)
                insort(pool, (found.end_s, entry[1]))
        for index in found.turn.machines:
            self.last_s[index] = max(self.last_s.get(index, 0.0), found.end_s)

    def _devices(self, configuration: Configuration, *, one_node: bool) -> list[tuple[str, Sequence[_Entry]]] | None:
        found: list[tuple[str, Sequence[_Entry]]] = []
        for name, count in configuration.groups:
            entries = self._pools.get(name, [])
            taken = _of_one(entries, count) if one_node else entries[:count]
            if len(taken) < count:
                return None
            found.append((name, taken))
        return found

    def _run_s(self, each: Job, choice: Choice, used: Iterable[int]) -> float:
        rate = sum([self._fleet[index].interruptions_per_h for index in used]) if self._on_spot else 0.0
        if rate <= 0:
            return choice.startup_s + choice.work_s
        kinds = [kind for index in used if (kind := self._fleet[index].node_type) is not None]
        launch_s = max((kind.launch_s for kind in kinds), default=0.0)
        return interrupted_s(choice.work_s, choice.startup_s, rate, each.view.resumes, launch_s)

    def _dollars(self, devices: Iterable[tuple[str, Sequence[_Entry]]], run_s: float) -> tuple[float, float]:
        """For holding them, in all and of rented nodes."""
        held = rented = 0.0
        for name, entries in devices:
            for _, index in entries:
                usd = run_s / 3600 * self._fleet[index].usd_h[name]
                held += usd
                rented += usd if self._fleet[index].node_type is not None else 0.0
        return held, rented


def _of_one(entries: Sequence[_Entry], count: int) -> Sequence[_Entry]:
    """The earliest so many on one machine."""
    seen: dict[int, list[_Entry]] = {}
    for entry in entries:
        of_machine = seen.setdefault(entry[1], [])
        of_machine.append(entry)
        if len(of_machine) == count:
            return of_machine
    return ()


@lru_cache(4096)
def interrupted_s(work_s: float, startup_s: float, per_h: float, resumes: bool, launch_s: float) -> float:
    """A run on nodes of which any is taken back so often: what is repeated, and the wait for another node each time."""
    every_s = CHECKPOINT_EVERY_S if resumes else None
    run_s = work_s + startup_s + float(spot_run_s(work_s, startup_s, every_s, 0.0, per_h))
    return run_s * (1 + per_h * launch_s / 3600)
