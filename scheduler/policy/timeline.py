"""When devices become free, as far as it can be predicted, and for whom what is free is kept. Pure."""

from __future__ import annotations

from collections import defaultdict

from ..types import Configuration, Placement
from .capacity import Capacity

SOON_S = 1800.0
"""What ends within this may use what is kept for somebody whose turn nobody can foretell."""


class Timeline:
    """By device type: in so many seconds, so many devices more (or, promised to somebody, fewer) are free."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._sorted = True
        self._found: dict[tuple[Configuration, bool], float | None] = {}
        self._found_at: tuple[int, int] = (0, 0)
        self._promises = 0

    def copy(self) -> Timeline:
        """One that changes by itself."""
        found = Timeline()
        found._changes.update({name: list(rows) for name, rows in self._changes.items()})
        found._sorted, found._promises = self._sorted, self._promises
        return found

    def gives_back(self, configuration: Configuration, in_s: float | None) -> None:
        """What holds these devices ends then; where nobody knows when (None), it never does."""
        if in_s is not None:
            self._promises += 1
            self._sorted = False
            for name, count in configuration.groups:
                self._changes[name].append((in_s, count))

    def promise(self, configuration: Configuration, in_s: float, seconds: float | None, free: Capacity) -> None:
        """From then on, for so many seconds, somebody who waits has these: beside what is free for it now."""
        for name, count in configuration.groups:
            self._changes[name].append((in_s, min(count, free.free(name)) - count))
        self._promises += 1
        self._sorted = False
        self.gives_back(configuration, None if seconds is None else in_s + seconds)

    def free_in_s(self, configuration: Configuration, free: Capacity, one_node: bool) -> float | None:
        """Seconds until enough devices of every type are free; None where nobody can say."""
        if self._found_at != (self._promises, free.changes):
            self._found, self._found_at = {}, (self._promises, free.changes)
        key = configuration, one_node
        if key not in self._found:  # many ask for the same
            self._found[key] = self._free_in_s(configuration, free, one_node)
        return self._found[key]

    def _free_in_s(self, configuration: Configuration, free: Capacity, one_node: bool) -> float | None:
        if not self._sorted:
            for rows in self._changes.values():
                rows.sort()
            self._sorted = True
        wait_s = 1.0
        for name, count in configuration.groups:
            # What is free on several nodes is not enough for one node: at least one device more must come free.
            left = min(free.free(name), count - 1) if one_node else free.free(name)
            for seconds, devices in self._changes[name]:
                if left >= count:
                    break
                left, wait_s = left + devices, max(wait_s, seconds)
            if left < count:
                return None
        return wait_s


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
