"""What the uncalibrated model says of work that was measured: the other side of every comparison. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Configuration
from .calibration import Calibration, Subject
from .columns import Columns
from .cost_model import ROWS_OF_A_CORE, Facts
from .names import calibration_name
from .rows import speeds, units
from .step_time import PARTS, total_s
from .work import Work


@dataclass(frozen=True)
class Expectation:
    """Uncalibrated seconds of some work, by part, and what calibration knows it as."""

    subject: Subject
    shards: int
    label: str
    parts: tuple[float, ...]
    overlap: float

    @property
    def seconds(self) -> float:
        """All parts together."""
        return float(total_s(np.array(self.parts), np.array(self.overlap)))

    def learn(self, calibration: Calibration, measured_s: float) -> bool:
        """Tell `calibration` what it really took; False where that is absurd."""
        return calibration.observe(self.subject, self.shards, self.label, measured_s, self.parts, self.overlap)


def expectation(work: Work, device: str, count: int, samples: float, facts: Facts) -> Expectation | None:
    """What `samples` of a workload take on `count` devices of a type working together; None where no model says."""
    kind = facts.device_types.get(device)
    if kind is None:
        return None
    if work.kind == "preprocess":
        if not work.rows_per_core_s:
            return None
        parts = (samples / work.rows_per_core_s / count, *([0.0] * (len(PARTS) - 1)))
        return Expectation(Subject(work.kind, work.family, ROWS_OF_A_CORE, work.precision), count, "", parts, 0.0)
    if work.profile is None or work.tokens_per_sample is None:
        return None
    columns = _columns(work, Configuration.of({device: count}), facts)
    unit = units(columns)
    scaled = unit.parts[0] * samples / unit.samples[0]
    if not np.isfinite(scaled).all():
        return None
    subject = Subject(work.kind, work.family, calibration_name(kind), work.precision)
    shards = count if work.training else 1
    return Expectation(subject, shards, unit.labels[0], tuple(scaled.tolist()), float(unit.overlap[0]))


def expected_work_s(work: Work, configuration: Configuration, facts: Facts) -> float | None:
    """Uncalibrated seconds of all of a workload on a configuration; None where no model says."""
    if any(name not in facts.device_types for name, _ in configuration.groups):
        return None
    if work.kind == "preprocess":
        cores = configuration.devices
        found = expectation(work, configuration.groups[0][0], cores, work.samples or 0.0, facts)
        return None if found is None or work.samples is None else found.seconds
    if work.profile is None or work.tokens_per_sample is None or work.samples is None:
        return None
    seconds = float(speeds(_columns(work, configuration, facts), Calibration()).seconds[0])
    return seconds if np.isfinite(seconds) else None


def _columns(work: Work, configuration: Configuration, facts: Facts) -> Columns:
    columns = Columns(facts.device_types, facts.network_bytes_s, facts.devices_per_node)
    columns.add(work, [configuration])
    return columns
