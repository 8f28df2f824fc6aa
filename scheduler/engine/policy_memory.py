"""What a policy wants to know of its last plan (`Plan.memory`): from one cycle to the next, and over a restart of the
service."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..store import EngineStore

log = logging.getLogger(__name__)

MAX_CHARACTERS = 1_000_000
"""Notes that are longer as JSON are not stored: they are handed over while the service runs, and lost with it."""


class PolicyMemory:
    """The notes of one policy. They are kept as JSON, so that whoever reads them has a copy of their own."""

    def __init__(self, store: EngineStore, policy: str) -> None:
        """Goes on with what this policy left in the store; what is of another, or is not readable, is left out."""
        self._store, self._policy = store, policy
        self._notes, self._stored, self._refused = "{}", store.load_policy_memory() or "", ""
        self.untried = False
        """Whether the notes are an earlier service's and no plan was made with them yet."""
        if self._stored:
            self._restore(self._stored)

    def _restore(self, text: str) -> None:
        try:
            data = json.loads(text)
            policy, notes = data["policy"], data["memory"]
            if not isinstance(notes, dict):
                raise TypeError("not an object")
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the stored notes of the policy cannot be read, it starts without them: %r", error)
            return
        if policy != self._policy:
            log.warning("the stored notes are of the policy %s: %s starts without them", policy, self._policy)
            return
        self._notes, self.untried = json.dumps(notes), bool(notes)

    def handed_over(self) -> dict[str, Any]:
        """The notes for the next plan, as a new copy."""
        notes: dict[str, Any] = json.loads(self._notes)
        return notes

    def drop(self) -> None:
        """Start without notes."""
        self._notes, self.untried = "{}", False

    def keep(self, memory: Mapping[str, Any]) -> None:
        """A cycle is over: hand these over next, and store them where they changed. What JSON cannot hold is left out
        whole, what is too long is not stored."""
        self.untried = False
        try:
            self._notes = json.dumps(dict(memory))
        except (TypeError, ValueError, RecursionError) as error:
            self._notes = "{}"
            self._refuse(f"are not plain values and are dropped: {error}")
        else:
            if len(self._notes) > MAX_CHARACTERS:
                self._refuse("are too long to be stored: a restart of the service loses them")
            else:
                self._refused = ""
        self._save("{}" if self._refused else self._notes)

    def _refuse(self, why: str) -> None:
        if why != self._refused:  # once, not in every cycle
            log.warning("the notes of the policy %s %s", self._policy, why)
        self._refused = why

    def _save(self, notes: str) -> None:
        text = f'{{"policy": {json.dumps(self._policy)}, "memory": {notes}}}'
        if text == self._stored or (notes == "{}" and not self._stored):
            return
        self._store.save_policy_memory(text)
        self._stored = text
