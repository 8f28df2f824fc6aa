"""Which nodes to rent, and which rented ones to give back. Pure.

A node is rented where the money of the whole queue with it (its boot, what runs on it one after another, the time it
stands idle before it is given back) is less than without it (`fleet`). It is given back once it has stood idle for as
long as the next launch would cost: whoever comes next, that is at most twice what the best decision would have cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product

from cluster.types import NodeType
from workloads.quantities import usd_text

from ..types import Configuration, Explanation, NodeRelease, NodeRequest, Placement, Plan, Situation, WorkloadView
from .candidates import Supply, resting
from .fleet import Job, Machine, Prediction, predict, there
from .gathering import EMPTIED, Emptying, emptied, emptying
from .idle import IDLE, idle_since
from .keeping import Kept, kept, running_usd, stays_on, waits_for_a_node
from .prices import value_of_time_usd_h
from .renting_queue import Wait, busy_s, movers, waiting

__all__ = ["IDLE", "Decision", "Wait", "decide", "with_nodes"]

DETAILED = 128
"""So many of the queue are predicted; who waits behind them is not."""
BUNDLES = 48
"""So many sets of nodes are weighed at most, those that the first in the queue could use before others."""
ROUNDS = 6
"""So many different sets of nodes are asked for in one plan, at most."""
MARGIN = 0.05
"""What nodes save must be more than nothing by this share of what they cost: predictions are not that exact."""
LONGEST_KEPT_S = 3600.0
"""No node is kept idle for longer, however cheap it is."""
LEAST_USD_H = 1e-6
"""What is given for nothing is taken to cost this."""


@dataclass(frozen=True)
class Decision:
    """What to rent and give back, and what that means for who waits."""

    requests: tuple[NodeRequest, ...] = ()
    releases: tuple[NodeRelease, ...] = ()
    causes: Mapping[str, str] = field(default_factory=dict)
    """By workload, where there is something to say: the node that is on its way for it, or why there is none."""
    idle: Mapping[str, float] = field(default_factory=dict)
    """Since when each rented node has had nothing to do: a note for the next plan."""
    declined: frozenset[str] = frozenset()
    """Workloads that were given something, would begin again if they were moved, and pay less on a node that is on its
    way."""
    emptied: tuple[str, ...] = ()
    """Nodes on their way out: a note for the next plan, which places what runs on them elsewhere."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """By workload that leaves such a node, why."""


def decide(situation: Situation, waits: Sequence[Wait], placements: Mapping[str, Placement]) -> Decision:
    """`waits` in order of turn. Finds what it noted the last time in `Situation.memory[IDLE]`."""
    if not situation.snapshot.node_types:
        return Decision()
    return _decided(_Renting(situation, waits, placements))


def _decided(renting: _Renting) -> Decision:
    situation, placements = renting.situation, renting.placements
    new, outcome = renting.best()
    requests = tuple(
        NodeRequest(name, count, renting.cause(name, new, outcome)) for name, count in sorted(new.items()) if count
    )
    idle, gone = idle_since(situation, placements), emptied(situation)
    releases = tuple(renting.releases(idle, new, outcome))
    out = tuple(NodeRelease(node_id, "emptied: it goes back") for node_id in sorted(gone & set(idle)))
    found = None if new else renting.emptying()
    if found is not None:
        requests = tuple(NodeRequest(name, count, found.cause) for name, count in sorted(found.asked.items()) if count)
        gone |= {found.node_id} if found.node_id else set()
    return Decision(
        requests,
        (*releases, *out),
        renting.causes(new, outcome),
        idle,
        renting.declined(new, outcome),
        tuple(sorted(gone)),
        {} if found is None else dict.fromkeys(sorted(found.moved), found.cause),
    )


def with_nodes(situation: Situation, plan: Plan, time_usd_h: Mapping[str, float]) -> Plan:
    """A plan with the nodes that its waiting workloads are worth. `time_usd_h` is what the time of each is worth that
    could have had something; its explanations are in order of turn. Without anything to rent, the plan as it is."""
    if not situation.snapshot.node_types:
        return plan
    views = {view.id: view for view in situation.workloads}
    queue = [
        views[name]
        for name in plan.explanations
        if name in views and name not in plan.placements and resting(views[name], situation.now_s) is None
    ]
    waits = [_wait(view, plan.explanations[view.id], time_usd_h.get(view.id)) for view in queue[:DETAILED]]
    waits += [_far_behind(view) for view in queue[DETAILED:]]
    renting = _Renting(situation, waits, plan.placements)
    less = kept(situation, plan)
    if less is not None:
        plan, renting = _cheaper(plan, renting, less, time_usd_h)
    found = _decided(renting)
    return replace(
        plan,
        placements={
            name: each
            for name, each in plan.placements.items()
            if name not in found.declined and name not in found.moved
        },
        explanations=_Said(plan.explanations, found.causes, found.moved),
        memory={**plan.memory, IDLE: dict(found.idle), **({EMPTIED: list(found.emptied)} if found.emptied else {})},
        requests=found.requests,
        releases=found.releases,
    )


def _cheaper(plan: Plan, renting: _Renting, less: Kept, time_usd_h: Mapping[str, float]) -> tuple[Plan, _Renting]:
    """The plan as it is, or the one without stops: what all pay less with."""
    begins = [_wait(view, Explanation(None, ""), time_usd_h.get(view.id)) for view in less.waits]
    waits = [each for each in renting.waits if each.view.id not in less.stays]
    stopped = [
        replace(each, total_usd=None, wait_s=None) if each.view.id in less.stays else each for each in renting.waits
    ]
    other = _Renting(renting.situation, begins + waits, less.placements)
    as_it_is = _Renting(renting.situation, stopped, plan.placements)
    if other.usd() + MARGIN * other.best()[1].new_usd >= as_it_is.usd():
        return plan, renting
    said = {view.id: waits_for_a_node(plan.explanations[view.id]) for view in less.waits}
    said |= {view.id: stays_on(view) for view in renting.situation.workloads if view.id in less.stays}
    explanations = {name: said.get(name, each) for name, each in plan.explanations.items()}
    return replace(plan, placements=less.placements, explanations=explanations), other


def _wait(view: WorkloadView, explanation: Explanation, time_usd_h: float | None) -> Wait:
    """As its explanation says."""
    known = [
        (each.total_usd, each.wait_s) for each in explanation.options if each.total_usd is not None and each.wait_s
    ]
    total_usd, wait_s = min(known, default=(None, None))
    return Wait(view, value_of_time_usd_h(view.objective) if time_usd_h is None else time_usd_h, total_usd, wait_s)


def _far_behind(view: WorkloadView) -> Wait:
    """One of those that are not predicted."""
    return Wait(view, value_of_time_usd_h(view.objective), None, None)


class _Said(Mapping[str, Explanation]):
    """Explanations with what there is to say of nodes. What nobody asks for is not put into words."""

    def __init__(self, before: Mapping[str, Explanation], causes: Mapping[str, str], moved: Mapping[str, str]) -> None:
        self._before, self._causes, self._moved = before, causes, moved

    def __getitem__(self, name: str) -> Explanation:
        if name in self._moved:
            return Explanation(None, f"moves: {self._moved[name]}")
        before, cause = self._before[name], self._causes.get(name)
        return before if cause is None else _explained(before, cause)

    def __iter__(self) -> Iterator[str]:
        return iter(self._before)

    def __len__(self) -> int:
        return len(self._before)


def _explained(explanation: Explanation, cause: str) -> Explanation:
    """What is on its way goes first; what would wait for nothing else waits for that."""
    if explanation.chosen is not None:  # it declines that
        return replace(explanation, chosen=None, summary=f"{cause}; that is less money than {explanation.chosen} now")
    waits = any(option.reason is not None and option.reason.code == "capacity" for option in explanation.options)
    return replace(explanation, summary=f"{cause}; {explanation.summary}" if waits else cause)


class _Renting:
    """What there is, what may be rented, and who would have it."""

    def __init__(self, situation: Situation, waits: Sequence[Wait], placements: Mapping[str, Placement]) -> None:
        self.situation, self.snapshot, self.now_s = situation, situation.snapshot, situation.now_s
        self.placements = placements
        self.rented_usd_h = self.snapshot.rented_usd_h()
        self.present = {
            each.name: len(self.snapshot.rented(each.name)) + each.launching for each in self.snapshot.node_types
        }
        self.types = {each.name: each for each in self.snapshot.node_types}
        self.queue = waiting(situation, waits[:DETAILED])
        self.jobs = [*self.queue, *movers(situation, placements)]
        self.waits = waits
        self.busy_s = busy_s(situation, placements)
        self.machines = [
            *(
                there(self.snapshot, node, self.busy_s.get(node.node_id, {}))
                for node in self.snapshot.nodes
                if node.devices
            ),
            *(
                Machine.rented(kind, max(1.0, at_s - self.now_s), f"launching-{kind.name}-{number}")
                for kind in self.snapshot.node_types
                for number, at_s in enumerate(sorted(kind.joins_s))
            ),
        ]
        self.tail_s = {each.name: self._keep_s(each) for each in self.snapshot.node_types}
        self.without = self.predict(Counter())
        self._best: tuple[Counter[str], Prediction] | None = None

    def _keep_s(self, kind: NodeType) -> float:
        """How long an idle one is kept: until that has cost what the next launch would, the boot and the time of who
        waits for it."""
        names = {name for name, _ in kind.devices}
        worth = [
            value_of_time_usd_h(view.objective)
            for view in self.situation.workloads
            if any(name in names for each in view.estimates for name, _ in each.configuration.groups)
        ]
        time_usd_h = sum(worth) / len(worth) if worth else value_of_time_usd_h("balanced")
        return min(LONGEST_KEPT_S, kind.launch_s * (1 + time_usd_h / max(kind.price_usd_h, LEAST_USD_H)))

    def fleet(self, new: Mapping[str, int]) -> list[Machine]:
        """With so many new nodes."""
        return [*self.machines, *(self._thought_of(self.types[name]) for name in _each(new))]

    def _thought_of(self, kind: NodeType) -> Machine:
        return Machine.rented(kind, kind.launch_s)

    def _is_away(self, kind: NodeType) -> bool:
        """Whether it may not be asked for, as a launch failed. Nobody waits for that to be over who may have something
        else: a cloud that had none may have none for long."""
        return kind.unavailable_until_s is not None and kind.unavailable_until_s > self.now_s

    def predict(self, new: Mapping[str, int]) -> Prediction:
        """The queue with so many new nodes."""
        return predict(self.fleet(new), self.jobs, self.tail_s)

    def usd(self) -> float:
        """What all pay, those that have a place until they end, with the best that may be rented."""
        return self.best()[1].usd + running_usd(self.situation, self.placements, self.machines)

    # Renting

    def best(self) -> tuple[Counter[str], Prediction]:
        """The new nodes of least money. Where the cap is in the way, what saves the most for its share of the cap is
        tried as well."""
        if self._best is None:
            self._best, capped = self._search(per_usd_h=False)
            if capped:
                self._best = min(self._best, self._search(per_usd_h=True)[0], key=lambda each: each[1].usd)
        return self._best

    def _search(self, *, per_usd_h: bool) -> tuple[tuple[Counter[str], Prediction], bool]:
        """Greedily: one set of nodes after the other, the one that saves the most first. Whether the cap was in the
        way of any."""
        new, best, capped = Counter[str](), self.without, False
        bundles = list(islice(_bundles(self), BUNDLES))
        for _ in range(ROUNDS):
            found: tuple[float, Counter[str], Prediction] | None = None
            for bundle in bundles:
                wider, outcome, stopped = self._widened(new, bundle, best)
                capped |= stopped
                if wider is None:
                    continue
                saved = best.usd - outcome.usd
                score = saved / max(self.usd_h(wider) - self.usd_h(new), LEAST_USD_H) if per_usd_h else saved
                if found is None or score > found[0]:
                    found = score, wider, outcome
            if found is None:
                break
            _, new, best = found
        return (new, best), capped

    def _widened(
        self, new: Counter[str], bundle: Counter[str], before: Prediction
    ) -> tuple[Counter[str] | None, Prediction, bool]:
        """As often the bundle as saves the most, found by doubling the step and then halving it; None where even one
        does not pay. Whether the cap stopped it."""
        known: dict[int, Prediction | None] = {0: before}
        capped, growing, times, step = False, True, 0, 1
        while step >= 1:
            for other in (times + step, times - step):
                if other not in known and other > 0:
                    wider = new + _times(bundle, other)
                    fits = self._has_room(wider) and self._is_within_cap(wider)
                    capped |= not fits and self._has_room(wider)
                    known[other] = self.predict(wider) if fits else None
                if _better(times, known[times], other, known.get(other)):
                    times = other
                    break
            else:
                growing = False
            step = step * 2 if growing else step // 2
        best = known[times] or before
        return (new + _times(bundle, times) if times else None), best, capped

    def _has_room(self, new: Mapping[str, int]) -> bool:
        """Whether so many more may be had: of types that are to be had now, up to their most."""
        return all(count <= self.room(self.types[name]) for name, count in new.items())

    def room(self, kind: NodeType) -> int:
        """How many more of a type may be asked for now."""
        if self._is_away(kind):
            return 0
        return max(0, kind.most - self.present[kind.name])

    def usd_h(self, new: Mapping[str, int]) -> float:
        """Dollars an hour of new nodes."""
        return sum(self.types[name].price_usd_h * count for name, count in new.items())

    def _is_within_cap(self, new: Mapping[str, int], less_usd_h: float = 0.0) -> bool:
        cap_usd_h = self.snapshot.rent_cap_usd_h
        return cap_usd_h is None or self.rented_usd_h - less_usd_h + self.usd_h(new) <= cap_usd_h * (1 + 1e-9)

    def cause(self, name: str, new: Mapping[str, int], outcome: Prediction) -> str:
        """Why these are asked for."""
        fleet = self.fleet(new)
        theirs = {index for index, each in enumerate(fleet) if not each.node_id and _type_name(each) == name}
        served = sum(bool(turn.machines & theirs) for turn in outcome.turns.values())
        who = "one workload" if served == 1 else f"{served} workloads"
        alone = {each.view.id for each in self.jobs if each.total_usd is None} - set(self.without.turns)
        if alone & set(outcome.turns):
            return f"{who} would run on it, and what is there cannot hold all that wait"
        saved_usd = self.without.usd - outcome.usd
        return f"{who} would run on it: all together pay {usd_text(saved_usd)} less, its price included"

    def declined(self, new: Mapping[str, int], outcome: Prediction) -> frozenset[str]:
        """Who was given something that it could not leave again, and would have what is on its way."""
        fleet = self.fleet(new)
        return frozenset(
            each.view.id
            for each in self.jobs
            if each.view.id in self.placements
            and not each.view.resumes
            and (turn := outcome.turns.get(each.view.id)) is not None
            and any(fleet[index].joins_s > 0 for index in turn.machines)
        )

    # Giving back

    def releases(self, idle: Mapping[str, float], new: Counter[str], outcome: Prediction) -> Iterator[NodeRelease]:
        """Those that have stood idle for too long, unless somebody will have them soon. Who could have them at once
        has been asked: the plan gave them to nobody. Where the cap keeps others from what they would pay for, those
        that nobody will have go at once."""
        later = [turn for turn in outcome.turns.values() if turn.start_s > 0]
        soon: dict[int, float] = {}
        for turn in sorted(later, key=lambda each: -each.start_s):
            soon |= dict.fromkeys(turn.machines, turn.start_s)
        wanted = {index for turn in outcome.turns.values() for index in turn.machines}
        in_the_way = bool(idle) and self._cap_is_in_the_way(new, outcome, idle)
        for index, machine in enumerate(self.machines):
            kind = machine.node_type
            if kind is None or new[kind.name] or machine.node_id not in idle:
                continue
            keep_s, idle_s = self.tail_s[kind.name], self.now_s - idle[machine.node_id]
            cost = usd_text(kind.price_usd_h)
            if in_the_way and index not in wanted:
                yield NodeRelease(
                    machine.node_id, f"idle, and the cap, of which it takes {cost} an hour, keeps others waiting"
                )
            elif idle_s >= keep_s and soon.get(index, keep_s) >= keep_s:
                why = f"idle for {idle_s:.0f} s at {cost} an hour: a launch costs less by now"
                yield NodeRelease(machine.node_id, why)

    def _cap_is_in_the_way(self, new: Counter[str], outcome: Prediction, idle: Collection[str]) -> bool:
        """Whether more nodes would pay, but for the cap, and could be had if those that are idle were gone."""
        kinds = [each.node_type for each in self.machines if each.node_id in idle]
        idle_usd_h = sum(kind.price_usd_h for kind in kinds if kind is not None)
        return any(
            self._has_room(new + bundle)
            and not self._is_within_cap(new + bundle)
            and self._is_within_cap(new + bundle, less_usd_h=idle_usd_h)
            and _pays(outcome, self.predict(new + bundle))
            for bundle in islice(_bundles(self), BUNDLES)
        )

    def emptying(self) -> Emptying | None:
        """A node that had better be empty."""

        def may_ask(new: Mapping[str, int]) -> bool:
            return self._has_room(new) and self._is_within_cap(new)

        return emptying(self.situation, self.placements, self.machines, self.queue, self.tail_s, may_ask)

    # What is said

    def causes(self, new: Mapping[str, int], outcome: Prediction) -> dict[str, str]:
        """For each that waits what is on its way for it, or, where it can run on rented nodes only, why nothing is."""
        fleet = self.fleet(new)
        found: dict[str, str] = {}
        declined = self.declined(new, outcome)
        for each in self.jobs:
            if each.view.id in self.placements and each.view.id not in declined:
                continue
            turn = outcome.turns.get(each.view.id)
            coming = [] if turn is None else [fleet[index] for index in turn.machines if fleet[index].joins_s > 0]
            if coming:
                last = max(coming, key=lambda machine: machine.joins_s)
                state = "is on its way" if last.node_id else "is asked for"
                found[each.view.id] = f"a node {_type_name(last)} {state}: joins in {_about(last.joins_s)}"
            elif turn is None and each.total_usd is None and (why := self._why_none(each)):
                found[each.view.id] = why
        supply = Supply(self.snapshot)
        for wait in self.waits[DETAILED:]:
            reasons = [supply.objection(wait.view, each) for each in wait.view.estimates]
            if None not in reasons and any(reason is not None and reason.code == "unavailable" for reason in reasons):
                found[wait.view.id] = "waits for a node to be rented: many wait before it"
        return found

    def _why_none(self, each: Job) -> str:
        """Why nothing is rented for one that cannot run on what is there."""
        wanted = {name for choice in each.choices for name, _ in choice.configuration.groups}
        kinds = [kind for kind in self.types.values() if any(name in wanted for name, _ in kind.devices)]
        said = []
        for kind in kinds:
            if self._is_away(kind):
                left_s = (kind.unavailable_until_s or 0.0) - self.now_s
                said.append(f"{kind.name} could not be had, it is asked for again in {_about(left_s)}")
            elif self.room(kind) == 0:
                said.append(f"all {kind.most} {kind.name} are rented")
            elif not self._is_within_cap({kind.name: 1}):
                cap = usd_text(self.snapshot.rent_cap_usd_h or 0.0)
                said.append(f"with {kind.name} the cap of {cap} an hour would be passed")
        return (
            "waits for a node to be rented: " + ("; ".join(said) or "none that may be rented is enough")
            if kinds
            else ""
        )


def _about(seconds: float) -> str:
    return f"about {max(1, round(seconds / 60))} min" if seconds >= 60 else f"about {max(1, round(seconds)):.0f} s"


def _bundles(renting: _Renting) -> Iterator[Counter[str]]:
    """Sets of nodes that somebody who waits could use: enough for a whole configuration, or what is missing for it."""
    seen: set[tuple[tuple[str, int], ...]] = set()
    for configuration in dict.fromkeys(choice.configuration for each in renting.jobs for choice in each.choices):
        for bundle in _for(renting, configuration):
            key = tuple(sorted(bundle.items()))
            if bundle and key not in seen:
                seen.add(key)
                yield bundle


def _for(renting: _Renting, configuration: Configuration) -> Iterator[Counter[str]]:
    """What a gang lacks beside what there is, or all of its nodes as new ones, from each combination of types that
    have its devices."""
    have: Counter[str] = Counter()
    for machine in renting.machines:
        have.update(dict(machine.devices))
    offers = [
        [kind for kind in renting.types.values() if dict(kind.devices).get(name) and renting.room(kind)]
        for name, _ in configuration.groups
    ]
    for there_too in (True, False):
        needs = [(name, count - (have[name] if there_too else 0)) for name, count in configuration.groups]
        wanted = [(kinds, need) for kinds, need in zip(offers, needs, strict=True) if need[1] > 0]
        for kinds in product(*(kinds for kinds, _ in wanted)):
            bundle: Counter[str] = Counter()
            for kind, (_, (name, count)) in zip(kinds, wanted, strict=True):
                bundle[kind.name] = max(bundle[kind.name], -(-count // dict(kind.devices)[name]))
            yield bundle


def _pays(before: Prediction, after: Prediction) -> bool:
    """Whether the nodes that are more save more than nothing."""
    return before.usd - after.usd > MARGIN * max(0.0, after.new_usd - before.new_usd) + 1e-9


def _better(times: int, here: Prediction | None, other: int, there: Prediction | None) -> bool:
    """Whether to go on with another number of the same bundle: with more where those pay, with fewer where they do
    not."""
    if here is None or there is None:
        return False
    return _pays(here, there) if other > times else not _pays(there, here)


def _times(bundle: Counter[str], times: int) -> Counter[str]:
    return Counter({name: count * times for name, count in bundle.items()})


def _each(new: Mapping[str, int]) -> Iterator[str]:
    for name, count in sorted(new.items()):
        yield from [name] * count


def _type_name(machine: Machine) -> str:
    return "" if machine.node_type is None else machine.node_type.name
