"""When runs were last seen: until then an attempt is charged that went away while nobody looked."""

from __future__ import annotations

from ..store import EngineStore, Record

NOTED_EVERY_S = 60.0
"""So often at most the last look is stored, for the service after this one: it charges so much too little at most."""


class Looks:
    """The last look at each run that had not ended, and, from before this service began, the last that was stored
    (`before_s`)."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store
        self.before_s = self._noted_s = store.load_last_look()
        self.seen_s: dict[str, float] = {}

    def saw(self, run_id: str, now_s: float) -> None:
        """It has not ended."""
        self.seen_s[run_id] = now_s
        self.note(now_s)

    def note(self, now_s: float) -> None:
        """Somebody looked: stored if that is long enough ago."""
        if self._noted_s is None or not 0.0 <= now_s - self._noted_s < NOTED_EVERY_S:
            self._store.save_last_look(now_s)
            self._noted_s = now_s

    def last_s(self, record: Record, said_s: float | None, now_s: float) -> float:
        """Until when the present attempt is known to have held its devices; `said_s` is when its body last said
        anything. What had begun by the stored look was there then: a look that found its end would have stored that."""
        began_s, before_s = record.started_s or 0.0, self.before_s or 0.0
        there_s = before_s if record.started_s is not None and began_s <= before_s <= now_s else 0.0
        return max(self.seen_s.get(record.run_id, 0.0), said_s or 0.0, began_s, there_s)

    def forget(self, run_id: str) -> None:
        """It has ended."""
        self.seen_s.pop(run_id, None)
