"""The shares of Gavel's objectives against what can be worked out by hand, and against another solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from scheduler.policy import gavel_lp
from scheduler.policy.gavel_lp import Jobs, Matrix


def jobs(speeds: Sequence[Sequence[float]], supply: Sequence[float], **fields: Any) -> Jobs:
    """Jobs of one device each, just come, with all of their work to do, unless `fields` say otherwise."""
    fast = np.array(speeds, dtype=float)
    many = len(fast)
    given = {
        "counts": np.ones(fast.shape),
        "units": np.ones(many),
        "weights": np.ones(many),
        "remaining": np.ones(many),
        "age_s": np.zeros(many),
        "done_alone_s": np.zeros(many),
        "prices": np.ones(fast.shape[1]),
    } | {name: np.array(value, dtype=float) for name, value in fields.items()}
    return Jobs(speeds=fast, supply=np.array(supply, dtype=float), **given)


def assert_shares(found: Matrix, expected: Sequence[Sequence[float]]) -> None:
    np.testing.assert_allclose(found, np.array(expected), atol=1e-4)


def test_the_papers_example_of_max_min_fairness() -> None:
    # Section 4.1: a V100 and a K80, three jobs; every job gets 12/11 of what equal shares would give it.
    found = gavel_lp.max_min_fairness(jobs([[4, 1], [3, 1], [2, 1]], [1, 1]))
    assert_shares(found, [[5 / 11, 0], [5 / 11, 1 / 11], [1 / 11, 10 / 11]])


def test_max_min_fairness_does_not_depend_on_the_unit_of_a_jobs_work() -> None:
    found = gavel_lp.max_min_fairness(jobs([[4e-6, 1e-6], [3e3, 1e3], [2, 1]], [1, 1]))
    assert_shares(found, [[5 / 11, 0], [5 / 11, 1 / 11], [1 / 11, 10 / 11]])


def test_a_wide_job_gets_less_time_and_a_heavy_one_more() -> None:
    wide = gavel_lp.max_min_fairness_agnostic(jobs([[9], [1]], [2], counts=[[2], [1]]))
    assert_shares(wide, [[0.5], [1.0]])
    heavy = gavel_lp.max_min_fairness_agnostic(jobs([[9], [1]], [1], weights=[3, 1]))
    assert_shares(heavy, [[0.75], [0.25]])


def test_finish_time_fairness_helps_the_one_that_has_waited() -> None:
    # (100 + 100 / x) / 200 = (100 / y) / 200 with x + y = 1: the golden ratio.
    golden = (math.sqrt(5) - 1) / 2
    found = gavel_lp.finish_time_fairness(jobs([[0.01], [0.01]], [1], age_s=[100, 0]))
    assert_shares(found, [[golden], [1 - golden]])


def test_finish_time_fairness_of_equals_is_half_each() -> None:
    assert_shares(gavel_lp.finish_time_fairness(jobs([[0.01], [0.01]], [1])), [[0.5], [0.5]])


def test_what_was_done_alone_counts_as_time_that_was_due() -> None:
    # Half is done; alone that would have taken 100 s and the rest takes 100 s more. It came 100 s ago: it is on time.
    same = jobs([[0.01], [0.01]], [1], remaining=[0.5, 0.5], age_s=[100, 100], done_alone_s=[100, 100])
    assert_shares(gavel_lp.finish_time_fairness(same), [[0.5], [0.5]])


def test_the_least_makespan_of_two_on_one_device() -> None:
    # 100 s and 300 s of work: 400 s in all, which the search over 100 s to 1e6 s may exceed by 5%.
    found = gavel_lp.min_makespan(jobs([[1 / 100], [1 / 300]], [1]))
    assert 0.25 / 1.05 <= found[0, 0] <= 0.25 * 1.05
    assert 0.75 / 1.05 <= found[1, 0] <= 0.75 * 1.05


def test_the_least_makespan_uses_each_type_for_what_it_is_good_for() -> None:
    # Apart both end after 1,000 s; no other division does.
    found = gavel_lp.min_makespan(jobs([[1 / 1000, 1 / 9000], [1 / 9000, 1 / 1000]], [1, 1]))
    assert found[0, 0] > 0.9 and found[1, 1] > 0.9


@pytest.mark.parametrize("seconds", [1e-3, 1.0, 5e6, 1e9], ids=["a millisecond", "a second", "58 days", "32 years"])
def test_the_makespan_may_be_outside_what_is_searched_first(seconds: float) -> None:
    found = gavel_lp.min_makespan(jobs([[1 / seconds]], [1]))
    assert 0 < found[0, 0] <= 1


@pytest.mark.parametrize(
    "objective", [gavel_lp.finish_time_fairness, gavel_lp.max_min_fairness, gavel_lp.max_throughput_per_cost]
)
def test_nobody_gets_a_share_of_what_it_cannot_use(objective: Any) -> None:
    assert (objective(jobs([[1 / 128, 0], [1 / 128, 0]], [1, 1]))[:, 1] == 0).all()


def test_throughput_per_cost_by_hand() -> None:
    speeds = [[4, 1], [3, 2]]
    # For a dollar: 2 and 1, 1.5 and 2.
    assert_shares(gavel_lp.max_throughput_per_cost(jobs(speeds, [1, 1], prices=[2, 1])), [[1, 0], [0, 1]])
    # 4 + 2 is more than 3 + 1 without prices; with a V100 for $8 nothing changes, as both types are free anyhow.
    assert_shares(gavel_lp.max_throughput_per_cost(jobs(speeds, [1, 1], prices=[8, 1])), [[1, 0], [0, 1]])
    # Only the dear one is fast enough to pay: both want the cheap one, which goes to who uses it best.
    assert_shares(gavel_lp.max_throughput_per_cost(jobs([[4, 3], [4, 2]], [2, 1], prices=[4, 1])), [[0, 1], [1, 0]])


FIRST_COME = [
    ("each where it is fastest", [[2, 1], [1, 3]], [[1, 1], [1, 1]], [1, 1], [[1, 0], [0, 1]]),
    ("the second takes what is left", [[2, 1], [3, 1]], [[1, 1], [1, 1]], [1, 1], [[1, 0], [0, 1]]),
    ("a wide one holds up all behind it", [[1, 1], [1, 1], [1, 1]], [[1, 1], [2, 2], [1, 1]], [1, 1], [[1, 0], [0, 0], [0, 0]]),
    ("one that can use none of the free types does not", [[1, 0], [1, 0], [1, 1]], [[1, 0], [1, 0], [1, 1]], [1, 1], [[1, 0], [0, 0], [0, 1]]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("speeds", "counts", "supply", "expected"), [row[1:] for row in FIRST_COME], ids=[row[0] for row in FIRST_COME]
)
def test_first_come(speeds: Any, counts: Any, supply: Any, expected: Any) -> None:
    assert_shares(gavel_lp.first_come(jobs(speeds, supply, counts=counts)), expected)


def test_ones_own_part_of_the_cluster() -> None:
    assert_shares(gavel_lp.isolated(jobs([[1, 1]] * 4, [2, 4])), [[1 / 3, 2 / 3]] * 4)
    assert_shares(gavel_lp.isolated(jobs([[1, 1]] * 8, [2, 4], counts=[[2, 2]] * 8)), [[1 / 8, 1 / 4]] * 8)


@st.composite
def many(draw: st.DrawFn) -> Jobs:
    rows, kinds = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    speed = st.floats(1e-5, 1e-2)
    speeds = [[draw(speed) if kind == 0 or draw(st.booleans()) else 0.0 for kind in range(kinds)] for _ in range(rows)]
    counts = [[draw(st.integers(1, 4))] * kinds for _ in range(rows)]
    return jobs(
        speeds,
        draw(st.lists(st.integers(1, 8), min_size=kinds, max_size=kinds)),
        counts=counts,
        remaining=draw(st.lists(st.floats(0.01, 1.0), min_size=rows, max_size=rows)),
        age_s=draw(st.lists(st.floats(0, 1e5), min_size=rows, max_size=rows)),
    )


OBJECTIVES = [
    gavel_lp.max_min_fairness,
    gavel_lp.max_min_fairness_agnostic,
    gavel_lp.finish_time_fairness,
    gavel_lp.min_makespan,
    gavel_lp.max_throughput_per_cost,
    gavel_lp.first_come,
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=[each.__name__ for each in OBJECTIVES])
@given(given=many())
@settings(max_examples=40, deadline=None)
def test_shares_are_possible(objective: Any, given: Jobs) -> None:
    shares = objective(given)
    assert shares.shape == given.speeds.shape
    assert (shares >= 0).all() and (shares.sum(axis=1) <= 1 + 1e-5).all()
    assert ((shares * given.counts).sum(axis=0) <= given.supply * (1 + 1e-5)).all()
    assert (shares[given.speeds == 0] == 0).all()
    np.testing.assert_array_equal(shares, objective(given))


@given(given=many())
@settings(max_examples=60, deadline=None)
def test_the_least_is_as_large_as_another_solver_makes_it(given: Jobs) -> None:
    equal = (given.speeds * given.supply / given.supply.sum()).sum(axis=1)
    values = given.speeds * given.counts / equal[:, None]
    rows, kinds = values.shape
    above = np.zeros((rows + kinds + rows, rows * kinds + 1))
    for row in range(rows):
        here = slice(row * kinds, (row + 1) * kinds)
        above[row, here] = 1
        above[rows + kinds + row, here] = -values[row]
        above[rows + kinds + row, -1] = 1
        for kind in range(kinds):
            above[rows + kind, row * kinds + kind] = given.counts[row, kind]
    limits = np.concatenate([np.ones(rows), given.supply, np.zeros(rows)])
    best = -linprog(np.append(np.zeros(rows * kinds), -1.0), A_ub=above, b_ub=limits).fun
    found = (values * gavel_lp.max_min_fairness(given)).sum(axis=1).min()
    assert found == pytest.approx(best, rel=1e-4)
