"""How the engine's cycles went: kept by the thread that runs them, read by whoever asks whether the service works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from workloads.errors import RaywiseError

from .readiness import ReadinessFacts

PROBE_S = 10.0
"""The store is tried at most so often, however often somebody asks."""


class Pulse:
    """The last cycle's end and what was wrong with it. Safe to use from several threads."""

    def __init__(self, cycle_s: float, clock: Callable[[], float] = time.time) -> None:
        self.cycle_s, self._clock = cycle_s, clock
        self.started_s = clock()
        self._lock = threading.Lock()
        self._last_cycle_s: float | None = None
        self._cycle_error: str | None = None
        self._cluster_error: str | None = None
        self._probed_s: float | None = None
        self._store_error: str | None = None

    def ended(self, cluster_error: str | None = None) -> None:
        """A cycle came to its end; with an error, it could not reach the cluster and decided nothing."""
        with self._lock:
            self._last_cycle_s, self._cycle_error, self._cluster_error = self._clock(), None, cluster_error

    def failed(self, error: Exception) -> None:
        """A cycle broke off."""
        with self._lock:
            self._cycle_error = _words(error)

    def facts(self, probe: Callable[[], None]) -> ReadinessFacts:
        """What is known now; `probe` writes to the store, and raises where it cannot."""
        now_s = self._clock()
        with self._lock:
            if self._probed_s is None or not 0 <= now_s - self._probed_s < PROBE_S:
                self._probed_s, self._store_error = now_s, _outcome(probe)
            return ReadinessFacts(
                now_s=now_s,
                started_s=self.started_s,
                cycle_s=self.cycle_s,
                last_cycle_s=self._last_cycle_s,
                cycle_error=self._cycle_error,
                cluster_error=self._cluster_error,
                store_error=self._store_error,
            )


def _outcome(probe: Callable[[], None]) -> str | None:
    try:
        probe()
    except Exception as error:  # whatever it is: who asks wants to know, and must get an answer
        return _words(error)
    return None


def _words(error: Exception) -> str:
    """Our own errors in their words; a defect's may hold what is nobody's business, and are in the log."""
    return str(error) if isinstance(error, RaywiseError) else f"{type(error).__name__}, see the log"
