"""How a gang of several device types shares its global batch: by speeds that were predicted, then by those measured.

Pure. Every shard sees the same numbers and so decides the same: only the split of a batch changes, never the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WARM_STEPS = 2
"""The first steps allocate memory and compile kernels."""
FIRST_WINDOW_STEPS, LONGEST_WINDOW_STEPS = 3, 96
WORTH_IT = 1.03
"""Where the slowest shard takes this many times the mean or less, nothing is changed."""
MOST = 4.0
"""A window changes a shard's weight by this factor at most: it may have been disturbed."""


class Balance:
    """The weights of the shards, by rank; they add up to 1.

    Windows of steps become twice as long each time: what is off at the start is put right at once, and what comes later
    is not mistaken for it. Within a window the slowest decides, so a shard's weight is multiplied by the mean of all
    shards' seconds over its own: where that changes nothing, all take equally long, whatever a step costs beside the
    rows.
    """

    def __init__(self, speeds: Sequence[float], *, adapts: bool = True) -> None:
        """`speeds` of the shards in any unit; those that are no positive number count as the slowest of the others."""
        known = [speed for speed in speeds if 0 < speed < math.inf]
        least = min(known, default=1.0)
        self.weights = _normalised([speed if 0 < speed < math.inf else least for speed in speeds])
        self._adapts = adapts and len(self.weights) > 1
        self._window_steps = WARM_STEPS
        self._steps = 0
        self._seconds = [0.0] * len(self.weights)
        self._warm = False

    def observe(self, seconds: Sequence[float]) -> bool:
        """One step took each shard so many seconds of its own compute. Returns whether the weights have changed."""
        if not self._adapts:
            return False
        self._seconds = [total + each for total, each in zip(self._seconds, seconds, strict=True)]
        self._steps += 1
        if self._steps < self._window_steps:
            return False
        taken, self._seconds, self._steps = self._seconds, [0.0] * len(self.weights), 0
        if not self._warm:
            self._warm, self._window_steps = True, FIRST_WINDOW_STEPS
            return False
        self._window_steps = min(LONGEST_WINDOW_STEPS, 2 * self._window_steps)
        return self._rebalance(taken)

    def _rebalance(self, taken_s: Sequence[float]) -> bool:
        mean_s = sum(taken_s) / len(taken_s)
        if not all(0 < each < math.inf for each in taken_s) or max(taken_s) <= WORTH_IT * mean_s:
            return False
        factors = [min(MOST, max(1 / MOST, mean_s / each)) for each in taken_s]
        self.weights = _normalised([weight * factor for weight, factor in zip(self.weights, factors, strict=True)])
        return True


def _normalised(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]
