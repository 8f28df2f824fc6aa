"""How long a kind of node is not asked for after launches of it have failed. Shared by all providers. Pure."""

from __future__ import annotations

from collections import Counter

FIRST_S = 60.0
"""After a failed launch its type is not to be had for so long; twice as long after each further one, ..."""
LONGEST_S = 3600.0
"""... though never longer than this."""
_MOST_DOUBLINGS = 16


class Backoff:
    """By node type, in seconds of the provider's clock."""

    def __init__(self, first_s: float = FIRST_S) -> None:
        self._first_s = first_s
        self._until_s: dict[str, float] = {}
        self.in_a_row: Counter[str] = Counter()
        """Launches of each type that failed since one succeeded; what fails together counts once."""

    def failed(self, node_type: str, at_s: float) -> None:
        """A launch failed. What fails together is one failure: the type is not to be had for longer only after another
        try."""
        if at_s < self._until_s.get(node_type, 0.0):
            return
        self.in_a_row[node_type] += 1
        times = min(self.in_a_row[node_type] - 1, _MOST_DOUBLINGS)
        self._until_s[node_type] = at_s + min(LONGEST_S, self._first_s * 2**times)

    def succeeded(self, node_type: str) -> None:
        """One has joined: the next failure is a first one again."""
        self.in_a_row[node_type] = 0

    def forget(self, node_type: str) -> None:
        """It may be asked for at once, as if nothing had failed."""
        self.succeeded(node_type)
        self._until_s.pop(node_type, None)

    def until_s(self, node_type: str, now_s: float) -> float | None:
        """Until when a type is not asked for; None where it may be asked for now."""
        until_s = self._until_s.get(node_type, 0.0)
        return until_s if until_s > now_s else None

    def waits(self, now_s: float) -> list[float]:
        """When types may be asked for again that may not be now."""
        return [until_s for until_s in self._until_s.values() if until_s > now_s]
