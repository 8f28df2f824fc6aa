"""What measurements say about the estimates: a robust running mean of log(measured / predicted). Pure.

Kept per (kind, model family, device type, precision, shards), and for the levels above it, so that what was learnt on
two shards helps to judge four, and one family another, until there is something closer. A single absurd value moves
the mean little: it is clipped to the spread seen so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

PRIOR_SPREAD = math.log(2.0) / 2
"""Before anything is measured, nine in ten times within a factor of two (the interval is two spreads wide)."""
MINIMUM_SPREAD = 0.05
NEWEST_WEIGHT = 0.3
"""A newer measurement counts at least this much, so that the mean follows a changed machine."""
CLIP_SPREADS = 3.0
_ANY = "*"


@dataclass(frozen=True)
class Correction:
    """Multiply predicted by `mean`; nineteen in twenty times the truth lies between `low` and `high`."""

    mean: float
    low: float
    high: float
    known: bool
    """Whether any measurement is behind it."""

    @classmethod
    def certain(cls) -> Correction:
        """No correction, no doubt: for numbers the user gave."""
        return cls(1.0, 1.0, 1.0, False)


@dataclass(frozen=True)
class Entry:
    """Running mean and spread of log ratios; `count` measurements."""

    mean: float
    spread: float
    count: int

    def updated(self, value: float) -> Entry:
        """With one more value, clipped to what was seen so far."""
        reach = CLIP_SPREADS * max(self.spread, MINIMUM_SPREAD)
        error = max(-reach, min(reach, value - self.mean))
        weight = max(1 / (self.count + 1), NEWEST_WEIGHT)
        variance = (1 - weight) * (self.spread**2 + weight * error**2)
        return Entry(self.mean + weight * error, math.sqrt(variance), self.count + 1)


Key = tuple[str, ...]


@dataclass
class Calibration:
    """Everything learnt so far; `to_rows` and `from_rows` carry it to and from the store."""

    entries: dict[Key, Entry] = field(default_factory=dict)

    def observe(
        self, kind: str, family: str, device: str, precision: str, count: int, measured_s: float, predicted_s: float
    ) -> bool:
        """Learn from `measured_s` seconds of work that uncalibrated prediction put at `predicted_s`. Absurd values
        (not finite, not positive, more than a thousandfold off) are refused: False."""
        ratio = measured_s / predicted_s if predicted_s > 0 else math.nan
        if not (math.isfinite(ratio) and 1e-3 < ratio < 1e3):
            return False
        for key in _levels("speed", kind, family, device, precision, str(count)):
            self._update(key, math.log(ratio))
        return True

    def observe_overhead(self, kind: str, family: str, devices: int, seconds: float) -> bool:
        """Learn the seconds a body on so many devices took beside its work."""
        return self._observe_seconds(_overhead_levels(kind, family, devices), seconds)

    def observe_history(self, kind: str, family: str, configuration: str, seconds: float) -> bool:
        """Learn the seconds of work that no model predicts (a command, the user's own code)."""
        return self._observe_seconds((("history", kind, family, configuration),), seconds)

    def _observe_seconds(self, keys: tuple[Key, ...], seconds: float) -> bool:
        if not (math.isfinite(seconds) and 0 <= seconds < 30 * 86400):
            return False
        for key in keys:
            self._update(key, math.log(max(seconds, 0.1)))
        return True

    def _update(self, key: Key, value: float) -> None:
        entry = self.entries.get(key)
        self.entries[key] = Entry(value, PRIOR_SPREAD / 2, 1) if entry is None else entry.updated(value)

    def correction(self, kind: str, family: str, device: str, precision: str, count: int) -> Correction:
        """The correction of the closest level that has been measured; a factor of two where none has."""
        for distance, key in enumerate(_levels("speed", kind, family, device, precision, str(count))):
            entry = self.entries.get(key)
            if entry is not None:
                return _correction(entry, widened=distance)
        return Correction(1.0, math.exp(-2 * PRIOR_SPREAD), math.exp(2 * PRIOR_SPREAD), False)

    def overhead_s(self, kind: str, family: str, devices: int, prior_s: float) -> Correction:
        """Seconds beside the work, with their interval: processes start and models load on every device."""
        for distance, key in enumerate(_overhead_levels(kind, family, devices)):
            if key in self.entries:
                return _correction(self.entries[key], widened=distance)
        return Correction(prior_s, prior_s / 2, prior_s * 2, False)

    def history_s(self, kind: str, family: str, configuration: str) -> Correction | None:
        """Seconds of work that earlier runs took on this very configuration, or None."""
        entry = self.entries.get(("history", kind, family, configuration))
        return None if entry is None else _correction(entry, widened=0)

    def to_rows(self) -> list[tuple[str, float, float, int]]:
        """Rows (key, mean, spread, count) for the store."""
        return [("\t".join(key), entry.mean, entry.spread, entry.count) for key, entry in sorted(self.entries.items())]

    @classmethod
    def from_rows(cls, rows: Mapping[str, tuple[float, float, int]]) -> Calibration:
        """What `to_rows` wrote."""
        return cls({tuple(key.split("\t")): Entry(*values) for key, values in rows.items()})


def _overhead_levels(kind: str, family: str, devices: int) -> tuple[Key, ...]:
    return (
        ("overhead", kind, family, str(devices)),
        ("overhead", kind, family, _ANY),
        ("overhead", kind, _ANY, _ANY),
    )


def _levels(*parts: str) -> tuple[Key, ...]:
    """The key itself and the coarser ones it also counts for: any count, then any family."""
    what, kind, family, device, precision, count = parts
    return (
        (what, kind, family, device, precision, count),
        (what, kind, family, device, precision, _ANY),
        (what, kind, _ANY, device, precision, _ANY),
    )


def _correction(entry: Entry, widened: int) -> Correction:
    spread = max(entry.spread, MINIMUM_SPREAD) * (1 + widened)
    return Correction(math.exp(entry.mean), math.exp(entry.mean - 2 * spread), math.exp(entry.mean + 2 * spread), True)
