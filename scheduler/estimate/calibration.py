"""What measurements say about the estimates. Pure.

A measured step time is compared with the parts (compute, memory, launches, communication) that the cost model predicted
for it. Each part has a log-correction that is a sum of effects: of the device type, of the model family, of both
together, of the precision and of the kind of work. All effects are Gaussian with mean zero, so what was learnt on one
model, device type or shard count helps the others exactly as far as they have effects in common: a Gaussian process
with a hierarchical kernel (Rasmussen and Williams, 2006, chapter 2), linearised around the best corrections so far.
Outliers lose weight (Student-t, iteratively reweighted), so one paused machine does not poison it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np

from .profile import FloatArray
from .step_time import PARTS, sensitivities, total_s

NEWEST_WEIGHT = 0.3
"""A newer measurement of the same point counts at least this much, so that the mean follows a changed machine."""
CLIP_SPREADS = 3.0
MINIMUM_SPREAD = 0.03
FIRST_SPREAD = 0.10
"""Spread of one measurement that stands alone."""
LACK_OF_FIT = 0.05
"""What a point's own truth differs from the model by, once every effect is known."""
POINT_SPREAD = 0.10
"""Prior standard deviation of an operating point's own effect, whatever the number of shards."""
STUDENT_FREEDOM = 4.0
MAX_POINTS = 1000
SIZE_DOUBT = 0.25
"""Standard deviation of the power of the size that a run time grows with, about one: at ten times the size of an
earlier run, three to thirty times its seconds."""
PART_SCALES = np.array([1.0, 1.0, 1.3, 4.0, 4.0, 6.0])
"""Launch times are known less well than arithmetic and memory, links much less (of the measured ones in
docs/accuracy.md, some reach a tenth of what the catalog says), and how shards crowd a host hardly at all."""
_ITERATIONS = 6
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
    """Running mean and spread of logarithms; `count` measurements."""

    mean: float
    spread: float
    count: int

    @classmethod
    def first(cls, value: float) -> Entry:
        """One measurement."""
        return cls(value, FIRST_SPREAD, 1)

    def updated(self, value: float) -> Entry:
        """With one more value, clipped to what was seen so far; a second is believed as much as the first."""
        reach = CLIP_SPREADS * max(self.spread, MINIMUM_SPREAD) if self.count > 1 else math.inf
        error = max(-reach, min(reach, value - self.mean))
        weight = max(1 / (self.count + 1), NEWEST_WEIGHT)
        variance = (1 - weight) * (self.spread**2 + weight * error**2)
        return Entry(self.mean + weight * error, math.sqrt(variance), self.count + 1)


@dataclass(frozen=True, order=True)
class Subject:
    """Whose speed it is: what the effects are shared over."""

    kind: str
    family: str
    device: str
    precision: str

    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Names of the effects that add up to this subject's corrections, in the order of `LEVEL_SPREADS`."""
        return (
            ("device", self.device),
            ("family", self.family),
            ("family and device", self.family, self.device),
            ("precision", self.device, self.precision),
            ("kind", self.kind, self.device),
            ("all", self.kind, self.family, self.device, self.precision),
        )


LEVEL_SPREADS: FloatArray = np.array([0.30, 0.18, 0.12, 0.12, 0.10, 0.10])
"""Prior standard deviations of the effects (natural logarithms). Together 0.42: nine in ten first predictions within a
factor of two."""
_PRECISION = 3
_REDUCED_SPREAD = 0.30
"""Of the precision's effect where it is not fp32: hardware may lack it altogether (a CPU that trains in bf16 takes
twice as long as its products alone say, docs/accuracy.md)."""


def _spreads(subject: Subject) -> FloatArray:
    """Prior standard deviations of all effects of a point."""
    spreads = np.append(LEVEL_SPREADS, POINT_SPREAD)
    if subject.precision != "fp32":
        spreads[_PRECISION] = _REDUCED_SPREAD
    return spreads


@dataclass(frozen=True)
class Point:
    """One operating point that was measured: parts [6] predicted in seconds, and the log of measured / predicted."""

    parts: tuple[float, ...]
    overlap: float
    ratio: Entry

    def rescaled(self, factors: FloatArray) -> Point:
        """The same measurement against a prediction whose parts are `factors` times as long."""
        parts = np.array(self.parts) * factors
        total = float(total_s(parts, np.array(self.overlap)))
        ratio = replace(self.ratio, mean=self.ratio.mean - math.log(total))
        return Point(tuple((parts / total).tolist()), self.overlap, ratio)


@dataclass(frozen=True)
class Belief:
    """Log-corrections of the parts for one subject: mean [6] and covariance [6, 6]."""

    mean: FloatArray
    covariance: FloatArray
    known: bool


Key = tuple[str, ...]
PointKey = tuple[Subject, int, str]


@dataclass
class Calibration:
    """Everything learnt so far; `to_rows` and `from_rows` carry it to and from the store."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    """Start-up seconds, and run times of work that no model predicts (of one size each, where that is known)."""
    points: dict[PointKey, Point] = field(default_factory=dict)
    """In the order they were last measured."""
    version: int = field(default=0, repr=False, compare=False)
    """Counts what was learnt and forgotten: while it is the same, so is every answer."""
    _solution: _Solution | None = field(default=None, repr=False, compare=False)
    _beliefs: dict[tuple[Subject, str], Belief] = field(default_factory=dict, repr=False, compare=False)
    _labels: frozenset[tuple[Subject, str]] | None = field(default=None, repr=False, compare=False)
    _sizes: dict[Key, tuple[str, ...]] | None = field(default=None, repr=False, compare=False)

    def observe(
        self,
        subject: Subject,
        shards: int,
        label: str,
        measured_s: float,
        parts: Iterable[float],
        overlap: float = 0.0,
    ) -> bool:
        """Learn from `measured_s` seconds of work that the uncalibrated model puts at `parts` seconds (those of
        `step_time.PARTS`). `label` names the operating point (batch, length). Absurd values (not finite, not positive,
        more than a thousandfold off) are refused: False."""
        raw = tuple(float(part) for part in parts)
        predicted_s = float(total_s(np.array(raw), np.array(overlap)))
        ratio = measured_s / predicted_s if predicted_s > 0 and all(part >= 0 for part in raw) else math.nan
        if not (math.isfinite(ratio) and 1e-3 < ratio < 1e3):
            return False
        key = (subject, shards, label)
        old = self.points.pop(key, None)
        entry = Entry.first(math.log(ratio)) if old is None else old.ratio.updated(math.log(ratio))
        self.points[key] = Point(tuple(part / predicted_s for part in raw), overlap, entry)
        while len(self.points) > MAX_POINTS:
            del self.points[next(iter(self.points))]
        self._changed()
        return True

    def _changed(self) -> None:
        self.version += 1
        self._solution = self._labels = self._sizes = None
        self._beliefs = {}

    @property
    def labels(self) -> frozenset[tuple[Subject, str]]:
        """Operating points that were measured with any number of shards."""
        if self._labels is None:
            self._labels = frozenset((subject, label) for subject, _, label in self.points.copy())
        return self._labels

    def belief(self, subject: Subject, label: str = "") -> Belief:
        """The corrections of a subject at an operating point, from everything that shares an effect with it. The empty
        label is any point that was not measured."""
        beliefs = self._beliefs  # replaced, not emptied, when something is learnt meanwhile: others may be reading
        found = beliefs.get((subject, label))
        if found is None:
            solution = self._solution or _solve(self.points.copy())
            if beliefs is self._beliefs:
                self._solution = solution
            found = beliefs[subject, label] = solution.belief(subject, label)
        return found

    def residual(self, subject: Subject, shards: int, label: str) -> tuple[float, float]:
        """(log-correction, variance) of one operating point beyond its subject's corrections: the lack of fit that its
        own measurements have shown. Without any, no correction and the whole variance."""
        point = self.points.get((subject, shards, label))
        if point is None:
            return 0.0, LACK_OF_FIT**2
        belief = self.belief(subject, label)
        parts, overlap = np.array(point.parts), np.array(point.overlap)
        explained = float(np.log(total_s(parts * np.exp(belief.mean), overlap)))
        noise = _noise(point.ratio)
        weight = LACK_OF_FIT**2 / (LACK_OF_FIT**2 + noise)
        reach = 3 * math.sqrt(LACK_OF_FIT**2 + noise)
        return weight * max(-reach, min(reach, point.ratio.mean - explained)), weight * noise

    def observe_overhead(self, kind: str, family: str, devices: int, seconds: float) -> bool:
        """Learn the seconds a body on so many devices took beside its work."""
        return self._observe_seconds(_overhead_levels(kind, family, devices), seconds)

    def observe_history(
        self, kind: str, family: str, configuration: str, seconds: float, size: float | None = None
    ) -> bool:
        """Learn the seconds of work that no model predicts (a command, the user's own code). `size` is what they grow
        with (rows, or bytes of the input): sizes that agree in two digits are one, and seconds are put in terms of
        it."""
        key = ("history", kind, family, configuration)
        if not _known_size(size):
            return self._observe_seconds((key,), seconds)
        learnt = self._observe_seconds(((*key, f"{size:.2g}"),), seconds * float(f"{size:.2g}") / size)
        self._sizes = None
        return learnt

    def _observe_seconds(self, keys: tuple[Key, ...], seconds: float) -> bool:
        if not (math.isfinite(seconds) and 0 <= seconds < 30 * 86400):
            return False
        for key in keys:
            value = math.log(max(seconds, 0.1))
            entry = self.entries.get(key)
            self.entries[key] = Entry(value, 0.17, 1) if entry is None else entry.updated(value)
        self.version += 1
        return True

    def overhead_s(self, kind: str, family: str, devices: int, prior_s: float) -> Correction:
        """Seconds beside the work, with their interval: processes start and models load on every device."""
        for distance, key in enumerate(_overhead_levels(kind, family, devices)):
            if key in self.entries:
                return _correction(self.entries[key], widened=distance)
        return Correction(prior_s, prior_s / 2, prior_s * 2, False)

    def history_s(self, kind: str, family: str, configuration: str, size: float | None = None) -> Correction | None:
        """Seconds of work that earlier runs took on this very configuration, or None. Where the size is known, seconds
        are proportional to it: those of the nearest size are scaled, and doubted the more the farther it is. A run of
        unknown size says nothing of a known one, nor the other way round."""
        key: Key = ("history", kind, family, configuration)
        if not _known_size(size):
            return _correction(self.entries[key]) if key in self.entries else None
        sizes = self._known_sizes().get(key, ())
        nearest = min(sizes, key=lambda known: abs(math.log(size / float(known))), default="")
        entry = self.entries.get((*key, nearest))
        if entry is None:
            return None
        ratio = math.log(size / float(nearest))
        return _correction(replace(entry, mean=entry.mean + ratio), doubt=SIZE_DOUBT * abs(ratio))

    def _known_sizes(self) -> dict[Key, tuple[str, ...]]:
        """The sizes that there is history of."""
        sizes = self._sizes
        if sizes is None:
            sizes = {}
            for *key, size in (key for key in self.entries.copy() if key[0] == "history" and len(key) == 5):
                sizes[tuple(key)] = (*sizes.get(tuple(key), ()), size)
            self._sizes = sizes
        return sizes

    def rescale(self, factors: Callable[[Subject, Point], FloatArray | None]) -> None:
        """Compare what was measured with another uncalibrated model from now on, whose parts take `factors` times as
        long for a point of a subject; None leaves it as it is."""
        scaled = {}
        for key, point in self.points.items():
            factor = factors(key[0], point)
            scaled[key] = point if factor is None else point.rescaled(factor)
        self.points = scaled
        self._changed()

    def forget(self) -> None:
        """Start again from the priors."""
        self.entries.clear()
        self.points.clear()
        self._changed()

    def to_rows(self) -> list[tuple[str, float, float, int, str]]:
        """Rows (key, mean, spread, count, parts as JSON or empty) for the store, in the order they were learnt."""
        rows = [("\t".join(key), entry.mean, entry.spread, entry.count, "") for key, entry in self.entries.items()]
        for (subject, shards, label), point in self.points.items():
            key = (subject.kind, subject.family, subject.device, subject.precision, str(shards), label)
            parts = json.dumps({"parts": list(point.parts), "overlap": point.overlap})
            rows.append(("\t".join(("speed", *key)), point.ratio.mean, point.ratio.spread, point.ratio.count, parts))
        return rows

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, float, float, int, str]]) -> Calibration:
        """What `to_rows` wrote; rows of another shape are left out: they can be learnt again."""
        calibration = cls()
        for key, mean, spread, count, parts in rows:
            names = tuple(key.split("\t"))
            entry = Entry(mean, spread, count)
            if names[0] != "speed":
                if _readable(names):
                    calibration.entries[names] = entry
            elif len(names) == 7 and parts:
                with suppress(ValueError, KeyError, TypeError):
                    data = json.loads(parts)
                    point = Point(tuple(float(part) for part in data["parts"]), float(data["overlap"]), entry)
                    if len(point.parts) == len(PARTS):
                        calibration.points[Subject(*names[1:5]), int(names[5]), names[6]] = point
        return calibration


@dataclass(frozen=True)
class _Solution:
    """The Gaussian process given all points: `influence` [M] and the inverse of their covariance [M, M]."""

    subjects: tuple[Subject, ...]
    gradients: FloatArray
    """[M, 6], scaled by `PART_SCALES`: what a unit of each part's effect does to a point's log seconds."""
    influence: FloatArray
    inverse: FloatArray
    names: FloatArray
    """[M, levels]: the effects of each point as numbers."""
    numbers: dict[tuple[str, ...], int]

    def belief(self, subject: Subject, label: str) -> Belief:
        """Mean and covariance of a subject's corrections at an operating point."""
        variances = _spreads(subject) ** 2
        prior = np.diag(PART_SCALES**2) * float(variances.sum())
        if not self.subjects:
            return Belief(np.zeros(len(PARTS)), prior, known=False)
        mine = np.array([self.numbers.get(name, -1) for name in _effects(subject, label)])
        shared = ((self.names == mine) * variances).sum(axis=1)
        across = PART_SCALES[:, None] * (self.gradients * shared[:, None]).T
        covariance = prior - across @ self.inverse @ across.T
        return Belief(across @ self.influence, covariance, known=bool((self.names[:, 0] == mine[0]).any()))


def _effects(subject: Subject, label: str) -> tuple[tuple[str, ...], ...]:
    """All effects of a point, in the order of `_spreads`."""
    return (*subject.levels(), ("point", subject.kind, subject.family, subject.device, subject.precision, label))


def _solve(points: dict[PointKey, Point]) -> _Solution:
    """Gauss-Newton on the corrections, reweighting outliers as it goes."""
    subjects = tuple(key[0] for key in points)
    numbers: dict[tuple[str, ...], int] = {}
    names = np.array([[numbers.setdefault(n, len(numbers)) for n in _effects(s, label)] for s, _, label in points])
    if not subjects:
        empty, none = np.zeros((0, len(PARTS))), np.zeros(0)
        return _Solution((), empty, none, np.zeros((0, 0)), np.zeros((0, len(LEVEL_SPREADS) + 1)), numbers)
    parts = np.array([point.parts for point in points.values()])
    overlap = np.array([point.overlap for point in points.values()])
    target = np.array([point.ratio.mean for point in points.values()])
    noise = np.array([_noise(point.ratio) + LACK_OF_FIT**2 for point in points.values()])
    shared = np.zeros((len(subjects), len(subjects)))
    # Those that share an effect have the same spread of it.
    for level, spreads in enumerate(np.array([_spreads(subject) for subject in subjects]).T):
        shared += spreads**2 * (names[:, None, level] == names[None, :, level])
    theta, weights = np.zeros_like(parts), np.ones(len(subjects))
    for _ in range(_ITERATIONS):
        corrected = parts * np.exp(theta)
        predicted = np.log(total_s(corrected, overlap))
        gradients = sensitivities(corrected, overlap)
        scaled = gradients * PART_SCALES
        covariance = (scaled @ scaled.T) * shared + np.diag(noise / weights)
        inverse = np.linalg.inv(covariance)
        influence = inverse @ (target - predicted + (gradients * theta).sum(axis=1))
        theta = PART_SCALES * (shared @ (scaled * influence[:, None]))
        left = target - np.log(total_s(parts * np.exp(theta), overlap))
        weights = (STUDENT_FREEDOM + 1) / (STUDENT_FREEDOM + left**2 / noise)
    return _Solution(subjects, scaled, influence, inverse, names, numbers)


def _noise(entry: Entry) -> float:
    """Variance of a point's mean."""
    return max(entry.spread, MINIMUM_SPREAD) ** 2 / min(entry.count, 1 / NEWEST_WEIGHT)


def _overhead_levels(kind: str, family: str, devices: int) -> tuple[Key, ...]:
    return (
        ("overhead", kind, family, str(devices)),
        ("overhead", kind, family, _ANY),
        ("overhead", kind, _ANY, _ANY),
    )


def _known_size(size: float | None) -> TypeGuard[float]:
    return size is not None and math.isfinite(size) and size > 0


def _readable(key: Key) -> bool:
    """Whether it is the key of an overhead, or of a run time without or with a size."""
    if key[0] == "overhead":
        return len(key) == 4
    if key[0] != "history" or len(key) not in (4, 5):
        return False
    try:
        return len(key) == 4 or _known_size(float(key[4]))
    except ValueError:
        return False


def _correction(entry: Entry, widened: int = 0, doubt: float = 0.0) -> Correction:
    """With the spread times 1 + `widened`, and the standard deviation `doubt` beside it."""
    spread = math.hypot(max(entry.spread, 0.05) * (1 + widened), doubt)
    return Correction(math.exp(entry.mean), math.exp(entry.mean - 2 * spread), math.exp(entry.mean + 2 * spread), True)


def operating_point(batch: float, tokens: float | None) -> str:
    """The label of a batch size per shard and a length: half octaves, so that nearly equal ones are the same."""
    size = round(2 * math.log2(max(batch, 2**-4)))
    return f"b{size}" if tokens is None else f"b{size} t{round(2 * math.log2(max(tokens, 1.0)))}"
