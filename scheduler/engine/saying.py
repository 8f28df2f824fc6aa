"""Tells the event log when a decision changed. What a decision means in words is worked out for at most so many waiting
workloads a cycle; whoever asks for another's reads it from the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..store import Record
from ..types import Explanation
from . import moves

AT_ONCE = 200
"""Waiting workloads whose decision is put into words in one cycle: newcomers first, then in turn."""

Gist = tuple[object, ...]


@dataclass
class Said:
    """What the log was told last, by workload."""

    since_s: float
    """What was queued before is not told again: an earlier service did."""
    _gists: dict[str, Gist | None] = field(default_factory=dict)
    _turn: int = 0

    def changes(
        self, records: Sequence[Record], explanations: Mapping[str, Explanation]
    ) -> list[tuple[Record, Explanation]]:
        """The waiting workloads whose choice, or reason to wait, is another than was told."""
        here = {record.id for record in records}
        self._gists = {name: gist for name, gist in self._gists.items() if name in here}
        changed = []
        for record in self._next(records):
            explanation = explanations.get(record.id)
            if explanation is None:
                continue
            gist, before = moves.gist(explanation), self._gists.get(record.id)
            known = record.id in self._gists
            self._gists[record.id] = gist
            if before == gist or (not known and (record.queued_s or 0.0) < self.since_s):
                continue
            changed.append((record, explanation))
        return changed

    def _next(self, records: Sequence[Record]) -> Sequence[Record]:
        if len(records) <= AT_ONCE:
            return records
        new = [record for record in records if record.id not in self._gists][:AT_ONCE]
        old = [record for record in records if record.id in self._gists]
        begin = self._turn % len(old) if old else 0
        turn = [*old[begin:], *old[:begin]][: AT_ONCE - len(new)]
        self._turn = begin + len(turn)
        return [*new, *turn]
