"""A backup is whole whatever the service writes meanwhile; a restore never mixes two stores."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scheduler.cli import app
from scheduler.service.backup import BackupError, back_up, examine, restore
from scheduler.service.home import Home
from scheduler.store import Event, Record, Store


def record(name: str) -> Record:
    return Record(name, name, "command", {}, "pending", 0.0, "/out", "/run")


def fill(path: Path, *ids: str) -> Store:
    store = Store(path)
    for each in ids:
        store.add([record(each)], [Event("submitted", "a test did", each)])
    return store


def ids(path: Path) -> list[str]:
    store = Store(path)
    try:
        return store.ids()
    finally:
        store.close()


def test_a_copy_of_a_store_in_use(tmp_path: Path) -> None:
    store = fill(tmp_path / "raywise.db", "a", "b")
    done = back_up(tmp_path / "raywise.db", tmp_path / "copy.db")
    assert (done.path, done.workloads, done.events, done.version) == (tmp_path / "copy.db", 2, 2, 3)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    store.add([record("c")], [])
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "raywise.db"]
    assert ids(tmp_path / "copy.db") == ["a", "b"]


def test_what_is_written_while_it_is_copied_is_in_it_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "raywise.db", "a")
    with sqlite3.connect(tmp_path / "raywise.db", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE workloads SET state = 'half'")
        back_up(tmp_path / "raywise.db", tmp_path / "copy.db")
        writer.execute("ROLLBACK")
    writer.close()
    store.close()
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT state FROM workloads").fetchall() == [("pending",)]
    copy.close()


def test_nothing_is_written_over_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="there is no store at "):
        back_up(tmp_path / "none.db", tmp_path / "copy.db")
    fill(tmp_path / "raywise.db", "a").close()
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(BackupError, match="exists"):
        back_up(tmp_path / "raywise.db", tmp_path / "copy.db")
    with pytest.raises(BackupError, match="cannot be written"):
        back_up(tmp_path / "raywise.db", tmp_path / "no" / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "raywise.db"]


def test_a_restore_keeps_what_was_there_with_its_log(tmp_path: Path) -> None:
    fill(tmp_path / "old.db", "old").close()
    back_up(tmp_path / "old.db", tmp_path / "copy.db")
    crashed = fill(tmp_path / "raywise.db", "new")  # never closed: its log holds what the file does not
    done, kept = restore(tmp_path / "copy.db", tmp_path / "raywise.db", "T")
    assert (done.workloads, kept) == (1, tmp_path / "raywise.db.before-T")
    assert ids(tmp_path / "raywise.db") == ["old"]
    assert stat.S_IMODE((tmp_path / "raywise.db").stat().st_mode) == 0o600
    assert kept is not None
    assert ids(kept) == ["new"], "with what was only in its log"
    crashed.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [("no database, but long enough to be taken for one" * 100, "is no store"), ("", "schema version 0")],
    ids=["another file", "an empty one"],
)
def test_what_is_no_backup_is_not_put_in_place(tmp_path: Path, text: str, said: str) -> None:
    fill(tmp_path / "raywise.db", "a").close()
    (tmp_path / "copy.db").write_text(text)
    with pytest.raises(BackupError, match=said):
        restore(tmp_path / "copy.db", tmp_path / "raywise.db", "T")
    assert ids(tmp_path / "raywise.db") == ["a"]
    with pytest.raises(BackupError, match="there is no file"):
        restore(tmp_path / "none.db", tmp_path / "raywise.db", "T")


def test_a_backup_of_a_newer_raywise_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "copy.db", "a").close()
    with sqlite3.connect(tmp_path / "copy.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(BackupError, match="schema version 99"):
        examine(tmp_path / "copy.db")


def test_the_commands(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    fill(home.database, "a").close()
    (tmp_path / "backups").mkdir()
    at_home = ["--home", str(home.path)]
    made = CliRunner().invoke(app, ["backup", str(tmp_path / "backups"), *at_home, "--json"])
    assert made.exit_code == 0, made.output
    path = json.loads(made.stdout)["path"]
    assert Path(path).parent == tmp_path / "backups"
    lock = home.lock()
    refused = CliRunner().invoke(app, ["restore", path, *at_home])
    assert (refused.exit_code, "a service already runs" in refused.stderr) == (1, True)
    os.close(lock)
    assert CliRunner().invoke(app, ["restore", path, *at_home]).exit_code == 0
    assert ids(home.database) == ["a"]


def test_a_store_elsewhere_is_found_by_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("home: home\nstore: data/mine.db\n")
    (tmp_path / "data").mkdir()
    fill(tmp_path / "data" / "mine.db", "a").close()
    config = ["--config", str(tmp_path / "service.yaml")]
    done = CliRunner().invoke(app, ["backup", str(tmp_path / "copy.db"), *config])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"backup {tmp_path / 'copy.db'}: 1 workloads, 1 events, ")
    (tmp_path / "service.yaml").write_text("store: postgresql://u@h/d\n")
    refused = CliRunner().invoke(app, ["backup", str(tmp_path / "other.db"), *config])
    assert (refused.exit_code, "pg_dump" in refused.stderr) == (1, True)
