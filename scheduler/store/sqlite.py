"""The store on SQLite: a state change and the event that tells of it are one transaction.

WAL with `synchronous=FULL`: what `put` returned from survives `kill -9` and a power cut.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from workloads.errors import RaywiseError

from ..estimate import device_rates
from ..estimate.calibration import Calibration
from ..states import check_transition
from .records import Event, Record

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS workloads (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, state TEXT NOT NULL, pipeline_id TEXT, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS workloads_by_state ON workloads (state, number);
CREATE INDEX IF NOT EXISTS workloads_by_pipeline ON workloads (pipeline_id, number);
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, cycle INTEGER, workload_id TEXT,
    kind TEXT NOT NULL, cause TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_workload ON events (workload_id, sequence);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events never change'); END;
CREATE TRIGGER IF NOT EXISTS events_kept BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never lost'); END;
CREATE TABLE IF NOT EXISTS calibration (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, mean REAL NOT NULL, spread REAL NOT NULL,
    count INTEGER NOT NULL, parts TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_FROM_1 = """
BEGIN;
DROP TABLE IF EXISTS calibration;
UPDATE workloads SET record = json_set(record, '$.work.profile', json('null'))
    WHERE json_type(record, '$.work') = 'object';
UPDATE workloads SET state = 'pending', record = json_set(record, '$.state', 'pending') WHERE state = 'queued';
COMMIT;
"""
"""Profiles and what was learnt with them have another shape since. Both are made again: what waits in the queue is
looked at anew."""
_SET = "INSERT OR REPLACE INTO settings VALUES (?, ?)"
DEVICE_RATES = "device-rates"
"""The setting that keeps what benchmarks measured."""
LEARNT_AGAINST = "learnt-against"
"""The setting that keeps the rates which calibration is in terms of."""
POLICY_MEMORY = "policy-memory"
"""The setting that keeps a policy's notes."""
PARSED_KEPT = 5000
"""Records that are not read again while their text stays the same."""
_RECORD = TypeAdapter(Record)
_LAST_CHARACTER = chr(sys.maxunicode)


class StoreError(RaywiseError):
    """The store cannot be opened or written: a full disk, a wrong version, another file in its place."""


class Store:
    """One SQLite file. Safe to use from several threads of one process."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.RLock()
        self._parsed: dict[str, Record] = {}
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=30000;")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, 1, SCHEMA_VERSION):
                raise StoreError(f"{path}: schema version {version}; this Raywise reads version {SCHEMA_VERSION}")
            if version == 1:
                self._db.executescript(_FROM_1)
            self._db.executescript(_SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(str(error)) from error
                raise

    def add(self, records: Sequence[Record], events: Sequence[Event]) -> None:
        """Accept new workloads, all or none. Raises StoreError where an id is taken."""
        with self._transaction() as db:
            number = db.execute("SELECT coalesce(max(number), 0) FROM workloads").fetchone()[0]
            rows = [
                (record.id, number + index, record.state, record.pipeline_id, _dump(record))
                for index, record in enumerate(records, start=1)
            ]
            db.executemany("INSERT INTO workloads VALUES (?, ?, ?, ?, ?)", rows)
            _append(db, events)

    def put(self, record: Record, *events: Event) -> None:
        """Replace a workload's record and append what happened, in one transaction. The move from the stored state
        must be in the table of transitions."""
        with self._transaction() as db:
            query = "SELECT state, json_extract(record, '$.cancel_requested') FROM workloads WHERE id = ?"
            row = db.execute(query, (record.id,)).fetchone()
            if row is None:
                raise StoreError(f"no workload {record.id}")
            if row[0] != record.state:
                check_transition(record.id, row[0], record.state)
            if row[1] and not record.cancel_requested:  # asked for while the engine was at work: never lost
                record = replace(record, cancel_requested=True)
            db.execute(
                "UPDATE workloads SET state = ?, record = ? WHERE id = ?", (record.state, _dump(record), record.id)
            )
            _append(db, events)

    def request_cancel(self, workload_id: str, event: Event) -> Record | None:
        """Mark a workload as to be cancelled, whatever the engine is doing with it; None where it is unknown."""
        with self._transaction() as db:
            row = db.execute("SELECT record FROM workloads WHERE id = ?", (workload_id,)).fetchone()
            if row is None:
                return None
            data = json.loads(row[0]) | {"cancel_requested": True}
            db.execute("UPDATE workloads SET record = ? WHERE id = ?", (json.dumps(data), workload_id))
            _append(db, [event])
            return _RECORD.validate_python(data)

    def append(self, *events: Event) -> None:
        """Append events that change no workload."""
        with self._transaction() as db:
            _append(db, events)

    def get(self, workload_id: str) -> Record | None:
        """One workload, or None."""
        with self._lock:
            row = self._db.execute("SELECT record FROM workloads WHERE id = ?", (workload_id,)).fetchone()
        return None if row is None else self._record(row[0])

    def select(
        self, *, states: Iterable[str] | None = None, pipeline_id: str | None = None, limit: int = 1_000_000
    ) -> list[Record]:
        """Workloads in the order of their submission, the newest `limit` of them."""
        where, values = ["1"], list[object]()
        if states is not None:
            names = list(states)
            where.append(f"state IN ({','.join('?' * len(names))})")
            values += names
        if pipeline_id is not None:
            where.append("pipeline_id = ?")
            values.append(pipeline_id)
        query = f"SELECT record FROM workloads WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"  # noqa: S608
        with self._lock:
            rows = self._db.execute(query, (*values, limit)).fetchall()
        return [self._record(row[0]) for row in reversed(rows)]

    def _record(self, text: str) -> Record:
        """The record that was stored as this text. Most are the same as in the cycle before: they are read once."""
        found = self._parsed.get(text)
        if found is None:
            found = _RECORD.validate_json(text)
            if len(self._parsed) >= PARSED_KEPT:
                self._parsed.clear()
            self._parsed[text] = found
        return found

    def ids(self, prefix: str = "") -> list[str]:
        """Ids of pipelines and workloads that start so, in the order of their submission, a pipeline before its
        steps."""
        # A range of the primary key, so that no letter of the prefix is a pattern and none is folded.
        query = (
            "SELECT id, pipeline_id FROM workloads WHERE (id >= :first AND id < :last) "
            "OR (pipeline_id >= :first AND pipeline_id < :last) ORDER BY number"
        )
        with self._lock:
            rows = self._db.execute(query, {"first": prefix, "last": prefix + _LAST_CHARACTER}).fetchall()
        found = dict.fromkeys(each for id_, pipeline_id in rows for each in (pipeline_id, id_) if each is not None)
        return [each for each in found if each.startswith(prefix)]

    def events(self, *, workload_id: str | None = None, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events after a sequence number, oldest first."""
        where = "sequence > ?" + ("" if workload_id is None else " AND workload_id = ?")
        values = [after] if workload_id is None else [after, workload_id]
        query = (
            "SELECT kind, cause, workload_id, cycle, at_s, data, sequence FROM events "  # noqa: S608
            f"WHERE {where} ORDER BY sequence LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (*values, limit)).fetchall()
        return [Event(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), row[6]) for row in rows]

    def last_cycle(self) -> int:
        """The number of the last cycle that left an event."""
        with self._lock:
            return int(self._db.execute("SELECT coalesce(max(cycle), 0) FROM events").fetchone()[0])

    def load_calibration(self) -> Calibration:
        """Everything learnt so far."""
        with self._lock:
            query = "SELECT key, mean, spread, count, parts FROM calibration ORDER BY number"
            rows = self._db.execute(query).fetchall()
        return Calibration.from_rows(rows)

    def load_device_rates(self) -> dict[str, device_rates.DeviceRates]:
        """What benchmarks measured of device types, by the name calibration knows them by."""
        return device_rates.from_json(self.setting(DEVICE_RATES))

    def load_learnt_against(self) -> device_rates.LearntAgainst:
        """The rates that calibration is in terms of, by the name calibration knows device types by."""
        return device_rates.against_from_json(self.setting(LEARNT_AGAINST))

    def save_calibration(
        self,
        calibration: Calibration,
        rates: Mapping[str, device_rates.DeviceRates] | None = None,
        against: device_rates.LearntAgainst | None = None,
    ) -> None:
        """Replace what was learnt, what was measured of device types, and the rates that the one is in terms of, where
        they are given: in one transaction, since none means anything without the others."""
        with self._transaction() as db:
            db.execute("DELETE FROM calibration")
            db.executemany(
                "INSERT INTO calibration (key, mean, spread, count, parts) VALUES (?, ?, ?, ?, ?)",
                calibration.to_rows(),
            )
            if rates is not None:
                db.execute(_SET, (DEVICE_RATES, device_rates.to_json(rates)))
            if against is not None:
                db.execute(_SET, (LEARNT_AGAINST, device_rates.to_json(against)))

    def load_policy_memory(self) -> str | None:
        """What was saved last."""
        return self.setting(POLICY_MEMORY)

    def save_policy_memory(self, text: str) -> None:
        """Replace a policy's notes."""
        self.set_setting(POLICY_MEMORY, text)

    def setting(self, name: str) -> str | None:
        """A stored setting, or None."""
        with self._lock:
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_setting(self, name: str, value: str) -> None:
        """Store a setting."""
        with self._transaction() as db:
            db.execute(_SET, (name, value))


def _dump(record: Record) -> str:
    return _RECORD.dump_json(record).decode()


def _append(db: sqlite3.Connection, events: Iterable[Event]) -> None:
    db.executemany(
        "INSERT INTO events (at_s, cycle, workload_id, kind, cause, data) VALUES (?, ?, ?, ?, ?, ?)",
        [(e.at_s, e.cycle, e.workload_id, e.kind, e.cause, json.dumps(dict(e.data))) for e in events],
    )
