"""Jobs that need others, and kinds of jobs that begin again or stay on one node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from making import TYPES, configuration, node, snapshot
from scheduler.policy import create
from scheduler.simulate.bounds import lower_bounds
from scheduler.simulate.metrics import summary
from scheduler.simulate.simulator import Options, simulate, submitted_s
from scheduler.simulate.types import JobResult, Phase, SimulationResult, Trace, TraceJob

ONE, TWO, MIXED = configuration(T4=1), configuration(T4=2), configuration(T4=1, A100=1)
SMALL = snapshot(node("a", ("T4", 2)))
APART = snapshot(node("a", ("T4", 1)), node("b", ("T4", 1)), node("c", ("A100", 1)))


def job(name: str, arrives_s: float = 0.0, work: float = 100.0, on: Any = ONE, **fields: Any) -> TraceJob:
    return TraceJob(name, "bert", arrives_s, work, (Phase(0.0, {on: 1.0}),), **fields)


def run(*jobs: TraceJob, where: Any = SMALL, seed: int = 0, **options: Any) -> SimulationResult:
    return simulate(Trace("by hand", jobs), where, create("first-fit"), Options(**options), seed)


def times(result: SimulationResult) -> dict[str, tuple[float, float | None, float | None]]:
    return {each.id: (each.arrived_s, each.started_s, each.ended_s) for each in result.jobs}


def only(result: SimulationResult) -> JobResult:
    return result.jobs[0]


def test_a_step_comes_when_all_that_it_needs_is_done() -> None:
    steps = [job("last", needs=("a", "b")), job("a", 5.0, 20.0), job("b", 10.0, 50.0), job("other", 200.0)]
    result = run(*steps)
    assert times(result) == {
        "last": (60.0, 60.0, 160.0),
        "a": (5.0, 5.0, 25.0),
        "b": (10.0, 10.0, 60.0),
        "other": (200.0, 200.0, 300.0),
    }
    assert summary(result).waiting_mean_s == 0.0
    assert result.notes == []
    assert max(sample.queued for sample in result.samples) == 0, "what has not come does not queue"


def test_a_step_is_known_once_all_that_it_needs_is() -> None:
    chain = [job("c", needs=("b",)), job("b", needs=("a",)), job("a", 30.0), job("x", -5.0, needs=("gone",))]
    assert submitted_s(chain) == {"c": 30.0, "b": 30.0, "a": 30.0, "x": -5.0}


def test_what_the_trace_does_not_have_is_not_waited_for() -> None:
    assert times(run(job("a", needs=("gone",)))) == {"a": (0.0, 0.0, 100.0)}


def test_a_step_of_what_never_ran_never_comes() -> None:
    result = run(job("big", on=configuration(T4=9)), job("step", needs=("big",)))
    assert [each.state for each in result.jobs] == ["queued", "pending"]
    assert result.notes == ["2 jobs never ran: nothing that is there can hold them"]


def test_the_bound_of_steps_is_what_each_takes_alone() -> None:
    trace = Trace("t", (job("a"), job("b"), job("c"), job("d", needs=("a",))))
    found = lower_bounds(trace, {"T4": 1})
    assert (found.srpt_mean_jct_s, found.mean_jct_s) == (None, 100.0)
    free = lower_bounds(replace(trace, jobs=trace.jobs[:3]), {"T4": 1})
    assert free.srpt_mean_jct_s == free.mean_jct_s == 200.0


def test_a_command_has_all_its_devices_on_one_node() -> None:
    assert times(run(job("a", on=TWO), where=APART))["a"][2] == 100.0
    refused = run(job("a", on=TWO, kind="command"), where=APART)
    assert only(refused).state == "queued"
    assert times(run(job("a", on=TWO, kind="command")))["a"][2] == 100.0


def test_inference_may_have_devices_of_several_types() -> None:
    assert times(run(job("a", on=MIXED, kind="batch-infer"), where=APART))["a"][2] == 100.0


@pytest.mark.parametrize(("kind", "begins_again"), [("train", False), ("batch-infer", False), ("command", True)])
def test_without_checkpoints_a_lost_job_begins_again(kind: str, begins_again: bool) -> None:
    result = run(
        job("a", work=900.0, kind=kind),
        where=snapshot(node("a", ("T4", 1))),
        node_failures_per_h=4.0,
        checkpoint_every_s=1e-3,
        seed=3,
    )
    found = only(result)
    held_s = [span.ended_s - span.began_s for span in found.spans]
    assert found.failures == len(held_s) - 1 > 0
    assert [span.ended for span in found.spans] == ["failed"] * found.failures + ["succeeded"]
    assert found.started_s == 0.0
    assert held_s[-1] == pytest.approx(900.0 - (0.0 if begins_again else sum(held_s[:-1])), abs=0.1)


def test_spans_say_what_ended_them() -> None:
    cut = run(job("a", work=10.0), job("b", work=1e6), limit_s=500.0)
    assert {each.id: [span.ended for span in each.spans] for each in cut.jobs} == {"a": ["succeeded"], "b": ["running"]}
    moved = simulate(
        Trace("t", (job("long", work=1000.0), job("short", 100.0, 10.0))),
        snapshot(node("a", ("T4", 1))),
        create("srtf"),
    )
    assert [span.ended for span in moved.jobs[0].spans] == ["stopped", "succeeded"]


def test_prices_are_known_of_both_types() -> None:
    assert all(TYPES[name].price_usd_h for name, _ in MIXED.groups)
