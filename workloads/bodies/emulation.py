"""Slows compute down to the speed of the device a host core stands in for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Pacer:
    """Sleeps after compute so that it takes as long as on a device of `speed` times a host core; None does not sleep.

    Compute is the thread's own CPU time, not wall time: a shard that waits for its peer in an all-reduce, or for a
    busy host, has not computed, and waiting is not slowed down again.
    """

    speed: float | None
    clock: Callable[[], float] = time.thread_time
    sleep: Callable[[float], None] = time.sleep
    busy_s: float = 0.0
    """Seconds that the device has computed, at its own speed."""
    _since_s: float = 0.0

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Run the body, then sleep `t * (1 / speed - 1)` for the `t` seconds it computed. Nothing after an error."""
        self._since_s = self.clock()
        yield
        self.catch_up()

    def catch_up(self) -> None:
        """Sleep what the compute since `pace` began, or since the last time, is behind. For before others are waited
        for."""
        computed_s = self.clock() - self._since_s
        busy_s = computed_s if self.speed is None else computed_s / self.speed
        self.busy_s += busy_s
        if busy_s > computed_s:
            self.sleep(busy_s - computed_s)
        self._since_s = self.clock()
