"""Where a step's seconds go, operator by operator: the roofline of each one alone, scaled so that all of them add up to
the step as it is estimated. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..types import Breakdown, Configuration
from .calibration import Calibration, Subject
from .columns import Columns
from .cost_model import Facts, estimate
from .hardware import rates
from .names import calibration_name
from .profile import OPERATOR_CLASSES, FloatArray
from .rows import units
from .step_time import COMPUTE, LAUNCH, MEMORY, PARTS, WITHIN, RateRows, optimizer_volumes, roofline
from .work import Strategy, Work

if TYPE_CHECKING:
    from .model_profile import Operator

Phase = Literal["forward", "backward", "optimizer", "communication"]
COLLECTIVES: Mapping[Strategy, str] = {
    "ddp": "all-reduce",
    "fsdp": "all-gather and reduce-scatter",
    "pipeline": "point to point",
}
_BOUNDS = PARTS[:WITHIN]


@dataclass(frozen=True)
class OperatorTime:
    """One operator in one pass of a step of one device."""

    name: str
    operator_class: str
    phase: Phase
    flops: float
    moved_bytes: float
    """Through the device's memory; between nodes for communication."""
    launches: float
    seconds: float
    bound: str
    """What the operator itself is bound by: `compute`, `memory`, `launch` or `communication`."""


@dataclass(frozen=True)
class StepTimes:
    """A step (a batch of a replica) on the devices of one type, as it is estimated."""

    device: str
    step_s: float
    steps: float
    samples: float
    """Rows that a device computes at a time."""
    scale: float
    """What the rooflines of the operators were multiplied by so that they add up: operators overlap what they are bound
    by within their class, and measurements correct all of them."""
    operators: tuple[OperatorTime, ...]
    """The longest first; they add up to `step_s`."""


def step_times(
    work: Work, operators: Iterable[Operator], device: str, count: int, facts: Facts, calibration: Calibration
) -> StepTimes | None:
    """What each operator of `work` takes in a step on `count` devices of one type. `operators` are of the model as it
    runs on that type. None where no rates of the device are known, or nothing is known of the work."""
    kind = facts.device_types[device]
    speed = rates(kind, work.precision)
    whole = _steps_alone(work, device, count, facts, calibration)
    if speed is None or whole is None or work.profile is None or work.tokens_per_sample is None or not work.samples:
        return None
    columns = Columns(facts.device_types, facts.network_bytes_s, facts.devices_per_node)
    columns.add(work, [Configuration.of({device: count})])
    unit = units(columns)
    share, steps = float(unit.share[0]), work.samples / float(unit.samples[0])
    found = [_of(each, share, work.tokens_per_sample, work.micro_batches) for each in operators]
    if work.training:
        found.append(_optimizer(work, count))
    subject = Subject(work.kind, work.family, calibration_name(kind), work.precision)
    parts = _parts(found, RateRows.of([speed], np.zeros(len(found), dtype=np.int64)))
    parts *= np.exp(calibration.belief(subject).mean[:WITHIN])
    work_s = (whole.compute_s + whole.memory_s + whole.launch_s) / steps
    traffic_s = whole.communication_s / steps
    scale = work_s / float(parts.sum()) if parts.sum() > 0 else 1.0
    timed = [_timed(each, row * scale) for each, row in zip(found, parts, strict=True)]
    if traffic_s > 0:
        timed.append(_traffic(work, float(unit.traffic_bytes[0]), traffic_s))
    timed.sort(key=lambda each: -each.seconds)
    return StepTimes(device, work_s + traffic_s, steps, share, scale, tuple(timed))


def _traffic(work: Work, sent_bytes: float, seconds: float) -> OperatorTime:
    name = COLLECTIVES[work.strategy]
    return OperatorTime(name, "communication", "communication", 0.0, sent_bytes, 0.0, seconds, "communication")


def without_memory_limits(facts: Facts) -> Facts:
    """The cluster with room for anything: how long it would take if it fitted."""
    return replace(
        facts, device_types={name: replace(kind, memory_bytes=None) for name, kind in facts.device_types.items()}
    )


def _steps_alone(work: Work, device: str, count: int, facts: Facts, calibration: Calibration) -> Breakdown | None:
    """Where the seconds of all steps go, without validation."""
    steps = replace(work, evaluation_samples=0.0, declared_s=None)
    alone = Configuration.of({device: count})
    return estimate(steps, alone, without_memory_limits(facts), calibration).breakdown


def _of(each: Operator, samples: float, tokens: float, times: int) -> OperatorTime:
    """One operator's volumes in a step; seconds are still to be said."""
    flops = times * max(float(each.cost.flops.at(samples, tokens)), 0.0)
    moved = times * max(float(each.cost.moved_bytes.at(samples, tokens)), 0.0)
    launches = times * each.cost.launches
    return OperatorTime(each.name, each.operator_class, each.part, flops, moved, launches, 0.0, "")


def _optimizer(work: Work, shards: int) -> OperatorTime:
    assert work.profile is not None
    part = shards if work.strategy in ("fsdp", "pipeline") else 1
    flops, moved, launches = optimizer_volumes(work.profile)
    return OperatorTime("AdamW and clipping", "optimizer", "optimizer", flops / part, moved / part, launches, 0.0, "")


def _parts(found: Sequence[OperatorTime], device: RateRows) -> FloatArray:
    """[operators, 3] seconds of compute, memory traffic and launches, each operator by itself. What a device starts
    behind the work of a whole pass is hidden: the excess is shared out by what each operator has of it."""
    flops, moved = np.zeros((len(found), len(OPERATOR_CLASSES))), np.zeros((len(found), len(OPERATOR_CLASSES)))
    for row, each in enumerate(found):
        column = OPERATOR_CLASSES.index(each.operator_class)
        flops[row, column], moved[row, column] = each.flops, each.moved_bytes
    launches = np.array([each.launches for each in found])
    parts = roofline(flops, moved, launches, device)[:, :WITHIN]
    if not device.asynchronous[0]:
        return parts
    for phase in ("forward", "backward", "optimizer"):
        rows = np.array([each.phase == phase for each in found])
        excess_s = float((launches * device.launch_s)[rows].sum() - parts[rows][:, [COMPUTE, MEMORY]].sum())
        own_s = float(parts[rows, LAUNCH].sum())
        parts[rows, LAUNCH] *= max(excess_s, 0.0) / own_s if own_s > 0 and phase != "optimizer" else 0.0
    return parts


def _timed(each: OperatorTime, parts: FloatArray) -> OperatorTime:
    return replace(each, seconds=float(parts.sum()), bound=_BOUNDS[int(parts.argmax())] if parts.any() else "")
