"""Summaries of small results whose numbers are worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from scheduler.simulate.metrics import summary
from scheduler.simulate.types import JobResult, Sample, SimulationResult, Span
from simulated import POLICIES, made_result, made_trace

HOUR = 3600.0


def job(name: str, arrived_h: float, ended_h: float | None, *spans: Span, state: str = "succeeded") -> JobResult:
    """Started with its first span; one attempt a span."""
    started = spans[0].began_s if spans else None
    ended = None if ended_h is None else ended_h * HOUR
    return JobResult(name, "f", arrived_h * HOUR, started, ended, state, 1.0, len(spans), 0, 0, HOUR, HOUR, spans=spans)


def span(began_h: float, ended_h: float, count: int = 1, kind: str = "T4") -> Span:
    return Span("n", kind, count, began_h * HOUR, ended_h * HOUR)


def sample(at_h: float, busy: int, total: int = 4, decisions_s: tuple[float, ...] = (0.0,)) -> Sample:
    return Sample(at_h * HOUR, 0, 0, {"T4": busy}, {"T4": total}, None, {}, decisions_s)


def result(*jobs: JobResult, samples: tuple[Sample, ...] = ()) -> SimulationResult:
    return SimulationResult("fifo", "hand", 7, jobs, samples)


def test_completion_times_are_of_finished_jobs_and_run_from_arrival() -> None:
    out = summary(
        result(
            job("a", 0, 1),
            job("b", 1, 4),
            job("c", 2, 4),
            job("d", 0, None, state="running"),
            job("e", 0, 9, state="failed"),
            job("f", 0, None, state="cancelled"),
        )
    )
    assert (out.jobs, out.finished, out.failed, out.unfinished) == (6, 3, 2, 1)
    assert (out.mean_jct_s, out.median_jct_s) == (2 * HOUR, 2 * HOUR)
    assert out.p99_jct_s == pytest.approx(2.98 * HOUR)
    assert out.makespan_s == 4 * HOUR
    assert (out.policy, out.trace, out.seed) == ("fifo", "hand", 7)


def test_dollars_are_of_the_jobs_that_have_a_price() -> None:
    jobs = [replace(job("a", 0, 1), spent_usd=usd) for usd in (1.5, None, 2.0)]
    out = summary(result(*jobs))
    assert (out.usd, out.unpriced) == (3.5, 1)
    assert summary(result(jobs[1])).usd is None


def test_device_hours_are_what_the_spans_held() -> None:
    out = summary(result(job("a", 0, 3, span(0, 1, 2), span(2, 3, 4)), job("b", 0, 1, span(0, 0.5, 1, "A100"))))
    assert out.device_hours_by_type == {"A100": 0.5, "T4": 6.0}
    assert out.device_hours == 6.5


def test_utilisation_counts_each_sample_until_the_next_and_ends_with_the_makespan() -> None:
    samples = (sample(0, 4), sample(1, 2), sample(2, 0, total=8), sample(5, 8, total=8))
    out = summary(result(job("a", 0, 3), samples=samples))
    assert out.utilisation_by_type == {"T4": (4 + 2 + 0) / (4 + 4 + 8)}
    assert out.utilisation == out.utilisation_by_type["T4"]


def test_the_last_sample_holds_until_the_makespan() -> None:
    out = summary(result(job("a", 0, 2), samples=(sample(0, 4), sample(1, 1))))
    assert out.utilisation == 5 / 8


def test_where_nothing_finished_utilisation_is_until_the_last_sample() -> None:
    out = summary(result(job("a", 0, None, state="running"), samples=(sample(0, 4), sample(1, 1), sample(2, 0))))
    assert (out.makespan_s, out.utilisation) == (None, 5 / 8)


def test_fairness_compares_with_the_seconds_of_a_fair_share() -> None:
    jobs = [replace(job("a", 0, hours), fair_s=2 * HOUR) for hours in (1, 2, 2.2, 5)]
    out = summary(result(*jobs, replace(job("b", 0, 9), fair_s=None)))
    assert out.fairness_mean == pytest.approx((0.5 + 1 + 1.1 + 2.5) / 4)
    assert out.fairness_worst == 2.5
    assert out.fairness_p99 == pytest.approx(1.1 + 0.97 * 1.4)


def test_a_job_is_unfair_over_eleven_tenths() -> None:
    jobs = [replace(job("a", 0, 1), fair_s=HOUR * fair) for fair in (1 / 1.05, 1 / 1.15, 1 / 3)]
    assert summary(result(*jobs)).unfair_share == pytest.approx(2 / 3)


def test_deadlines_and_budgets() -> None:
    out = summary(
        result(
            replace(job("on time", 0, 2), deadline_s=2 * HOUR, budget_usd=1.0),
            replace(job("late", 0, 2), deadline_s=1.9 * HOUR, budget_usd=0.9),
            replace(job("never", 0, None, state="queued"), deadline_s=99 * HOUR, budget_usd=0.5, spent_usd=None),
            replace(job("failed in time", 0, 1, state="failed"), deadline_s=99 * HOUR),
            job("none", 0, 1),
        )
    )
    assert (out.deadlines, out.deadlines_missed, out.deadline_miss_share) == (4, 3, 0.75)
    assert (out.budgets, out.budgets_missed) == (3, 1)


def test_preemptions_and_restarts_are_in_all_and_per_job() -> None:
    jobs = [
        replace(job("a", 0, 1), attempts=4, preemptions=2),
        replace(job("b", 0, 1), attempts=1),
        replace(job("c", 0, None, state="queued"), attempts=0),
    ]
    out = summary(result(*jobs))
    assert (out.preemptions, out.preemptions_per_job) == (2, 2 / 3)
    assert (out.restarts, out.restarts_per_job) == (3, 1.0)


def test_waiting_is_until_the_first_placement_and_stopped_is_after_it() -> None:
    together = job("a", 1, 6, span(2, 3), span(2, 3.5), span(5, 6))
    out = summary(result(together, job("b", 0, 4, span(0, 4))))
    assert out.waiting_mean_s == 0.5 * HOUR
    assert out.stopped_mean_s == 0.75 * HOUR


def test_decision_time_is_what_the_policy_took() -> None:
    out = summary(result(samples=tuple(sample(n, 0, decisions_s=(n / 100,)) for n in range(101))))
    assert out.decision_mean_s == pytest.approx(0.5)
    assert out.decision_p99_s == pytest.approx(0.99)
    assert out.decision_max_s == 1.0


def test_several_plans_at_one_moment_are_several_decisions() -> None:
    samples = sample(0, 0, decisions_s=(0.3, 0.1, 0.2)), sample(1, 0, decisions_s=(0.6,))
    assert [(each.cycles, each.decision_s) for each in samples] == [(3, 0.3), (1, 0.6)]
    out = summary(result(samples=samples))
    assert (out.cycles, out.decision_mean_s, out.decision_max_s) == (4, pytest.approx(0.3), 0.6)


def test_an_empty_result_has_no_numbers_and_no_exception() -> None:
    out = summary(result())
    assert (out.jobs, out.finished, out.device_hours, out.unpriced) == (0, 0, 0, 0)
    nothing = (out.mean_jct_s, out.makespan_s, out.usd, out.utilisation, out.restarts_per_job, out.decision_max_s)
    assert nothing == (None,) * 6


@pytest.mark.parametrize("policy", POLICIES)
def test_a_summary_of_a_whole_simulation_is_plain_json_and_adds_up(policy: str) -> None:
    made = made_result(policy, made_trace())
    out = summary(made)
    assert json.loads(json.dumps(out.to_json(), allow_nan=False)) == out.to_json()
    assert out.finished + out.failed + out.unfinished == out.jobs == 240
    assert out.device_hours == pytest.approx(sum(out.device_hours_by_type.values()))
    assert out.utilisation is not None and 0 < out.utilisation <= 1
    rounds_h = sum(sum(each.busy.values()) for each in made.samples) * 720 / HOUR
    assert rounds_h * 0.9 < out.device_hours <= rounds_h
