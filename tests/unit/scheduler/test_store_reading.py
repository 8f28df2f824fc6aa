"""Who reads a store and who writes to it go their own ways, and what is asked often is answered by an index."""

from __future__ import annotations

import re
import sqlite3
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from postgres_server import Server
from scheduler.states import State
from scheduler.store import Event, Filter, Record, Store, StoreError, schema
from scheduler.store.listing import events_query, page_query
from serving import until

DATABASES = count(1)


def record(name: str, state: State = "pending", **fields: object) -> Record:
    spec = {"kind": "command", "name": name, "command": "x"}
    return Record(name, name, "command", spec, state, 5.0, f"/out/{name}", f"/run/{name}", **fields)  # type: ignore[arg-type]


def test_who_reads_and_who_writes_do_not_wait_for_each_other(store: Store) -> None:
    store.add([record("a", "succeeded"), record("b")], [Event("submitted", "x", "a")])
    written = threading.Event()

    def write() -> None:
        store.append(Event("note", "x", "b"))
        written.set()

    writer = threading.Thread(target=write)
    with store.database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(schema.events)) == 1
        writer.start()
        assert written.wait(30), "a slow listing delays no cycle"
    writer.join(60)
    found: list[object] = []

    def read() -> None:
        found.append(([event.kind for event in store.events()], store.setting("half")))

    reader = threading.Thread(target=read)
    with store.database.transaction() as db:
        db.execute(schema.settings.insert().values(name="half", value="written"))
        reader.start()
        until(lambda: bool(found), 30)
    reader.join(60)
    assert found == [(["submitted", "note"], None)], "nor does what is being written, and it is not seen"
    assert store.setting("half") == "written"


def test_who_reads_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match=r"readonly|read-only"), store.database.reading() as db:
        db.execute(schema.settings.insert().values(name="x", value="y"))
    assert store.setting("x") is None


def test_what_a_reader_had_seen_before_a_change_is_not_kept(store: Store) -> None:
    store.add([record("a", "running"), record("b", "succeeded", message="one")], [])
    (text_a, text_b) = (store_text(store, "a"), store_text(store, "b"))
    store.put(replace(record("a", "running"), state="succeeded"))
    store.change("b", Event("changed", "x", "b"), pause_cause="two")
    for name in [f"c{number}" for number in range(600)]:
        store.add([record(name, "succeeded")], [])  # the newest of those that ended are kept, and these are no more
    assert store._known([("a", text_a)])[0].state == "running", "what the reader saw"
    found = store.get("a")
    assert found is not None
    assert found.state == "succeeded"
    assert store._known([("b", text_b)])[0].message == "one"


def store_text(store: Store, name: str) -> str:
    with store.database.reading() as db:
        return str(db.scalar(sa.select(schema.workloads.c.record).where(schema.workloads.c.id == name)))


def test_a_commit_that_broke_off_with_the_connection_is_looked_for(server: Server) -> None:
    store = Store(server.url(f"reading{next(DATABASES)}"))
    driver = store.database._connection.connection.dbapi_connection
    assert driver is not None

    def unclear() -> None:
        type(driver).commit(driver)
        driver.close()
        raise psycopg.OperationalError("the connection was lost")

    driver.commit = unclear  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="the connection was lost"):
        store.add([record("a")], [Event("submitted", "x", "a")])
    assert (store.is_stored(record("a")), store.is_stored(record("b"))) == (True, False)
    assert not store.is_stored(replace(record("a"), submitted_s=6.0)), "another of the same id"
    assert [each.id for each in store.select(states=["pending"])] == ["a"], "and the engine sees it"
    store.close()


PLANS = [
    ("a name", page_query(Filter(name_contains="x"), None, 101), ["COVERING INDEX workloads_to_search"]),
    ("a name, the next page", page_query(Filter(name_contains="x"), 7, 101), ["COVERING INDEX workloads_to_search"]),
    ("a time", page_query(Filter(since_s=5.0), None, 101), ["COVERING INDEX workloads_to_search"]),
    ("a state", page_query(Filter(states=["queued"]), None, 101), ["workloads_by_state"]),
    ("an owner", page_query(Filter(owner="me"), None, 101), ["workloads_by_owner"]),
    ("a kind of events", events_query(None, ["failed"], 7, 1000), ["events_by_kind (kind=? AND sequence>?)"]),
    ("kinds of events", events_query(None, ["a", "b"], 0, 10), ["events_by_kind (kind=? AND sequence>?)"] * 2),
    ("kinds of one workload", events_query(["w"], ["a", "b"], 0, 10), ["events_by_workload (workload_id=? AND"]),
    ("a kind of some workloads", events_query(["v", "w"], ["a"], 0, 10), ["events_by_workload (workload_id=? AND"]),
]


@pytest.mark.parametrize(("query", "indexes"), [plan[1:] for plan in PLANS], ids=[plan[0] for plan in PLANS])
def test_an_index_answers(file_store: Store, query: sa.Select[Any], indexes: list[str]) -> None:
    with file_store.database.reading() as db:
        text = str(query.compile(db, compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()]
    for index in set(indexes):
        assert sum(f"USING {index}" in line or f"INDEX {index}" in line for line in plan) == indexes.count(index), plan
    assert not [line for line in plan if re.fullmatch(r"SCAN (workloads|events)", line)], plan


def test_events_of_several_kinds_are_merged_in_their_order(store: Store) -> None:
    store.append(*(Event(kind, f"{number}") for number, kind in enumerate("abcabcaab")))
    assert [event.cause for event in store.events(kinds=["c", "a", "a"])] == ["0", "2", "3", "5", "6", "7"]
    assert [event.cause for event in store.events(kinds=["a", "c"], after=2, limit=3)] == ["2", "3", "5"]
    assert store.events(kinds=["a"], after=4, limit=1)[0].data == {}
    assert store.events(kinds=[]) == store.events(kinds=["none", "nothing"]) == []


def test_a_store_of_this_version_without_an_index_gets_it(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        for name in ("events_by_kind", "workloads_to_search"):
            db.execute(f"DROP INDEX {name}")
    db.close()
    Store(path).close()
    with sqlite3.connect(path) as db:
        found = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    db.close()
    assert {"events_by_kind", "workloads_to_search"} <= found
