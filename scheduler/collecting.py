"""Python's collector of cycles, held while hundreds of thousands of objects are made or read that are in none."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Looking for cycles among objects that have none would take a fifth to a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


UNFROZEN_EVERY_S = 3600.0


class Collector:
    """Looks for cycles among what is new, once between two cycles of the engine, and among everything once an hour.

    Python's own full collection looks at every object again and again: with ten thousand workloads in memory all that a
    service does stands still for a quarter of a second each time. What lives after a cycle is therefore put aside
    (`gc.freeze`); what ends is freed by its count of references anyhow, and cycles that were put aside once an hour.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._whole_s = clock, clock()

    def between_cycles(self) -> None:
        """Collect what is new and put aside what lives."""
        if self._clock() - self._whole_s >= UNFROZEN_EVERY_S:
            self._whole_s = self._clock()
            gc.unfreeze()
            gc.collect()
        else:
            gc.collect(1)
        gc.freeze()
