"""The connections to the database of a service, a SQLite file or a PostgreSQL server by its URL: one that writes, and
some that only read, so that who reads and who writes do not wait for each other.

What a transaction committed survives `kill -9` and a power cut: SQLite is in WAL mode with `synchronous=FULL`, and
PostgreSQL is asked for `synchronous_commit`. One service writes at a time: a file is guarded by the lock of its home, a
PostgreSQL database by an advisory lock that goes with the connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from workloads.errors import RaywiseError

from . import schema

_LOCK = 7_293_011
"""The number of the advisory lock."""
READERS = 8
"""So many may read at the same time; others wait for them."""
IN_MEMORY = ":memory:"
"""The file that is none: it has one connection only."""
LOCK_PATIENCE_S = 3.0
"""A PostgreSQL server sees so late, at most, that the service before this one has ended."""
_VERSION = "schema-version"


class StoreError(RaywiseError):
    """The store cannot be opened or written: a full disk, a wrong version, another file in its place, a server that is
    gone."""


class StoreUnclearError(StoreError):
    """The store went away while it was written: what was to be stored may be there."""


def is_url(where: Path | str) -> bool:
    """Whether it names a server, and no file."""
    return isinstance(where, str) and "://" in where


def shown(where: Path | str) -> str:
    """The place, without a password."""
    return sa.make_url(str(where)).render_as_string(hide_password=True) if is_url(where) else str(where)


class Database:
    """The connections, the lock of the one that writes, and transactions. Safe to use from several threads of one
    process."""

    def __init__(self, where: Path | str, *, exclusive: bool = True) -> None:
        """`exclusive`: refuse where another service has the PostgreSQL database. Raises StoreError."""
        self.place, self._exclusive = shown_or_raw(where), exclusive
        self.lock = threading.RLock()
        self.on_reconnect: Callable[[sa.Connection], None] = lambda _: None
        """Called in a transaction after the server came back: whether the last commit arrived is not known."""
        try:
            self._engine = _engine(where)
            self._readers = None if str(where) == IN_MEMORY else _readers(where)
            self._connection = self._connect()
            self._prepare()
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"{self.place}: {_said(error)}") from error

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Release the file, or the connection and the lock that goes with it."""
        with self.lock:
            self._connection.close()
            self._engine.dispose()
            if self._readers is not None:
                self._readers.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """All or nothing. Raises StoreError."""
        with self.lock:
            try:
                connection = self._alive()
                with connection.begin():
                    yield connection
            except SQLAlchemyError as error:
                raise StoreError(_said(error)) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A look at what is committed, as it was at one moment where that matters (SQLite), beside what is being
        written. Raises StoreError."""
        if self._readers is None:
            with self.transaction() as connection:
                yield connection
            return
        try:
            if self._connection.invalidated:
                with self.lock:
                    self._alive()
            with self._readers.connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(_said(error)) from error

    def _connect(self) -> sa.Connection:
        connection = self._engine.connect()
        if self.dialect == "postgresql" and self._exclusive and not _takes_lock(connection):
            connection.close()
            raise StoreError(f"{self.place}: another service works with this database")
        return connection

    def _alive(self) -> sa.Connection:
        """The connection; a new one where the server closed it."""
        if self._connection.closed or self._connection.invalidated:
            self._connection.close()
            self._connection = self._connect()
            with self._connection.begin():
                self.on_reconnect(self._connection)
        return self._connection

    def _prepare(self) -> None:
        with self._connection.begin():
            version = self._version()
            if version not in range(schema.SCHEMA_VERSION + 1):
                raise StoreError(
                    f"{self.place}: schema version {version}; this Raywise reads version {schema.SCHEMA_VERSION}"
                )
            if version == schema.SCHEMA_VERSION:
                schema.rentals.create(self._connection, checkfirst=True)  # it came after this version
                for index in (*schema.workloads.indexes, *schema.events.indexes):  # some did as well
                    index.create(self._connection, checkfirst=True)
                return
            schema.create(self._connection, version)
            if self.dialect == "sqlite":
                self._connection.exec_driver_sql(f"PRAGMA user_version={schema.SCHEMA_VERSION}")
            else:
                row = {"name": _VERSION, "value": str(schema.SCHEMA_VERSION)}
                self._connection.execute(schema.settings.insert(), row)

    def _version(self) -> int:
        if self.dialect == "sqlite":
            return int(self._connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if not sa.inspect(self._connection).has_table(schema.settings.name):
            return 0
        found = sa.select(schema.settings.c.value).where(schema.settings.c.name == _VERSION)
        return int(self._connection.scalar(found) or 0)


def _takes_lock(connection: sa.Connection) -> bool:
    """Whether this service has the database for itself now. A service that has just ended may hold it until the server
    has seen that."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        with connection.begin():
            if connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK))):
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)


def shown_or_raw(where: Path | str) -> str:
    """As `shown`; of what cannot be read as a URL, only that. Raises StoreError."""
    try:
        return shown(where)
    except SQLAlchemyError:
        raise StoreError("the store's URL cannot be read\n  hint: postgresql://user@host:5432/database") from None


def _engine(where: Path | str) -> sa.Engine:
    if is_url(where):
        return sa.create_engine(_server(where), pool_size=1, max_overflow=1, connect_args=_SERVER)
    engine = sa.create_engine(_file(where), poolclass=StaticPool, connect_args=_FILE)
    event.listen(engine, "connect", _sqlite_connected)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _readers(where: Path | str) -> sa.Engine:
    """Connections that cannot write. In WAL mode a reader of a file sees what is committed, and nobody waits for it."""
    if is_url(where):
        readers = sa.create_engine(
            _server(where), pool_size=READERS, max_overflow=0, pool_pre_ping=True, connect_args=_SERVER
        )
        return readers.execution_options(postgresql_readonly=True)
    readers = sa.create_engine(_file(where), poolclass=QueuePool, pool_size=READERS, max_overflow=0, connect_args=_FILE)
    event.listen(readers, "connect", _sqlite_reads)
    event.listen(readers, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return readers


_SERVER = {"connect_timeout": 10, "application_name": "raywise", "keepalives_idle": 30}
_FILE = {"check_same_thread": False, "timeout": 30}


def _server(where: Path | str) -> sa.URL:
    url = sa.make_url(str(where))
    if url.get_backend_name() != "postgresql":
        raise StoreError(f"{shown(where)}: no such store\n  hint: a path, or postgresql://user@host:5432/database")
    return url.set(drivername="postgresql+psycopg")


def _file(where: Path | str) -> sa.URL:
    return sa.URL.create("sqlite", database=str(where))


def _sqlite_connected(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by us, in `_sqlite_begin`
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_reads(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _sqlite_begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _said(error: Exception) -> str:
    """The driver's own words: no statement, no parameters (they may be anybody's)."""
    text = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
