"""Rates of devices and seconds of passes, class by class, against closed forms of the constants they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.types import DeviceType
from making import A100, CPU, T4, TPU
from scheduler.estimate import communication
from scheduler.estimate.hardware import (
    CPU_BANDWIDTH,
    CPU_COMPUTE,
    CPU_LAUNCH_S,
    GPU_BANDWIDTH,
    GPU_COMPUTE,
    GPU_LAUNCH_S,
    LAUNCH_PER_DISPATCH,
    MEASURED_COMPUTE,
    Rates,
    launch_s,
    rates,
)
from scheduler.estimate.profile import OPERATOR_CLASSES, Cost, FloatArray, ModelProfile, OperatorClass, Volume
from scheduler.estimate.step_time import (
    ADAMW_BYTES,
    ADAMW_FLOPS,
    CLIP_BYTES,
    COMPUTE,
    LAST_BUCKET,
    LAUNCH,
    MEMORY,
    PARTS,
    RateRows,
    exposed_s,
    optimizer_volumes,
    own_s,
    roofline,
    sensitivities,
    total_s,
)

CLASSES = len(OPERATOR_CLASSES)
TF32 = replace(A100, peak_flops={"fp32": 20e12, "tf32": 150e12, "bf16": 300e12, "fp16": 310e12})


def achieved(device: DeviceType, precision: str, name: OperatorClass) -> float:
    """FLOP/s over the prior share of peak: the peak that was taken."""
    found = rates(device, precision)
    assert found is not None
    host = device.kind == "cpu" or device.emulated
    return float(found.flops_s[OPERATOR_CLASSES.index(name)] / (CPU_COMPUTE if host else GPU_COMPUTE)[name])


PEAKS: list[tuple[str, DeviceType, str, OperatorClass, float]] = [
    ("fp32 products at fp32", T4, "fp32", "matmul", 8e12),
    ("fp16 products at fp16", T4, "fp16", "matmul", 64e12),
    ("bf16 on a type that lacks it runs at fp32", T4, "bf16", "matmul", 8e12),
    ("fp16 on a type that lacks it runs at fp32", A100, "fp16", "matmul", 20e12),
    ("fp32 products do not take tf32", TF32, "fp32", "matmul", 20e12),
    ("fp32 convolutions take tf32 where there is one", TF32, "fp32", "convolution", 150e12),
    ("and fp32 where there is none", A100, "fp32", "convolution", 20e12),
    ("16-bit convolutions do not", TF32, "bf16", "convolution", 300e12),
    ("norms and softmax run at fp32 in any precision", T4, "fp16", "elementwise", 8e12),
    ("so does the optimizer", A100, "bf16", "optimizer", 20e12),
    ("fp8 without hardware for it runs at fp16", TF32, "fp8", "matmul", 310e12),
    ("int8 without hardware for it, nor fp16, at bf16", A100, "int8", "attention", 300e12),
    ("a type without fp32 runs at what it has", TPU, "fp32", "elementwise", 275e12),
    ("a core at its own peak", CPU, "fp32", "matmul", 50e9),
]


@pytest.mark.parametrize(("device", "precision", "name", "peak"), [row[1:] for row in PEAKS], ids=[r[0] for r in PEAKS])
def test_the_peak_of_a_class_at_a_precision(
    device: DeviceType, precision: str, name: OperatorClass, peak: float
) -> None:
    assert achieved(device, precision, name) == pytest.approx(peak)


def test_a_type_without_peaks_has_no_rates() -> None:
    assert rates(replace(T4, peak_flops={}), "fp32") is None


def test_bandwidth_by_class_on_gpus_and_hosts() -> None:
    gpu, host = rates(T4, "fp32"), rates(replace(CPU, memory_bandwidth_bytes_s=10e9), "fp32")
    assert gpu is not None and host is not None
    assert gpu.bytes_s.tolist() == pytest.approx([300e9 * GPU_BANDWIDTH[name] for name in OPERATOR_CLASSES])
    assert host.bytes_s.tolist() == pytest.approx([10e9 * CPU_BANDWIDTH[name] for name in OPERATOR_CLASSES])
    assert (gpu.asynchronous, host.asynchronous) == (True, False)


def test_a_bandwidth_nobody_knows_binds_nothing() -> None:
    found = rates(replace(T4, memory_bandwidth_bytes_s=None), "fp32")
    assert found is not None
    assert np.isinf(found.bytes_s).all()


def test_measured_rates_replace_peaks() -> None:
    measured = replace(T4, measured_flops={"fp16": 40e12}, measured_bandwidth_bytes_s=240e9)
    found, plain = rates(measured, "fp16"), rates(T4, "fp16")
    assert found is not None and plain is not None
    by_class = dict(zip(OPERATOR_CLASSES, found.flops_s.tolist(), strict=True))
    assert by_class["matmul"] == pytest.approx(40e12 * MEASURED_COMPUTE)
    ratio = GPU_COMPUTE["attention"] / GPU_COMPUTE["matmul"]
    assert by_class["attention"] == pytest.approx(40e12 * MEASURED_COMPUTE * ratio)
    assert by_class["elementwise"] == pytest.approx(8e12 * GPU_COMPUTE["elementwise"])  # fp32 was not measured
    streaming = dict(zip(OPERATOR_CLASSES, found.bytes_s.tolist(), strict=True))
    assert streaming["elementwise"] == pytest.approx(240e9)  # the measured copy is what streaming reaches


def test_a_measured_core() -> None:
    found = rates(replace(CPU, measured_flops={"fp32": 45e9}, measured_bandwidth_bytes_s=9e9), "fp32")
    assert found is not None
    by_class = dict(zip(OPERATOR_CLASSES, found.flops_s.tolist(), strict=True))
    assert by_class["elementwise"] == pytest.approx(45e9 * CPU_COMPUTE["elementwise"] / CPU_COMPUTE["matmul"])
    assert found.bytes_s.tolist() == pytest.approx([9e9 * CPU_BANDWIDTH[name] for name in OPERATOR_CLASSES])


LAUNCHES = [
    ("a gpu", T4, GPU_LAUNCH_S),
    ("a core", CPU, CPU_LAUNCH_S),
    ("an emulated gpu is a fraction of a core", replace(T4, emulated_speed=0.25), CPU_LAUNCH_S / 0.25),
    ("measured, with what Python adds", replace(T4, launch_s=3e-6), 3e-6 * LAUNCH_PER_DISPATCH),
]


@pytest.mark.parametrize(("device", "seconds"), [row[1:] for row in LAUNCHES], ids=[row[0] for row in LAUNCHES])
def test_starting_an_operator(device: DeviceType, seconds: float) -> None:
    assert launch_s(device) == pytest.approx(seconds)


def test_an_emulated_type_has_a_hosts_shares() -> None:
    emulated = replace(T4, emulated_speed=0.5, peak_flops={"fp32": 25e9}, memory_bandwidth_bytes_s=5e9)
    assert achieved(emulated, "fp32", "attention") == pytest.approx(25e9)
    found = rates(emulated, "fp32")
    assert found is not None
    assert not found.asynchronous
    assert found.bytes_s.tolist() == pytest.approx([5e9 * CPU_BANDWIDTH[name] for name in OPERATOR_CLASSES])


def row(**amounts: float) -> np.ndarray[Any, Any]:
    """One row of volumes by class."""
    return np.array([[amounts.get(name, 0.0) for name in OPERATOR_CLASSES]])


def passed(flops: Any, moved: Any, launches: float, asynchronous: bool) -> list[float]:
    """Compute, memory and launches of a pass on a device of 100 FLOP/s and 10 B/s in every class, 0.5 s a launch."""
    each = Rates(np.full(CLASSES, 100.0), np.full(CLASSES, 10.0), 0.5, asynchronous)
    device = RateRows.of([each], np.array([0]))
    found = roofline(flops, moved, np.array([launches]), device)[0]
    assert found.sum() == found[[COMPUTE, MEMORY, LAUNCH]].sum()
    return [float(found[part]) for part in (COMPUTE, MEMORY, LAUNCH)]


def test_each_class_is_bound_by_its_own_side() -> None:
    # The products take 8 s of arithmetic (over 1 s of traffic), the norms 3 s of traffic (over 1 s of arithmetic).
    parts = passed(row(matmul=800.0, elementwise=100.0), row(matmul=10.0, elementwise=30.0), 0.0, asynchronous=True)
    assert parts == [8.0, 3.0, 0.0]


def test_launches_show_only_in_excess_on_a_device_and_add_up_on_a_host() -> None:
    flops, moved = row(matmul=800.0), row(elementwise=20.0)
    assert passed(flops, moved, 12, asynchronous=True) == [8.0, 2.0, 0.0]
    assert passed(flops, moved, 30, asynchronous=True) == [8.0, 2.0, 15.0 - 10.0]
    assert passed(flops, moved, 12, asynchronous=False) == [8.0, 2.0, 6.0]


def test_the_optimizer_goes_over_what_is_trained() -> None:
    frozen = ModelProfile("bert-2x32", parameters=100, trainable=10)
    assert optimizer_volumes(frozen)[:2] == (10 * ADAMW_FLOPS, 10 * (ADAMW_BYTES + CLIP_BYTES))


def seconds(**each: float) -> FloatArray:
    """All parts of a step, by name."""
    return np.array([each.get(name, 0.0) for name in PARTS])


def test_traffic_hides_behind_what_overlaps_but_for_the_last_bucket() -> None:
    work = {"compute": 5.0, "memory": 3.0, "launch": 1.0, "crowding": 1.0}
    for within, between, overlap in ((4.0, 0.0, 0.0), (4.0, 0.0, 0.2), (4.0, 6.0, 0.5), (4.0, 1.0, 1.0)):
        parts = seconds(**work, within=within, between=between)
        traffic = max(within, between)  # a ring is as slow as its slowest link
        left = float(communication.exposed_s(traffic, 10.0, overlap, LAST_BUCKET))
        assert LAST_BUCKET * traffic <= left <= traffic
        assert total_s(parts, np.array(overlap)) == pytest.approx(10.0 + left)
        assert exposed_s(parts, np.array(overlap)) == pytest.approx(left)
        assert own_s(parts) == 10.0
    assert exposed_s(seconds(**work, within=4.0), np.array(0.0)) == pytest.approx(4.0)
    assert exposed_s(seconds(**work, within=4.0), np.array(1.0)) == pytest.approx(LAST_BUCKET * 4.0, rel=0.05)


def test_sensitivities_say_which_part_the_total_hangs_on() -> None:
    parts = np.stack([seconds(compute=6.0, memory=3.0, launch=1.0), seconds(compute=1.0, between=9.0)])
    found = sensitivities(parts, np.zeros(2))
    assert found == pytest.approx(parts / 10.0, abs=1e-5)


def test_a_volume_is_a_polynomial_of_samples_and_tokens() -> None:
    one = Volume((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert one.at(10, 7) == 1 + 2 * 7 + 3 * 49 + 10 * (4 + 5 * 7 + 6 * 49)
    assert (one + one).at(3, 2) == one.scaled(2.0).at(3, 2) == 2 * one.at(3, 2)


def test_costs_of_classes_add_up() -> None:
    one = Cost(Volume(per_sample=(1.0, 0.0, 0.0)), Volume(constant=(8.0, 0.0, 0.0)), 3)
    both = ModelProfile("x", 1, 1, forward={"matmul": one, "elementwise": one.scaled(2.0)}).totals("forward")
    assert (both.flops.at(5, 1), both.moved_bytes.at(5, 1), both.launches) == (15.0, 24.0, 9)
    assert ModelProfile("x", 1, 1).totals("backward") == Cost()
