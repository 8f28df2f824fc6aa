"""Estimates of a simulation that what ran corrects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from making import configuration, node, snapshot
from scheduler.policy import create
from scheduler.simulate.profiler import TraceProfiler
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import Phase, SimulationResult, Trace, TraceJob
from scheduler.types import Configuration, Plan, Situation

ONE, TWO, FAST = configuration(T4=1), configuration(T4=2), configuration(A100=1)
WHERE = snapshot(node("a", ("T4", 2)))


@dataclass
class Watched:
    """First-fit, with the seconds that it was told of each workload."""

    told: list[tuple[float, str, dict[Configuration, float | None]]] = field(default_factory=list)
    name: str = "watched"

    def plan(self, situation: Situation) -> Plan:
        for view in situation.workloads:
            self.told.append((situation.now_s, view.id, {e.configuration: e.seconds for e in view.estimates}))
        return create("first-fit").plan(situation)

    def of(self, name: str) -> dict[float, dict[Configuration, float | None]]:
        """By time."""
        return {at_s: seconds for at_s, who, seconds in self.told if who == name}


def job(name: str, family: str, arrives_s: float = 0.0, work: float = 1000.0) -> TraceJob:
    return TraceJob(name, family, arrives_s, work, (Phase(0.0, {ONE: 1.0, TWO: 1.5}),), startup_s=10.0)


def run(*jobs: TraceJob, **options: Any) -> tuple[Watched, SimulationResult]:
    policy = Watched()
    return policy, simulate(Trace("t", jobs), WHERE, policy, Options(noise=0.5, **options))


def test_after_a_minute_of_work_the_whole_family_is_predicted_without_error() -> None:
    policy, _ = run(job("a", "bert"), job("b", "bert", work=2000.0), job("c", "other"), learns=True)
    told = policy.of("b")
    before, after = told[0.0], told[70.0]
    assert before[ONE] != pytest.approx(2010.0, rel=0.01)
    assert after[ONE] == pytest.approx(2010.0), "it starts for 10 s and works for 60"
    assert after[TWO] == before[TWO] != pytest.approx(2000 / 1.5 + 10, rel=0.01), "nothing ran there"
    other = policy.of("c")
    assert other[70.0] == other[0.0], "nothing of its family ran yet"


def test_what_comes_later_knows_it_from_the_first() -> None:
    policy, _ = run(job("a", "bert"), job("b", "bert", 500.0, work=50.0), learns=True)
    assert policy.of("b")[500.0][ONE] == pytest.approx(60.0)


def test_a_short_job_tells_its_speed_when_it_is_done() -> None:
    policy, _ = run(job("a", "bert", work=30.0), job("b", "bert", 45.0, work=100.0), learns=True)
    assert policy.of("b")[45.0][ONE] == pytest.approx(110.0)


def test_a_round_learns_of_what_ended_in_it() -> None:
    policy, _ = run(job("a", "bert", work=100.0), job("b", "bert", 45.0, work=100.0), learns=True, round_s=500.0)
    assert policy.of("b")[500.0][ONE] == pytest.approx(110.0)


def test_unless_it_is_asked_for_nothing_is_learnt() -> None:
    policy, result = run(job("a", "bert"), job("b", "bert", 500.0))
    told = policy.of("b")
    assert len({tuple(sorted(each.items())) for each in told.values()}) == 1
    assert told[500.0][ONE] != pytest.approx(1010.0, rel=0.01)
    assert result.options == {"noise": "0.5"}


def test_a_reader_is_told() -> None:
    assert run(job("a", "bert"), learns=True)[1].options == {"noise": "0.5", "learns": "yes"}


def test_a_lost_node_teaches_nothing_before_its_time() -> None:
    profiler = TraceProfiler({"job-0": job("a", "bert")}, 0.5, 0)
    assert not profiler.knows("bert", "T4 x1")
    assert TraceProfiler({}, 0.0, 0).knows("bert", "T4 x1"), "without an error there is nothing to learn"
    profiler.learn("bert", "T4 x1")
    assert profiler.work_of("job-0").declared_by["T4 x1"] == 1000.0
    assert profiler.error("bert", "T4 x2") != 1.0
