"""When devices become free, as far as it can be predicted, and for whom what is free is kept. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..types import Configuration, Placement
from .board import Floats, Ints
from .capacity import Capacity, Known

SOON_S = 1800.0
"""What ends within this may use what is kept for somebody whose turn nobody can foretell."""


class Free(Protocol):
    """How many devices are free."""

    changes: int
    """Another number whenever that changes."""

    def free(self, device_type: str) -> int:
        """Of a type."""
        ...


@dataclass
class Remains:
    """What is free when all have what they won."""

    counts: Mapping[str, int]
    changes: int = -1

    def free(self, device_type: str) -> int:
        """Of a type."""
        return self.counts.get(device_type, 0)


class Timeline:
    """By device type: in so many seconds, so many devices more (or, promised to somebody, fewer) are free."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._many: dict[str, list[Floats]] = defaultdict(list)
        self._curves: dict[str, tuple[Floats, Floats]] = {}
        self._found: dict[tuple[Configuration, bool], float | None] = {}
        self._found_at: tuple[int, int] = (0, 0)
        self._noted = 0

    def copy(self) -> Timeline:
        """One that changes by itself."""
        found = Timeline()
        found._changes.update({name: list(rows) for name, rows in self._changes.items()})
        found._many.update({name: list(parts) for name, parts in self._many.items()})
        found._curves, found._noted = dict(self._curves), self._noted
        return found

    def _note(self, name: str, in_s: float, count: int) -> None:
        self._changes[name].append((in_s, count))
        self._curves.pop(name, None)
        self._noted += 1

    def gives_back(self, configuration: Configuration, in_s: float | None) -> None:
        """What holds these devices ends then; where nobody knows when (None), it never does."""
        if in_s is not None:
            for name, count in configuration.groups:
                self._note(name, in_s, count)

    def give_back(self, known: Known, places: Ints, in_s: Floats) -> None:
        """As `gives_back`, for many: numbers of configurations, and seconds; nan where nobody knows."""
        use, when = known.use[places], ~np.isnan(in_s)
        for column, name in enumerate(known.types):
            held = np.flatnonzero((use[:, column] > 0) & when)
            if len(held):
                self._many[name].append(np.column_stack([in_s[held], use[held, column]]))
                self._curves.pop(name, None)
                self._noted += 1

    def promise(self, configuration: Configuration, in_s: float, seconds: float | None, free: Capacity) -> None:
        """From then on, for so many seconds, somebody who waits has these: beside what is free for it now."""
        for name, count in configuration.groups:
            self._note(name, in_s, min(count, free.free(name)) - count)
        self.gives_back(configuration, None if seconds is None else in_s + seconds)

    def free_in_s(self, configuration: Configuration, free: Free, one_node: bool) -> float | None:
        """Seconds until enough devices of every type are free; None where nobody can say."""
        if self._found_at != (self._noted, free.changes):
            self._found, self._found_at = {}, (self._noted, free.changes)
        key = configuration, one_node
        if key not in self._found:  # many ask for the same
            self._found[key] = self._free_in_s(configuration, free, one_node)
        return self._found[key]

    def _free_in_s(self, configuration: Configuration, free: Free, one_node: bool) -> float | None:
        wait_s = 1.0
        for name, count in configuration.groups:
            # What is free on several nodes is not enough for one node: at least one device more must come free.
            left = min(free.free(name), count - 1) if one_node else free.free(name)
            if left < count:
                seconds, most = self._curve(name)
                first = int(np.searchsorted(most, count - left))
                if first == len(most):
                    return None
                wait_s = max(wait_s, float(seconds[first]))
        return wait_s

    def _curve(self, name: str) -> tuple[Floats, Floats]:
        """Of a type: at which seconds, how many more than now have been free at once by then."""
        if name not in self._curves:
            changes = np.concatenate([np.array(self._changes[name], dtype=float).reshape(-1, 2), *self._many[name]])
            changes = changes[np.lexsort((changes[:, 1], changes[:, 0]))]
            self._curves[name] = changes[:, 0], np.maximum.accumulate(np.cumsum(changes[:, 1]))
        return self._curves[name]


class Floor:
    """The devices there are to give out: what is free, and what of it is kept for somebody who waits."""

    def __init__(self, actual: Capacity) -> None:
        """What is free. `open` is what of that is kept for nobody: all of it, so far."""
        self.actual, self.open = actual, actual.copy()
        self._kept_until_s: dict[str, float | None] = {}

    def copy(self) -> Floor:
        """One that changes by itself."""
        found = Floor(self.actual.copy())
        found.open = self.open.copy()
        found._kept_until_s = dict(self._kept_until_s)
        return found

    def take(self, placement: Placement) -> None:
        """These devices are held now."""
        self.actual.take(placement)
        self.open.take(placement)

    def lend_all(self, placements: Collection[Placement]) -> None:
        """These run on what is free, and may be moved or stopped."""
        self.actual.lend_all(placements)
        self.open.lend_all(placements)

    def release(self, placement: Placement) -> None:
        """These devices are not held after all."""
        self.actual.release(placement)
        self.open.release(placement)

    def keep(self, configuration: Configuration, until_s: float | None, *, one_node: bool) -> None:
        """What is free of these types is kept, up to the counts wanted, for who begins then. None: nobody can say."""
        self.open.reserve(configuration, one_node=one_node)
        for name, _ in configuration.groups:
            before = self._kept_until_s.get(name, until_s)
            self._kept_until_s[name] = None if before is None or until_s is None else min(before, until_s)

    def lends(self, configuration: Configuration, ends_s: float | None, *, stoppable: bool) -> bool:
        """What is kept for somebody is only taken by who gives it back before that one begins: after `ends_s` seconds
        (None: nobody can say), or, if it is stoppable, as soon as it is wanted from then on. Where nobody can say when
        that one begins, by who can be stopped, or ends soon."""
        if ends_s is None:
            return False
        for name, _ in configuration.groups:
            until_s = self._kept_until_s.get(name, ends_s)
            if (not stoppable and ends_s > SOON_S) if until_s is None else until_s < ends_s:
                return False
        return True

    def lending(self, known: Known) -> Floats:
        """By number of a configuration, as `lends`: seconds within which it must be given back; inf where nothing is
        kept of it, minus inf where nobody can say."""
        until = np.array([_until(self._kept_until_s.get(name, np.inf)) for name in known.types])
        return np.asarray(np.where(known.use > 0, until, np.inf).min(axis=1, initial=np.inf))


def _until(kept_s: float | None) -> float:
    return -np.inf if kept_s is None else kept_s
