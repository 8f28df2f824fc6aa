"""What a finished run teaches: its measured speed and overhead go into the calibration. Pure but for the calibration
object it is given."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.types import DeviceType

from ..estimate.calibration import Calibration
from ..estimate.cost_model import STARTUP_S, Link, calibration_name, predicted_work_s
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
    if work.profile is None and work.rows_per_core_s is None:
        _learn_history(calibration, work, configuration, run_s, device_types)
        return refused
    work_s = _measured_work_s(work, configuration, progress, device_types, link)
    if work_s is not None:
        calibration.observe_overhead(work.kind, work.family, configuration.devices, max(0.0, run_s - work_s))
    return refused


def _learn_history(
    calibration: Calibration,
    work: Work,
    configuration: Configuration,
    run_s: float,
    device_types: Mapping[str, DeviceType],
) -> None:
    """No model predicts this work (a command, the user's own code): its run time itself is what is learnt."""
    if all(name in device_types for name, _ in configuration.groups):
        key = "+".join(f"{calibration_name(device_types[name])}x{count}" for name, count in configuration.groups)
        prior_s = STARTUP_S[work.kind]
        overhead_s = calibration.overhead_s(work.kind, work.family, configuration.devices, prior_s).mean
        calibration.observe_history(work.kind, work.family, key, max(0.1, run_s - overhead_s))


def _measured_work_s(
    work: Work,
    configuration: Configuration,
    progress: Progress,
    device_types: Mapping[str, DeviceType],
    link: Link,
) -> float | None:
    """Seconds that all of the work takes at the measured speeds; None where a device type was not measured. The rates
    of replicas add up; a gang has one, which also holds for the rows it only evaluates."""
    measured = {timing.device_type: timing for timing in progress.timings}
    if set(measured) != {name for name, _ in configuration.groups} or work.samples is None:
        return None
    if work.kind == "batch-infer":
        rates = (count * measured[name].samples / measured[name].seconds for name, count in configuration.groups)
        return work.samples / sum(rates)
    timing = measured[configuration.groups[0][0]]
    whole_s = predicted_work_s(work, configuration, device_types, link)
    timed_s = _predicted_s(work, timing, device_types, link)
    return None if whole_s is None or not timed_s else whole_s * timing.seconds / timed_s


def _predicted_s(work: Work, timing: Timing, device_types: Mapping[str, DeviceType], link: Link) -> float | None:
    """What the uncalibrated model says of just the work that was timed. Padding is not predicted, so what it costs is
    in the measured ratio."""
    if timing.device_type not in device_types:
        return None
    timed = Work(
        kind=work.kind,
        family=work.family,
        precision=work.precision,
        samples=timing.samples,
        tokens_per_sample=work.tokens_per_sample,
        batch_size=work.batch_size,
        profile=work.profile,
        rows_per_core_s=work.rows_per_core_s,
    )
    return predicted_work_s(timed, Configuration.of({timing.device_type: timing.count}), device_types, link)
