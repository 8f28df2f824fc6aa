"""When the next cycle runs: a second after the last one, at once where somebody asks, soon after a command ended.

A command that is over touches a file, which costs it microseconds; to look at one file twenty times a second costs the
service less than to ask the cluster once. So a device does not stand idle until the next second, and nobody polls Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.05
AFTER_END_S = (0.2, 0.3, 0.5)
"""Pauses before the cycles after a command ended: Ray says so up to 0.1 s later, and gives its devices back when the
job's supervisor is gone."""


class Waiting:
    """Between two cycles. `end_file` is what commands touch; it is made where it is not there."""

    def __init__(self, end_file: Path, cycle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._end_file, self._cycle_s, self._clock = end_file, cycle_s, clock
        self._event = threading.Event()
        self._seen_ns = self._touched_ns()
        self._pauses: tuple[float, ...] = ()

    def wake(self) -> None:
        """The next cycle is to run now."""
        self._event.set()

    def until_next(self) -> None:
        """Return when the next cycle is to run."""
        due_s = self._clock() + (self._pauses[0] if self._pauses else self._cycle_s)
        self._pauses = self._pauses[1:]
        while (left_s := due_s - self._clock()) > 0 and not self._event.wait(min(LOOK_S, left_s)):
            if self._has_ended():
                self._pauses = AFTER_END_S[1:]
                due_s = min(due_s, self._clock() + AFTER_END_S[0])
        self._event.clear()

    def _has_ended(self) -> bool:
        before, self._seen_ns = self._seen_ns, self._touched_ns()
        return self._seen_ns != before

    def _touched_ns(self) -> int:
        try:
            return self._end_file.stat().st_mtime_ns
        except FileNotFoundError:
            self._end_file.parent.mkdir(parents=True, exist_ok=True)
            self._end_file.touch()
            return self._end_file.stat().st_mtime_ns
