"""Looks at a PostgreSQL store without changing it, and without the lock that a service holds."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..store import SCHEMA_VERSION, StoreError, schema
from ..store.database import shown_or_raw
from .facts import StoreFacts

CONNECT_S = 5
_VERSION = "schema-version"


def database(url: str, older_versions: tuple[int, ...]) -> StoreFacts:
    """What is found at a URL; its password is in nothing that is said."""
    try:
        place = shown_or_raw(url)
        engine = sa.create_engine(
            sa.make_url(url).set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": CONNECT_S}
        )
    except (StoreError, SQLAlchemyError) as error:
        return StoreFacts("the store's URL", error=_words(error))
    try:
        with engine.connect() as connection:
            return _facts(connection, place, older_versions)
    except SQLAlchemyError as error:
        return StoreFacts(place, error=_words(error))
    finally:
        engine.dispose()


def _facts(connection: sa.Connection, place: str, older_versions: tuple[int, ...]) -> StoreFacts:
    if not sa.inspect(connection).has_table(schema.settings.name):
        return StoreFacts(place, exists=False)
    version = connection.scalar(sa.select(schema.settings.c.value).where(schema.settings.c.name == _VERSION))
    read_only = connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
    return StoreFacts(
        place,
        write_error="the server takes no writes (a replica?)" if read_only else None,
        version=int(version or 0),
        expected_version=SCHEMA_VERSION,
        older_versions=older_versions,
        size_bytes=int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0),
    )


def _words(error: Exception) -> str:
    """The driver's own, without a statement."""
    text = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
