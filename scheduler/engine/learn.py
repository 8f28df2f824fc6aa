"""What a finished run teaches: its measured speed and overhead go into the calibration. Pure but for the calibration
object it is given."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.types import DeviceType

from ..estimate.calibration import Calibration
from ..estimate.cost_model import Link, calibration_name, predicted_work_s
from ..estimate.work import Work
from ..types import Configuration
from .progress import Progress, Timing


def learn(
    calibration: Calibration,
    work: Work,
    configuration: Configuration,
    progress: Progress,
    run_s: float,
    device_types: Mapping[str, DeviceType],
    link: Link,
) -> list[str]:
    """Update `calibration` from one finished, uninterrupted run that held `configuration` for `run_s` seconds. Returns
    a sentence for every measurement that was refused as absurd."""
    refused = []
    work_s = _measured_work_s(work, configuration, progress)
    for timing in progress.timings:
        predicted = _predicted_s(work, timing, device_types, link)
        device_type = device_types.get(timing.device_type)
        if predicted is None or device_type is None:
            continue
        name = device_type.name if work.kind == "preprocess" else calibration_name(device_type)
        if not calibration.observe(
            work.kind, work.family, name, work.precision, timing.count, timing.seconds, predicted
        ):
            refused.append(f"{timing.seconds:.3g} s measured where {predicted:.3g} s were predicted: not believed")
    if work_s is not None:
        calibration.observe_overhead(work.kind, work.family, configuration.devices, max(0.0, run_s - work_s))
    elif all(name in device_types for name, _ in configuration.groups):
        key = "+".join(f"{calibration_name(device_types[name])}x{count}" for name, count in configuration.groups)
        overhead = calibration.overhead_s(work.kind, work.family, configuration.devices, 0.0).mean
        calibration.observe_history(work.kind, work.family, key, max(0.1, run_s - overhead))
    return refused


def _measured_work_s(work: Work, configuration: Configuration, progress: Progress) -> float | None:
    """Seconds that all the work takes at the measured speeds. A gang has one rate; the rates of replicas add up."""
    replicas = dict(configuration.groups)
    rate = 0.0
    for timing in progress.timings:
        together = timing.samples / timing.seconds
        rate += together * (replicas.get(timing.device_type, 1) if work.kind == "batch-infer" else 1)
    return work.samples / rate if rate > 0 and work.samples is not None else None


def _predicted_s(work: Work, timing: Timing, device_types: Mapping[str, DeviceType], link: Link) -> float | None:
    """What the uncalibrated model says of just the work that was timed, at the token count that was measured."""
    if timing.device_type not in device_types:
        return None
    tokens = timing.tokens / timing.samples if timing.tokens > 0 else work.tokens_per_sample
    timed = Work(
        kind=work.kind,
        family=work.family,
        precision=work.precision,
        samples=timing.samples,
        tokens_per_sample=tokens,
        batch_size=work.batch_size,
        profile=work.profile,
        rows_per_core_s=work.rows_per_core_s,
    )
    return predicted_work_s(timed, Configuration.of({timing.device_type: timing.count}), device_types, link)
