"""What is learnt from measurements: converges, is not fooled, is shared over effects, can be stored."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.estimate.calibration import (
    CLIP_SPREADS,
    FIRST_SPREAD,
    LACK_OF_FIT,
    LEVEL_SPREADS,
    MAX_POINTS,
    MINIMUM_SPREAD,
    NEWEST_WEIGHT,
    PART_SCALES,
    POINT_SPREAD,
    Calibration,
    Correction,
    Entry,
    Subject,
    operating_point,
)
from scheduler.estimate.step_time import BETWEEN, COMPUTE, LAUNCH, MEMORY, PARTS, WITHIN

T4 = Subject("train", "bert", "T4", "fp32")


def seconds(**each: float) -> tuple[float, ...]:
    """All parts of a prediction, by name."""
    return tuple(each.get(name, 0.0) for name in PARTS)


ARITHMETIC = seconds(compute=10.0)
MIXED = seconds(compute=6.0, memory=3.0, launch=1.0)


def learnt(*ratios: float, subject: Subject = T4, calibration: Calibration | None = None) -> Calibration:
    """The same point was measured at these ratios, one after the other."""
    calibration = calibration or Calibration()
    for ratio in ratios:
        assert calibration.observe(subject, 1, "b4", 10.0 * ratio, ARITHMETIC)
    return calibration


def points(*ratios: float, subject: Subject = T4) -> Calibration:
    """As many points of a subject were measured once each."""
    calibration = Calibration()
    for number, ratio in enumerate(ratios):
        assert calibration.observe(subject, 1, f"b{number}", 10.0 * ratio, ARITHMETIC)
    return calibration


def factor(calibration: Calibration, subject: Subject = T4, part: int = COMPUTE) -> float:
    """What all of a subject's points are corrected by."""
    return math.exp(float(calibration.belief(subject).mean[part]))


def at(calibration: Calibration, subject: Subject = T4, label: str = "b4") -> float:
    """What one point is corrected by."""
    return math.exp(
        float(calibration.belief(subject, label).mean[COMPUTE]) + calibration.residual(subject, 1, label)[0]
    )


def width(calibration: Calibration, subject: Subject, label: str = "b99") -> float:
    """Standard deviation of the logarithm of one point's seconds."""
    covariance = calibration.belief(subject, label).covariance
    variance = covariance[COMPUTE, COMPUTE] + calibration.residual(subject, 1, label)[1]
    return math.sqrt(float(variance))


def test_nothing_measured_is_a_factor_of_about_two_and_says_that_it_is_not_known() -> None:
    found = Calibration().belief(T4)
    assert (found.mean.tolist(), found.known) == ([0.0] * len(PARTS), False)
    prior = float(np.sum(LEVEL_SPREADS**2)) + POINT_SPREAD**2
    assert np.diag(found.covariance).tolist() == pytest.approx((prior * PART_SCALES**2).tolist())
    assert Calibration().residual(T4, 1, "b4") == (0.0, LACK_OF_FIT**2)
    assert 1.6 < math.exp(2 * width(Calibration(), T4)) < 3.2


@pytest.mark.parametrize("ratio", [1 / 3, 0.8, 1.0, 1.5, 3.0])
def test_one_measurement_is_nearly_believed(ratio: float) -> None:
    assert math.log(at(learnt(ratio))) == pytest.approx(math.log(ratio), abs=0.1 * abs(math.log(ratio)) + 1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(0.2, 5.0), st.lists(st.floats(-0.1, 0.1), min_size=40, max_size=40))
def test_it_converges_on_what_is_measured(truth: float, noise: list[float]) -> None:
    found = learnt(*(truth * math.exp(error) for error in noise))
    assert math.log(at(found)) == pytest.approx(math.log(truth), abs=0.13)


def test_it_follows_a_machine_that_changed() -> None:
    assert at(learnt(*[1.0] * 50, *[2.0] * 40)) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("factor_off", [10.0, 0.1])
def test_an_outlier_among_five_good_points_moves_little(place: int, factor_off: float) -> None:
    """A paused machine, also where it is the first that is measured."""
    good, ratios = points(*[1.5] * 5), [1.5] * 5
    ratios.insert(place, 1.5 * factor_off)
    assert factor(points(*ratios)) == pytest.approx(factor(good), rel=0.10)
    assert at(points(*ratios), label="b99") == pytest.approx(at(good, label="b99"), rel=0.10)


def test_an_outlier_at_a_known_point_moves_it_little() -> None:
    steady = learnt(*[1.0] * 5)
    before = at(steady)
    assert at(learnt(10.0, calibration=steady)) == pytest.approx(before, rel=0.10)
    assert at(learnt(1.0, 1.0, calibration=steady)) == pytest.approx(before, rel=0.05)


ABSURD = [
    ("no time", 0.0, ARITHMETIC),
    ("negative time", -1.0, ARITHMETIC),
    ("no number", math.nan, ARITHMETIC),
    ("infinite", math.inf, ARITHMETIC),
    ("nothing predicted", 1.0, seconds()),
    ("a negative part", 10.0, seconds(compute=12.0, memory=-1.0)),
    ("a part that is no number", 10.0, seconds(compute=10.0, memory=math.nan)),
    ("more than a thousandfold", 10_001.0, ARITHMETIC),
    ("less than a thousandth", 0.0099, ARITHMETIC),
]  # fmt: skip


@pytest.mark.parametrize(("measured", "parts"), [row[1:] for row in ABSURD], ids=[row[0] for row in ABSURD])
def test_the_absurd_is_refused_and_changes_nothing(measured: float, parts: tuple[float, ...]) -> None:
    calibration = learnt(2.0)
    before = dict(calibration.points)
    assert not calibration.observe(T4, 1, "b4", measured, parts)
    assert not calibration.observe(T4, 1, "b5", measured, parts)
    assert calibration.points == before


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 31 * 86400.0])
def test_absurd_overheads_are_refused(seconds: float) -> None:
    calibration = Calibration()
    assert not calibration.observe_overhead("train", "bert", 2, seconds)
    assert not calibration.observe_history("command", "a", "cpux1", seconds)
    assert calibration.entries == {}


FARTHER = [
    ("the subject itself", T4),
    ("another kind of work", replace(T4, kind="batch-infer")),
    ("another family", replace(T4, family="gpt2")),
    ("the family on another device", replace(T4, device="A100")),
    ("nothing in common", Subject("batch-infer", "gpt2", "A100", "bf16")),
]


def test_what_was_measured_in_fp32_leaves_other_precisions_in_doubt() -> None:
    calibration = points(*[2.0] * 8)
    reduced = replace(T4, precision="bf16")
    assert 1.5 < factor(calibration, reduced) < factor(calibration, T4)
    assert width(calibration, reduced) > 2 * width(calibration, T4)
    assert width(Calibration(), reduced) > width(Calibration(), T4)


def test_what_is_farther_is_corrected_less_and_doubted_more() -> None:
    calibration = points(*[2.0] * 8)
    factors = [factor(calibration, subject) for _, subject in FARTHER]
    assert factors == sorted(factors, reverse=True)
    assert len(set(factors)) == len(factors)
    assert factors[0] == pytest.approx(2.0, rel=0.05)
    assert factors[-1] == pytest.approx(1.0)
    widths = [width(calibration, subject) for _, subject in FARTHER]
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(width(Calibration(), FARTHER[-1][1]))
    known = [calibration.belief(subject).known for _, subject in FARTHER]
    assert known == [True, True, True, False, False], "known is what was measured on the device itself"


def test_a_slow_device_is_slow_for_every_family_and_leaves_the_others_nearly_alone() -> None:
    calibration = points(*[2.0] * 5)
    other_family, other_device = replace(T4, family="gpt2"), replace(T4, device="A100")
    assert 1.2 < factor(calibration, other_family) < factor(calibration) - 0.1
    assert 1.0 < factor(calibration, other_device) < 1.25
    assert factor(calibration, replace(T4, family="gpt2", device="A100")) == pytest.approx(1.0)


def test_two_families_agree_on_what_the_device_does() -> None:
    one, two = points(*[2.0] * 4), points(*[2.0] * 4)
    for number in range(4):
        two.observe(replace(T4, family="gpt2"), 1, f"b{number}", 20.0, ARITHMETIC)
    third = replace(T4, family="vit")
    assert factor(two, third) > factor(one, third)
    assert width(two, third) < width(one, third)


def test_precisions_share_the_device() -> None:
    calibration = points(*[2.0] * 5)
    assert 1.3 < factor(calibration, replace(T4, precision="bf16")) < factor(calibration)


def test_what_one_shard_shows_helps_two() -> None:
    calibration = Calibration()
    calibration.observe(T4, 1, "b4", 20.0, ARITHMETIC)
    before = width(calibration, T4)
    calibration.observe(T4, 2, "b4", 20.0, seconds(compute=8.0, within=2.0))
    assert factor(calibration) > 1.5
    assert calibration.residual(T4, 4, "b4") == (0.0, LACK_OF_FIT**2)
    assert width(calibration, T4) < before
    assert factor(calibration, part=WITHIN) > 1.0
    assert factor(calibration, part=BETWEEN) == pytest.approx(1.0), "no link between nodes was ever measured"


def test_points_of_different_make_up_tell_the_parts_apart() -> None:
    calibration = Calibration()
    for number in range(4):
        calibration.observe(T4, 1, f"b{number}", 20.0, seconds(compute=10.0))
        calibration.observe(T4, 1, f"s{number}", 5.0, seconds(memory=10.0))
        calibration.observe(T4, 1, f"k{number}", 30.0, seconds(launch=10.0))
    factors = [factor(calibration, part=part) for part in (COMPUTE, MEMORY, LAUNCH)]
    assert factors == pytest.approx([2.0, 0.5, 3.0], rel=0.1)
    mixed = sum(part * each for part, each in zip(MIXED, factors, strict=False))
    calibration.observe(T4, 1, "m", mixed, MIXED)
    assert [factor(calibration, part=part) for part in (COMPUTE, MEMORY, LAUNCH)] == pytest.approx(factors, rel=0.02)


def test_traffic_that_is_hidden_teaches_nothing_about_the_link() -> None:
    hidden, exposed = Calibration(), Calibration()
    hidden.observe(T4, 2, "b4", 30.0, seconds(compute=10.0, between=1.0), overlap=0.9)
    exposed.observe(T4, 2, "b4", 30.0, seconds(compute=10.0, between=10.0), overlap=0.0)
    assert abs(math.log(factor(hidden, part=BETWEEN))) < abs(math.log(factor(exposed, part=BETWEEN))) / 5


def test_the_interval_narrows_with_measurements() -> None:
    other = replace(T4, family="gpt2")
    for subject in (T4, other):
        widths = [width(points(*[2.0] * count), subject) for count in (0, 1, 2, 4, 8, 16)]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] < widths[0] * 0.8
    again = [width(learnt(*[2.0] * count), T4, "b4") for count in (1, 2, 3)]
    assert again == sorted(again, reverse=True)


def test_a_points_own_measurements_are_the_last_word() -> None:
    calibration = points(*[1.0] * 6)
    for _ in range(5):
        calibration.observe(T4, 1, "odd", 11.5, ARITHMETIC)
    shift, variance = calibration.residual(T4, 1, "odd")
    assert shift > 0 > calibration.residual(T4, 1, "b0")[0] - 0.01
    assert variance < LACK_OF_FIT**2
    assert at(calibration, label="b99") < at(calibration, label="odd") <= 1.15


def test_the_oldest_points_are_forgotten() -> None:
    calibration = Calibration()
    for number in range(MAX_POINTS + 2):
        calibration.observe(T4, 1, f"b{number}", 10.0, ARITHMETIC)
        calibration.observe(T4, 1, "b0", 10.0, ARITHMETIC)  # measured again and again
    labels = [label for _, _, label in calibration.points]
    assert len(labels) == MAX_POINTS
    assert "b0" in labels
    assert not {"b1", "b2"} & set(labels)
    assert labels[-2:] == [f"b{MAX_POINTS + 1}", "b0"]


def test_what_was_learnt_can_be_forgotten() -> None:
    calibration = learnt(3.0)
    calibration.observe_overhead("train", "bert", 2, 8.0)
    assert factor(calibration) > 2
    calibration.forget()
    assert calibration == Calibration()
    assert (factor(calibration), calibration.to_rows()) == (1.0, [])


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


def history(calibration: Calibration, size: float | None) -> Correction:
    found = calibration.history_s("command", "a", "T4x1", size)
    assert found is not None
    return found


def test_history_goes_with_the_size_and_is_doubted_where_it_was_another() -> None:
    calibration = Calibration()
    calibration.observe_history("command", "a", "T4x1", 40.0, 1000.0)
    same, larger, smaller = (history(calibration, size) for size in (1000.0, 10_000.0, 100.0))
    assert [each.mean for each in (same, larger, smaller)] == pytest.approx([40.0, 400.0, 4.0])
    assert same.high / same.low < 2.1 < 9 < larger.high / larger.low == pytest.approx(smaller.high / smaller.low)
    calibration.observe_history("command", "a", "T4x1", 100.0, 8000.0)  # not proportional: the nearer one is scaled
    assert history(calibration, 10_000.0).mean == pytest.approx(125.0)
    assert history(calibration, 1000.0).mean == pytest.approx(40.0)


def test_sizes_that_hardly_differ_are_one() -> None:
    calibration = Calibration()
    for size in (1000.0, 1010.0, 1020.0, 1030.0):
        calibration.observe_history("command", "a", "T4x1", size / 10, size)
    assert len(calibration.entries) == 1
    assert history(calibration, 1040.0).mean == pytest.approx(104.0)


def test_a_run_of_unknown_size_says_nothing_of_a_known_one() -> None:
    calibration = Calibration()
    calibration.observe_history("command", "a", "T4x1", 40.0)
    assert calibration.history_s("command", "a", "T4x1", 1000.0) is None
    calibration.observe_history("command", "a", "T4x1", 9.0, 1000.0)
    assert history(calibration, None).mean == pytest.approx(40.0)
    assert history(calibration, 0.0).mean == pytest.approx(40.0), "no size is not known"


def test_rows_of_an_older_store_load_and_those_of_no_known_shape_are_left_out() -> None:
    old = ("history\tcommand\ta\tT4x1", math.log(40.0), 0.1, 1, "")
    keys = (
        "history\tcommand\ta\tT4x1\tmany",
        "history\tcommand",
        "history\ta\tb\tc\td\te",
        "overhead\ttrain",
        "new\ta",
    )
    calibration = Calibration.from_rows([old, *((key, 1.0, 0.1, 1, "") for key in keys)])
    assert calibration.to_rows() == [old]
    assert history(calibration, None).mean == pytest.approx(40.0)


measurements = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(1, 4), st.sampled_from(["", "b4", "b4 t9"]), st.floats(0.01, 100.0)
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(measurements, max_size=20))
def test_rows_are_all_there_is(measured: list[tuple[str, int, str, float]]) -> None:
    calibration = Calibration()
    for family, count, label, ratio in measured:
        subject = Subject("train", family, "T4~emulated@0.5", "fp32")
        calibration.observe(
            subject, count, label, ratio, seconds(compute=0.5, memory=0.2, launch=0.1, between=0.4), 0.3
        )
        calibration.observe_overhead("train", family, count, ratio)
        calibration.observe_history("command", family, f"T4x{count}", ratio)
        calibration.observe_history("command", family, f"T4x{count}", ratio, 1000.0 * ratio)
    back = Calibration.from_rows(calibration.to_rows())
    assert back == calibration
    assert back.to_rows() == calibration.to_rows()
    assert list(back.points) == list(calibration.points), "also the order, the oldest are forgotten first"


KEY = "speed\ttrain\tbert\tT4\tfp32\t1\tb4"
PARTS_TEXT = json.dumps({"parts": list(seconds(compute=1.0)), "overlap": 0.0})
BROKEN = [
    ("of an earlier version", "speed\ttrain\tbert\tT4\tfp32\t2", ""),
    ("of an earlier version, with parts", "speed\ttrain\tbert\tT4\tfp32\t2", PARTS_TEXT),
    ("without parts", KEY, ""),
    ("not JSON", KEY, "{"),
    ("no overlap", KEY, json.dumps({"parts": list(ARITHMETIC)})),
    ("no object", KEY, "[1, 2]"),
    ("three parts", KEY, '{"parts": [1, 0, 0], "overlap": 0.0}'),
    ("parts that are no numbers", KEY, PARTS_TEXT.replace("1.0", '"x"')),
    ("parts of nothing", KEY, '{"parts": null, "overlap": 0.0}'),
    ("a count of shards that is none", KEY.replace("\t1\t", "\tone\t"), PARTS_TEXT),
]


@pytest.mark.parametrize(("key", "parts"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_row_of_another_shape_is_left_out_and_the_rest_kept(key: str, parts: str) -> None:
    calibration = learnt(2.0)
    calibration.observe_overhead("train", "bert", 2, 8.0)
    rows = [(key, 0.7, 0.1, 3, parts), *(row for row in calibration.to_rows() if row[0] != key)]
    found = Calibration.from_rows(rows)
    assert found.entries == calibration.entries
    assert (T4, 1, "b4") not in found.points or key != KEY


def test_a_good_row_is_read() -> None:
    found = Calibration.from_rows([(KEY, 0.7, 0.1, 3, PARTS_TEXT)])
    assert list(found.points) == [(T4, 1, "b4")]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-6.9, 6.9), min_size=1, max_size=50))
def test_the_mean_stays_among_the_measured_and_the_spread_is_a_number(values: list[float]) -> None:
    entry = Entry.first(values[0])
    assert entry == Entry(values[0], FIRST_SPREAD, 1)
    for value in values[1:]:
        before, entry = entry, entry.updated(value)
        reach = math.inf if before.count == 1 else CLIP_SPREADS * max(before.spread, MINIMUM_SPREAD)
        assert abs(entry.mean - before.mean) <= max(1 / (before.count + 1), NEWEST_WEIGHT) * reach + 1e-12
    assert min(values) - 1e-9 <= entry.mean <= max(values) + 1e-9
    assert math.isfinite(entry.spread) and entry.spread >= 0
    assert entry.count == len(values)


def test_operating_points_are_half_octaves_of_batch_and_length() -> None:
    assert operating_point(32, 128.0) == "b10 t14"
    assert operating_point(33, 130.0) == operating_point(32, 128.0)
    assert operating_point(32, None) == "b10"
    labels = [operating_point(2 ** (step / 2), None) for step in range(-8, 12)]
    assert len(set(labels)) == len(labels)
    assert operating_point(0.0, 0.0) == operating_point(2**-4, 1.0)
