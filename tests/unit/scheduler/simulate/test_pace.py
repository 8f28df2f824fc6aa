"""When the simulator asks a policy: whenever something happens, and ever more seldom while nothing does."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from cluster.types import Snapshot
from making import configuration, node, snapshot
from scheduler.policy import Policy, create
from scheduler.simulate.pace import Pace
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import Phase, SimulationResult, Trace, TraceJob
from scheduler.types import Plan, Situation

ONE, FAST = configuration(T4=1), configuration(A100=1)
SINGLE = snapshot(node("a", ("T4", 1)))


@dataclass
class Watched:
    """A policy that writes down when it is asked."""

    policy: Policy
    memory: dict[str, Any] = field(default_factory=dict)
    asked_s: list[float] = field(default_factory=list)
    name: str = "watched"

    def plan(self, situation: Situation) -> Plan:
        self.asked_s.append(situation.now_s)
        plan = self.policy.plan(situation)
        return Plan(plan.cycle, plan.placements, plan.explanations, plan.congestion_usd_h, self.memory or plan.memory)


def job(name: str, arrives_s: float = 0.0, work: float = 100.0, **fields: Any) -> TraceJob:
    return TraceJob(name, "bert", arrives_s, work, (Phase(0.0, {ONE: 1.0, FAST: 4.0}),), **fields)


def run(policy: Policy, *jobs: TraceJob, where: Snapshot = SINGLE, seed: int = 0, **options: Any) -> SimulationResult:
    return simulate(Trace("by hand", jobs), where, policy, Options(**options), seed)


def asked(*jobs: TraceJob, **options: Any) -> list[float]:
    policy = Watched(create("first-fit"), options.pop("memory", {}))
    run(policy, *jobs, **options)
    return policy.asked_s


def test_the_tick_doubles_up_to_the_longest_and_is_short_again_after_a_change() -> None:
    pace = Pace(60.0, 300.0)
    found = [pace.after(changed=changed) for changed in (False, False, False, False, True, False)]
    assert found == [60.0, 120.0, 240.0, 300.0, 60.0, 120.0]
    assert [Pace(60.0, 0.0).after(changed=False) for _ in range(2)] == [60.0, 60.0]


def test_a_policy_is_asked_ever_more_seldom_while_nothing_changes() -> None:
    assert asked(job("a", work=2000.0)) == [0, 60, 180, 420, 900, 1860, 2000]
    assert asked(job("a", work=2000.0), longest_tick_s=300.0) == [0, 60, 180, 420, 720, 1020, 1320, 1620, 1920, 2000]
    assert asked(job("a", work=200.0), longest_tick_s=0.0) == [0, 60, 120, 180, 200]


def test_it_is_asked_at_once_and_soon_again_when_something_happens() -> None:
    assert asked(job("a", work=1000.0), job("b", 500.0)) == [0, 60, 180, 420, 500, 560, 680, 920, 1000, 1060, 1100]


def test_rounds_are_as_they_were() -> None:
    assert asked(job("a", work=400.0), round_s=100.0) == [0, 100, 200, 300, 400]


def test_what_decides_in_rounds_of_its_own_or_has_a_deadline_is_asked_as_often_as_ever() -> None:
    every = [float(at_s) for at_s in range(0, 601, 60)]
    assert asked(job("a", work=600.0), memory={"began_s": 0.0}) == every
    assert asked(job("a", work=600.0, deadline_s=5000.0)) == every
    late = asked(job("a", work=600.0, deadline_s=200.0))
    assert late == [0, 60, 120, 180, 240, 360, 600], "nothing is left to be missed"


def test_a_long_simulation_comes_out_the_same_with_far_fewer_cycles() -> None:
    jobs = [job(f"j{n}", 600.0 * n, 1500.0 + 700 * (n % 5)) for n in range(20)]
    where = snapshot(node("a", ("T4", 2)), node("b", ("A100", 1)))
    found = [run(create("srtf"), *jobs, where=where, longest_tick_s=longest) for longest in (0.0, 1800.0)]
    often, seldom = ([each.ended_s for each in result.jobs if each.ended_s is not None] for result in found)
    assert sum(seldom) == pytest.approx(sum(often), rel=0.01)
    assert len(found[1].samples) < len(found[0].samples) / 2


def lost(**options: Any) -> SimulationResult:
    return run(create("first-fit"), job("a"), node_failures_per_h=40.0, launch_s=0.1, seed=2, **options)


def test_a_retry_is_made_when_its_time_has_come() -> None:
    found = lost().jobs[0]
    waits_s = [after.began_s - before.ended_s for before, after in pairwise(found.spans)]
    # The first node was back before a cycle looked: a failure, tried again after 2 s. What was seen to be lost with its
    # node begins again so long after it began, and not before there is a node.
    due_s = [before.began_s + 2.0 ** (n + 1) - before.ended_s for n, before in enumerate(found.spans[:-1])]
    expected_s = [2.0, *(max(0.1, each) for each in due_s[1:])]
    assert len(waits_s) == 4
    assert waits_s == pytest.approx(expected_s), "as the engine delays, not as long as a tick"


def test_what_waits_for_its_retry_is_not_given_up() -> None:
    result = lost(round_s=0.5)
    assert (result.jobs[0].state, result.notes) == ("succeeded", [])
    assert result.jobs[0].failures > 0
