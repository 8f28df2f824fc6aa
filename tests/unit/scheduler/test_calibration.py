"""What is learnt from measurements: converges, is not fooled, falls back, can be stored."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.estimate.calibration import CLIP_SPREADS, PRIOR_SPREAD, Calibration, Entry

KEY = ("train", "bert", "T4", "fp32")


def learnt(*ratios: float, count: int = 2) -> Calibration:
    calibration = Calibration()
    for ratio in ratios:
        assert calibration.observe(*KEY, count, 10.0 * ratio, 10.0)
    return calibration


def test_nothing_measured_is_a_factor_of_two_and_says_that_it_is_not_known() -> None:
    found = Calibration().correction(*KEY, 2)
    assert (found.mean, found.known) == (1.0, False)
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(2.0))


def test_one_measurement_is_believed() -> None:
    assert learnt(3.0).correction(*KEY, 2).mean == pytest.approx(3.0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(0.01, 100.0), st.lists(st.floats(-0.1, 0.1), min_size=40, max_size=40))
def test_it_converges_on_what_is_measured(truth: float, noise: list[float]) -> None:
    calibration = learnt(*(truth * math.exp(error) for error in noise))
    found = calibration.correction(*KEY, 2)
    assert math.log(found.mean) == pytest.approx(math.log(truth), abs=0.11)
    assert found.low < truth < found.high


def test_the_interval_narrows() -> None:
    widths = [
        math.log((found := learnt(*[2.0] * times).correction(*KEY, 2)).high / found.low) for times in (1, 2, 4, 8, 16)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 2


def test_it_follows_a_machine_that_changed() -> None:
    found = learnt(*[1.0] * 50, *[2.0] * 40).correction(*KEY, 2)
    assert found.mean == pytest.approx(2.0, rel=0.05)


def test_a_single_outlier_moves_little() -> None:
    steady = learnt(*[1.0] * 20)
    before = steady.entries["speed", *KEY, "2"]
    steady.observe(*KEY, 2, 900.0, 1.0)
    after = steady.entries["speed", *KEY, "2"]
    assert after.mean - before.mean <= 0.3 * CLIP_SPREADS * max(before.spread, 0.05) + 1e-12
    assert steady.correction(*KEY, 2).mean < 1.1


@pytest.mark.parametrize(
    ("measured", "predicted"),
    [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (math.inf, 1.0), (2000.0, 1.0), (1.0, 2000.0)],
)
def test_the_absurd_is_refused_and_changes_nothing(measured: float, predicted: float) -> None:
    calibration = learnt(2.0)
    before = dict(calibration.entries)
    assert not calibration.observe(*KEY, 2, measured, predicted)
    assert calibration.entries == before


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 31 * 86400.0])
def test_absurd_overheads_are_refused(seconds: float) -> None:
    calibration = Calibration()
    assert not calibration.observe_overhead("train", "bert", 2, seconds)
    assert not calibration.observe_history("command", "a", "cpux1", seconds)
    assert calibration.entries == {}


LEVELS = [
    ("the very key", ("train", "bert", "T4", "fp32", 2), 3.0, True),
    ("another count", ("train", "bert", "T4", "fp32", 4), 3.0, True),
    ("another family", ("train", "gpt2", "T4", "fp32", 2), 3.0, True),
    ("another device", ("train", "bert", "A100", "fp32", 2), 1.0, False),
    ("another precision", ("train", "bert", "T4", "bf16", 2), 1.0, False),
    ("another kind", ("batch-infer", "bert", "T4", "fp32", 2), 1.0, False),
]


@pytest.mark.parametrize(("key", "mean", "known"), [row[1:] for row in LEVELS], ids=[row[0] for row in LEVELS])
def test_levels_fall_back_to_what_is_nearest(key: tuple[str, str, str, str, int], mean: float, known: bool) -> None:
    found = learnt(3.0).correction(*key)
    assert (found.mean, found.known) == (pytest.approx(mean), known)


def test_a_nearer_level_wins_and_a_farther_one_doubts_more() -> None:
    calibration = learnt(3.0)
    calibration.observe(*KEY, 4, 10.0, 10.0)
    assert calibration.correction(*KEY, 4).mean == pytest.approx(1.0)
    assert calibration.correction(*KEY, 2).mean == pytest.approx(3.0)
    widths = [
        math.log(found.high / found.low)
        for found in (learnt(3.0).correction(*KEY, 2), learnt(3.0).correction(*KEY, 4), learnt(3.0).correction("train", "gpt2", "T4", "fp32", 1))
    ]  # fmt: skip
    assert widths == sorted(widths)
    assert widths[0] < widths[1] < widths[2]


def test_overheads_by_device_count_then_family_then_kind() -> None:
    calibration = Calibration()
    assert calibration.overhead_s("train", "bert", 2, 16.0).mean == 16.0
    calibration.observe_overhead("train", "bert", 2, 8.0)
    calibration.observe_overhead("train", "bert", 4, 32.0)
    assert calibration.overhead_s("train", "bert", 2, 16.0).mean == pytest.approx(8.0)
    assert calibration.overhead_s("train", "bert", 4, 16.0).mean == pytest.approx(32.0)
    assert 8.0 < calibration.overhead_s("train", "bert", 3, 16.0).mean < 32.0
    assert calibration.overhead_s("train", "gpt2", 2, 16.0).known
    assert not calibration.overhead_s("batch-infer", "bert", 2, 16.0).known


def test_history_is_of_one_configuration() -> None:
    calibration = Calibration()
    calibration.observe_history("command", "a", "T4x1", 40.0)
    found = calibration.history_s("command", "a", "T4x1")
    assert found is not None
    assert found.mean == pytest.approx(40.0)
    assert calibration.history_s("command", "a", "T4x2") is None
    assert calibration.history_s("command", "b", "T4x1") is None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 4), st.floats(0.01, 100.0)), max_size=20))
def test_rows_are_all_there_is(measured: list[tuple[str, int, float]]) -> None:
    calibration = Calibration()
    for family, count, ratio in measured:
        calibration.observe("train", family, "T4~emulated@0.5", "fp32", count, ratio, 1.0)
        calibration.observe_overhead("train", family, count, ratio)
        calibration.observe_history("command", family, f"T4x{count}", ratio)
    rows = calibration.to_rows()
    assert rows == sorted(rows)
    back = Calibration.from_rows({row[0]: (row[1], row[2], row[3]) for row in rows})
    assert back == calibration


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-6.9, 6.9), min_size=1, max_size=50))
def test_the_mean_stays_among_the_measured_and_the_spread_is_a_number(values: list[float]) -> None:
    entry = Entry(values[0], PRIOR_SPREAD / 2, 1)
    for value in values[1:]:
        entry = entry.updated(value)
    assert min(values) - 1e-9 <= entry.mean <= max(values) + 1e-9
    assert math.isfinite(entry.spread) and entry.spread >= 0
    assert entry.count == len(values)
