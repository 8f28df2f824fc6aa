"""Runs that have lost a node and go on, waiting for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from ..store import Record
from . import moves

GONE_CYCLES = 3
"""So many cycles a run may be without a node of its own before it is stopped: most end by themselves."""


class WithoutNode:
    """For how many cycles each run has been without a node of its own."""

    def __init__(self) -> None:
        self._cycles: Counter[str] = Counter()

    def too_long(self, record: Record, here: Set[str]) -> list[str]:
        """The nodes that a run has been without for too long."""
        nodes = moves.gone(record, here)
        if not nodes:
            self.forget(record.run_id)
            return []
        self._cycles[record.run_id] += 1
        return nodes if self._cycles[record.run_id] >= GONE_CYCLES else []

    def forget(self, run_id: str) -> None:
        """The run has ended, or has all its nodes."""
        self._cycles.pop(run_id, None)
