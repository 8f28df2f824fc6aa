"""Bounds are never above the best schedule that an exhaustive search finds, and are met where that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.simulate.bounds import Bounds, lower_bounds
from scheduler.simulate.metrics import summary
from scheduler.simulate.types import Phase, Trace, TraceJob
from scheduler.types import Configuration
from simulated import POLICIES, made_result, made_trace, nodes

A, B = Configuration.of({"A": 1}), Configuration.of({"B": 1})
A2, AB = Configuration.of({"A": 2}), Configuration.of({"A": 1, "B": 1})
EPSILON = 1e-9


def job(
    name: str, arrives_s: float, work: float, rates: Mapping[Configuration, float], *, startup_s: float = 0
) -> TraceJob:
    return TraceJob(name, "f", arrives_s, work, (Phase(0.0, rates),), startup_s=startup_s)


def bounds(*jobs: TraceJob, **totals: int) -> Bounds:
    return lower_bounds(Trace("t", jobs), totals)


Where = tuple[float, float, Configuration | None]
"""Share done, seconds of start-up left, configuration of the last second."""


def advanced(one: TraceJob, done: float, seconds: float, on: Configuration) -> tuple[float, float]:
    """Share done after some seconds, and the seconds that are left over once all is done."""
    ends = [*(phase.begins for phase in one.phases[1:]), 1.0]
    for phase, end in zip(one.phases, ends, strict=True):
        rate = max(phase.rates.get(on, 0.0), phase.spread_rates.get(on, 0.0)) / one.work
        if done < end - EPSILON and rate <= 0:
            return done, 0.0
        if done < end - EPSILON:
            needed = (end - done) / rate
            if needed > seconds:
                return done + rate * seconds, 0.0
            done, seconds = end, seconds - needed
    return 1.0, seconds


def best_schedule(jobs: tuple[TraceJob, ...], totals: Mapping[str, int], horizon: int) -> tuple[float, float]:
    """Least total completion time and least makespan of all schedules that decide once a second: any configuration,
    preemption and change; a new attempt, also after a pause, starts up again."""

    def choices(now: int, states: tuple[Where, ...]) -> Iterator[tuple[Configuration | None, ...]]:
        each = [
            (None, *one.configurations) if state[0] < 1 - EPSILON and one.arrives_s <= now else (None,)
            for one, state in zip(jobs, states, strict=True)
        ]
        for chosen in product(*each):
            held: dict[str, int] = {}
            for name, count in (group for on in chosen if on for group in on.groups):
                held[name] = held.get(name, 0) + count
            if all(count <= totals.get(name, 0) for name, count in held.items()):
                yield chosen

    @cache
    def search(now: int, states: tuple[Where, ...]) -> tuple[float, float]:
        if all(done >= 1 - EPSILON for done, _, _ in states):
            return 0.0, 0.0
        if now >= horizon:
            return 1e9, 1e9
        least_sum, least_end = 1e9, 1e9
        for chosen in choices(now, states):
            total, last, following = 0.0, 0.0, []
            for one, (done, starting_s, before), on in zip(jobs, states, chosen, strict=True):
                if on is None:
                    following.append((done, 0.0, None))
                    continue
                left_s = starting_s if on == before else one.startup_s
                starting = min(left_s, 1.0)
                after, over_s = advanced(one, done, 1.0 - starting, on)
                if after >= 1 - EPSILON:
                    total, last = total + now + 1 - over_s, max(last, now + 1 - over_s)
                    following.append((1.0, 0.0, None))
                else:
                    following.append((round(after, 9), left_s - starting, on))
            rest_sum, rest_end = search(now + 1, tuple(following))
            least_sum, least_end = min(least_sum, total + rest_sum), min(least_end, max(last, rest_end))
        return least_sum, least_end

    return search(0, tuple((0.0, 0.0, None) for _ in jobs))


@st.composite
def small_jobs(draw: st.DrawFn) -> tuple[TraceJob, ...]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        possible = draw(st.lists(st.sampled_from([A, B, A2, AB]), min_size=1, max_size=2, unique=True))
        rates = st.fixed_dictionaries({each: st.sampled_from([1.0, 2.0, 3.0]) for each in possible})
        phases = [Phase(0.0, draw(rates), draw(st.just({}) | rates))]
        phases += [Phase(0.5, draw(rates))] if draw(st.booleans()) else []
        arrives_s, startup_s = float(draw(st.integers(0, 2))), draw(st.sampled_from([0.0, 0.5, 1.0]))
        made.append(
            TraceJob(str(number), "f", arrives_s, float(draw(st.integers(1, 3))), tuple(phases), startup_s=startup_s)
        )
    return tuple(made)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(small_jobs())
def test_no_bound_is_above_the_best_schedule(jobs: tuple[TraceJob, ...]) -> None:
    totals = {"A": 2, "B": 1}
    total, makespan = best_schedule(jobs, totals, horizon=12)
    assert total < 1e9, "the search found no schedule"
    found = lower_bounds(Trace("t", jobs), totals)
    best = (total - sum(one.arrives_s for one in jobs)) / len(jobs)
    assert found.mean_jct_s is not None and found.makespan_s is not None
    assert found.mean_jct_s <= best + 1e-6
    assert found.makespan_s <= makespan + 1e-6


def test_alone_is_the_fastest_configuration_that_fits_with_one_start_up() -> None:
    rates = {A: 1.0, A2: 1.8, Configuration.of({"A": 4}): 3.0}
    found = bounds(job("a", 5, 18, rates, startup_s=2), A=2)
    assert (found.alone_mean_jct_s, found.mean_jct_s, found.makespan_s) == (12.0, 12.0, 17.0)


def test_alone_takes_the_fastest_configuration_of_each_phase_and_of_spread_and_packed() -> None:
    phases = (Phase(0.0, {A: 1.0, B: 2.0}), Phase(0.5, {A: 4.0, B: 1.0}, {A: 5.0}))
    found = bounds(TraceJob("a", "f", 0.0, 20.0, phases), A=1, B=1)
    assert found.alone_mean_jct_s == pytest.approx(10 / 2 + 10 / 5)


def test_on_one_device_the_bound_is_what_shortest_remaining_first_gives() -> None:
    """By hand: the long one runs 0..1 and 3..6, the short ones 1..2 and 2..3."""
    found = bounds(job("a", 0, 4, {A: 1.0}), job("b", 1, 1, {A: 1.0}), job("c", 1, 1, {A: 1.0}), A=1)
    assert found.srpt_mean_jct_s == pytest.approx((6 + 1 + 2) / 3)
    assert found.mean_jct_s == pytest.approx((6 + 1 + 2) / 3)
    assert found.makespan_s == pytest.approx(6.0)


def test_equal_jobs_on_two_devices_meet_the_bound_that_neither_part_alone_gives() -> None:
    """Two at a time end at 1, 1, 2, 2. Without contention the mean is 1, on one machine of twice the speed 1.25."""
    found = bounds(*[job(str(n), 0, 1, {A: 1.0}) for n in range(4)], A=2)
    assert (found.alone_mean_jct_s, found.srpt_mean_jct_s) == (pytest.approx(1.0), pytest.approx(1.25))
    assert found.mean_jct_s == pytest.approx(1.5)
    assert found.makespan_s == pytest.approx(2.0)


def test_shares_of_the_types_are_searched() -> None:
    """All eight can only use the one device of B: equal shares would give half of the bound, those by devices a tenth."""
    found = bounds(*[job(str(n), 0, 1, {B: 1.0}) for n in range(8)], A=9, B=1)
    assert found.mean_jct_s == pytest.approx(4.5, rel=0.02)
    assert found.makespan_s == pytest.approx(8.0, rel=0.02)


def test_start_up_takes_devices_too() -> None:
    found = bounds(*[job(str(n), 0, 1, {A: 1.0}, startup_s=3) for n in range(2)], A=1)
    assert found.makespan_s == pytest.approx(8.0)


def test_jobs_that_fit_nowhere_are_counted_and_left_out() -> None:
    found = bounds(job("a", 0, 2, {A: 1.0}), job("b", 0, 2, {A2: 1.0}), job("c", 0, 2, {B: 1.0}), A=1)
    assert (found.jobs, found.impossible, found.mean_jct_s) == (1, 2, 2.0)


@pytest.mark.parametrize("jobs", [(), (job("a", 0, 2, {A2: 1.0}),)], ids=["no jobs", "none that fits"])
def test_without_a_job_there_is_no_bound(jobs: tuple[TraceJob, ...]) -> None:
    found = bounds(*jobs, A=1)
    assert (found.jobs, found.impossible) == (0, len(jobs))
    assert (found.mean_jct_s, found.srpt_mean_jct_s, found.alone_p99_jct_s, found.makespan_s) == (None,) * 4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_whole_simulation_stays_above_its_bounds(policy: str) -> None:
    trace = made_trace()
    totals: dict[str, int] = {}
    for name, count in nodes().values():
        totals[name] = totals.get(name, 0) + count
    found, out = lower_bounds(trace, totals), summary(made_result(policy, trace))
    assert out.finished == out.jobs
    for least, reached in (
        (found.mean_jct_s, out.mean_jct_s),
        (found.alone_median_jct_s, out.median_jct_s),
        (found.alone_p99_jct_s, out.p99_jct_s),
        (found.makespan_s, out.makespan_s),
    ):
        assert least is not None and reached is not None
        assert 0.2 * reached < least <= reached
