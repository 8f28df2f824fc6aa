"""A store of the first schema opens: workloads and events are kept, only what was learnt is learnt again."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from scheduler.estimate.calibration import Calibration
from scheduler.estimate.work import Work
from scheduler.store import SCHEMA_VERSION, Event, Filter, Store
from scheduler.types import Configuration, Money

FIRST_SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE workloads (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, state TEXT NOT NULL, pipeline_id TEXT, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX workloads_by_state ON workloads (state, number);
CREATE INDEX workloads_by_pipeline ON workloads (pipeline_id, number);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, cycle INTEGER, workload_id TEXT,
    kind TEXT NOT NULL, cause TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_workload ON events (workload_id, sequence);
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events never change'); END;
CREATE TRIGGER events_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never lost'); END;
CREATE TABLE calibration (
    key TEXT PRIMARY KEY, mean REAL NOT NULL, spread REAL NOT NULL, count INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version=1;
"""
OLD_PROFILE = {
    "family": "bert-6x384",
    "parameters": 22_713_216,
    "forward_flops": [2.1e7, 4608.0],
    "training_flops": [6.4e7, 13824.0],
    "activation_bytes": [150_000.0, 400.0],
    "vocabulary_parameters": 11_916_288,
}
OLD_WORK = {
    "kind": "train",
    "family": "bert-6x384",
    "precision": "fp32",
    "samples": 3420.0,
    "evaluation_samples": 100.0,
    "tokens_per_sample": 12.5,
    "batch_size": 32,
    "profile": OLD_PROFILE,
    "rows_per_core_s": None,
    "declared_s": None,
    "output_bytes": 9e7,
}
OLD_ESTIMATE = {
    "configuration": {"groups": [["T4", 2]]},
    "seconds": 120.0,
    "startup_s": 16.0,
    "low_s": 60.0,
    "high_s": 240.0,
    "memory_bytes": 1.2e9,
    "money": {"compute_usd": 0.03, "storage_usd": 0.002, "communication_usd": 0.0},
    "price_usd_h": 1.0,
    "source": "calibrated",
    "bound": "memory",
    "infeasible": None,
}


def old_record(name: str, state: str, **fields: Any) -> dict[str, Any]:
    """A record as the first schema had it."""
    spec = {"kind": "command", "name": name, "command": "x"}
    return {
        "id": name,
        "name": name,
        "kind": "command",
        "spec": spec,
        "state": state,
        "submitted_s": 5.0,
        "output": f"/out/{name}",
        "run_dir": f"/run/{name}",
        "work": None,
        "estimates": [],
        "predicted": None,
    } | fields


RECORDS = [
    old_record("trained", "succeeded", work=OLD_WORK, estimates=[OLD_ESTIMATE], predicted=OLD_ESTIMATE, spent_usd=0.5),
    old_record("waiting", "queued", work=OLD_WORK, needs=["trained"]),
    old_record("declared", "queued", work=OLD_WORK | {"kind": "command", "profile": None, "declared_s": 60.0}),
    old_record("new", "pending"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "raywise.db"
    db = sqlite3.connect(made)
    db.executescript(FIRST_SCHEMA)
    rows = [(r["id"], n, r["state"], None, json.dumps(r)) for n, r in enumerate(RECORDS, start=1)]
    db.executemany("INSERT INTO workloads VALUES (?, ?, ?, ?, ?)", rows)
    db.execute(
        "INSERT INTO events (at_s, cycle, workload_id, kind, cause, data) VALUES (7.0, 3, 'new', 'k', 'c', '{}')"
    )
    db.execute("INSERT INTO calibration VALUES ('speed\ttrain\tbert\tT4\tfp32\t2', 1.1, 0.1, 4)")
    db.execute("INSERT INTO settings VALUES ('policy', 'market')")
    db.commit()
    db.close()
    return made


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    db.close()
    return found


def test_workloads_events_and_settings_are_kept(path: Path) -> None:
    store = Store(path)
    assert [(record.id, record.state) for record in store.select()] == [
        (r["id"], {"queued": "pending"}.get(r["state"], r["state"])) for r in RECORDS
    ], "what waited is looked at anew"
    assert store.events() == [Event("k", "c", "new", 3, 7.0, sequence=1)]
    assert store.setting("policy") == "market"
    trained = store.get("trained")
    assert trained is not None and trained.predicted is not None
    assert (trained.spent_usd, trained.predicted.seconds, trained.predicted.breakdown) == (0.5, 120.0, None)
    assert trained.predicted.money == Money(0.03, 0.002)
    assert trained.estimates[0].configuration == Configuration.of({"T4": 2})
    store.close()
    assert version(path) == SCHEMA_VERSION


def test_the_work_is_kept_without_its_profile(path: Path) -> None:
    store = Store(path)
    works = {record.id: record.work for record in store.select()}
    expected = Work("train", "bert-6x384", "fp32", 3420.0, 100.0, 12.5, 32, output_bytes=9e7)
    assert works["trained"] == works["waiting"] == expected
    assert works["declared"] is not None and works["declared"].declared_s == 60.0
    assert works["new"] is None
    store.close()


def test_what_was_learnt_is_learnt_again(path: Path) -> None:
    store = Store(path)
    assert store.load_calibration() == Calibration()
    calibration = Calibration()
    calibration.observe_overhead("train", "bert", 2, 8.0)
    store.save_calibration(calibration)
    store.close()
    again = Store(path)
    assert again.load_calibration() == calibration, "only the first opening forgets"
    assert [record.id for record in again.select()] == [record["id"] for record in RECORDS]
    again.close()


def test_a_migrated_workload_goes_on(path: Path) -> None:
    store = Store(path)
    waiting = store.get("waiting")
    assert waiting is not None
    store.put(waiting, Event("planned", "x", "waiting"))
    assert store.get("waiting") == waiting
    store.close()
    other = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="events never change"):
        other.execute("UPDATE events SET cause = 'z'")
    other.close()


def test_a_migration_that_was_cut_short_is_done_again(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE calibration")
    db.close()
    assert version(path) == 1
    store = Store(path)
    assert len(store.select()) == len(RECORDS)
    assert store.load_calibration() == Calibration()
    store.close()
    assert version(path) == SCHEMA_VERSION


def test_a_store_of_the_second_version_has_queues_and_an_owner(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE calibration; PRAGMA user_version=2;")
    db.execute("UPDATE workloads SET record = json_set(record, '$.work', json('null'))")
    night = old_record("night", "pending", spent_usd=1.5)
    night["spec"] = night["spec"] | {"queue": "night"}
    db.execute("INSERT INTO workloads VALUES ('night', 9, 'pending', 'p', ?)", (json.dumps(night),))
    db.commit()
    db.close()
    store = Store(path)
    assert [r.id for r in store.page(Filter(queue="night", owner="admin", pipeline_id="p")).records] == ["night"]
    assert store.counts()["pending", "command", "night"] == (1, 1.5)
    assert [r.state for r in store.select() if r.id == "waiting"] == ["queued"], (
        "only the first version is looked at anew"
    )
    store.close()
    assert version(path) == SCHEMA_VERSION
