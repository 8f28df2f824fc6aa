"""Gavel's policies, as baselines: shares of time from an optimisation over all jobs and device types, turned into
placements round by round. Pure.

Narayanan et al., "Heterogeneity-Aware Cluster Scheduling Policies for Deep Learning Workloads", OSDI 2020. Jobs have
one count of devices (the lowest that is offered of each type) and are moved without regard to what a restart costs, as
there. Deadlines and prices are not looked at, except by `gavel-throughput-per-cost`; budgets are obeyed.
"""

from __future__ import annotations

from dataclasses import replace

from ..types import Estimate, Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from . import gavel_lp
from .candidates import Supply, hopeless, refused, resting, settle, vacated
from .capacity import Capacity
from .gavel_lp import Jobs, Matrix
from .gavel_rounds import Rounds, Table, as_alone, as_times, choose, deficits, fastest_first, restored, shuffled
from .rounds import as_places, placement_in, repeat

_ONE_COUNT = Reason("count", "this policy takes the lowest count of each device type, one type at a time")


class Gavel:
    """The rounds that all of Gavel's policies share; each has its own objective."""

    name = "gavel"
    blind = False
    """Whether the policy does not know which type is faster: types are then filled in another order every round."""
    only_with_share = False
    """Whether what has no share of a type may not have what is left there either."""

    def plan(self, situation: Situation) -> Plan:
        """Begin a round where the last one is over, else keep to it."""
        capacity = vacated(situation)
        table, explanations, others = _table(situation, capacity)
        last = restored(situation.memory, self.name)
        if last is None or last.over(situation):
            state, placements = self._begin(situation, table, last, capacity)
        else:
            state, placements = last, repeat(last.places, table.ids, capacity)
        for index, view in enumerate(table.views):
            explanations[view.id] = _explain(table, index, state, placements.get(view.id), others[view.id])
        return Plan(situation.cycle, placements, explanations, memory=state.plain())

    def objective(self, jobs: Jobs) -> Matrix:
        """Share of its time that each job should spend on each type."""
        raise NotImplementedError

    def _begin(
        self, situation: Situation, table: Table, last: Rounds | None, capacity: Capacity
    ) -> tuple[Rounds, dict[str, Placement]]:
        now_s, number = situation.now_s, 1 if last is None else last.number + 1
        if not table.views:
            return replace(last or Rounds(self.name), number=number, began_s=now_s, places={}), {}
        jobs = table.jobs(now_s, last)
        state = last
        if state is None or state.stale(table, now_s):
            state = Rounds(
                self.name,
                resets=1 if last is None else last.resets + 1,
                reset_s=now_s,
                known=list(table.ids),
                supply=dict(zip(table.types, table.supply, strict=True)),
                shares=as_times(table, self.objective(jobs)),
                received_s={view.id: dict(view.received_s) for view in table.views},
                deficits_s={} if last is None else deficits(last, table, now_s),
                alone=as_alone(table, jobs),
            )
        order = shuffled(table, situation.seed, number) if self.blind else fastest_first(table, jobs)
        chosen = choose(state, table, order, only_with_share=self.only_with_share)
        before = {view.id: there for view in table.views if (there := _was(view, last)) is not None}
        one_node = {view.id for view in table.views if view.one_node}
        placements = settle({name: e.configuration for name, e in chosen.items()}, before, one_node, capacity)
        return replace(state, number=number, began_s=now_s, places=as_places(placements)), placements


class GavelFifo(Gavel):
    """First come, first served; each takes the type with room on which it is fastest, and too wide a one holds up all
    behind it."""

    name = "gavel-fifo"
    only_with_share = True
    objective = staticmethod(gavel_lp.first_come)


class GavelLas(Gavel):
    """Max-min fairness of time, blind to how fast a type is for a job."""

    name = "gavel-las"
    blind = True
    objective = staticmethod(gavel_lp.max_min_fairness_agnostic)


class GavelLasHet(Gavel):
    """Max-min fairness of throughput, relative to an equal share of every type."""

    name = "gavel-las-het"
    objective = staticmethod(gavel_lp.max_min_fairness)


class GavelFinishTimeFairness(Gavel):
    """The least of the worst slowdown against an equal part of the cluster for oneself."""

    name = "gavel-ftf"
    objective = staticmethod(gavel_lp.finish_time_fairness)


class GavelMakespan(Gavel):
    """Everything done as early as possible."""

    name = "gavel-makespan"
    objective = staticmethod(gavel_lp.min_makespan)


class GavelThroughputPerCost(Gavel):
    """The most throughput for a dollar. Where a type has no price, all prices count as equal."""

    name = "gavel-throughput-per-cost"
    objective = staticmethod(gavel_lp.max_throughput_per_cost)


def _table(situation: Situation, capacity: Capacity) -> tuple[Table, dict[str, Explanation], dict[str, list[Option]]]:
    """What may run; what is said of those that cannot; and, for those that can, the configurations not looked at."""
    supply = Supply(situation.snapshot)
    rows: list[tuple[WorkloadView, dict[str, Estimate]]] = []
    explanations: dict[str, Explanation] = {}
    others: dict[str, list[Option]] = {}
    for view in sorted(situation.workloads, key=lambda view: (view.submitted_s, view.id)):
        waits = resting(view, situation.now_s)
        if waits is not None:
            explanations[view.id] = waits
            continue
        usable, options = refused(view, supply)
        cells: dict[str, Estimate] = {}
        for estimate in sorted(usable, key=_narrowest):
            if len(estimate.configuration.groups) == 1:
                cells.setdefault(estimate.configuration.groups[0][0], estimate)
        options += [Option(estimate, reason=_ONE_COUNT) for estimate in usable if estimate not in cells.values()]
        if cells:
            rows.append((view, cells))
            others[view.id] = options
        else:
            explanations[view.id] = hopeless(options)
    types = sorted({name for _, cells in rows for name in cells})
    table = Table(
        tuple(view for view, _ in rows),
        tuple(types),
        tuple(tuple(cells.get(name) for name in types) for _, cells in rows),
        tuple(capacity.free(name) for name in types),
        tuple(situation.snapshot.device_types[name].price_usd_h for name in types),
    )
    return table, explanations, others


def _narrowest(estimate: Estimate) -> tuple[int, bool, float]:
    return estimate.configuration.devices, estimate.seconds is None, estimate.seconds or 0.0


def _was(view: WorkloadView, last: Rounds | None) -> Placement | None:
    return view.placement or (None if last is None else placement_in(last.places, view.id))


def _explain(table: Table, index: int, state: Rounds, placement: Placement | None, others: list[Option]) -> Explanation:
    view, shares = table.views[index], state.shares.get(table.views[index].id)
    chosen = None if placement is None else placement.configuration
    options = list(others)
    for name, estimate in zip(table.types, table.cells[index], strict=True):
        if estimate is None:
            continue
        if estimate.configuration == chosen:
            options.append(Option(estimate))
            continue
        share = "not known yet" if shares is None else f"{shares.get(name, 0.0):.0%}"
        reason = Reason("capacity", f"its share of the time there is {share}")
        options.append(Option(estimate, wait_s=None, reason=reason))
    if chosen is not None:
        share = f"{(shares or {}).get(chosen.groups[0][0], 0.0):.0%}"
        summary = f"{chosen} for this round: its share of the time there is {share}"
    elif shares is None:
        summary = "waits for its share: shares are computed anew every 32 min at most"
    else:
        summary = "waits for its turn: others have received less of their shares"
    if len(view.estimates) > 1:
        listed = {estimate.configuration: place for place, estimate in enumerate(view.estimates)}
        options.sort(key=lambda option: listed[option.estimate.configuration])
    return Explanation(chosen, summary, tuple(options))
