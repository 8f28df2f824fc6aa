"""What a finished run teaches: its measured speed and overhead go into the calibration. Pure but for the calibration
object it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.types import Snapshot

from ..estimate.calibration import Calibration
from ..estimate.cost_model import STARTUP_S, Facts, checkpoint_seconds
from ..estimate.device_rates import DeviceRates, believable
from ..estimate.expectation import expectation, expected_work_s
from ..estimate.names import calibration_name, configuration_key, one_device
from ..estimate.work import Work
from ..types import Configuration
from .progress import Progress, Timing

FIRST_ITEMS_S, FIRST_ITEMS = 20.0, 0.02
"""Device seconds, or share of all items, that are enough to say how long the rest takes."""
NOISE = 0.05
"""How far a run's own steps may be from those that were timed."""


def learn(
    calibration: Calibration,
    work: Work,
    configuration: Configuration,
    progress: Progress,
    run_s: float,
    facts: Facts,
) -> list[str]:
    """Update `calibration` from one finished, uninterrupted run that held `configuration` for `run_s` seconds. Returns
    a sentence for every measurement that was refused as absurd."""
    refused = []
    for timing in progress.timings:
        expected = expectation(work, timing.device_type, timing.count, timing.samples, facts)
        if expected is not None and not expected.learn(calibration, timing.seconds):
            measured = f"{timing.seconds:.3g} s measured where {expected.seconds:.3g} s were predicted"
            refused.append(f"{measured}: not believed")
    if work.items:
        refused += _learn_items(calibration, work, progress, facts)
    elif work.profile is None and work.rows_per_core_s is None:
        if not _learn_history(calibration, work, configuration, run_s, facts):
            refused.append(f"a run of {run_s:.3g} s: not believed")
        return refused
    work_s = _measured_work_s(work, configuration, progress, facts)
    if work_s is not None and not refused:
        beside_s = run_s - work_s - checkpoint_seconds(work, work_s)
        prior_s = STARTUP_S[work.kind]
        if NOISE * work_s <= prior_s:  # else the difference of two large numbers says nothing of a small one
            seconds = max(prior_s / 10, beside_s)
            calibration.observe_overhead(work.kind, work.family, configuration.devices, seconds)
    return refused


def learn_first_items(calibration: Calibration, work: Work, progress: Progress, facts: Facts) -> bool:
    """Learn from a run over many items that goes on, once it has measured some of them on a device type that nothing
    is known of. Whether it did."""
    measured = sum(timing.seconds for timing in progress.timings)
    enough = measured >= FIRST_ITEMS_S or progress.fraction >= FIRST_ITEMS
    if not enough or all(_known(calibration, work, timing, facts) for timing in progress.timings):
        return False
    return not _learn_items(calibration, work, progress, facts)


def _known(calibration: Calibration, work: Work, timing: Timing, facts: Facts) -> bool:
    kind = facts.device_types.get(timing.device_type)
    return kind is None or calibration.history_s(work.kind, work.family, one_device(kind), work.size) is not None


def _learn_items(calibration: Calibration, work: Work, progress: Progress, facts: Facts) -> list[str]:
    """Items do not know of each other: what one device takes for all of them says it of any number of devices."""
    refused = []
    for timing in progress.timings:
        kind = facts.device_types.get(timing.device_type)
        if kind is None or work.samples is None:
            continue
        seconds = work.samples * timing.seconds / timing.samples
        if not calibration.observe_history(work.kind, work.family, one_device(kind), seconds, work.size):
            refused.append(f"{timing.seconds:.3g} s for {timing.samples:.0f} items: not believed")
    return refused


@dataclass(frozen=True)
class Lesson:
    """What a benchmark taught: all rates that are known now, a sentence for each type that was measured, and one for
    each number that was refused."""

    known: Mapping[str, DeviceRates]
    measured: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def learn_rates(known: Mapping[str, DeviceRates], found: Iterable[DeviceRates], snapshot: Snapshot) -> Lesson:
    """Take in what a benchmark measured of the types of `snapshot`, whose rates are the catalog's."""
    lesson = Lesson(dict(known))
    for each in found:
        device = snapshot.device_types.get(each.device_type)
        if device is None:
            continue
        kept, refused = believable(each, device)
        lesson.refused.extend(refused)
        if kept is None:
            continue
        name = calibration_name(device)
        old = lesson.known.get(name)
        after = {**lesson.known, name: kept if old is None else old.updated(kept)}
        lesson = Lesson(after, [*lesson.measured, _measured(kept)], lesson.refused)
    return lesson


def _measured(rates: DeviceRates) -> str:
    flops = ", ".join(f"{rate / 1e9:.4g} GFLOP/s in {precision}" for precision, rate in sorted(rates.flops.items()))
    return f"{rates.device_type} was measured: {flops or 'no matrix product'}"


def _learn_history(
    calibration: Calibration, work: Work, configuration: Configuration, run_s: float, facts: Facts
) -> bool:
    """No model predicts this work (a command, the user's own code): its run time itself is what is learnt."""
    types = [(facts.device_types[name], count) for name, count in configuration.groups if name in facts.device_types]
    if len(types) < len(configuration.groups):
        return True
    prior_s = STARTUP_S[work.kind]
    overhead_s = calibration.overhead_s(work.kind, work.family, configuration.devices, prior_s).mean
    seconds = max(0.1, run_s - overhead_s) if run_s >= 0 else run_s
    return calibration.observe_history(work.kind, work.family, configuration_key(types), seconds, work.size)


def _measured_work_s(work: Work, configuration: Configuration, progress: Progress, facts: Facts) -> float | None:
    """Seconds that all of the work takes at the measured speeds; None where a device type was not measured. The rates
    of replicas add up; a gang has one, which also holds for the rows it only evaluates."""
    measured = {timing.device_type: timing for timing in progress.timings}
    if set(measured) != {name for name, _ in configuration.groups} or work.samples is None:
        return None
    if work.kind == "batch-infer" or work.items:
        rates = (count * measured[name].samples / measured[name].seconds for name, count in configuration.groups)
        return work.samples / sum(rates)
    timing = measured[configuration.groups[0][0]]
    whole_s = expected_work_s(work, configuration, facts)
    timed = expectation(work, timing.device_type, timing.count, timing.samples, facts)
    if whole_s is None or timed is None or not timed.seconds:
        return None
    return whole_s * timing.seconds / timed.seconds
