"""A copy of the store that is whole, made beside a running service; and a copy put back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.errors import RaywiseError

from ..store import SCHEMA_VERSION

BESIDE = ("", "-wal", "-shm")
"""A store's files, behind its name."""


class BackupError(RaywiseError):
    """There is nothing to copy, the copy is not whole, or there is no room for it."""


@dataclass(frozen=True)
class Backup:
    """A copy, and what is in it."""

    path: Path
    size_bytes: int
    version: int
    workloads: int
    events: int


def back_up(source: Path, target: Path) -> Backup:
    """Copy a store while it is used: as it is at one moment, in one file of mode 0600, looked at before it is called
    done. Raises BackupError; nothing is left at `target` then."""
    if not source.is_file():
        raise BackupError(
            f"there is no store at {source}\n  hint: name the service's home with --home, or its --config"
        )
    if target.exists():
        raise BackupError(f"{target} exists\n  hint: name a new file")
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _private(draft)
        with _connected(source, "ro") as db, _connected(draft, "rw") as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # else more files would belong to it
        found = examine(draft)
        _keep(draft)
        os.link(draft, target)  # never over a file that came meanwhile
        _keep(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{target} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return Backup(target, found.size_bytes, found.version, found.workloads, found.events)


def examine(path: Path) -> Backup:
    """What is in a copy. Raises BackupError where it is not whole, or not of a version that this Raywise reads."""
    try:
        with _connected(path, "ro") as db:
            said = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if said != "ok":
                raise BackupError(f"{path} is damaged: {said}")
            if not 1 <= version <= SCHEMA_VERSION:
                raise BackupError(f"{path}: schema version {version}; this Raywise reads up to {SCHEMA_VERSION}")
            workloads = int(db.execute("SELECT count(*) FROM workloads").fetchone()[0])
            events = int(db.execute("SELECT count(*) FROM events").fetchone()[0])
    except sqlite3.Error as error:
        raise BackupError(f"{path} is no store: {error}") from error
    return Backup(path, path.stat().st_size, version, workloads, events)


def restore(source: Path, store: Path, stamp: str) -> tuple[Backup, Path | None]:
    """Put a copy in the place of a store that nobody uses (the caller holds its home's lock). The store that was there
    is kept beside it, named with `stamp`: the second value, None where none was. Raises BackupError; the store is
    then as it was."""
    if not source.is_file():
        raise BackupError(f"there is no file {source}")
    found = examine(source)
    draft = store.with_name(f".{store.name}.{os.getpid()}")
    kept = store.with_name(f"{store.name}.before-{stamp}")
    try:
        store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _private(draft)
        with _connected(source, "ro") as db, _connected(draft, "rw") as copy:
            db.backup(copy)
        _keep(draft)
        before = _set_aside(store, kept)
        os.replace(draft, store)
        _keep(store.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{store} cannot be replaced: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return found, before


def _set_aside(store: Path, kept: Path) -> Path | None:
    """All files of the store, so that its log is never taken for the copy's."""
    if not store.exists():
        return None
    for suffix in reversed(BESIDE):
        beside = store.with_name(store.name + suffix)
        if beside.exists():
            os.replace(beside, kept.with_name(kept.name + suffix))
    return kept


def _private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))


def _keep(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30, isolation_level=None)
    try:
        yield db
    finally:
        db.close()
