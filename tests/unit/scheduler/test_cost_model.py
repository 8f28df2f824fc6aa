"""Seconds, bytes and dollars against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cluster.types import DeviceType
from making import A100, CPU, NO_RATES, PROFILE, T4, TPU, TYPES, UNPRICED, configuration, inference, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import (
    ADAMW_BYTES,
    BANDWIDTH_FRACTION,
    COMPUTE_FRACTION,
    FRAMEWORK_BYTES,
    STARTUP_S,
    STORAGE_USD_GB_MONTH,
    Link,
    all_reduce_s,
    calibration_name,
    estimate,
    predicted_work_s,
)
from scheduler.estimate.work import Work
from scheduler.types import Estimate, Reason

NETWORK = 1e9
LINK = Link(NETWORK, {"T4": 2, "A100": 1, "cpu": 4})


def of(
    work: Work, calibration: Calibration | None = None, types: dict[str, DeviceType] = TYPES, **counts: int
) -> Estimate:
    return estimate(work, configuration(**counts), types, LINK, calibration or Calibration())


def test_a_training_run_on_one_device() -> None:
    # 100 steps of 10 rows of 50 tokens: 6e6 x 50 x 10 = 3 GFLOP a step at 45% of 8 TFLOP/s.
    step_s = 3e9 / (8e12 * COMPUTE_FRACTION)
    moved = 10 * (1000 * 50 + 10 * 2500) * 2 + 1e6 * (3 * 4 + 2 * ADAMW_BYTES)
    memory_s = moved / (300e9 * BANDWIDTH_FRACTION)
    assert memory_s < step_s
    found = of(training(), T4=1)
    assert found.seconds == pytest.approx(STARTUP_S["train"] + 100 * step_s)
    assert (found.bound, found.source, found.startup_s) == ("compute", "roofline", STARTUP_S["train"])
    assert found.price_usd_h == 0.5
    assert found.money is not None
    assert found.money.compute_usd == pytest.approx(found.seconds / 3600 * 0.5)


def test_a_step_that_is_bound_by_memory() -> None:
    slow = replace(T4, memory_bandwidth_bytes_s=1e9)
    moved = 10 * (1000 * 50 + 10 * 2500) * 2 + 1e6 * (3 * 4 + 2 * ADAMW_BYTES)
    found = of(training(), types={"T4": slow}, T4=1)
    assert found.bound == "memory"
    assert found.seconds == pytest.approx(STARTUP_S["train"] + 100 * moved / (1e9 * BANDWIDTH_FRACTION))


def test_narrow_precision_moves_half_and_runs_at_its_own_peak() -> None:
    half = of(training(precision="fp16"), T4=1)
    moved = 10 * (1000 * 50 + 10 * 2500) * 2 / 2 + 1e6 * (3 * 2 + 2 * ADAMW_BYTES)
    assert half.bound == "memory"
    assert half.seconds == pytest.approx(STARTUP_S["train"] + 100 * moved / (300e9 * BANDWIDTH_FRACTION))
    assert half.memory_bytes == FRAMEWORK_BYTES + 1e6 * ADAMW_BYTES + 10 * 75_000 / 2


def test_a_precision_the_hardware_lacks_runs_at_fp32() -> None:
    no_bandwidth = replace(T4, memory_bandwidth_bytes_s=None)
    types = {"T4": no_bandwidth}
    assert of(training(precision="bf16"), types=types, T4=1).seconds == of(training(), types=types, T4=1).seconds


@pytest.mark.parametrize(
    ("shards", "bytes_s"),
    [(1, None), (2, 32e9), (3, NETWORK), (4, NETWORK)],
    ids=["one shard sends nothing", "two on one node use its link", "three cross the network", "so do four"],
)
def test_a_ring_all_reduce_over_the_slowest_link(shards: int, bytes_s: float | None) -> None:
    volume = 2 * (shards - 1) / shards * 4e6
    assert all_reduce_s(4e6, shards, T4, LINK) == (0.0 if bytes_s is None else pytest.approx(volume / bytes_s))


def test_an_unknown_interconnect_is_the_network() -> None:
    assert all_reduce_s(4e6, 2, replace(T4, interconnect_bytes_s=None), LINK) == pytest.approx(4e6 / NETWORK)


def test_four_shards_over_the_network_are_bound_by_it() -> None:
    wide = training(samples=4000.0)
    step_s = 2.5 * 6e6 * 50 / (8e12 * COMPUTE_FRACTION)
    moved_s = (2.5 * 75_000 * 2 + 1e6 * (12 + 2 * ADAMW_BYTES)) / (300e9 * BANDWIDTH_FRACTION)
    communication_s = 2 * 3 / 4 * 4e6 / NETWORK
    found = of(wide, T4=4)
    assert found.bound == "communication"
    assert found.seconds == pytest.approx(STARTUP_S["train"] + 400 * (max(step_s, moved_s) + communication_s))
    assert found.price_usd_h == 2.0


def test_evaluation_rows_are_only_passed_forward() -> None:
    plain, evaluated = of(training(), T4=2), of(training(evaluation_samples=500.0), T4=2)
    assert plain.seconds is not None
    forward_s = 2e6 * 50 / (8e12 * COMPUTE_FRACTION)
    assert evaluated.seconds == pytest.approx(plain.seconds + 500 / 2 * forward_s)


def test_memory_of_training_is_split_over_shards_but_the_optimizer_is_not() -> None:
    fixed = FRAMEWORK_BYTES + 1e6 * ADAMW_BYTES
    found = [of(training(), T4=count).memory_bytes for count in (1, 2, 4)]
    assert found == [fixed + rows * 75_000 for rows in (10, 5, 2.5)]


def test_what_does_not_fit_says_by_how_much() -> None:
    large = replace(PROFILE, parameters=2_000_000_000)
    found = of(training(profile=large), T4=1)
    needed = FRAMEWORK_BYTES + 2e9 * ADAMW_BYTES + 10 * 75_000
    assert found == Estimate(
        configuration(T4=1),
        None,
        memory_bytes=needed,
        price_usd_h=0.5,
        infeasible=Reason("memory", "needs 32.6 GB a device, 16.6 GB too much"),
    )
    assert of(training(profile=large), A100=1).infeasible is None


def test_inference_fits_where_training_does_not() -> None:
    large = replace(PROFILE, parameters=2_000_000_000)
    found = of(inference(profile=large), T4=1)
    widest = 75_000 / 50 / 4
    assert found.memory_bytes == FRAMEWORK_BYTES + 2e9 * 4 + 10 * 50 * widest
    assert found.infeasible is None


def test_a_device_of_unknown_memory_is_not_refused() -> None:
    assert of(training(), types={"T4": replace(T4, memory_bytes=None)}, T4=1).infeasible is None


def test_the_rates_of_replicas_add_up() -> None:
    t4_batch_s = max(10 * 2e6 * 50 / (8e12 * COMPUTE_FRACTION), 4e6 / (300e9 * BANDWIDTH_FRACTION))
    a100_batch_s = max(10 * 2e6 * 50 / (20e12 * COMPUTE_FRACTION), 4e6 / (1.5e12 * BANDWIDTH_FRACTION))
    rate = 2 * 10 / t4_batch_s + 10 / a100_batch_s
    found = of(inference(), T4=2, A100=1)
    assert found.seconds == pytest.approx(STARTUP_S["batch-infer"] + 1000 / rate)
    assert found.price_usd_h == 2 * 0.5 + 4.0
    # Replicas send each other nothing: four take a quarter of the time of one.
    one, four = of(inference(samples=1e6), T4=1), of(inference(samples=1e6), T4=4)
    assert one.seconds is not None and four.seconds is not None
    assert four.seconds - STARTUP_S["batch-infer"] == pytest.approx((one.seconds - STARTUP_S["batch-infer"]) / 4)


def test_preprocessing_runs_at_the_sampled_rate_of_its_cores() -> None:
    work = Work("preprocess", "tokenise", samples=1000.0, rows_per_core_s=100.0, output_bytes=2e9)
    found = of(work, cpu=2)
    assert found.seconds == pytest.approx(STARTUP_S["preprocess"] + 5.0)
    assert (found.source, found.bound) == ("measured", "compute")
    assert found.money is not None
    assert found.money.storage_usd == pytest.approx(2 * STORAGE_USD_GB_MONTH)
    assert found.money.total_usd == pytest.approx(15.0 / 3600 * 2 * 0.05 + 2 * STORAGE_USD_GB_MONTH)


REFUSALS = [
    ("preprocessing on a GPU", Work("preprocess", "x", samples=1.0, rows_per_core_s=1.0), {"T4": 1}, "preprocessing runs on CPU actors"),
    ("a gang of two types", training(), {"T4": 1, "A100": 1}, "the shards of a training gang are of one device type"),
    ("a command on two types", Work("command", "x"), {"T4": 1, "A100": 1}, "a command runs on one node, and none has all of these devices"),
    ("a command on more than a node has", Work("command", "x"), {"T4": 3}, "a command runs on one node, and none has all of these devices"),
    ("a built-in body on a TPU", training(), {"TPU_v4": 1}, "the built-in bodies do not run on a tpu yet"),
    ("a built-in body on an FPGA", inference(), {"FPGA": 1}, "the built-in bodies do not run on a fpga yet"),
]  # fmt: skip


@pytest.mark.parametrize(("work", "counts", "message"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_device_that_cannot_do_it(work: Work, counts: dict[str, int], message: str) -> None:
    types = TYPES | {"TPU_v4": TPU}
    found = of(work, types=types, **counts)
    assert (found.seconds, found.money, found.infeasible) == (None, None, Reason("device", message))


def test_an_emulated_tpu_and_own_code_on_a_tpu_are_fine() -> None:
    emulated = replace(TPU, emulated_speed=0.5, peak_flops={"fp32": 25e9})
    assert of(training(), types={"TPU": emulated}, TPU=1).infeasible is None
    assert of(Work("train", "mine", declared_s=60.0), types={"TPU": TPU}, TPU=1).infeasible is None


def test_an_unpriced_device_has_no_price_and_no_money_but_a_time() -> None:
    found = of(Work("command", "mine", declared_s=60.0), FPGA=1)
    assert UNPRICED.price_usd_h is None
    assert (found.seconds, found.price_usd_h, found.money) == (63.0, None, None)
    mixed = of(Work("command", "mine", declared_s=60.0), FPGA=1, T4=1)
    assert (mixed.price_usd_h, mixed.money) == (None, None)


@pytest.mark.parametrize(
    ("work", "counts"),
    [
        (training(), {"Z9": 1}),
        (inference(), {"Z9": 1, "T4": 1}),
        (Work("command", "mine"), {"T4": 1}),
        (training(tokens=50.0, profile=None), {"T4": 1}),
        (Work("preprocess", "mine", samples=10.0), {"cpu": 1}),
    ],
    ids=["rates nobody knows", "one of two unknown", "a command", "own code", "own preprocessing"],
)
def test_an_unknown_time_is_none_and_never_invented(work: Work, counts: dict[str, int]) -> None:
    assert NO_RATES.peak_flops == {}
    found = of(work, **counts)
    assert (found.seconds, found.low_s, found.high_s, found.money, found.source) == (None, None, None, None, "unknown")
    assert found.infeasible is None
    assert found.price_usd_h is not None


def test_the_users_own_time_counts_before_any_model() -> None:
    found = of(training(declared_s=120.0), T4=2)
    assert found.seconds == STARTUP_S["train"] + 120.0
    assert (found.source, found.low_s, found.high_s) == (
        "declared",
        STARTUP_S["train"] / 2 + 120.0,
        STARTUP_S["train"] * 2 + 120.0,
    )


def test_history_speaks_where_no_model_does() -> None:
    calibration = Calibration()
    calibration.observe_history("command", "mine", "T4x2", 40.0)
    work = Work("command", "mine")
    found = of(work, calibration, T4=2)
    assert found.seconds == pytest.approx(STARTUP_S["command"] + 40.0)
    assert found.source == "measured"
    assert of(work, calibration, T4=1).seconds is None
    assert of(Work("command", "other"), calibration, T4=2).seconds is None


def test_calibration_scales_the_work_and_not_the_start_up() -> None:
    calibration = Calibration()
    calibration.observe("train", PROFILE.family, "T4", "fp32", 1, 30.0, 10.0)
    plain, corrected = of(training(), T4=1), of(training(), calibration, T4=1)
    assert plain.seconds is not None
    start = STARTUP_S["train"]
    assert corrected.seconds == pytest.approx(start + 3.0 * (plain.seconds - start))
    assert corrected.source == "calibrated"
    assert corrected.low_s is not None and corrected.high_s is not None
    assert corrected.low_s < corrected.seconds < corrected.high_s  # type: ignore[operator]


def test_corrected_rates_of_different_replicas_add_up() -> None:
    calibration = Calibration()
    calibration.observe("batch-infer", PROFILE.family, "T4", "fp32", 1, 2.0, 1.0)
    work = inference(samples=1e6)
    start = STARTUP_S["batch-infer"]
    rates = [1e6 / (s - start) for s in (of(work, T4=1).seconds, of(work, A100=1).seconds) if s is not None]
    assert of(work, calibration, T4=1, A100=1).seconds == pytest.approx(start + 1e6 / (rates[0] / 2 + rates[1]))


def test_emulated_devices_are_calibrated_apart() -> None:
    emulated = replace(A100, emulated_speed=0.25)
    assert [calibration_name(kind) for kind in (A100, emulated)] == ["A100", "A100~emulated@0.25"]
    calibration = Calibration()
    calibration.observe("train", PROFILE.family, calibration_name(emulated), "fp32", 1, 30.0, 10.0)
    assert of(training(), calibration, A100=1).source == "roofline"
    assert of(training(), calibration, types={"A100": emulated}, A100=1).source == "calibrated"


def test_the_uncalibrated_prediction_that_measurements_are_compared_with() -> None:
    found = predicted_work_s(training(), configuration(T4=1), TYPES, LINK)
    assert found == pytest.approx(100 * 3e9 / (8e12 * COMPUTE_FRACTION))
    assert predicted_work_s(training(), configuration(Gone=1), TYPES, LINK) is None
    assert predicted_work_s(training(), configuration(Z9=1), TYPES, LINK) is None


def test_the_prior_interval_is_a_factor_of_two_each_way() -> None:
    found = of(training(samples=1e6), T4=1)
    assert found.seconds is not None
    work_s = found.seconds - found.startup_s
    assert found.low_s == pytest.approx(found.startup_s / 2 + work_s / 2)
    assert found.high_s == pytest.approx(found.startup_s * 2 + work_s * 2)


def test_cpus_are_priced_and_timed_like_any_device() -> None:
    found = of(training(), cpu=1)
    assert found.seconds == pytest.approx(STARTUP_S["train"] + 100 * 3e9 / (50e9 * COMPUTE_FRACTION))
    assert found.price_usd_h == CPU.price_usd_h
    assert found.seconds is not None and math.isfinite(found.seconds)
