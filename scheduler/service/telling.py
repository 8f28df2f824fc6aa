"""What the engine writes into the event log is a line of the service's log too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from ..log_context import about
from ..store import Charge, EngineStore, Event, Record, Rental

log = logging.getLogger("raywise.events")


class _Telling:
    """A store around another; what is not written is asked of that one."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store

    def put(self, record: Record, *events: Event, charges: Sequence[Charge] = ()) -> None:
        """Write, then tell: what is in the log is in the store."""
        self._store.put(record, *events, charges=charges)
        _tell(events)

    def put_all(self, changes: Sequence[tuple[Record, Sequence[Event]]], charges: Sequence[Charge] = ()) -> None:
        """Write all, then tell."""
        self._store.put_all(changes, charges)
        for _, events in changes:
            _tell(events)

    def change(self, workload_id: str, event: Event, **changes: Any) -> Record | None:
        """Write, then tell."""
        found = self._store.change(workload_id, event, **changes)
        _tell([event])
        return found

    def put_rentals(self, rentals: Sequence[Rental], *events: Event) -> None:
        """Write, then tell."""
        self._store.put_rentals(rentals, *events)
        _tell(events)

    def append(self, *events: Event) -> None:
        """Write, then tell."""
        self._store.append(*events)
        _tell(events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def told(store: EngineStore) -> EngineStore:
    """The same store for an engine whose events are logged."""
    return cast(EngineStore, _Telling(store))


def _tell(events: Sequence[Event]) -> None:
    for event in events:
        if event.workload_id is None:
            log.info("%s: %s", event.kind, event.cause)
        else:
            with about(event.workload_id):
                log.info("%s: %s", event.kind, event.cause)
