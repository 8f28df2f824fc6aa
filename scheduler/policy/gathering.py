"""Which rented node to empty: what runs on it goes on elsewhere, and the node goes back. Pure.

A node of eight devices with one long job on it costs as much as a full one. It is emptied where that saves more than it
costs: the restarts, slower devices for some, and that such a node may be wanted again soon. Eva (Chang and
Venkataraman, EuroSys 2025) moves what runs for the same reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.types import NodeType

from ..types import Placement, Situation, WorkloadView
from .bidding import SETTLING_S, left_s
from .candidates import Supply
from .fleet import Job, Machine, Prediction, job, predict
from .prices import value_of_time_usd_h
from .renting_queue import busy_s

EMPTIED = "emptied"
"""The note of a plan that says which nodes are on their way out."""
LOOKED_AT = 4
"""Of so many nodes it is asked whether to empty them, those that waste the most first."""
MARGIN = 0.05
"""What is saved must be more than nothing by this share of what the node costs until its last job ends."""


@dataclass(frozen=True)
class Emptying:
    """What to do about one node."""

    node_id: str
    """Empty where it has to wait until what was asked for is there."""
    moved: frozenset[str] = frozenset()
    """Workloads that go on elsewhere."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Nodes that they would go on, to be asked for first."""
    cause: str = ""


def without_emptied(situation: Situation) -> Situation:
    """As if the nodes that are on their way out had no devices: nothing goes there, and what runs there is placed
    anew."""
    gone = emptied(situation)
    if not gone:
        return situation
    nodes = tuple(replace(node, devices=()) if node.node_id in gone else node for node in situation.snapshot.nodes)
    return replace(situation, snapshot=replace(situation.snapshot, nodes=nodes))


def emptied(situation: Situation) -> frozenset[str]:
    """Of the nodes that the last plan noted those that are still there and rented."""
    noted = situation.memory.get(EMPTIED)
    names = {each for each in noted if isinstance(each, str)} if isinstance(noted, list | tuple) else set()
    if not names:
        return frozenset()
    rented = (node for node in situation.snapshot.nodes if situation.snapshot.type_of(node) is not None)
    return frozenset(node.node_id for node in rented if node.node_id in names)


def emptying(
    situation: Situation,
    placements: Mapping[str, Placement],
    fleet: Sequence[Machine],
    waits: Sequence[Job],
    tail_s: Mapping[str, float],
    may_ask: Callable[[Mapping[str, int]], bool],
) -> Emptying | None:
    """What pays the most of all nodes that could be emptied; None where nothing does. `fleet` is all that is there and
    on its way, `waits` the queue without what runs, `tail_s` how long an idle node of each type is kept."""
    rows = sorted(_candidates(situation, placements, fleet), key=lambda row: (-row[0], row[1].node_id))
    if not rows:
        return None
    if waits:
        return None
    before = predict(fleet, waits, tail_s)
    found = [
        each
        for _, machine, views in rows[:LOOKED_AT]
        if (each := _One(situation, placements, fleet, waits, tail_s, machine, views).best(before, may_ask)) is not None
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


def _candidates(
    situation: Situation, placements: Mapping[str, Placement], fleet: Sequence[Machine]
) -> Iterator[tuple[float, Machine, list[WorkloadView]]]:
    """Nodes on which everything may move, with the dollars an hour of what is free on each."""
    views: dict[str, list[WorkloadView]] = {}
    ours: Counter[str] = Counter()
    stays: set[str] = set()
    for view in situation.workloads:
        there = placements.get(view.id)
        nodes = {node_id for _, node_id in there.devices} if there is not None else set()
        if view.placement is not None and there != view.placement:
            stays |= {node_id for _, node_id in view.placement.devices}  # it leaves anyway: first see what is then free
        if there is None:
            continue
        if there == view.placement and len(nodes) == 1 and _may_move(view):
            for node_id in nodes:
                views.setdefault(node_id, []).append(view)
                ours[node_id] += there.configuration.devices
        else:
            stays |= nodes
    for machine in fleet:
        kind = machine.node_type
        if kind is None or machine.node_id in stays or machine.node_id not in views:
            continue
        held = sum(len(busy) for busy in machine.busy_s.values())
        total = sum(count for _, count in machine.devices)
        if held == ours[machine.node_id] < total:  # else others have some of it
            yield kind.price_usd_h * (1 - held / total), machine, views[machine.node_id]


def _may_move(view: WorkloadView) -> bool:
    """What can go on elsewhere and has run for a while."""
    assert view.placement is not None
    listed = next((e for e in view.estimates if e.configuration == view.placement.configuration), None)
    if listed is None or not view.resumes or view.stopping:
        return False
    return view.held_s >= listed.startup_s + SETTLING_S and left_s(view, listed) is not None


class _One:
    """One node, and what it would be to have it no more."""

    def __init__(
        self,
        situation: Situation,
        placements: Mapping[str, Placement],
        fleet: Sequence[Machine],
        waits: Sequence[Job],
        tail_s: Mapping[str, float],
        machine: Machine,
        views: Sequence[WorkloadView],
    ) -> None:
        assert machine.node_type is not None
        self.situation, self.tail_s, self.kind, self.node_id = situation, tail_s, machine.node_type, machine.node_id
        self.ids = frozenset(view.id for view in views)
        supply = Supply(situation.snapshot)
        self.moved = [_job(situation, view, supply) for view in views]
        self.jobs = [*self.moved, *waits]
        kept = {name: each for name, each in placements.items() if name not in self.ids}
        busy = busy_s(situation, kept)
        self.rest = [
            replace(each, busy_s=busy.get(each.node_id, {})) if each.joins_s <= 0 else each
            for each in fleet
            if each is not machine
        ]
        ends = [(value_of_time_usd_h(view.objective), _left_s(view)) for view in views]
        stays_s = machine.busy_until_s + tail_s[self.kind.name]
        self.node_usd = self.kind.price_usd_h * stays_s / 3600
        self.here_usd = self.node_usd + sum(usd_h * left / 3600 for usd_h, left in ends)
        self.least_usd = MARGIN * self.node_usd + self.kind.price_usd_h * self.kind.launch_s / 3600

    def best(self, before: Prediction, may_ask: Callable[[Mapping[str, int]], bool]) -> tuple[float, Emptying] | None:
        """The dollars saved, and how; None where that is not worth it."""
        now_usd = before.usd + self.here_usd
        outcome = predict(self.rest, self.jobs, self.tail_s)
        saved_usd = now_usd - outcome.usd
        if saved_usd > self.least_usd and all(name in outcome.turns for name in self.ids):
            if all(outcome.turns[name].start_s <= 0 for name in self.ids):
                return saved_usd, Emptying(self.node_id, self.ids, cause=self._cause())
            return None  # what it waits for is on its way
        rows = []
        for new in self._smaller():
            if not may_ask(new):
                continue
            fleet = [*self.rest, *_asked(self.situation, new)]
            found = predict(fleet, self.jobs, self.tail_s)
            usd = found.usd + self.kind.price_usd_h * max(each.joins_s for each in fleet if not each.node_id) / 3600
            if now_usd - usd > self.least_usd and all(name in found.turns for name in self.ids):
                rows.append((now_usd - usd, Emptying("", frozenset(), new, self._cause())))
        return max(rows, key=lambda row: row[0], default=None)

    def _smaller(self) -> Iterator[Counter[str]]:
        """Cheaper nodes for all that runs on it: of one type, as many as hold them."""
        for kind in self.situation.snapshot.node_types:
            sizes, new = dict(kind.devices), 0.0
            for each in self.moved:
                counts = [
                    max(count / sizes[name] for name, count in choice.configuration.groups)
                    for choice in each.choices
                    if all(sizes.get(name) for name, _ in choice.configuration.groups)
                ]
                new += min(counts, default=1e9)
            number = -(-new // 1)
            if 0 < number * kind.price_usd_h < self.kind.price_usd_h:
                yield Counter({kind.name: int(number)})

    def _cause(self) -> str:
        return f"what runs on {self.node_id} is less money elsewhere: the node goes back"


def _job(situation: Situation, view: WorkloadView, supply: Supply) -> Job:
    usable = []
    for estimate in view.estimates:
        reason = supply.objection(view, estimate)
        if reason is None or reason.code == "unavailable":
            usable.append(estimate)
    return job(view, usable, value_of_time_usd_h(view.objective), (None, None), situation.now_s)


def _left_s(view: WorkloadView) -> float:
    assert view.placement is not None
    listed = next(e for e in view.estimates if e.configuration == view.placement.configuration)
    return left_s(view, listed) or 0.0


def _asked(situation: Situation, new: Mapping[str, int]) -> Iterator[Machine]:
    kinds: Sequence[NodeType] = situation.snapshot.node_types
    for kind in kinds:
        for _ in range(new.get(kind.name, 0)):
            yield Machine.rented(kind, max(1.0, kind.launch_s))
