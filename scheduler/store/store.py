"""The store of a service: a state change and the event that tells of it are one transaction.

What lives is kept in memory as well, as it was committed: one service writes, so nobody else changes it. What ended is
read when it is asked for.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite

from ..estimate import device_rates
from ..estimate.calibration import Calibration
from ..states import ENDED, check_transition
from . import schema
from .database import Database, StoreError
from .listing import Filter, Page, Spending, events_query, of_kinds, page_query
from .records import OWNED_BY_USER, Charge, Event, Record, Rental, keeping_the_users

DEVICE_RATES = "device-rates"
"""The setting that keeps what benchmarks measured."""
LEARNT_AGAINST = "learnt-against"
"""The setting that keeps the rates which calibration is in terms of."""
POLICY_MEMORY = "policy-memory"
"""The setting that keeps a policy's notes."""
LAST_LOOK = "last-look"
"""The setting that says when runs were last seen."""
ENDED_KEPT = 500
"""So many ended workloads that were read last are kept as objects."""
_RECORD = TypeAdapter(Record)
_LAST_CHARACTER = chr(sys.maxunicode)
_workloads, _events = schema.workloads, schema.events


@dataclass
class _Write:
    """A transaction, and what becomes known with its commit."""

    db: sa.Connection
    sequence: int
    records: dict[str, Record] = field(default_factory=dict)


class Store:
    """Workloads, events, what was learnt and settings. Safe to use from several threads of one process."""

    def __init__(self, where: Path | str, *, exclusive: bool = True) -> None:
        """A SQLite file or the URL of a PostgreSQL database. Raises StoreError."""
        self.database = Database(where, exclusive=exclusive)
        self._live: dict[str, Record] = {}
        self._ended: OrderedDict[str, Record] = OrderedDict()
        self._sequence = 0
        self.database.on_reconnect = self._load
        with self.database.transaction() as db:
            self._load(db)

    def _load(self, db: sa.Connection) -> None:
        ended = _workloads.c.state.in_(sorted(ENDED))
        found = db.execute(sa.select(_workloads.c.record).where(~ended).order_by(_workloads.c.number))
        self._live = {record.id: record for record in map(_read, found.scalars())}
        self._ended.clear()
        self._sequence = db.scalar(sa.select(sa.func.max(_events.c.sequence))) or 0

    def close(self) -> None:
        """Release the file or the connection."""
        self.database.close()

    def add(self, records: Sequence[Record], events: Sequence[Event], request: tuple[str, str] | None = None) -> None:
        """Accept new workloads, all or none. `request` is the idempotency key of their owner and a digest of what was
        submitted with it. Raises StoreError where an id or a key is taken."""
        with self._writing() as write:
            db = write.db
            number = db.scalar(sa.select(sa.func.coalesce(sa.func.max(_workloads.c.number), 0))) or 0
            rows = [_row(record) | {"number": number + index} for index, record in enumerate(records, start=1)]
            if rows:
                db.execute(_workloads.insert(), rows)
            if request is not None and records:
                first = records[0]
                taken = {"owner": first.owner, "key": request[0], "digest": request[1], "at_s": first.submitted_s}
                db.execute(schema.requests.insert(), taken | {"accepted_id": first.pipeline_id or first.id})
            write.sequence = self._append(db, events)
            write.records = {record.id: record for record in records}

    def accepted(self, owner: str, key: str) -> tuple[str, str] | None:
        """What an owner's idempotency key became before: the digest of the submission and its id."""
        table = schema.requests
        query = sa.select(table.c.digest, table.c.accepted_id).where(table.c.owner == owner, table.c.key == key)
        with self.database.reading() as db:
            row = db.execute(query).first()
        return None if row is None else (row[0], row[1])

    def put(self, record: Record, *events: Event, charges: Sequence[Charge] = ()) -> None:
        """Replace a workload's record and append what happened, in one transaction. The move from the stored state
        must be in the table of transitions. What belongs to the user stays as it is stored."""
        self.put_all([(record, events)], charges)

    def put_all(self, changes: Sequence[tuple[Record, Sequence[Event]]], charges: Sequence[Charge] = ()) -> None:
        """As `put`, of several workloads in one transaction."""
        with self._writing() as write:
            db, written = write.db, write.records
            for record, events in changes:
                before = written.get(record.id) or self._stored(db, record.id)
                if before is None:
                    raise StoreError(f"no workload {record.id}")
                if before.state != record.state:
                    check_transition(record.id, before.state, record.state)
                written[record.id] = keeping_the_users(record, before)
                write.sequence = self._append(db, events)
            self._update(db, written.values())
            if charges:
                db.execute(self._insert(schema.charges).on_conflict_do_nothing(), [_charge(each) for each in charges])

    def change(self, workload_id: str, event: Event, **changes: Any) -> Record | None:
        """Set what belongs to the user, whatever the engine is doing with the workload; None where it is unknown."""
        wrong = set(changes) - OWNED_BY_USER
        if wrong:
            raise ValueError(f"not the user's: {', '.join(sorted(wrong))}")
        with self._writing() as write:
            before = self._stored(write.db, workload_id)
            if before is None:
                return None
            after = replace(before, **changes)
            self._update(write.db, [after])
            write.sequence = self._append(write.db, [event])
            write.records = {workload_id: after}
        return after

    def request_cancel(self, workload_id: str, event: Event) -> Record | None:
        """Mark a workload as to be cancelled; None where it is unknown."""
        return self.change(workload_id, event, cancel_requested=True)

    def append(self, *events: Event) -> None:
        """Append events that change no workload."""
        with self._writing() as write:
            write.sequence = self._append(write.db, events)

    def change_table(self, statement: sa.Executable, *events: Event) -> None:
        """Change a table that holds no workloads, and append the events that tell of it, in one transaction. Raises
        StoreError."""
        with self._writing() as write:
            write.db.execute(statement)
            write.sequence = self._append(write.db, events)

    def get(self, workload_id: str) -> Record | None:
        """One workload, or None."""
        with self.database.lock:
            found = self._live.get(workload_id) or self._ended.get(workload_id)
            if found is not None:
                if workload_id in self._ended:
                    self._ended.move_to_end(workload_id)
                return found
        with self.database.reading() as db:
            text = db.scalar(sa.select(_workloads.c.record).where(_workloads.c.id == workload_id))
        return None if text is None else self._known([(workload_id, text)])[0]

    def is_stored(self, record: Record) -> bool:
        """Whether this very submission is there, asked on the connection that writes: what a commit became that broke
        off with the connection is known then. Raises StoreError."""
        same = (_workloads.c.id == record.id, _workloads.c.submitted_s == record.submitted_s)
        with self.database.transaction() as db:
            is_there = db.scalar(sa.select(sa.func.count()).where(*same)) == 1
            if is_there and record.id not in self._live:
                self._load(db)
        return is_there

    def select(
        self, *, states: Iterable[str] | None = None, pipeline_id: str | None = None, limit: int = 1_000_000
    ) -> list[Record]:
        """Workloads in the order of their submission, the newest `limit` of them."""
        wanted = None if states is None else frozenset(states)
        with self.database.lock:
            if wanted is not None and not wanted & ENDED:
                live = [
                    record
                    for record in self._live.values()
                    if record.state in wanted and (pipeline_id is None or record.pipeline_id == pipeline_id)
                ]
                return live[-limit:] if limit < len(live) else live
        found = self.page(Filter(None if wanted is None else sorted(wanted), pipeline_id=pipeline_id), limit=limit)
        return list(reversed(found.records))

    def page(self, wanted: Filter, *, before: int | None = None, limit: int = 100) -> Page:
        """The newest workloads of a list, or those before a number that another page named."""
        with self.database.reading() as db:
            rows = db.execute(page_query(wanted, before, limit + 1)).all()
        records = self._known([(row.id, row.record) for row in rows[:limit]])
        return Page(records, rows[limit - 1].number if len(rows) > limit else None)

    def charges(self, *, since: str = "", until: str = "9999", queue: str | None = None) -> list[Charge]:
        """What ended attempts held, from one day to another, both included."""
        table = schema.charges
        query = sa.select(*(table.c[each.name] for each in fields(Charge))).where(
            table.c.day >= since, table.c.day <= until
        )
        if queue is not None:
            query = query.where(table.c.queue == queue)
        order = (table.c.day, table.c.workload_id, table.c.attempt, table.c.device_type)
        with self.database.reading() as db:
            return [Charge(*row) for row in db.execute(query.order_by(*order))]

    def spending(
        self, by: Sequence[str] = (), *, since: str = "", until: str = "9999", **only: str | None
    ) -> list[Spending]:
        """Charges from one day to another, both included, added up by the database for each combination of these
        columns of `Charge`; `only` are columns that must have a value (None: whatever)."""
        table = schema.charges
        columns = [table.c[name] for name in by]
        unpriced_s = sa.case((table.c.usd.is_(None), table.c.device_s), else_=0.0)
        sums = [sa.func.coalesce(sa.func.sum(each), 0.0) for each in (table.c.device_s, table.c.usd, unpriced_s)]
        query = sa.select(*columns, *sums, sa.func.count()).where(table.c.day >= since, table.c.day <= until)
        for name, value in only.items():
            query = query if value is None else query.where(table.c[name] == value)
        query = query.group_by(*columns).order_by(*columns) if columns else query
        with self.database.reading() as db:
            rows = [tuple(row) for row in db.execute(query)]
        return [Spending(row[:-4], float(row[-4]), float(row[-3]), float(row[-2])) for row in rows if row[-1]]

    def counts(self) -> dict[tuple[str, str, str], tuple[int, float]]:
        """By state, kind and queue: how many workloads, and the dollars of their ended attempts."""
        columns = (_workloads.c.state, _workloads.c.kind, _workloads.c.queue)
        query = sa.select(*columns, sa.func.count(), sa.func.sum(_workloads.c.spent_usd)).group_by(*columns)
        with self.database.reading() as db:
            return {
                (row[0], row[1], row[2]): (int(row[3]), float(row[4])) for row in db.execute(query.order_by(*columns))
            }

    def ids(self, prefix: str = "", limit: int = 1_000_000) -> list[str]:
        """Ids of pipelines and workloads that start so, in the order of their submission, a pipeline before its
        steps. With a `limit` only so many are looked at, whichever come first by their letters."""
        # A range of an index, so that no letter of the prefix is a pattern and none is folded.
        last, columns = prefix + _LAST_CHARACTER, (_workloads.c.id, _workloads.c.pipeline_id)
        found: set[tuple[int, str, str | None]] = set()
        with self.database.reading() as db:
            for column in columns:
                query = sa.select(_workloads.c.number, *columns).where(column >= prefix, column < last)
                found |= {(row[0], row[1], row[2]) for row in db.execute(query.order_by(column).limit(limit))}
        ordered = (each for _, id_, pipeline_id in sorted(found, key=lambda row: row[0]) for each in (pipeline_id, id_))
        return list(dict.fromkeys(each for each in ordered if each is not None and each.startswith(prefix)))

    def events(
        self,
        *,
        workload_id: str | None = None,
        workload_ids: Sequence[str] | None = None,
        after: int = 0,
        limit: int = 1000,
        kinds: Sequence[str] | None = None,
    ) -> list[Event]:
        """Events after a sequence number, oldest first: all, of one workload, or of several."""
        ids = [workload_id] if workload_id is not None else workload_ids
        if kinds is not None and not kinds:
            return []
        with self.database.reading() as db:
            rows = db.execute(events_query(ids, kinds, after, limit)).mappings().all()
        return [Event(**{**row, "data": json.loads(row["data"])}) for row in rows]

    def last_causes(self, workload_ids: Sequence[str], kind: str) -> dict[str, str]:
        """Of each of these workloads that has an event of this kind the cause of the last one, in one query."""
        if not workload_ids:
            return {}
        newest = (
            sa.select(sa.func.max(_events.c.sequence))
            .where(_events.c.workload_id.in_(list(workload_ids)), of_kinds([kind]))
            .group_by(_events.c.workload_id)
        )
        query = sa.select(_events.c.workload_id, _events.c.cause).where(_events.c.sequence.in_(newest))
        with self.database.reading() as db:
            return {row[0]: row[1] for row in db.execute(query)}

    def put_rentals(self, rentals: Sequence[Rental], *events: Event) -> None:
        """Add or replace rented nodes, and append what happened to them, in one step."""
        with self._writing() as write:
            for each in rentals:
                row = asdict(each)
                insert = self._insert(schema.rentals).values(row)
                write.db.execute(insert.on_conflict_do_update(index_elements=["id"], set_=row))
            write.sequence = self._append(write.db, events)

    def rentals(self, *, ended: bool | None = None, since_s: float = 0.0) -> list[Rental]:
        """Rented nodes that are there or on their way still, or those that ended since then, or both, in the order of
        their requests."""
        table = schema.rentals
        is_open, is_ended = table.c.ended_s.is_(None), table.c.ended_s >= since_s
        wanted = {None: sa.or_(is_open, is_ended), True: is_ended, False: is_open}[ended]
        query = sa.select(*(table.c[each.name] for each in fields(Rental))).where(wanted)
        with self.database.reading() as db:
            return [Rental(*row) for row in db.execute(query.order_by(table.c.asked_s, table.c.id))]

    @property
    def last_sequence(self) -> int:
        """The number of the newest event."""
        return self._sequence

    def last_cycle(self) -> int:
        """The number of the last cycle that left an event."""
        with self.database.reading() as db:
            return int(db.scalar(sa.select(sa.func.max(_events.c.cycle))) or 0)

    def load_calibration(self) -> Calibration:
        """Everything learnt so far."""
        table = schema.calibration
        columns = (table.c.key, table.c.mean, table.c.spread, table.c.count, table.c.parts)
        with self.database.reading() as db:
            rows = db.execute(sa.select(*columns).order_by(table.c.number)).all()
        return Calibration.from_rows([tuple(row) for row in rows])

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
        names = ("key", "mean", "spread", "count", "parts")
        rows = [dict(zip(names, row, strict=True)) for row in calibration.to_rows()]
        with self.database.transaction() as db:
            db.execute(schema.calibration.delete())
            if rows:
                db.execute(schema.calibration.insert(), rows)
            if rates is not None:
                self._set(db, DEVICE_RATES, device_rates.to_json(rates))
            if against is not None:
                self._set(db, LEARNT_AGAINST, device_rates.to_json(against))

    def load_policy_memory(self) -> str | None:
        """What was saved last."""
        return self.setting(POLICY_MEMORY)

    def save_policy_memory(self, text: str) -> None:
        """Replace a policy's notes."""
        self.set_setting(POLICY_MEMORY, text)

    def load_last_look(self) -> float | None:
        """What was saved last."""
        found = self.setting(LAST_LOOK)
        return None if found is None else float(found)

    def save_last_look(self, at_s: float) -> None:
        """Keep when runs were looked at."""
        self.set_setting(LAST_LOOK, f"{at_s:.3f}")

    def setting(self, name: str) -> str | None:
        """A stored setting, or None."""
        table = schema.settings
        with self.database.reading() as db:
            return db.scalar(sa.select(table.c.value).where(table.c.name == name))

    def set_setting(self, name: str, value: str) -> None:
        """Store a setting."""
        with self.database.transaction() as db:
            self._set(db, name, value)

    def _set(self, db: sa.Connection, name: str, value: str) -> None:
        insert = self._insert(schema.settings).values(name=name, value=value)
        db.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return postgresql.insert(table) if self.database.dialect == "postgresql" else sqlite.insert(table)

    def _stored(self, db: sa.Connection, workload_id: str) -> Record | None:
        known = self._live.get(workload_id) or self._ended.get(workload_id)
        if known is not None:
            return known
        text = db.scalar(sa.select(_workloads.c.record).where(_workloads.c.id == workload_id))
        return None if text is None else self._known([(workload_id, text)])[0]

    def _known(self, rows: Sequence[tuple[str, str]]) -> list[Record]:
        """The records of these ids and texts as objects: those of what lives, else of what was read last. What was
        written since they were read is found; what lives no longer nor ended is not kept."""
        with self.database.lock:
            found = {name: self._live.get(name) or self._ended.get(name) for name, _ in rows}
        read = {name: _read(text) for name, text in rows if found[name] is None}
        with self.database.lock:
            for name, record in read.items():
                if record.state in ENDED:
                    read[name] = self._ended.setdefault(name, record)
            self._forget()
        return [found[name] or read[name] for name, _ in rows]

    def _forget(self) -> None:
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def _update(self, db: sa.Connection, records: Iterable[Record]) -> None:
        rows = [{f"_{name}": value for name, value in _row(record).items()} for record in records]
        if rows:
            values: dict[str, Any] = {name.removeprefix("_"): sa.bindparam(name) for name in rows[0] if name != "_id"}
            db.execute(_workloads.update().where(_workloads.c.id == sa.bindparam("_id")).values(values), rows)

    def _append(self, db: sa.Connection, events: Iterable[Event]) -> int:
        """The number of the newest event then."""
        rows = [
            {
                "at_s": each.at_s,
                "cycle": each.cycle,
                "workload_id": each.workload_id,
                "kind": each.kind,
                "cause": each.cause,
                "data": json.dumps(dict(each.data)),
            }
            for each in events
        ]
        if rows:
            db.execute(_events.insert(), rows)
            return int(db.scalar(sa.select(sa.func.max(_events.c.sequence))) or 0)
        return self._sequence

    @contextmanager
    def _writing(self) -> Iterator[_Write]:
        """A transaction, and what it wrote known before anybody else reads or writes: a writer that came between the
        two would put what was there before over it."""
        with self.database.lock:
            with self.database.transaction() as db:
                write = _Write(db, self._sequence)
                yield write
            self._committed(write.records, write.sequence)

    def _committed(self, records: Mapping[str, Record], sequence: int) -> None:
        for name, record in records.items():
            if record.state in ENDED:
                self._live.pop(name, None)
                self._ended.pop(name, None)
                self._ended[name] = record
            else:
                self._live[name] = record
        self._forget()
        self._sequence = max(self._sequence, sequence)


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "state": record.state,
        "kind": record.kind,
        "name": record.name,
        "owner": record.owner,
        "queue": record.queue,
        "pipeline_id": record.pipeline_id,
        "submitted_s": record.submitted_s,
        "spent_usd": record.spent_usd,
        "record": _RECORD.dump_json(record).decode(),
    }


def _read(text: str) -> Record:
    return _RECORD.validate_json(text)


def _charge(charge: Charge) -> dict[str, Any]:
    return {each.name: getattr(charge, each.name) for each in fields(Charge)}
