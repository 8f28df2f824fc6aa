"""What a device type achieves per operator class: catalog peaks times achievable fractions, or measured rates. Pure.

The fractions are priors: what eager PyTorch reaches before anything is measured on the type itself. Calibration
corrects them; `raywise calibrate` replaces the matrix-product and copy rates by measured ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cluster.types import DeviceType

from .profile import OPERATOR_CLASSES, FloatArray, OperatorClass

GPU_COMPUTE: Mapping[OperatorClass, float] = {
    "matmul": 0.55,
    "convolution": 0.50,
    "attention": 0.35,
    "elementwise": 0.50,
    "embedding": 0.50,
    "optimizer": 0.50,
}
"""Share of peak FLOP/s. Transformers train at 30-60% of peak all in all (PaLM's MFU is 46%, Megatron-LM's 44-52%, both
recalled), matrix products alone somewhat above."""
GPU_BANDWIDTH: Mapping[OperatorClass, float] = {
    "matmul": 0.80,
    "convolution": 0.70,
    "attention": 0.70,
    "elementwise": 0.75,
    "embedding": 0.40,
    "optimizer": 0.80,
}
"""Share of peak bandwidth; gathers of short rows use part of each line they load."""
CPU_COMPUTE: Mapping[OperatorClass, float] = {
    "matmul": 0.90,
    "convolution": 0.55,
    "attention": 0.50,
    "elementwise": 0.20,
    "embedding": 0.20,
    "optimizer": 0.20,
}
"""Share of a measured single-core matrix product of 512 x 512."""
CPU_BANDWIDTH: Mapping[OperatorClass, float] = {
    "matmul": 1.5,
    "convolution": 1.0,
    "attention": 1.0,
    "elementwise": 0.70,
    "embedding": 0.30,
    "optimizer": 0.70,
}
"""Share of a measured copy that is larger than the caches; operands of a small product are still in them."""
GPU_LAUNCH_S = 7e-6
"""Seconds of host time to start one kernel from eager PyTorch (prior; 5-10 us is commonly measured)."""
CPU_LAUNCH_S = 4e-6
"""Seconds to dispatch one operator on a CPU, autograd included (prior)."""
LAUNCH_PER_DISPATCH = 2.5
"""Python, autograd and allocation beside the measured dispatch of one bare operator."""
MEASURED_COMPUTE = 0.85
"""A model's products against the largest product that was measured on the device."""
_REDUCED = frozenset({"matmul", "convolution", "attention"})
_SIXTEEN_BIT = frozenset({"fp16", "bf16"})


@dataclass(frozen=True)
class Rates:
    """Achievable rates of one device, in the order of `OPERATOR_CLASSES`."""

    flops_s: FloatArray
    bytes_s: FloatArray
    launch_s: float
    asynchronous: bool
    """Whether kernels are started while earlier ones run, so that only the excess of starting them shows."""


def rates(device: DeviceType, precision: str) -> Rates | None:
    """What a device achieves at a precision; None where the catalog has no rate for it."""
    host = device.kind == "cpu" or device.emulated
    compute, streaming = (CPU_COMPUTE, CPU_BANDWIDTH) if host else (GPU_COMPUTE, GPU_BANDWIDTH)
    flops = []
    for name in OPERATOR_CLASSES:
        peak = _peak(device, precision, name)
        if peak is None:
            return None
        measured = device.measured_flops.get(_executed(device, precision, name))
        fraction = compute[name]
        achieved = peak * fraction
        if measured is not None:
            achieved = measured * (MEASURED_COMPUTE if name in _REDUCED else 1.0) * fraction / compute["matmul"]
        flops.append(achieved)
    bandwidth = device.measured_bandwidth_bytes_s or device.memory_bandwidth_bytes_s
    shares = np.array([streaming[name] for name in OPERATOR_CLASSES])
    if device.measured_bandwidth_bytes_s and not host:
        shares = shares / GPU_BANDWIDTH["elementwise"]
    moved = np.full(len(OPERATOR_CLASSES), np.inf) if bandwidth is None else bandwidth * shares
    return Rates(np.array(flops), moved, launch_s(device), asynchronous=not host)


def launch_s(device: DeviceType) -> float:
    """Seconds that one more operator costs by being there."""
    if device.launch_s is not None:
        return device.launch_s * LAUNCH_PER_DISPATCH
    if device.emulated_speed is not None:
        return CPU_LAUNCH_S / device.emulated_speed
    return CPU_LAUNCH_S if device.kind == "cpu" else GPU_LAUNCH_S


def weight_bytes(precision: str) -> float:
    """Bytes of one weight at rest, for inference."""
    return {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0}[precision]


def _executed(device: DeviceType, precision: str, name: OperatorClass) -> str:
    """The precision that an operator class really runs at. PyTorch takes TF32 for fp32 convolutions where there is
    one, and not for fp32 products (torch.backends.cudnn.allow_tf32 is on by default, cuda.matmul's is not)."""
    if name not in _REDUCED:
        return "fp32"
    if precision == "fp32" and name == "convolution" and "tf32" in device.peak_flops:
        return "tf32"
    return precision


def _peak(device: DeviceType, precision: str, name: OperatorClass) -> float | None:
    """FLOP/s at the precision an operator class runs at; a narrower one that the hardware lacks runs at fp32's rate,
    fp8 and int8 before that at a 16-bit type's."""
    wanted = _executed(device, precision, name)
    narrow = ("fp16", "bf16") if wanted in ("fp8", "int8") else ()
    for candidate in (wanted, *narrow, "fp32", "fp16", "bf16"):
        if device.peak_flops.get(candidate):
            return device.peak_flops[candidate]
    return None
