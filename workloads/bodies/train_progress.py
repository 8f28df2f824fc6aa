"""What a training run says about itself: steps about once a second, timing in windows of some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WARM_STEPS = 2
FIRST_WINDOW_S, WINDOW_S = 1.0, 5.0
"""The first is short, so that a training that is soon stopped has been timed."""


class ShardWork(NamedTuple):
    """What one shard did in one step."""

    rows: int
    tokens: float
    """With padding."""
    seconds: float
    """Of its own compute; 0 where that is not measured."""


@dataclass
class Window:
    """Measured work since the last `timing` record."""

    steps: int = 0
    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0

    def add(self, seconds: float, samples: int, tokens: int) -> None:
        """One more step."""
        self.steps, self.seconds = self.steps + 1, self.seconds + seconds
        self.samples, self.tokens = self.samples + samples, self.tokens + tokens


@dataclass
class TrainProgress:
    """Sends `step` and `timing` records to the relay (None on the shards that stay silent).

    The first steps of a process are left out of timing: they allocate memory and compile kernels. A gang of one device
    type is timed as a whole; of one of several types each shard's own compute is, added up by type.
    """

    relay: Any
    device_types: Sequence[str]
    """By rank."""
    precision: str
    total_steps: int
    clock: Callable[[], float] = time.monotonic
    window: Window = field(default_factory=Window)
    own: dict[str, Window] = field(default_factory=dict)
    """By device type, in a gang of several: one step of one shard is a step."""
    _window_s: float = FIRST_WINDOW_S
    _samples: int = 0
    _seen: int = 0
    _last_record: float = float("-inf")
    _rate: Window = field(default_factory=Window)

    def record(self, kind: str, **values: Any) -> None:
        """Send one record without waiting."""
        if self.relay is not None:
            self.relay.write.remote(kind, values)

    def begin(self, samples: int) -> None:
        """The first step is about to begin; `samples` were done before a resume."""
        self._samples = samples
        self.record("phase", phase="running")

    def step(self, step: int, epoch: int, loss: float, work: Sequence[ShardWork], seconds: float) -> None:
        """One global step took `seconds`, and each shard its part of them (by rank)."""
        rows, tokens = sum(each.rows for each in work), int(sum(each.tokens for each in work))
        self._samples += rows
        self._seen += 1
        if self._seen > WARM_STEPS:
            for window in (self.window, self._rate):
                window.add(seconds, rows, tokens)
            self._add_own(work)
        now = self.clock()
        if now - self._last_record >= 1.0 or step == self.total_steps:
            self._last_record = now
            self._report_step(step, epoch, loss)
        if self.window.seconds >= self._window_s or (step == self.total_steps and self.window.steps):
            self._report_timing()

    def _add_own(self, work: Sequence[ShardWork]) -> None:
        for device_type, each in zip(self.device_types, work, strict=True):
            if each.rows and each.seconds > 0:
                self.own.setdefault(device_type, Window()).add(each.seconds, each.rows, int(each.tokens))

    def _report_step(self, step: int, epoch: int, loss: float) -> None:
        rate = self._rate.samples / self._rate.seconds if self._rate.seconds else 0.0
        self._rate = Window()
        self.record(
            "step", step=step, total_steps=self.total_steps, epoch=epoch, loss=round(loss, 5),
            samples=self._samples, samples_s=round(rate, 2),
        )  # fmt: skip

    def _report_timing(self) -> None:
        window, own = self.window, self.own
        self.window, self.own, self._window_s = Window(), {}, WINDOW_S
        world = len(self.device_types)
        if len(set(self.device_types)) == 1:
            self._timing(self.device_types[0], world, window)
            return
        for device_type, each in own.items():
            self._timing(device_type, 1, each, gang=world)

    def _timing(self, device_type: str, count: int, window: Window, **more: int) -> None:
        self.record(
            "timing", device_type=device_type, count=count, seconds=round(window.seconds, 4), samples=window.samples,
            tokens=window.tokens, unit="step", precision=self.precision, steps=window.steps, **more,
        )  # fmt: skip
