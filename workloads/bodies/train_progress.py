"""What a training run says about itself: steps about once a second, timing in windows of some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WARM_STEPS = 2
WINDOW_S = 5.0


@dataclass
class Window:
    """Measured work since the last `timing` record."""

    steps: int = 0
    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0


@dataclass
class TrainProgress:
    """Sends `step` and `timing` records to the relay (None on the shards that stay silent).

    The first steps of a process are left out of timing: they allocate memory and compile kernels.
    """

    relay: Any
    device_type: str
    count: int
    precision: str
    total_steps: int
    clock: Callable[[], float] = time.monotonic
    window: Window = field(default_factory=Window)
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

    def step(self, step: int, epoch: int, loss: float, rows: int, tokens: int, seconds: float) -> None:
        """One global step took `seconds` for `rows` rows of `tokens` padded tokens in all."""
        self._samples += rows
        self._seen += 1
        if self._seen > WARM_STEPS:
            for window in (self.window, self._rate):
                window.steps, window.seconds = window.steps + 1, window.seconds + seconds
                window.samples, window.tokens = window.samples + rows, window.tokens + tokens
        now = self.clock()
        if now - self._last_record >= 1.0 or step == self.total_steps:
            self._last_record = now
            self._report_step(step, epoch, loss)
        if self.window.seconds >= WINDOW_S or (step == self.total_steps and self.window.steps):
            self._report_timing()

    def _report_step(self, step: int, epoch: int, loss: float) -> None:
        rate = self._rate.samples / self._rate.seconds if self._rate.seconds else 0.0
        self._rate = Window()
        self.record(
            "step", step=step, total_steps=self.total_steps, epoch=epoch, loss=round(loss, 5),
            samples=self._samples, samples_s=round(rate, 2),
        )  # fmt: skip

    def _report_timing(self) -> None:
        window, self.window = self.window, Window()
        self.record(
            "timing", device_type=self.device_type, count=self.count, seconds=round(window.seconds, 4),
            samples=window.samples, tokens=window.tokens, unit="step", precision=self.precision, steps=window.steps,
        )  # fmt: skip
