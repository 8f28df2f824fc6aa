"""Seconds of one configuration against closed forms of the constants they are made of; gangs are in `test_gangs`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import DeviceType
from making import A100, CPU, NO_RATES, PROFILE, T4, TPU, TYPES, UNPRICED, configuration, inference, training
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.cost_model import (
    STARTUP_S,
    Facts,
    checkpoint_seconds,
    estimate,
    estimate_all,
)
from scheduler.estimate.expectation import expectation, expected_work_s
from scheduler.estimate.hardware import (
    CPU_COMPUTE,
    CPU_LAUNCH_S,
    GPU_BANDWIDTH,
    GPU_COMPUTE,
    GPU_LAUNCH_S,
)
from scheduler.estimate.names import calibration_name, configuration_key
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.rows import EVALUATION_BATCH
from scheduler.estimate.step_time import ADAMW_BYTES, CLIP_BYTES
from scheduler.estimate.work import Work
from scheduler.types import Estimate, Reason

PER_NODE = {"T4": 2, "A100": 1, "cpu": 4}
PRODUCTS = GPU_COMPUTE["matmul"]
ONE: dict[str, dict[str, Any]] = {"T4": {"T4": 1}, "A100": {"A100": 1}}


def facts(types: dict[str, DeviceType] = TYPES, **fields: Any) -> Facts:
    chosen: dict[str, Any] = {"network_bytes_s": 1e9, "devices_per_node": PER_NODE} | fields
    return Facts(types, **chosen)


def of(work: Work, calibration: Calibration | None = None, types: dict[str, DeviceType] = TYPES, **n: int) -> Estimate:
    return estimate(work, configuration(**n), facts(types), calibration or Calibration())


def work_s(found: Estimate) -> float:
    assert found.seconds is not None
    return found.seconds - found.startup_s


def optimizer_s(device: DeviceType, parameters: float = 1e6) -> float:
    assert device.memory_bandwidth_bytes_s is not None
    return parameters * (ADAMW_BYTES + CLIP_BYTES) / (device.memory_bandwidth_bytes_s * GPU_BANDWIDTH["optimizer"])


def moving(forward: float, backward: float = 0.0, launches: float = 0.0) -> ModelProfile:
    """A model whose norms move so many bytes a token, in so many kernels a pass."""
    one, other = (
        Cost(moved_bytes=Volume(per_sample=(0.0, each, 0.0)), launches=launches) for each in (forward, backward)
    )
    return replace(PROFILE, forward={"elementwise": one}, backward={"elementwise": other} if backward else {})


def test_a_training_run_on_one_device() -> None:
    # 100 steps of 10 rows of 50 tokens: 6e6 x 50 x 10 = 3 GFLOP a step, and an optimizer step over 1 M parameters.
    step_s = 3e9 / (8e12 * PRODUCTS) + optimizer_s(T4)
    found = of(training(), T4=1)
    assert found.seconds == pytest.approx(STARTUP_S["train"] + 100 * step_s)
    assert (found.source, found.startup_s, found.note) == ("roofline", STARTUP_S["train"], "")
    assert found.breakdown is not None
    assert found.breakdown.compute_s == pytest.approx(100 * 3e9 / (8e12 * PRODUCTS))
    assert found.breakdown.memory_s == pytest.approx(100 * optimizer_s(T4))
    assert found.price_usd_h == 0.5
    assert found.money is not None and found.seconds is not None
    assert found.money.compute_usd == pytest.approx(found.seconds / 3600 * 0.5)


BOUNDS = [
    ("arithmetic", inference(), {}, "compute"),
    ("memory traffic", inference(profile=moving(1e6)), {}, "memory"),
    ("starting kernels", inference(profile=moving(1.0, launches=100.0)), {}, "launch"),
    ("the network", training(profile=replace(PROFILE, trainable=100_000_000)), {"T4": 4}, "communication"),
]


@pytest.mark.parametrize(("work", "counts", "bound"), [row[1:] for row in BOUNDS], ids=[row[0] for row in BOUNDS])
def test_what_binds_a_step(work: Work, counts: dict[str, Any], bound: str) -> None:
    assert of(work, **(counts or {"T4": 1})).bound == bound


def test_a_batch_that_is_bound_by_memory() -> None:
    found = of(inference(profile=moving(1e6)), T4=1)
    assert work_s(found) == pytest.approx(1000 * 50 * 1e6 / (300e9 * GPU_BANDWIDTH["elementwise"]))


def test_short_kernels_cost_their_start_on_a_gpu_and_add_up_on_a_core() -> None:
    model = replace(PROFILE, forward={"matmul": replace(PROFILE.forward["matmul"], launches=1000.0)})
    busy_s = 1e9 / (8e12 * PRODUCTS)
    assert busy_s < 1000 * GPU_LAUNCH_S
    assert work_s(of(inference(profile=model), T4=1)) == pytest.approx(100 * 1000 * GPU_LAUNCH_S)
    on_core = 100 * (1e9 / (50e9 * CPU_COMPUTE["matmul"]) + 1000 * CPU_LAUNCH_S)
    assert work_s(of(inference(profile=model), cpu=1)) == pytest.approx(on_core)


def test_a_narrow_precision_runs_at_its_own_peak_and_a_missing_one_at_fp32() -> None:
    wide, half, lacking = (work_s(of(inference(precision=each), T4=1)) for each in ("fp32", "fp16", "bf16"))
    assert half == pytest.approx(wide * 8 / 64)
    assert lacking == wide


def test_evaluation_rows_are_only_passed_forward() -> None:
    plain, evaluated = of(training(), T4=2), of(training(evaluation_samples=500.0), T4=2)
    forward_s = 2e6 * 50 / (8e12 * PRODUCTS)
    assert work_s(evaluated) == pytest.approx(work_s(plain) + 500 / 2 * forward_s)


def test_evaluation_goes_by_batches_of_the_trainers_own_size() -> None:
    model = replace(PROFILE, forward={"elementwise": Cost(launches=1000.0)})
    plain, evaluated = (of(training(profile=model, evaluation_samples=n), T4=1) for n in (0.0, 10.0 * EVALUATION_BATCH))
    assert work_s(evaluated) == pytest.approx(work_s(plain) + 10 * 1000 * GPU_LAUNCH_S)


def test_a_trainer_with_larger_batches_validates_by_those() -> None:
    model = replace(PROFILE, forward={"elementwise": Cost(launches=1000.0)})
    wide: dict[str, Any] = {"profile": model, "batch_size": 4 * EVALUATION_BATCH}
    plain, evaluated = (of(training(**wide, evaluation_samples=n), T4=1) for n in (0.0, 40.0 * EVALUATION_BATCH))
    assert work_s(evaluated) == pytest.approx(work_s(plain) + 10 * 1000 * GPU_LAUNCH_S)


def test_replicas_without_a_batch_do_not_help() -> None:
    """The first replica takes a whole batch."""
    few, one = inference(samples=10.0, batch_size=10), inference(samples=10.0, batch_size=10)
    assert work_s(of(few, T4=4)) == pytest.approx(work_s(of(one, T4=1)))
    enough = inference(samples=400.0, batch_size=10)
    assert work_s(of(enough, T4=4)) == pytest.approx(work_s(of(enough, T4=1)) / 4)
    part = inference(samples=5.0, batch_size=10)
    assert work_s(of(part, T4=4)) == pytest.approx(work_s(of(one, T4=1)) / 2)


def test_the_path_of_a_host_is_taken_on_cores_and_on_emulated_types() -> None:
    on_host = replace(PROFILE, forward={"matmul": PROFILE.forward["matmul"].scaled(3.0)})
    plain, two_paths = inference(), inference(host_profile=on_host)
    emulated = {"T4": replace(T4, emulated_speed=0.5, peak_flops={"fp32": 25e9})}
    assert work_s(of(two_paths, T4=1)) == work_s(of(plain, T4=1))
    assert work_s(of(two_paths, cpu=1)) == pytest.approx(3 * work_s(of(plain, cpu=1)))
    assert work_s(of(two_paths, types=emulated, T4=1)) == pytest.approx(3 * work_s(of(plain, types=emulated, T4=1)))


def test_tokens_after_the_first_are_passed_one_by_one_over_a_growing_cache() -> None:
    model = replace(PROFILE, kv_bytes_per_token=1e6)
    found = of(inference(profile=model, generated_tokens=20), T4=1)
    prompt_s, token_s = 10 * 50 * 2e6 / (8e12 * PRODUCTS), 10 * 2e6 / (8e12 * PRODUCTS)
    cache_s = 10 * (50 + 20 / 2) * 1e6 / (300e9 * GPU_BANDWIDTH["attention"])
    assert work_s(found) == pytest.approx(100 * (prompt_s + 20 * (token_s + cache_s)))
    assert work_s(of(inference(profile=model), T4=1)) == pytest.approx(100 * prompt_s)


def test_the_rates_of_replicas_add_up() -> None:
    rates = {name: 1000 / work_s(of(inference(), **count)) for name, count in ONE.items()}
    found = of(inference(), T4=2, A100=1)
    assert work_s(found) == pytest.approx(1000 / (2 * rates["T4"] + rates["A100"]))
    assert found.price_usd_h == 2 * 0.5 + 4.0
    # Replicas send each other nothing: four take a quarter of the time of one.
    assert work_s(of(inference(), T4=4)) == pytest.approx(work_s(of(inference(), T4=1)) / 4)


def test_preprocessing_runs_at_the_sampled_rate_of_its_cores() -> None:
    work = Work("preprocess", "tokenise", samples=1000.0, rows_per_core_s=100.0)
    found = of(work, cpu=2)
    assert found.seconds == pytest.approx(STARTUP_S["preprocess"] + 5.0)
    assert (found.source, found.bound) == ("measured", "compute")
    assert found.low_s is not None and found.high_s is not None
    assert found.low_s < found.seconds < found.high_s  # type: ignore[operator]


ONE_NODE = "a command runs on one node, and none has all of these devices"
REFUSALS = [
    ("preprocessing on a GPU", Work("preprocess", "x", samples=1.0, rows_per_core_s=1.0), {"T4": 1}, "preprocessing runs on CPU actors"),
    ("a gang of two types", training(), {"T4": 1, "A100": 1}, "the shards of a training gang are of one device type"),
    ("a command on two types", Work("command", "x"), {"T4": 1, "A100": 1}, ONE_NODE),
    ("a command on more than a node has", Work("command", "x"), {"T4": 3}, ONE_NODE),
    ("a built-in body on a TPU", training(), {"TPU_v4": 1}, "the built-in bodies do not run on a tpu yet"),
    ("a built-in body on an FPGA", inference(), {"FPGA": 1}, "the built-in bodies do not run on a fpga yet"),
]  # fmt: skip


@pytest.mark.parametrize(("work", "counts", "message"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_device_that_cannot_do_it(work: Work, counts: dict[str, Any], message: str) -> None:
    found = of(work, types=TYPES | {"TPU_v4": TPU}, **counts)
    assert found.infeasible == Reason("device", message)
    assert (found.seconds is None) == (work.kind == "command"), "what no body can run yet is predicted all the same"


def test_an_emulated_tpu_and_own_code_on_a_tpu_are_fine() -> None:
    emulated = replace(TPU, emulated_speed=0.5, peak_flops={"fp32": 25e9})
    assert of(training(), types={"TPU": emulated}, TPU=1).infeasible is None
    assert of(Work("train", "mine", declared_s=60.0), types={"TPU": TPU}, TPU=1).infeasible is None


def test_an_unpriced_device_has_no_price_and_no_money_but_a_time() -> None:
    found = of(Work("command", "mine", declared_s=60.0), FPGA=1)
    assert UNPRICED.price_usd_h is None
    assert (found.seconds, found.price_usd_h, found.money) == (STARTUP_S["command"] + 60.0, None, None)
    mixed = of(Work("command", "mine", declared_s=60.0), FPGA=1, T4=1)
    assert (mixed.price_usd_h, mixed.money) == (None, None)


NEVER = "never run yet: its first run, or expected_runtime, will tell"
UNKNOWN = [
    ("rates nobody knows", training(), {"Z9": 1}, "unknown speed: the catalog has no rates for Z9"),
    ("one of two unknown", inference(), {"Z9": 1, "T4": 1}, "unknown speed: the catalog has no rates for Z9"),
    ("a command", Work("command", "mine"), {"T4": 1}, NEVER),
    ("own code", training(profile=None), {"T4": 1}, NEVER),
    ("own preprocessing", Work("preprocess", "mine", samples=10.0), {"cpu": 1}, NEVER),
    ("a model that cannot be traced", training(profile=None, note="cannot be traced"), {"T4": 1}, "cannot be traced"),
]


@pytest.mark.parametrize(("work", "counts", "note"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_an_unknown_time_is_none_and_never_invented(work: Work, counts: dict[str, Any], note: str) -> None:
    assert NO_RATES.peak_flops == {}
    found = of(work, **counts)
    assert (found.seconds, found.low_s, found.high_s, found.money, found.source) == (None, None, None, None, "unknown")
    assert (found.breakdown, found.energy, found.bound) == (None, None, "")
    assert (found.infeasible, found.note) == (None, note)
    assert found.price_usd_h is not None


def test_the_users_own_time_counts_before_any_model() -> None:
    found = of(training(declared_s=120.0), T4=2)
    start = STARTUP_S["train"]
    assert (found.seconds, found.source) == (start + 120.0, "declared")
    assert (found.low_s, found.high_s) == (start / 2 + 120.0, start * 2 + 120.0)


def test_history_speaks_where_no_model_does() -> None:
    calibration = Calibration()
    calibration.observe_history("command", "mine", configuration_key([(T4, 2)]), 40.0)
    work = Work("command", "mine")
    found = of(work, calibration, T4=2)
    assert found.seconds == pytest.approx(STARTUP_S["command"] + 40.0)
    assert found.source == "measured"
    assert of(work, calibration, T4=1).seconds is None
    assert of(Work("command", "other"), calibration, T4=2).seconds is None


def learnt(
    work: Work, device: str, factor: float, types: dict[str, DeviceType] = TYPES, times: int = 20
) -> Calibration:
    """One shard was often measured at `factor` times the predicted seconds."""
    calibration = Calibration()
    expected = expectation(work, device, 1, 100.0, facts(types))
    assert expected is not None
    assert all(expected.learn(calibration, factor * expected.seconds) for _ in range(times))
    return calibration


def test_calibration_scales_the_work_and_not_the_start_up() -> None:
    plain, corrected = of(training(), T4=1), of(training(), learnt(training(), "T4", 3.0), T4=1)
    assert work_s(corrected) == pytest.approx(3.0 * work_s(plain), rel=0.05)
    assert corrected.startup_s == plain.startup_s
    assert corrected.source == "measured"
    assert corrected.low_s is not None and corrected.high_s is not None
    assert corrected.low_s < corrected.seconds < corrected.high_s  # type: ignore[operator]


def test_what_was_measured_at_another_point_is_calibrated_and_elsewhere_it_is_the_roofline() -> None:
    calibration = learnt(training(), "T4", 3.0)
    assert of(training(batch_size=80), calibration, T4=1).source == "calibrated"
    assert of(training(), calibration, T4=2).source == "calibrated"
    assert of(training(), calibration, A100=1).source == "roofline"


def test_corrected_rates_of_different_replicas_add_up() -> None:
    work, calibration = inference(samples=1e6), learnt(inference(), "T4", 2.0)
    rates = [1e6 / work_s(of(work, calibration, **count)) for count in ONE.values()]
    assert work_s(of(work, calibration, T4=1, A100=1)) == pytest.approx(1e6 / sum(rates))
    assert work_s(of(work, calibration, T4=1)) == pytest.approx(2 * work_s(of(work, T4=1)), rel=0.05)


def test_emulated_devices_are_calibrated_apart() -> None:
    emulated = replace(A100, emulated_speed=0.25)
    assert [calibration_name(kind) for kind in (A100, emulated)] == ["A100", "A100~emulated@0.25"]
    types = {"A100": emulated}
    calibration = learnt(training(), "A100", 3.0, types)
    assert [subject.device for subject, _, _ in calibration.points] == [calibration_name(emulated)]
    assert of(training(), calibration, A100=1).source == "roofline"
    assert of(training(), calibration, types=types, A100=1).source == "measured"


def test_the_uncalibrated_prediction_that_measurements_are_compared_with() -> None:
    step_s = 3e9 / (8e12 * PRODUCTS) + optimizer_s(T4)
    found = expected_work_s(training(), configuration(T4=1), facts())
    assert found == pytest.approx(100 * step_s)
    part = expectation(training(), "T4", 1, 250.0, facts())
    assert part is not None
    assert part.seconds == pytest.approx(25 * step_s)
    assert (part.subject, part.shards) == (Subject("train", PROFILE.family, "T4", "fp32"), 1)
    for work, counts in ((training(), {"Gone": 1}), (training(), {"Z9": 1}), (Work("command", "mine"), {"T4": 1})):
        assert expected_work_s(work, configuration(**counts), facts()) is None
        assert expectation(work, next(iter(counts)), 1, 10.0, facts()) is None


def test_cpus_are_priced_and_timed_like_any_device() -> None:
    found = of(inference(), cpu=1)
    assert work_s(found) == pytest.approx(100 * 1e9 / (50e9 * CPU_COMPUTE["matmul"]))
    assert found.price_usd_h == CPU.price_usd_h


def test_nothing_asked_nothing_answered() -> None:
    assert estimate_all([], facts(), Calibration()) == []
    assert estimate_all([(training(), []), (Work("command", "x"), [])], facts(), Calibration()) == [[], []]
    assert checkpoint_seconds(inference(checkpoint_every_s=1.0), 100.0) == 0.0
