"""What pending workloads need. What has ended is read once, however long the rest of the needs take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..states import ENDED
from ..store import EngineStore, Record


class Needs:
    """The needs that have ended, as long as somebody waits for others beside them."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store
        self._ended: dict[str, Record] = {}

    def of(self, pending: Sequence[Record]) -> Iterator[tuple[Record, list[Record]]]:
        """Each of all workloads that are pending, with what it needs."""
        ended: dict[str, Record] = {}
        for record in pending:
            found = (self._ended.get(name) or self._store.get(name) for name in record.needs)
            needs = [need for need in found if need is not None]
            ended |= {need.id: need for need in needs if need.state in ENDED}
            yield record, needs
        self._ended = ended
