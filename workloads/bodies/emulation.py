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

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Run the body, then sleep `t * (1 / speed - 1)` for the `t` seconds it computed. Nothing after an error."""
        if self.speed is None:
            yield
            return
        start = self.clock()
        yield
        idle_s = (self.clock() - start) * (1.0 / self.speed - 1.0)
        if idle_s > 0:
            self.sleep(idle_s)
