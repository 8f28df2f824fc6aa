"""The split of a batch follows what shards take, whatever was predicted of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from workloads.bodies.balance import FIRST_WINDOW_STEPS, LONGEST_WINDOW_STEPS, MOST, WARM_STEPS, Balance
from workloads.bodies.batching import row_counts

BATCH = 64


def after(balance: Balance, seconds: Callable[[int, int], float], steps: int) -> list[float]:
    """Seconds of each shard in the last of so many steps; `seconds` of a shard (rank) for its rows."""
    taken: list[float] = []
    for _ in range(steps):
        counts = row_counts(BATCH, balance.weights)
        taken = [seconds(rank, max(1, rows)) for rank, rows in enumerate(counts)]
        balance.observe(taken)
    return taken


def test_the_first_split_is_what_was_predicted() -> None:
    assert row_counts(BATCH, Balance([1.0, 3.0]).weights) == [16, 48]
    assert Balance([2.0, 2.0, 4.0]).weights == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_speed_that_is_none_counts_as_the_slowest(bad: float) -> None:
    assert Balance([bad, 2.0, 4.0]).weights == [0.25, 0.25, 0.5]
    assert Balance([bad]).weights == [1.0]


@pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [1.0, 4.0, 8.0], [8.0, 1.0, 1.0]])
@pytest.mark.parametrize("fixed_s", [0.0, 2.0, 10.0], ids=["rows alone", "steps cost a little", "steps cost much"])
def test_in_the_end_all_take_equally_long(predicted: list[float], fixed_s: float) -> None:
    speeds = [1.0, 2.0, 5.0]
    taken = after(Balance(predicted), lambda rank, rows: fixed_s + rows / speeds[rank], 400)
    assert max(taken) < 1.12 * (fixed_s + BATCH / sum(speeds)), "as good as whole rows allow"


def test_who_is_too_slow_to_help_is_left_without_rows_and_comes_back() -> None:
    balance, slow_s = Balance([1.0, 1.0]), [1000.0]

    def seconds(rank: int, rows: int) -> float:
        return rows * (slow_s[0] if rank else 1.0)

    after(balance, seconds, 200)
    assert row_counts(BATCH, balance.weights) == [64, 0]
    slow_s[0] = 1.0
    after(balance, seconds, 1500)
    assert min(row_counts(BATCH, balance.weights)) > 20


def test_the_first_steps_say_nothing_and_windows_grow() -> None:
    balance, changes = Balance([1.0, 1.0]), []
    for step in range(1, 1000):
        uneven = [2.0, 1.0] if len(changes) % 2 else [1.0, 2.0]
        if balance.observe([1e6, 1.0] if step <= WARM_STEPS else uneven):
            changes.append(step)
    gaps = [b - a for a, b in zip([WARM_STEPS, *changes], changes, strict=False)]
    assert gaps[0] == FIRST_WINDOW_STEPS
    assert gaps[1] == 2 * FIRST_WINDOW_STEPS
    assert max(gaps) == LONGEST_WINDOW_STEPS == gaps[-1]


def test_a_window_that_was_disturbed_changes_a_weight_by_so_much_at_most() -> None:
    balance = Balance([1.0, 1.0])
    for _ in range(WARM_STEPS + FIRST_WINDOW_STEPS):
        balance.observe([1e9, 1.0])
    assert balance.weights[0] == pytest.approx(0.5 / (0.5 + MOST))


@pytest.mark.parametrize("seconds", [[1.0, 1.02], [0.0, 1.0], [math.nan, 1.0]], ids=["even enough", "zero", "NaN"])
def test_what_is_nothing_to_go_by_changes_nothing(seconds: list[float]) -> None:
    balance = Balance([1.0, 2.0])
    assert not any(balance.observe(seconds) for _ in range(50))
    assert balance.weights == pytest.approx([1 / 3, 2 / 3])


def test_a_gang_of_one_type_stays_even() -> None:
    balance = Balance([1.0, 1.0], adapts=False)
    assert not any(balance.observe([1.0, 9.0]) for _ in range(50))
    assert balance.weights == [0.5, 0.5]
