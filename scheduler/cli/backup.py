"""`raywise backup` and `raywise restore`: a whole copy of the store, made while the service runs, and put back while it
does not."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated

import typer

from scheduler.service.backup import Backup, BackupError, back_up, restore
from scheduler.service.home import Home
from scheduler.service.opening import store_path

from .common import HomeOption, JsonFlag, console, friendly, home_of, print_json
from .doctor import target_of
from .serve import ConfigOption

TargetArgument = Annotated[
    Path, typer.Argument(metavar="TARGET", help="A new file, or a folder: the file is named after the time then.")
]
SourceArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A file that `raywise backup` made.")]


def backup_command(
    target: TargetArgument, config: ConfigOption = None, json_: JsonFlag = False, home: HomeOption = None
) -> None:
    """Copy the store while the service runs. The folder of the workloads' outputs is copied by other means."""
    with friendly():
        _, store = _store(config, home)
        done = back_up(store, target / f"raywise-{_stamp()}.db" if target.is_dir() else target)
    _tell(done, "backup", json_)


def restore_command(
    source: SourceArgument, config: ConfigOption = None, json_: JsonFlag = False, home: HomeOption = None
) -> None:
    """Put a copy in the store's place; the service must not run. The store that was there is kept beside it."""
    with friendly():
        folder, store = _store(config, home)
        folder.prepare()
        lock = folder.lock()
        try:
            done, kept = restore(source, store, _stamp())
        finally:
            os.close(lock)
    _tell(done, "restored", json_, kept)


def _store(config: Path | None, home: Path | None) -> tuple[Home, Path]:
    folder, place = home_of(home), None
    if config is not None:
        target = target_of(config, folder)
        folder, place = target.home, target.store
    path = store_path(folder, place)
    if path is None:
        raise BackupError("the store is a database\n  hint: use its own tools: pg_dump, pg_restore (docs/deploy.md)")
    return folder, path


def _stamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")


def _tell(done: Backup, what: str, json_: bool, kept: Path | None = None) -> None:
    if json_:
        print_json(
            {
                "path": str(done.path),
                "size_bytes": done.size_bytes,
                "version": done.version,
                "workloads": done.workloads,
                "events": done.events,
                "kept": None if kept is None else str(kept),
            }
        )
        return
    console.print(f"{what} {done.path}: {done.workloads} workloads, {done.events} events, {done.size_bytes:,} bytes")
    if kept is not None:
        console.print(f"the store that was there is {kept}")
