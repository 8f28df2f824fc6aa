"""Dollars, energy and rework: closed forms, a simulation of interruptions, and what is not known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.types import EnergyRates, Tariff
from scheduler.estimate.money import (
    Consumption,
    Dollars,
    as_energy,
    as_money,
    checkpoint_s,
    checkpoints,
    energy,
    interruption_rate,
    money,
    spot_run_s,
)
from scheduler.types import Energy, Money

HOUR = 3600.0


def simulated_rework_s(
    work_s: float, startup_s: float, every_s: float | None, one_checkpoint_s: float, rate_s: float, runs: int = 40_000
) -> float:
    """The mean of `runs` that are played out: parts one after the other, each begun again from a start when it is cut."""
    random = np.random.default_rng(7)
    every = every_s or math.inf
    total = np.zeros(runs)
    left, first = work_s, True
    while left > 0:
        part = left if left <= every else every + one_checkpoint_s
        needed = np.full(runs, part + (startup_s if first else 0.0))
        open_ = np.ones(runs, dtype=bool)
        while open_.any():
            until = random.exponential(1 / rate_s, runs)
            cut = open_ & (until < needed)
            total += np.where(cut, until, np.where(open_, needed, 0.0))
            needed = np.where(cut, part + startup_s, needed)
            open_ = cut
        left, first = left - min(left, every), False
    return float(total.mean()) - work_s - startup_s - checkpoints(work_s, every_s) * one_checkpoint_s


@pytest.mark.parametrize(
    ("work_s", "startup_s", "every_s", "one_checkpoint_s", "per_h", "nodes"),
    [
        pytest.param(4 * HOUR, 60.0, 600.0, 10.0, 1.0, 1, id="a checkpoint every ten minutes, cut once an hour"),
        pytest.param(4 * HOUR, 300.0, 600.0, 30.0, 1.0, 8, id="eight nodes, of which any ends the gang"),
        pytest.param(2 * HOUR, 60.0, None, 0.0, 0.5, 1, id="without checkpoints the whole run repeats"),
        pytest.param(2 * HOUR, 60.0, 1.5 * HOUR, 60.0, 1.0, 1, id="a last part that is shorter"),
        pytest.param(1 * HOUR, 1800.0, 600.0, 5.0, 2.0, 1, id="a start that is itself cut"),
    ],
)
def test_rework_is_what_a_simulation_shows(
    work_s: float, startup_s: float, every_s: float | None, one_checkpoint_s: float, per_h: float, nodes: int
) -> None:
    expected = simulated_rework_s(work_s, startup_s, every_s, one_checkpoint_s, per_h * nodes / HOUR)
    assert spot_run_s(work_s, startup_s, every_s, one_checkpoint_s, per_h, nodes) == pytest.approx(expected, rel=0.02)


def test_without_checkpoints_it_is_the_time_to_a_whole_run_uninterrupted() -> None:
    rate, whole_s = 0.5 / HOUR, 7260.0
    expected = math.expm1(rate * whole_s) / rate - whole_s
    assert spot_run_s(7200.0, 60.0, None, 5.0, 0.5) == pytest.approx(expected)
    assert spot_run_s(7200.0, 60.0, math.inf, 5.0, 0.5) == pytest.approx(expected)


def test_for_few_interruptions_it_is_restarts_and_half_an_interval() -> None:
    """Young's first order: interruptions over the run x (start + half of what is between checkpoints)."""
    per_h, part_s = 1e-5, 600.0 + 10.0
    run_s = 100 * part_s - 10.0
    expected = per_h / HOUR * run_s * (60.0 + part_s / 2)
    assert spot_run_s(60_000.0, 60.0, 600.0, 10.0, per_h) == pytest.approx(expected, rel=2e-3)


def test_the_first_order_tells_too_little_where_interruptions_are_many() -> None:
    first_order = 1.0 / HOUR * 4 * HOUR * (60.0 + HOUR / 2)
    assert spot_run_s(4 * HOUR, 60.0, HOUR, 0.0, 1.0) > 1.3 * first_order


@pytest.mark.parametrize(
    ("per_h", "expected"),
    [
        pytest.param(0.0, 0.0, id="never cut, no rework"),
        pytest.param(1000.0, math.inf, id="cut so often that it would not end"),
    ],
)
def test_the_ends_of_the_scale(per_h: float, expected: float) -> None:
    assert spot_run_s(10 * HOUR, 60.0, None, 0.0, per_h) == expected
    assert spot_run_s(10 * HOUR, 0.0, None, 0.0, per_h) == expected


def test_rework_grows_with_the_rate_without_a_step() -> None:
    """Where the series takes over from the exact form, both give the same."""
    rates = np.geomspace(1e-9, 1e-3, 200)
    rework = spot_run_s(HOUR, 60.0, 600.0, 5.0, rates)
    slopes = rework / rates
    assert np.all(np.diff(rework) > 0)
    assert np.all(np.abs(np.diff(slopes) / slopes[:-1]) < 1e-4)


def test_an_unknown_rate_is_unknown_rework_or_the_prior_and_says_so() -> None:
    assert math.isnan(spot_run_s(HOUR, 60.0, 600.0, 5.0, None))
    rate, note = interruption_rate(None)
    assert 1 - math.exp(-rate * 730) == pytest.approx(0.2)
    assert "20% a month assumed" in note
    assert interruption_rate(0.5) == (0.5, "")
    assert interruption_rate(0.0) == (0.0, "")


@pytest.mark.parametrize(
    ("run_s", "every_s", "count"),
    [(100.0, 30.0, 3), (90.0, 30.0, 2), (30.0, 30.0, 0), (10.0, 30.0, 0), (0.0, 30.0, 0), (100.0, None, 0)],
)
def test_no_checkpoint_is_written_at_the_end(run_s: float, every_s: float | None, count: int) -> None:
    assert checkpoints(run_s, every_s) == count
    assert checkpoint_s(2e9, every_s, run_s, 1e9) == 2.0 * count


def test_dollars_by_what_they_are_for() -> None:
    parts = money(1800.0, 4.0, stored_bytes=100e9, moved_bytes=50e9, tariff=Tariff(0.02, 0.01))
    assert parts == (pytest.approx(2.0), pytest.approx(2.0), pytest.approx(0.5))
    assert as_money(parts) == Money(2.0, 2.0, 0.5)
    assert money(3600.0, 1.0, stored_bytes=1e9, moved_bytes=1e9) == (1.0, pytest.approx(0.023), 0.0)


@pytest.mark.parametrize(
    ("parts", "known"),
    [
        pytest.param(money(60.0, None), False, id="an unpriced device"),
        pytest.param(money(math.nan, 1.0), False, id="an unknown time"),
        pytest.param(money(math.inf, 1.0), False, id="a run that would not end"),
        pytest.param(money(60.0, 1.0, stored_bytes=5, tariff=Tariff(None, 0.0)), False, id="storage without a price"),
        pytest.param(money(60.0, 1.0, tariff=Tariff(None, None)), True, id="nothing to store or move"),
        pytest.param(money(60.0, 0.0), True, id="a device that is free of charge"),
    ],
)
def test_unpriced_stays_unpriced(parts: Dollars, known: bool) -> None:
    assert (as_money(parts) is not None) == known


def test_energy_is_watts_by_time_by_overhead() -> None:
    rates = EnergyRates(usd_per_kwh=0.2, gco2e_per_kwh=400.0, overhead=1.5)
    used = energy(7200.0, 250.0, devices=4, rates=rates)
    assert used == (pytest.approx(3.0), pytest.approx(0.6), pytest.approx(1200.0))
    assert as_energy(used) == Energy(pytest.approx(3.0), pytest.approx(0.6), pytest.approx(1200.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        pytest.param(energy(60.0, None, 2), None, id="unknown watts"),
        pytest.param(energy(math.nan, 70.0), None, id="an unknown time"),
        pytest.param(energy(3600.0, 1000.0), Energy(1.0, None, None), id="no rates"),
        pytest.param(energy(3600.0, 1000.0, rates=EnergyRates(0.0)), Energy(1.0, 0.0, None), id="free of charge"),
    ],
)
def test_unknown_energy_is_none_and_not_zero(used: Consumption, expected: Energy | None) -> None:
    assert as_energy(used) == expected


def test_a_column_of_configurations_gives_a_column() -> None:
    every = np.array([600.0, np.inf, 600.0])
    rates = np.array([0.1, 0.1, np.nan])
    rework = spot_run_s(HOUR, 60.0, every, 5.0, rates, np.array([1, 2, 1]))
    singles = [spot_run_s(HOUR, 60.0, 600.0, 5.0, 0.1, 1), spot_run_s(HOUR, 60.0, None, 5.0, 0.1, 2), math.nan]
    np.testing.assert_allclose(rework, singles)
    compute, storage, _ = money(np.array([HOUR, 2 * HOUR]), np.array([1.0, np.nan]), 1e9)
    np.testing.assert_allclose(compute, [1.0, np.nan])
    assert storage == pytest.approx(0.023)
    np.testing.assert_allclose(energy(HOUR, np.array([1000.0, np.nan])).kwh, [1.0, np.nan])
