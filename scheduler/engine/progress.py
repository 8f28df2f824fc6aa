"""What a run's progress records add up to. Pure: a fold over the records that `workloads.job` describes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..estimate.device_rates import DeviceRates


@dataclass(frozen=True)
class Timing:
    """Measured work of `count` devices of one type working together, or of one by itself in a gang of several types."""

    device_type: str
    count: int
    seconds: float = 0.0
    samples: float = 0.0
    tokens: float = 0.0
    steps: float = 0.0
    """Of training."""
    gang: int = 0
    """Shards of the gang of several types that it worked in; 0 where it was of one."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, and what it measured. `done` and `failed` hold the body's last word, where there is one."""

    phase: str = "starting"
    running_since_s: float | None = None
    step: int = 0
    total_steps: int | None = None
    saved_step: int | None = None
    """Step of the last checkpoint: where a restart goes on."""
    saved_s: float | None = None
    """When that checkpoint was written, or gone on from."""
    rows: int = 0
    total_rows: int | None = None
    per_second: float | None = None
    loss: float | None = None
    epoch: int | None = None
    rows_by_device: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    rates: tuple[DeviceRates, ...] = ()
    """What a benchmark measured, one for each device type."""
    row_errors: int = 0
    resumed: int = 0
    note: str = ""
    last_s: float | None = None
    """When the body last said anything."""
    done: Mapping[str, Any] | None = None
    failed: Mapping[str, Any] | None = None

    @property
    def fraction(self) -> float:
        """Share of the work done, 0 to 1."""
        return self._share(self.step)

    @property
    def saved(self) -> float:
        """Share of the work that a restart keeps, 0 to 1: steps up to the last checkpoint, and rows as they are done,
        since the blocks they are in are written before they are reported."""
        return self._share(self.saved_step or 0)

    def _share(self, step: int) -> float:
        if self.total_steps:
            return min(1.0, max(0.0, step / self.total_steps))
        if self.total_rows:
            return min(1.0, max(0.0, self.rows / self.total_rows))
        return 1.0 if self.done is not None else 0.0

    def unsaved_s(self, now_s: float) -> float:
        """Seconds of work since the last checkpoint, or since the first step; 0 before that."""
        if self.running_since_s is None:
            return 0.0
        return max(0.0, now_s - max(self.running_since_s, self.saved_s or 0.0))


LATEST_S = 1e11
"""A time after this is none."""


def fold(progress: Progress, records: Iterable[Mapping[str, Any]]) -> Progress:
    """`progress` after these records. Unknown kinds and malformed records are passed over."""
    for record in records:
        step = _STEPS.get(str(record.get("kind")))
        if step is not None:
            try:
                progress = replace(step(progress, record), last_s=_time(record["t"]))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue
    return progress


def _phase(progress: Progress, record: Mapping[str, Any]) -> Progress:
    since = progress.running_since_s
    if record["phase"] == "running" and since is None:
        since = _time(record["t"])
    return replace(progress, phase=str(record["phase"]), running_since_s=since)


def _step(progress: Progress, record: Mapping[str, Any]) -> Progress:
    return replace(
        progress,
        step=_count(record["step"]),
        total_steps=_count(record["total_steps"]),
        loss=_number(record.get("loss")),
        epoch=record.get("epoch"),
        per_second=_number(record.get("samples_s")),
    )


def _checkpoint(progress: Progress, record: Mapping[str, Any]) -> Progress:
    """That of a user's own loop has no step: it says when, and not how much."""
    step = record.get("step")
    return replace(
        progress, saved_step=progress.saved_step if step is None else _count(step), saved_s=_time(record["t"])
    )


def _rows(progress: Progress, record: Mapping[str, Any]) -> Progress:
    total = record.get("total_rows")
    return replace(
        progress,
        rows=_count(record["rows"]),
        total_rows=progress.total_rows if total is None else _count(total),
        per_second=_number(record.get("rows_s")),
        rows_by_device=dict(record.get("by_device") or progress.rows_by_device),
    )


def _timing(progress: Progress, record: Mapping[str, Any]) -> Progress:
    key = (str(record["device_type"]), int(record["count"]))
    sums = {(timing.device_type, timing.count): timing for timing in progress.timings}
    old = sums.get(key, Timing(*key))
    seconds, samples = float(record["seconds"]), float(record["samples"])
    if not (0 < seconds < 1e7 and samples > 0):
        return progress
    sums[key] = replace(
        old,
        seconds=old.seconds + seconds,
        samples=old.samples + samples,
        tokens=old.tokens + float(record.get("tokens") or 0.0),
        steps=old.steps + float(record.get("steps") or 0.0),
        gang=int(record.get("gang") or 0),
    )
    return replace(progress, timings=tuple(sums.values()))


def _rates(progress: Progress, record: Mapping[str, Any]) -> Progress:
    found = DeviceRates.from_record(record)
    others = tuple(each for each in progress.rates if each.device_type != found.device_type)
    return replace(progress, rates=(*others, found))


def _metrics(progress: Progress, record: Mapping[str, Any]) -> Progress:
    return replace(progress, metrics={**progress.metrics, **_numbers(record["values"])})


def _row_error(progress: Progress, record: Mapping[str, Any]) -> Progress:
    return replace(progress, row_errors=progress.row_errors + 1, note=f"row {record['row']}: {record['error']}")


def _resumed(progress: Progress, record: Mapping[str, Any]) -> Progress:
    """A gang that goes on from a checkpoint is back at its step, however far it was."""
    resumed = replace(progress, resumed=progress.resumed + 1)
    if record.get("step") is None:
        return resumed
    step = _count(record["step"])
    return replace(resumed, step=step, saved_step=step, saved_s=_time(record["t"]))


def _note(progress: Progress, record: Mapping[str, Any]) -> Progress:
    return replace(progress, note=str(record["message"]))


def _done(progress: Progress, record: Mapping[str, Any]) -> Progress:
    metrics = record.get("metrics")
    values = _numbers(metrics) if isinstance(metrics, Mapping) else {}
    return replace(progress, done={**record, "metrics": values}, metrics={**progress.metrics, **values})


def _failed(progress: Progress, record: Mapping[str, Any]) -> Progress:
    return replace(progress, failed=dict(record))


def _time(value: Any) -> float:
    """Seconds since 1970, before the year 5000. Raises ValueError."""
    number = float(value)
    if not 0 <= number < LATEST_S:
        raise ValueError(f"{number} is no time")
    return number


def _count(value: Any) -> int:
    """What a database can hold and a float can be divided by. Raises ValueError."""
    number = int(value)
    if not 0 <= number < 2**63:
        raise ValueError("no number of steps or rows")
    return number


def _number(value: Any) -> float | None:
    """A finite number or None: JSON, and so the API, has neither NaN nor infinity."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): number for name, value in values.items() if (number := _number(value)) is not None}


_STEPS = {
    "phase": _phase,
    "step": _step,
    "checkpoint": _checkpoint,
    "rows": _rows,
    "timing": _timing,
    "rates": _rates,
    "metrics": _metrics,
    "row_error": _row_error,
    "resumed": _resumed,
    "note": _note,
    "done": _done,
    "failed": _failed,
}
