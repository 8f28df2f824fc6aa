"""Seconds, bytes and dollars of one configuration, from first principles. Pure.

Step time of a shard: `max(FLOPs / achievable FLOP/s, bytes / achievable bandwidth) + exposed communication`; the
communication of n shards is the ring all-reduce volume `2 (n-1)/n x gradient bytes` over the slowest link of the
placement (Patarasuk and Yuan, 2009). Calibration multiplies the seconds of the work, never the volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.types import CPU, DeviceType

from ..types import Configuration, Estimate, EstimateSource, Money, Reason
from .calibration import Calibration, Correction
from .work import Work

COMPUTE_FRACTION = 0.45
"""Share of peak FLOP/s that transformers reach before anything is measured (prior; 30-60% is commonly reported)."""
BANDWIDTH_FRACTION = 0.75
"""Share of peak bandwidth that streaming kernels reach before anything is measured (prior)."""
STARTUP_S = {"preprocess": 10.0, "train": 16.0, "batch-infer": 10.0, "serve": 10.0, "command": 3.0}
"""Seconds a body takes beside its work (processes, imports, loading, writing), prior: a warm 2-core machine."""
DEFAULT_NETWORK_BYTES_S = 1.25e9
"""Between nodes where the catalog has no figure: 10 Gbit/s."""
STORAGE_USD_GB_MONTH = 0.023
"""Keeping the output for a month: S3 Standard's list price (us-east-1, first 50 TB)."""
ADAMW_BYTES = 16
"""fp32 weight, gradient and two moments of one parameter."""
FRAMEWORK_BYTES = 0.6e9
"""Context, kernels and allocator slack of one process (prior)."""
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Link:
    """What joins the devices of a configuration: bytes a second within a node and between nodes, and how many devices
    of each type one node has."""

    network_bytes_s: float
    devices_per_node: Mapping[str, int]


@dataclass(frozen=True)
class _Speed:
    """Seconds of work on one device type, before and after calibration."""

    seconds: float
    correction: Correction
    bound: str
    measured_s: float = 0.0


def estimate(
    work: Work,
    configuration: Configuration,
    device_types: Mapping[str, DeviceType],
    link: Link,
    calibration: Calibration,
) -> Estimate:
    """What `configuration` would take for `work`. Infeasible configurations carry the reason and by how much."""
    types = [(device_types[name], count) for name, count in configuration.groups]
    price_usd_h = configuration_price_usd_h(configuration, device_types)
    memory_bytes = _memory_bytes(work, configuration.devices)
    refused = _refusal(work, types, memory_bytes, link)
    overhead = calibration.overhead_s(work.kind, work.family, configuration.devices, STARTUP_S[work.kind])
    if refused is not None:
        return Estimate(configuration, None, memory_bytes=memory_bytes, price_usd_h=price_usd_h, infeasible=refused)
    speed = _work_seconds(work, types, link, calibration)
    if speed is None:
        return Estimate(
            configuration, None, startup_s=overhead.mean, memory_bytes=memory_bytes, price_usd_h=price_usd_h
        )
    run_s = speed.seconds * speed.correction.mean
    seconds = overhead.mean + run_s
    return Estimate(
        configuration,
        seconds=seconds,
        startup_s=overhead.mean,
        low_s=overhead.low + speed.seconds * speed.correction.low,
        high_s=overhead.high + speed.seconds * speed.correction.high,
        memory_bytes=memory_bytes,
        money=None if price_usd_h is None else money(work, seconds, price_usd_h),
        price_usd_h=price_usd_h,
        source=_source(work, speed),
        bound=speed.bound,
    )


def money(work: Work, seconds: float, price_usd_h: float) -> Money:
    """Dollars for holding devices worth `price_usd_h` for `seconds` and keeping the output for a month. Traffic within
    one zone is free of charge."""
    storage = work.output_bytes / 1e9 * STORAGE_USD_GB_MONTH
    return Money(compute_usd=seconds / 3600 * price_usd_h, storage_usd=storage)


def predicted_work_s(
    work: Work, configuration: Configuration, device_types: Mapping[str, DeviceType], link: Link
) -> float | None:
    """Seconds of work before any calibration: what a measurement is compared with."""
    types = [(device_types[name], count) for name, count in configuration.groups if name in device_types]
    speed = _work_seconds(work, types, link, Calibration()) if len(types) == len(configuration.groups) else None
    return None if speed is None else speed.seconds


def _source(work: Work, speed: _Speed) -> EstimateSource:
    if speed.bound == "declared":
        return "declared"
    if speed.bound == "history":
        return "measured"
    if speed.correction.known:
        return "calibrated"
    return "measured" if work.rows_per_core_s is not None else "roofline"


def configuration_price_usd_h(configuration: Configuration, device_types: Mapping[str, DeviceType]) -> float | None:
    """Dollars an hour for holding a configuration; None where a type is unknown or unpriced."""
    total = 0.0
    for name, count in configuration.groups:
        kind = device_types.get(name)
        if kind is None or kind.price_usd_h is None:
            return None
        total += count * kind.price_usd_h
    return total


def _refusal(work: Work, types: list[tuple[DeviceType, int]], memory_bytes: float | None, link: Link) -> Reason | None:
    if work.kind == "command" and any(
        len(types) > 1 or count > link.devices_per_node.get(device_type.name, count) for device_type, count in types
    ):
        return Reason("device", "a command runs on one node, and none has all of these devices")
    for device_type, _ in types:
        if work.kind == "preprocess" and device_type.kind != "cpu":
            return Reason("device", "preprocessing runs on CPU actors")
        if work.kind == "train" and len(types) > 1:
            return Reason("device", "the shards of a training gang are of one device type")
        if work.profile is not None and device_type.kind not in ("cpu", "gpu") and not device_type.emulated:
            return Reason("device", f"the built-in bodies do not run on a {device_type.kind} yet")
        limit = device_type.memory_bytes
        if memory_bytes is not None and limit is not None and memory_bytes > limit:
            over = memory_bytes - limit
            return Reason("memory", f"needs {memory_bytes / 1e9:.1f} GB a device, {over / 1e9:.1f} GB too much")
    return None


def _memory_bytes(work: Work, shards: int) -> float | None:
    profile = work.profile
    if profile is None or work.tokens_per_sample is None:
        return None
    width = _BYTES[work.precision]
    if not work.training:
        batch = work.batch_size * work.tokens_per_sample
        widest = profile.activations(work.tokens_per_sample) / max(work.tokens_per_sample, 1) / 4
        return FRAMEWORK_BYTES + profile.parameters * width + batch * widest * width / 4
    per_shard = max(1.0, work.batch_size / shards)
    activations = per_shard * profile.activations(work.tokens_per_sample) * width / 4
    return FRAMEWORK_BYTES + profile.parameters * ADAMW_BYTES + activations


def _work_seconds(
    work: Work, types: list[tuple[DeviceType, int]], link: Link, calibration: Calibration
) -> _Speed | None:
    history = calibration.history_s(work.kind, work.family, _key(types))
    if work.declared_s is not None:
        return _Speed(work.declared_s, Correction.certain(), "declared")
    if work.kind == "preprocess" and work.rows_per_core_s and work.samples is not None:
        cores = sum(count for _, count in types)
        correction = calibration.correction("preprocess", work.family, CPU, work.precision, cores)
        return _Speed(work.samples / work.rows_per_core_s / cores, correction, "compute")
    if work.profile is None or work.samples is None or work.tokens_per_sample is None:
        return None if history is None else _Speed(1.0, history, "history")
    if work.training:
        return _training_seconds(work, types, link, calibration)
    return _inference_seconds(work, types, calibration)


def _key(types: list[tuple[DeviceType, int]]) -> str:
    return "+".join(f"{calibration_name(device_type)}x{count}" for device_type, count in types)


def calibration_name(device_type: DeviceType) -> str:
    """The name calibration knows a device type by: emulated ones never mix with the hardware they stand for."""
    if device_type.emulated_speed is None:
        return device_type.name
    return f"{device_type.name}~emulated@{device_type.emulated_speed:g}"


def _peak(device_type: DeviceType, precision: str) -> float | None:
    """FLOP/s at a precision; a narrower one that the hardware lacks runs at the rate of fp32."""
    return device_type.peak_flops.get(precision) or device_type.peak_flops.get("fp32")


def _shard_seconds(work: Work, device_type: DeviceType, flops: float, moved_bytes: float) -> tuple[float, str] | None:
    """Seconds of one device for this many FLOPs and bytes, and what binds."""
    peak, bandwidth = _peak(device_type, work.precision), device_type.memory_bandwidth_bytes_s
    if peak is None:
        return None
    compute_s = flops / (peak * COMPUTE_FRACTION)
    memory_s = moved_bytes / (bandwidth * BANDWIDTH_FRACTION) if bandwidth else 0.0
    return (compute_s, "compute") if compute_s >= memory_s else (memory_s, "memory")


def _training_seconds(
    work: Work, types: list[tuple[DeviceType, int]], link: Link, calibration: Calibration
) -> _Speed | None:
    assert work.profile is not None and work.tokens_per_sample is not None and work.samples is not None
    if len(types) != 1:
        return None
    device_type, shards = types[0]
    profile, width = work.profile, _BYTES[work.precision]
    per_shard = work.batch_size / shards
    # Read and write: activations once each way, weights forward and twice backward, optimizer state read and written.
    moved = per_shard * profile.activations(work.tokens_per_sample) * 2 * width / 4
    moved += profile.parameters * (3 * width + 2 * ADAMW_BYTES)
    step = _shard_seconds(work, device_type, per_shard * profile.training(work.tokens_per_sample), moved)
    forward = _shard_seconds(work, device_type, profile.forward(work.tokens_per_sample), 0.0)
    if step is None or forward is None:
        return None
    communication_s = all_reduce_s(profile.parameters * 4, shards, device_type, link)
    steps = work.samples / work.batch_size
    seconds = steps * (step[0] + communication_s) + work.evaluation_samples / shards * forward[0]
    bound = "communication" if communication_s > step[0] else step[1]
    correction = calibration.correction("train", work.family, calibration_name(device_type), work.precision, shards)
    return _Speed(seconds, correction, bound)


def all_reduce_s(gradient_bytes: float, shards: int, device_type: DeviceType, link: Link) -> float:
    """Seconds of a ring all-reduce over the slowest link of the placement."""
    if shards < 2:
        return 0.0
    within = device_type.interconnect_bytes_s or link.network_bytes_s
    one_node = shards <= link.devices_per_node.get(device_type.name, 0)
    return 2 * (shards - 1) / shards * gradient_bytes / (within if one_node else min(within, link.network_bytes_s))


def _inference_seconds(work: Work, types: list[tuple[DeviceType, int]], calibration: Calibration) -> _Speed | None:
    """Replicas pull rows, so their rates add up; the correction is that of the rates together."""
    assert work.profile is not None and work.tokens_per_sample is not None and work.samples is not None
    raw_rate = low = mean = high = 0.0
    known, bound = True, "compute"
    for device_type, count in types:
        flops = work.batch_size * work.profile.forward(work.tokens_per_sample)
        moved = work.profile.parameters * _BYTES[work.precision]
        batch = _shard_seconds(work, device_type, flops, moved)
        if batch is None:
            return None
        rate, bound = count * work.batch_size / batch[0], batch[1]
        one = calibration.correction("batch-infer", work.family, calibration_name(device_type), work.precision, 1)
        raw_rate += rate
        low, mean, high = low + rate / one.high, mean + rate / one.mean, high + rate / one.low
        known = known and one.known
    correction = Correction(raw_rate / mean, raw_rate / high, raw_rate / low, known)
    return _Speed(work.samples / raw_rate, correction, bound)
