"""The engine on a virtual clock: what a trace says comes true, to the second where it can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Snapshot
from making import TYPES, configuration, node, snapshot
from scheduler.policy import Policy, create
from scheduler.policy.candidates import settle, vacated
from scheduler.simulate.profiler import TraceProfiler
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import JobResult, Phase, SimulationResult, Trace, TraceJob
from scheduler.types import Explanation, Placement, Plan, Situation
from workloads.spec import Train

ONE, TWO, FAST = configuration(T4=1), configuration(T4=2), configuration(A100=1)
SMALL = snapshot(node("a", ("T4", 2)))


def job(name: str, arrives_s: float = 0.0, work: float = 100.0, **fields: Any) -> TraceJob:
    """100 units at 1 a second on a T4, 4 on an A100."""
    phases = fields.pop("phases", (Phase(0.0, {ONE: 1.0, FAST: 4.0}),))
    return TraceJob(name, "bert", arrives_s, work, phases, **fields)


def run(
    *jobs: TraceJob, where: Snapshot = SMALL, policy: str | Policy = "first-fit", **options: Any
) -> SimulationResult:
    wanted = create(policy) if isinstance(policy, str) else policy
    return simulate(Trace("by hand", jobs), where, wanted, Options(**options))


def ends(result: SimulationResult) -> dict[str, float | None]:
    return {each.id: None if each.ended_s is None else round(each.ended_s, 6) for each in result.jobs}


def result_of(result: SimulationResult, name: str) -> JobResult:
    return next(each for each in result.jobs if each.id == name)


def test_jobs_take_what_their_trace_says_and_wait_for_each_other() -> None:
    result = run(job("a"), job("b", 10.0), job("c", 20.0, startup_s=5.0))
    assert ends(result) == {"a": 100.0, "b": 110.0, "c": 205.0}
    waited = result_of(result, "c")
    assert (waited.started_s, waited.attempts, waited.state) == (100.0, 1, "succeeded")
    assert waited.spent_usd == pytest.approx(105 / 3600 * (TYPES["T4"].price_usd_h or 0.0))
    assert [(span.node, span.count, span.began_s, span.ended_s) for span in waited.spans] == [("a", 1, 100.0, 205.0)]
    assert waited.alone_s == 105.0
    assert result.samples[0].busy == {"T4": 1}
    assert result.samples[0].total == {"T4": 2}


def test_a_round_based_cluster_places_only_when_a_round_begins() -> None:
    result = run(job("a"), job("b", 10.0), where=snapshot(node("a", ("T4", 1))), round_s=60.0)
    assert ends(result) == {"a": 100.0, "b": 220.0}, "a's device is idle from 100 to 120"
    late = run(job("a", 130.0), job("b", 500.0), round_s=60.0)
    assert ends(late) == {"a": 230.0, "b": 650.0}, "rounds are counted from the first arrival"


def test_a_spread_gang_is_as_fast_as_the_trace_says_of_spread_ones() -> None:
    wide = (Phase(0.0, {TWO: 2.0}, {TWO: 1.0}),)
    apart = snapshot(node("a", ("T4", 2)), node("b", ("T4", 2)))
    assert ends(run(job("g", phases=wide), where=apart)) == {"g": 50.0}
    blocked = run(job("x"), job("y"), job("g", 1.0, phases=wide), where=apart, policy=_Apart())
    assert ends(blocked)["g"] == 101.0


class _Apart:
    """Places x and y on different nodes, so that a gang of two has one device on each."""

    name = "apart"

    def plan(self, situation: Situation) -> Plan:
        places = {
            "x": Placement(ONE, (("T4", "a"),)),
            "y": Placement(ONE, (("T4", "b"),)),
            "g": Placement(TWO, (("T4", "a"), ("T4", "b"))),
        }
        here = {each.id: places[each.id] for each in situation.workloads}
        return Plan(situation.cycle, here, {name: Explanation(each.configuration, "") for name, each in here.items()})


def test_what_changes_with_progress_changes_the_speed() -> None:
    slower = (Phase(0.0, {ONE: 1.0}), Phase(0.5, {ONE: 0.5}))
    assert ends(run(job("a", phases=slower))) == {"a": 150.0}
    assert job("a", phases=slower).seconds(ONE) == 150.0
    assert job("a", phases=slower).seconds(ONE, done=0.75) == 50.0
    assert job("a", phases=slower).seconds(FAST) is None


class _Moves:
    """Puts the job on the T4 first, and on the A100 from 40 s on."""

    name = "moves"

    def plan(self, situation: Situation) -> Plan:
        wanted = ONE if situation.now_s < 40 else FAST
        before = {each.id: each.placement for each in situation.workloads if each.placement is not None}
        chosen = {each.id: wanted for each in situation.workloads}
        placed = settle(chosen, before, set(), vacated(situation))
        return Plan(situation.cycle, placed, {name: Explanation(wanted, "") for name in placed})


def test_a_moved_job_goes_on_where_it_was_and_pays_its_start_again() -> None:
    where = snapshot(node("a", ("T4", 1)), node("b", ("A100", 1)))
    result = run(job("a", startup_s=10.0), where=where, policy=_Moves(), tick_s=20.0, longest_tick_s=20.0)
    # 10 s of start and 30 s of work at 1, then 10 s of start again and 70 units at 4.
    assert ends(result) == {"a": pytest.approx(40 + 10 + 70 / 4)}
    moved = result_of(result, "a")
    assert (moved.attempts, moved.preemptions, moved.failures) == (2, 1, 0)
    assert [(span.device_type, span.began_s, span.ended_s) for span in moved.spans] == [
        ("T4", 0.0, 40.0),
        ("A100", 40.0, pytest.approx(67.5)),
    ]
    prices = [(TYPES[name].price_usd_h or 0.0) for name in ("T4", "A100")]
    assert moved.spent_usd == pytest.approx((40 * prices[0] + 27.5 * prices[1]) / 3600)


def test_a_lost_node_costs_the_work_since_the_last_checkpoint() -> None:
    one = snapshot(node("a", ("T4", 1)))
    found = [
        simulate(
            Trace("t", (job("a", work=2000.0),)),
            one,
            create("first-fit"),
            Options(node_failures_per_h=2.0, launch_s=50.0, checkpoint_every_s=300.0),
            seed=seed,
        )
        for seed in (3, 3, 4)
    ]
    assert ends(found[0]) == ends(found[1]) != ends(found[2]), "a seed decides when nodes are lost"
    broken = found[0].jobs[0]
    assert broken.failures >= 1
    assert broken.state == "succeeded"
    assert broken.ended_s is not None
    held = sum(span.ended_s - span.began_s for span in broken.spans)
    lost = sum((span.ended_s - span.began_s) % 300.0 for span in broken.spans[:-1])
    assert held == pytest.approx(2000.0 + lost)
    assert broken.ended_s >= held + 50.0 * broken.failures


def test_spot_nodes_are_taken_back_as_often_as_their_catalog_says() -> None:
    types = {"T4": replace(TYPES["T4"], market="spot", interruptions_per_h=3.0)}
    spot = replace(snapshot(replace(node("a", ("T4", 1)), market="spot")), device_types=types)
    assert run(job("a", work=5000.0), where=spot).jobs[0].failures > 0
    assert run(job("a", work=5000.0), where=snapshot(node("a", ("T4", 1)))).jobs[0].failures == 0


def test_a_job_that_nothing_can_hold_is_told_and_does_not_hold_up_the_end() -> None:
    result = run(job("a"), job("big", phases=(Phase(0.0, {configuration(T4=9): 1.0}),)))
    assert ends(result) == {"a": 100.0, "big": None}
    assert result.notes == ["1 jobs never ran: nothing that is there can hold them"]
    assert result_of(result, "big").alone_s is None
    assert result_of(result, "big").fair_s is None


def test_it_can_be_cut_off() -> None:
    result = run(job("a"), job("b", work=1e9), limit_s=500.0)
    assert ends(result) == {"a": 100.0, "b": None}
    assert result.notes == ["cut off after 500 s with 1 jobs unfinished"]


def test_errors_of_the_estimates_are_those_of_a_family_and_stay() -> None:
    jobs = {"job-0": job("a"), "job-1": job("b")}
    profiler = TraceProfiler(jobs, noise=0.3, seed=5)
    seen = [
        profiler.work(Train(name=name, entrypoint="trace:job"), {}).declared_by for name in ("job-0", "job-1", "job-0")
    ]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["T4 x1"] != pytest.approx(100.0, rel=1e-3)
    assert seen[0]["T4 x1"] / 100 != pytest.approx(seen[0]["A100 x1"] / 25, rel=1e-3)
    exact = TraceProfiler(jobs, noise=0.0, seed=5).work(Train(name="job-0", entrypoint="trace:job"), {})
    assert exact.declared_by == {"T4 x1": 100.0, "A100 x1": 25.0}
    assert ends(run(job("a"), noise=0.3)) == {"a": 100.0}, "what is predicted is wrong, what happens is not"


def test_an_equal_share_is_what_fairness_compares_with() -> None:
    one = snapshot(node("a", ("T4", 1)))
    result = run(job("a"), job("b"), where=one)
    assert ends(result) == {"a": 100.0, "b": 200.0}
    assert result_of(result, "a").fair_s == pytest.approx(200.0)
    assert result_of(result, "b").fair_s == pytest.approx(150.0), "for half of its time it was alone"


@pytest.mark.parametrize("policy", ["first-fit", "market", "srtf", "gavel-las-het"])
def test_the_same_simulation_twice_is_the_same(policy: str) -> None:
    jobs = [job(f"j{n}", 37.0 * n, 50.0 + 13 * n % 90) for n in range(12)]
    where = snapshot(node("a", ("T4", 2)), node("b", ("A100", 1)))
    first, again = (run(*jobs, where=where, policy=policy, noise=0.2) for _ in range(2))
    assert first.jobs == again.jobs
    assert all(each.state == "succeeded" for each in first.jobs)
