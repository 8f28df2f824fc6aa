"""The linear program's bound on a makespan, where the answer is known."""

from __future__ import annotations

import pytest

from benchmarks.policies.makespan_bound import least_makespan_s
from scheduler.simulate.types import Phase, TraceJob
from scheduler.types import Configuration


def job(arrives_s: float, count: int = 1, **seconds: float) -> TraceJob:
    """One that takes so many seconds on `count` devices of each type."""
    rates = {Configuration.of({name: count}): 1.0 / each for name, each in seconds.items()}
    return TraceJob(f"{arrives_s}", "f", arrives_s, 1.0, (Phase(0.0, rates),))


@pytest.mark.parametrize(
    ("jobs", "ends_s"),
    [
        ([job(0, T4=100), job(0, T4=100)], 200),
        ([job(0, T4=100), job(150, T4=100)], 250),
        ([job(0, T4=100), job(60, T4=100), job(60, T4=100)], 300),
        ([job(0, T4=100, A100=50)] * 3, 60),
        ([job(0, T4=300), job(10, A100=20)], 300),
        ([job(0, T4=100, A100=10), job(50, T4=100, A100=40)], 90),
        ([job(0, count=2, A100=30), job(0, A100=30)], 45),
    ],
    ids=[
        "two on one device",
        "the second comes after the first is done",
        "no device is idle",
        "all share all devices",
        "nobody waits for the longest",
        "who comes last decides",
        "gangs hold several",
    ],
)
def test_nothing_ends_sooner(jobs: list[TraceJob], ends_s: float) -> None:
    assert least_makespan_s(jobs, ("T4", "A100"), (1, 2), 10) == pytest.approx(ends_s, rel=1e-4)


def test_what_fits_nowhere_has_no_makespan() -> None:
    with pytest.raises(ValueError, match="makespan"):
        least_makespan_s([job(0, A100=10), job(0, count=3, A100=10)], ("A100",), (2,), 10)
