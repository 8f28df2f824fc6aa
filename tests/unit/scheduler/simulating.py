"""Runs a policy to the end of a set of workloads on a virtual clock, and the best that any schedule could have done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

from cluster.types import Snapshot
from scheduler.policy import Policy
from scheduler.policy.prices import value_of_time_usd_h
from scheduler.types import Estimate, Placement, Situation, WorkloadView


@dataclass(frozen=True)
class Run:
    """What became of one workload."""

    started_s: float
    ended_s: float
    estimate: Estimate


def simulate(policy: Policy, where: Snapshot, views: Sequence[WorkloadView], limit_s: float = 1e7) -> dict[str, Run]:
    """Plan at every arrival and every end; what is predicted comes true. `queued_s` is when a workload arrives."""
    waiting = {view.id: view for view in views}
    running: dict[str, tuple[WorkloadView, Placement, Run]] = {}
    done: dict[str, Run] = {}
    prices: Mapping[str, float] = {}
    now_s, cycle = 0.0, 0
    while (waiting or running) and now_s < limit_s:
        seen = [view for view in waiting.values() if view.queued_s <= now_s]
        seen += [
            replace(view, placement=placement, remaining=(run.ended_s - now_s) / max(run.ended_s - run.started_s, 1e-9))
            for view, placement, run in running.values()
        ]
        cycle += 1
        plan = policy.plan(Situation(cycle, now_s, 0, where, tuple(seen), prices))
        prices = plan.congestion_usd_h
        check(plan.placements.values(), where)
        for name, placement in plan.placements.items():
            if name in waiting:
                view = waiting.pop(name)
                estimate = next(e for e in view.estimates if e.configuration == placement.configuration)
                assert estimate.seconds is not None
                running[name] = (view, placement, Run(now_s, now_s + estimate.seconds, estimate))
            else:
                assert running[name][1] == placement, "what runs was moved"
        upcoming = [run.ended_s for _, _, run in running.values()]
        upcoming += [view.queued_s for view in waiting.values() if view.queued_s > now_s]
        if not upcoming:
            return done  # what still waits can never start
        now_s = min(upcoming)
        for name in [name for name, (_, _, run) in running.items() if run.ended_s <= now_s]:
            done[name] = running.pop(name)[2]
    return done


def check(placements: object, where: Snapshot) -> None:
    """No device is held twice and every gang is whole."""
    held: Counter[tuple[str, str]] = Counter()
    for placement in placements:  # type: ignore[attr-defined]
        assert Counter(name for name, _ in placement.devices) == Counter(dict(placement.configuration.groups))
        held.update((node_id, name) for name, node_id in placement.devices)
    there = {(node.node_id, each.device_type): each.total for node in where.nodes for each in node.devices}
    assert all(count <= there.get(key, 0) for key, count in held.items()), f"held twice: {held}"


def money_of(runs: Mapping[str, Run], views: Sequence[WorkloadView]) -> float:
    """Dollars of the devices, and of the time until each workload is done."""
    assert set(runs) == {view.id for view in views}
    total = 0.0
    for view in views:
        run = runs[view.id]
        assert run.estimate.money is not None
        time_usd = (run.ended_s - view.queued_s) / 3600 * value_of_time_usd_h(view.objective)
        total += run.estimate.money.total_usd + time_usd
    return total


def best_money(where: Snapshot, views: Sequence[WorkloadView]) -> float:
    """The least total money of any schedule without preemption: every order, every configuration, each placed at the
    earliest moment it fits (some such schedule is optimal where later never costs less)."""
    supply = {name: where.total(name) for name in where.device_types}
    choices = [
        [
            e
            for e in view.estimates
            if e.infeasible is None and all(supply.get(n, 0) >= c for n, c in e.configuration.groups)
        ]
        for view in views
    ]
    best = math.inf
    for chosen in product(*choices):
        for order in permutations(range(len(views))):
            placed: dict[int, tuple[float, float]] = {}
            for index in order:
                placed[index] = _earliest(chosen, index, placed, supply)
            total = 0.0
            for index, view in enumerate(views):
                estimate = chosen[index]
                assert estimate.money is not None
                total += estimate.money.total_usd + placed[index][1] / 3600 * value_of_time_usd_h(view.objective)
            best = min(best, total)
    return best


def _earliest(
    chosen: Sequence[Estimate], index: int, placed: Mapping[int, tuple[float, float]], supply: Mapping[str, int]
) -> tuple[float, float]:
    estimate = chosen[index]
    assert estimate.seconds is not None
    for start_s in sorted({0.0, *(end for _, end in placed.values())}):
        end_s = start_s + estimate.seconds
        moments = {start_s, *(begin for begin, _ in placed.values() if start_s < begin < end_s)}
        if all(_fits(chosen, index, placed, supply, at_s) for at_s in moments):
            return start_s, end_s
    raise AssertionError("it never fits")


def _fits(
    chosen: Sequence[Estimate],
    index: int,
    placed: Mapping[int, tuple[float, float]],
    supply: Mapping[str, int],
    at_s: float,
) -> bool:
    held: Counter[str] = Counter(dict(chosen[index].configuration.groups))
    for other, (begin_s, end_s) in placed.items():
        if begin_s <= at_s < end_s:
            held.update(dict(chosen[other].configuration.groups))
    return all(count <= supply[name] for name, count in held.items())
