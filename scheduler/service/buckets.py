"""Token buckets: so many requests in the long run, so many at once, for each of those who ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000
"""Of so many it is known what they asked; the one that was quiet for longest is forgotten."""


class Buckets:
    """What each may still ask. Not for several threads: the server has one."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, float(burst), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one; 0, or the seconds until there is one."""
        now_s = self._clock()
        left, at_s = self._left.pop(key, (self._burst, now_s))
        left = min(self._burst, left + (now_s - at_s) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[key] = (left if wait_s else left - 1, now_s)
        if len(self._left) > MAX_KEYS:
            self._left.popitem(last=False)
        return wait_s
