"""Keeps a local cluster whole: what died of it is started again. A node comes back by itself; with the head, all.

A service whose cluster is somebody else's has no keeper: there the cluster's own operator brings the head back, and
what was lost with it is resumed then.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from workloads.errors import RaywiseError

from .definition import HEAD
from .local import LocalCluster

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
CALM_S = 120.0
"""A node that has lived so long since it was mended starts with the shortest pause again."""


class Keeper:
    """Looks for what is missing of `cluster` about once a second, and mends it.

    The first time at once; what dies again soon, or does not start, is tried again after pauses that double, up to a
    minute. `on_mended` is told the name of each node that is back.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        clock: Callable[[], float],
        on_mended: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`clock` is in seconds and never goes back."""
        self._cluster, self._clock, self._on_mended = cluster, clock, on_mended
        self._tries: Counter[str] = Counter()
        self._last_s: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cluster keeper", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a start that is under way is given up."""
        self._stop.set()
        self._cluster.abandoned.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def look(self) -> list[str]:
        """Mend what is missing and is due; says what is back. What cannot be started is logged and tried later."""
        missing = self._cluster.missing()
        back: list[str] = []
        for name in [HEAD] if HEAD in missing else missing:
            if self._stop.is_set() or not self._due(name):
                continue
            log.warning("node %s of the local cluster is gone: it is started again", name)
            try:
                self._cluster.mend(name)
            except (RaywiseError, OSError) as error:
                if not self._stop.is_set():
                    log.error("node %s cannot be started now: %s", name, error)
            else:
                log.info("node %s is back", name)
                back.append(name)
                self._on_mended(name)
            self._last_s[name] = self._clock()
        return back

    def _due(self, name: str) -> bool:
        """Whether its pause is over; counts the try where it is."""
        since_s = self._clock() - self._last_s.get(name, float("-inf"))
        if since_s > CALM_S:
            self._tries[name] = 0
        tries = self._tries[name]
        if tries and since_s < min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (tries - 1)):
            return False
        self._tries[name] += 1
        return True

    def _loop(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # a defect here must not leave the cluster without anybody who looks
                log.exception("the keeper of the local cluster failed")
