"""What is asked of a store's lists: filters, pages and sums, and how they become queries that an index answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from . import schema
from .records import Event, Record

_workloads, _events = schema.workloads, schema.events


@dataclass(frozen=True)
class Filter:
    """Which workloads a page shows; None: whatever."""

    states: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    owner: str | None = None
    queue: str | None = None
    pipeline_id: str | None = None
    name_contains: str | None = None
    since_s: float | None = None


@dataclass(frozen=True)
class Page:
    """Workloads of a list, the newest first, and where the next page begins: None at the end."""

    records: Sequence[Record]
    next_before: int | None


@dataclass(frozen=True)
class Spending:
    """Charges added up: what they are of, in the order of the columns that were asked for."""

    of: tuple[Any, ...]
    device_s: float
    usd: float
    """Dollars of what has a price."""
    unpriced_s: float
    """Device seconds of what has none."""


def page_query(wanted: Filter, before: int | None, limit: int) -> sa.Select[Any]:
    """Numbers, ids and records of the newest `limit` workloads of a list. Of what no index begins with, numbers are
    looked for in the one that has it, and only the records of those are read."""
    number = _workloads.c.number
    conditions = list(_conditions(wanted))
    if before is not None:
        conditions.append(number < before)
    query = sa.select(number, _workloads.c.id, _workloads.c.record).order_by(number.desc()).limit(limit)
    if wanted.name_contains is None and wanted.since_s is None:
        return query.where(*conditions)
    return query.where(number.in_(sa.select(number).where(*conditions).order_by(number.desc()).limit(limit)))


def events_query(
    workload_ids: Sequence[str] | None, kinds: Sequence[str] | None, after: int, limit: int
) -> sa.Select[Any]:
    """The first `limit` events after one. Of some kinds, so many of each are looked for in the index and then merged: a
    database would look at all of them, or at every event."""
    columns = [_events.c[each.name] for each in fields(Event)]
    query = sa.select(*columns).where(_events.c.sequence > after).order_by(_events.c.sequence).limit(limit)
    if workload_ids is not None:
        query = query.where(_events.c.workload_id.in_(list(workload_ids)))
        return query if kinds is None else query.where(of_kinds(kinds))
    if kinds is None:
        return query
    if len(set(kinds)) == 1:
        return query.where(_events.c.kind == kinds[0])
    each_kind = (query.where(_events.c.kind == kind).subquery().select() for kind in dict.fromkeys(kinds))
    merged = sa.union_all(*each_kind).subquery()
    return sa.select(merged).order_by(merged.c.sequence).limit(limit)


def of_kinds(kinds: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether an event is of these kinds, for queries that another index than that of kinds answers."""
    return (_events.c.kind + "").in_(list(kinds))


def _conditions(wanted: Filter) -> Iterator[sa.ColumnElement[bool]]:
    columns = _workloads.c
    for column, values in ((columns.state, wanted.states), (columns.kind, wanted.kinds)):
        if values is not None:
            yield column.in_(list(values))
    pairs = ((columns.owner, wanted.owner), (columns.queue, wanted.queue), (columns.pipeline_id, wanted.pipeline_id))
    for column, value in pairs:
        if value is not None:
            yield column == value
    if wanted.name_contains is not None:
        yield columns.name.contains(wanted.name_contains, autoescape=True)
    if wanted.since_s is not None:
        yield columns.submitted_s >= wanted.since_s
