"""The tables, for SQLite and PostgreSQL alike, and how those of older versions become these."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

SCHEMA_VERSION = 3

_Text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text that compares by its characters' numbers, whatever the server's language."""
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

workloads = sa.Table(
    "workloads",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("number", _Number, nullable=False),
    sa.Column("state", _Text, nullable=False),
    sa.Column("kind", _Text, nullable=False),
    sa.Column("name", _Text, nullable=False),
    sa.Column("owner", _Text, nullable=False),
    sa.Column("queue", _Text, nullable=False),
    sa.Column("pipeline_id", _Text),
    sa.Column("submitted_s", sa.Double, nullable=False),
    sa.Column("spent_usd", sa.Double, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("workloads_by_number", "number", unique=True),
    sa.Index("workloads_by_state", "state", "number"),
    sa.Index("workloads_by_owner", "owner", "number"),
    sa.Index("workloads_by_queue", "queue", "number"),
    sa.Index("workloads_by_pipeline", "pipeline_id", "number"),
    sa.Index("workloads_by_spending", "state", "kind", "queue", "spent_usd"),
    sa.Index("workloads_to_search", "number", "name", "submitted_s"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("sequence", _Number, primary_key=True, autoincrement=True),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("cycle", _Number),
    sa.Column("workload_id", _Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Index("events_by_workload", "workload_id", "sequence"),
    sa.Index("events_by_kind", "kind", "sequence"),
    sqlite_autoincrement=True,
)

calibration = sa.Table(
    "calibration",
    metadata,
    sa.Column("number", _Number, primary_key=True, autoincrement=True),
    sa.Column("key", _Text, nullable=False, unique=True),
    sa.Column("mean", sa.Double, nullable=False),
    sa.Column("spread", sa.Double, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("parts", sa.Text, nullable=False),
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", _Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("hash", _Text, nullable=False, unique=True),
    sa.Column("user", _Text, nullable=False),
    sa.Column("role", _Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("expires_s", sa.Double),
    sa.Column("revoked_s", sa.Double),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("owner", _Text, primary_key=True),
    sa.Column("key", _Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("accepted_id", _Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
)
"""Submissions that named an idempotency key, and what they became."""

charges = sa.Table(
    "charges",
    metadata,
    sa.Column("workload_id", _Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("day", _Text, primary_key=True),
    sa.Column("device_type", _Text, primary_key=True),
    sa.Column("owner", _Text, nullable=False),
    sa.Column("queue", _Text, nullable=False),
    sa.Column("device_s", sa.Double, nullable=False),
    sa.Column("usd", sa.Double),
    sa.Index("charges_by_day", "day"),
    sa.Index("charges_by_queue", "queue", "day"),
)
"""What ended attempts held: device seconds and dollars by day (UTC) and device type. NULL dollars: it has no price."""

rentals = sa.Table(
    "rentals",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    sa.Column("node_type", _Text, nullable=False),
    sa.Column("market", _Text, nullable=False),
    sa.Column("usd_h", sa.Double, nullable=False),
    sa.Column("on_demand_usd_h", sa.Double),
    sa.Column("asked_s", sa.Double, nullable=False),
    sa.Column("node_id", _Text),
    sa.Column("joined_s", sa.Double),
    sa.Column("ended_s", sa.Double),
    sa.Column("end", sa.Text, nullable=False),
    sa.Column("refused", sa.Boolean, nullable=False),
    sa.Index("rentals_by_end", "ended_s"),
)
"""Nodes that were rented, or asked for: what they cost, whoever used them."""

_SQLITE_GUARDS = (
    "CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events"
    " BEGIN SELECT RAISE(ABORT, 'events never change'); END",
    "CREATE TRIGGER IF NOT EXISTS events_kept BEFORE DELETE ON events"
    " BEGIN SELECT RAISE(ABORT, 'events are never lost'); END",
)
_POSTGRESQL_GUARDS = (
    "CREATE OR REPLACE FUNCTION raywise_events_stay() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'events never change and are never lost'; END $$",
    "CREATE OR REPLACE TRIGGER events_stay BEFORE UPDATE OR DELETE ON events"
    " FOR EACH ROW EXECUTE FUNCTION raywise_events_stay()",
)

_FROM_1 = (
    "DROP TABLE IF EXISTS calibration",
    "UPDATE workloads SET record = json_set(record, '$.work.profile', json('null'))"
    " WHERE json_type(record, '$.work') = 'object'",
    "UPDATE workloads SET state = 'pending', record = json_set(record, '$.state', 'pending') WHERE state = 'queued'",
)
"""Profiles and what was learnt with them have another shape since. Both are made again: what waits in the queue is
looked at anew."""

_FROM_2 = (
    "ALTER TABLE workloads RENAME TO workloads_2",
    "DROP INDEX IF EXISTS workloads_by_state",
    "DROP INDEX IF EXISTS workloads_by_pipeline",
)
_FILL_3 = (
    "INSERT INTO workloads (id, number, state, kind, name, owner, queue, pipeline_id, submitted_s, spent_usd, record)"
    " SELECT id, number, state, json_extract(record, '$.kind'), json_extract(record, '$.name'), 'admin',"
    " coalesce(json_extract(record, '$.spec.queue'), 'default'), pipeline_id, json_extract(record, '$.submitted_s'),"
    " coalesce(json_extract(record, '$.spent_usd'), 0.0), record FROM workloads_2",
    "DROP TABLE workloads_2",
)
"""Since version 3 a workload has an owner and a queue, to be listed by."""


def create(connection: sa.Connection, version: int) -> None:
    """Make the tables in an empty database (version 0), or make those of an older version these."""
    if version == 1:
        _run(connection, _FROM_1)
    if version in (1, 2):
        _run(connection, _FROM_2)
    metadata.create_all(connection)
    if version in (1, 2):
        _run(connection, _FILL_3)
    _run(connection, _POSTGRESQL_GUARDS if connection.dialect.name == "postgresql" else _SQLITE_GUARDS)


def _run(connection: sa.Connection, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
