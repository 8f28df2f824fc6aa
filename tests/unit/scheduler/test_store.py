"""What must survive: one transaction a change, an event log that only grows, and a refusal of what cannot be read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from making import PROFILE, configuration, est, placed
from postgres_server import Server, running
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.step_time import PARTS
from scheduler.estimate.work import Work
from scheduler.states import IllegalTransitionError, State
from scheduler.store import SCHEMA_VERSION, Charge, Event, Filter, Record, Spending, Store, StoreError
from scheduler.types import Explanation, Option, Reason

REST = (0.1,) * (len(PARTS) - 2)


def record(name: str, state: State = "pending", **fields: object) -> Record:
    spec = {"kind": "command", "name": name, "command": "x"} | dict(fields.pop("spec", {}))  # type: ignore[call-overload]
    given = {"submitted_s": 5.0} | fields
    return Record(name, name, "command", spec, state, output=f"/out/{name}", run_dir=f"/run/{name}", **given)  # type: ignore[arg-type]


def kinds(store: Store, **arguments: object) -> list[str]:
    return [event.kind for event in store.events(**arguments)]  # type: ignore[arg-type]


def test_ids_are_found_by_how_they_start(store: Store) -> None:
    names = ["p-1-a", "p-1-b", "p%", "px", "p_y", "P-2", "p", "ö-\U0010ffff", "q"]
    store.add([record(name, pipeline_id="p-1" if name.startswith("p-1") else None) for name in names], [])
    assert store.ids() == ["p-1", *names]
    assert store.ids("p") == ["p-1", "p-1-a", "p-1-b", "p%", "px", "p_y", "p"]
    assert store.ids("p-1") == ["p-1", "p-1-a", "p-1-b"]
    assert store.ids("p-1-b") == ["p-1-b"]
    found = {start: store.ids(start) for start in ("p%", "p_", "p*", "P", "ö", "x", "p'", 'p"', "[")}
    assert {start: ids for start, ids in found.items() if ids} == {
        "p%": ["p%"],
        "p_": ["p_y"],
        "P": ["P-2"],
        "ö": ["ö-\U0010ffff"],
    }


FULL = record(
    "full",
    "running",
    pipeline_id="p",
    needs=("a", "b"),
    code_path="/code.zip",
    attempt=2,
    queued_s=6.0,
    started_s=7.0,
    first_started_s=6.5,
    deadline_s=99.0,
    budget_usd=1.5,
    work=Work(
        "train",
        "bert",
        "bf16",
        100.0,
        10.0,
        12.5,
        8,
        PROFILE,
        PROFILE,
        strategy="fsdp",
        micro_batches=2,
        checkpoint_every_s=60.0,
        output_bytes=3.0,
    ),
    placement=placed(("T4", "n1"), ("A100", "n2")),
    estimates=(est(10.0, T4=1), est(None, A100=2)),
    predicted=est(10.0, T4=1),
    explanation=Explanation(
        configuration(T4=1), "because", (Option(est(1.0, T4=2), 0.5, 0.1, None, Reason("memory", "too big")),)
    ),
    price_usd_h=4.5,
    spent_usd=0.25,
    spent_s=60.0,
    cancel_requested=True,
    message="m",
    result={"metrics": {"accuracy": 0.5}, "outputs": {"x": "/y"}},
)


def test_a_record_comes_back_whole(store: Store) -> None:
    store.add([FULL], [])
    assert store.get("full") == FULL
    assert store.get("nobody") is None


def test_records_are_in_the_order_of_submission_and_the_newest_are_kept(store: Store) -> None:
    store.add([record("b"), record("a", pipeline_id="p")], [])
    store.add([record("c", "queued", pipeline_id="p")], [])
    assert [r.id for r in store.select()] == ["b", "a", "c"]
    assert [r.id for r in store.select(limit=2)] == ["a", "c"]
    assert [r.id for r in store.select(states=["queued"])] == ["c"]
    assert [r.id for r in store.select(states=["pending", "queued"], pipeline_id="p")] == ["a", "c"]
    assert store.select(states=[]) == []


def test_all_workloads_of_a_submission_are_stored_or_none(store: Store) -> None:
    store.add([record("a")], [Event("submitted", "x", "a")])
    with pytest.raises(StoreError, match=r"(?i)unique"):
        store.add([record("b"), record("a")], [Event("submitted", "x", "b")])
    assert [r.id for r in store.select()] == ["a"]
    assert kinds(store) == ["submitted"]


def test_a_change_and_its_event_are_one(store: Store) -> None:
    store.add([record("a")], [])
    store.put(record("a", "queued"), Event("queued", "needs nothing", "a", 3, 7.5, {"x": [1]}))
    assert store.get("a") == record("a", "queued")
    assert store.events() == [Event("queued", "needs nothing", "a", 3, 7.5, {"x": [1]}, 1)]


def test_an_illegal_move_is_refused_and_leaves_nothing(store: Store) -> None:
    store.add([record("a")], [])
    with pytest.raises(IllegalTransitionError):
        store.put(record("a", "succeeded"), Event("succeeded", "x", "a"))
    assert (store.get("a"), kinds(store)) == (record("a"), [])
    store.put(record("a", "queued"))  # the transaction is over, the store goes on


def test_a_change_whose_event_cannot_be_written_is_not_made(store: Store) -> None:
    store.add([record("a")], [])
    with pytest.raises(TypeError):
        store.put(record("a", "queued"), Event("queued", "x", "a", data={"x": object()}))
    assert store.get("a") == record("a")


def test_a_workload_nobody_stored_cannot_be_changed(store: Store) -> None:
    with pytest.raises(StoreError, match="no workload a"):
        store.put(record("a"))


def test_a_wish_to_cancel_is_not_lost_to_the_engine_that_is_at_work(store: Store) -> None:
    store.add([record("a")], [])
    seen = store.get("a")
    assert seen is not None
    asked = store.request_cancel("a", Event("cancel-requested", "the user asked for it", "a"))
    assert asked == replace(record("a"), cancel_requested=True)
    store.put(replace(seen, state="queued"), Event("queued", "x", "a"))
    assert store.get("a") == replace(record("a", "queued"), cancel_requested=True)
    assert store.request_cancel("nobody", Event("cancel-requested", "x", "nobody")) is None
    assert kinds(store) == ["cancel-requested", "queued"]


def test_events_only_grow(file_store: Store, path: Path) -> None:
    file_store.append(Event("a", "x"), Event("b", "y"))
    other = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="events never change"):
        other.execute("UPDATE events SET cause = 'z'")
    with pytest.raises(sqlite3.IntegrityError, match="events are never lost"):
        other.execute("DELETE FROM events")
    other.close()
    assert kinds(file_store) == ["a", "b"]


def test_events_by_workload_and_after_a_number(store: Store) -> None:
    store.append(*(Event(f"e{i}", "x", "a" if i % 2 else "b", cycle=i) for i in range(6)))
    assert kinds(store, workload_id="a") == ["e1", "e3", "e5"]
    assert kinds(store, workload_id="a", after=2) == ["e3", "e5"]
    assert kinds(store, after=3, limit=2) == ["e3", "e4"]
    assert store.last_cycle() == 5


def test_everything_is_there_after_reopening(path: Path) -> None:
    store = Store(path)
    calibration = Calibration()
    assert calibration.observe(Subject("train", "bert", "T4", "fp32"), 2, "b4", 3.0, (1.0, 0.5, *REST), 0.1)
    assert calibration.observe(Subject("train", "bert", "A100", "fp32"), 1, "b4", 3.0, (1.0, 0.0, *REST))
    calibration.observe_overhead("train", "bert", 2, 12.0)
    store.add([FULL], [Event("submitted", "x", "full", 9)])
    store.save_calibration(calibration)
    store.set_setting("a", "1")
    store.set_setting("a", "2")
    store.close()
    again = Store(path)
    assert again.get("full") == FULL
    assert again.events() == [Event("submitted", "x", "full", 9, sequence=1)]
    assert again.load_calibration() == calibration
    assert list(again.load_calibration().points) == list(calibration.points), "the oldest are forgotten first"
    assert (again.setting("a"), again.setting("b"), again.last_cycle()) == ("2", None, 9)
    again.close()


def test_what_was_put_is_there_for_another_process_at_once(file_store: Store, path: Path) -> None:
    file_store.add([record("a")], [Event("submitted", "x", "a")])
    other = Store(path)  # as after kill -9: nothing was closed
    assert other.get("a") == record("a")
    other.close()


def test_calibration_is_replaced_whole(store: Store) -> None:
    first, second = Calibration(), Calibration()
    first.observe(Subject("train", "bert", "T4", "fp32"), 2, "b4", 3.0, (1.0, 0.0, *REST))
    second.observe_overhead("train", "bert", 1, 9.0)
    store.save_calibration(first)
    store.save_calibration(second)
    assert store.load_calibration() == second


def test_another_schema_version_is_refused(path: Path) -> None:
    Store(path).close()
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    other.close()
    with pytest.raises(
        StoreError, match=f"schema version {SCHEMA_VERSION + 1}; this Raywise reads version {SCHEMA_VERSION}"
    ):
        Store(path)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_another_file_in_its_place_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)):
        Store(path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        Store(tmp_path / "none" / "raywise.db")


def test_a_full_disk_is_said_and_what_was_there_stays(file_store: Store) -> None:
    file_store.add([record("a")], [])
    with file_store.database.transaction() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        db.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        file_store.append(*(Event("big", "x" * 10_000, "a", cycle=number) for number in range(1000)))
    assert file_store.events() == []
    assert file_store.get("a") == record("a")


def test_many_threads_may_write(store: Store) -> None:
    def write(name: str) -> None:
        for number in range(20):
            store.append(Event(f"{name}{number}", "x", name))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = store.events()
    assert [event.sequence for event in events] == list(range(1, 81))
    assert [e.kind for e in events if e.workload_id == "a"] == [f"a{i}" for i in range(20)]


def test_a_page_has_the_newest_and_says_where_the_next_begins(store: Store) -> None:
    store.add([record(f"w{number}", spec={"queue": "a" if number % 2 else "b"}) for number in range(5)], [])
    first = store.page(Filter(), limit=2)
    assert [r.id for r in first.records] == ["w4", "w3"]
    second = store.page(Filter(), before=first.next_before, limit=2)
    assert [r.id for r in second.records] == ["w2", "w1"]
    assert [r.id for r in store.page(Filter(), before=second.next_before, limit=2).records] == ["w0"]
    assert store.page(Filter(), before=second.next_before, limit=2).next_before is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(states=["queued"]), ["b"]),
        (Filter(kinds=["train"]), []),
        (Filter(owner="eve"), ["c"]),
        (Filter(queue="night"), ["c", "b"]),
        (Filter(pipeline_id="p"), ["b"]),
        (Filter(name_contains="%"), []),
        (Filter(name_contains="b"), ["b"]),
        (Filter(since_s=6.0), ["c"]),
        (Filter(owner="admin", queue="night"), ["b"]),
    ],
)
def test_a_page_is_filtered(store: Store, wanted: Filter, found: list[str]) -> None:
    night = {"queue": "night"}
    others = [record("b", "queued", spec=night, pipeline_id="p"), record("c", spec=night, owner="eve", submitted_s=7.0)]
    store.add([record("a"), *others], [])
    assert [r.id for r in store.page(wanted).records] == found


def test_workloads_are_counted_with_their_dollars(store: Store) -> None:
    store.add([record("a"), record("b", spent_usd=1.5), record("c", "queued")], [])
    assert store.counts() == {("pending", "command", "default"): (2, 1.5), ("queued", "command", "default"): (1, 0.0)}


def test_what_belongs_to_the_user_is_only_changed_for_the_user(store: Store) -> None:
    store.add([record("a", "queued")], [])
    changed = store.change("a", Event("changed", "x", "a"), paused=True, budget_usd=2.0)
    assert changed == record("a", "queued", paused=True, budget_usd=2.0)
    store.put_all([(record("a", "starting"), [Event("starting", "x", "a")])])
    assert store.get("a") == record("a", "starting", paused=True, budget_usd=2.0)
    with pytest.raises(ValueError, match="not the user's: state"):
        store.change("a", Event("changed", "x", "a"), state="failed")
    assert store.change("nobody", Event("changed", "x", "nobody"), paused=True) is None
    assert kinds(store) == ["changed", "starting"]


def test_several_changes_are_one(store: Store) -> None:
    store.add([record("a"), record("b")], [])
    with pytest.raises(IllegalTransitionError):
        store.put_all([(record("a", "queued"), [Event("queued", "x", "a")]), (record("b", "succeeded"), [])])
    assert (store.get("a"), store.get("b"), store.events()) == (record("a"), record("b"), [])


def test_an_idempotency_key_is_its_owners_and_taken_once(store: Store) -> None:
    store.add([record("a", owner="eve")], [], ("key", "digest"))
    store.add([record("b", owner="bob")], [], ("key", "digest"))
    assert (store.accepted("eve", "key"), store.accepted("bob", "key")) == (("digest", "a"), ("digest", "b"))
    assert store.accepted("eve", "other") is None
    with pytest.raises(StoreError, match=r"(?i)unique"):
        store.add([record("c", owner="eve")], [], ("key", "another"))
    assert store.get("c") is None


def test_a_charge_is_written_once(store: Store) -> None:
    store.add([record("a", "running")], [])
    charge = Charge("a", 1, "2026-11-27", "T4", "eve", "default", 60.0, 0.5)
    store.put(record("a", "queued"), charges=[charge, replace(charge, day="2026-11-28", usd=None)])
    store.put(record("a", "starting"), charges=[charge])
    assert store.charges() == [charge, replace(charge, day="2026-11-28", usd=None)]
    assert store.charges(since="2026-11-28") == [replace(charge, day="2026-11-28", usd=None)]


def test_two_services_cannot_have_one_postgresql_database(server: Server) -> None:
    url = server.url("alone")
    first = Store(url)
    with pytest.raises(StoreError, match="another service works with this database"):
        Store(url)
    Store(url, exclusive=False).close()
    first.close()
    Store(url).close()


def test_a_server_that_crashed_and_came_back_is_gone_on_with() -> None:
    with running() as own:
        store = Store(own.url("crash"))
        store.add([record("a")], [Event("submitted", "x", "a")])
        own.stop()
        with pytest.raises(StoreError):
            store.put(record("a", "queued"), Event("queued", "x", "a"))
        own.start()
        assert store.events() == [Event("submitted", "x", "a", sequence=1)]
        store.put(record("a", "queued"), Event("queued", "x", "a"))
        assert store.get("a") == record("a", "queued")
        store.close()


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StoreError) as refused:
        Store("postgresql://raywise:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(refused.value)
    assert "127.0.0.1:1/none" in str(refused.value)
    with pytest.raises(StoreError, match="no such store") as wrong:
        Store("mysql://raywise:hunter2@host/x")
    assert "hunter2" not in str(wrong.value)


def test_so_many_ids_are_looked_at_and_no_more(store: Store) -> None:
    store.add([record(f"p-{n}") for n in range(9)] + [record("s-1", pipeline_id="p-p")], [])
    assert store.ids("p-", limit=3) == ["p-0", "p-1", "p-2", "p-p"]
    assert store.ids("x", limit=3) == []


def test_charges_are_added_up_by_the_database(store: Store) -> None:
    store.add([record("a")], [])
    charges = [
        Charge("a", 1, "2026-11-26", "T4", "eve", "default", 60.0, 0.5),
        Charge("a", 2, "2026-11-27", "T4", "eve", "default", 40.0, 0.25),
        Charge("b", 1, "2026-11-27", "FPGA", "bob", "night", 10.0, None),
    ]
    store.put(record("a", "queued"), Event("queued", "x", "a"), charges=charges)
    assert store.spending() == [Spending((), 110.0, 0.75, 10.0)]
    assert store.spending(["owner"]) == [Spending(("bob",), 10.0, 0.0, 10.0), Spending(("eve",), 100.0, 0.75, 0.0)]
    assert store.spending(["day", "device_type"], since="2026-11-27", owner="eve", queue=None) == [
        Spending(("2026-11-27", "T4"), 40.0, 0.25, 0.0)
    ]
    assert store.spending(until="2026-11-25") == []


def test_the_last_cause_of_each_workload_comes_in_one_answer(store: Store) -> None:
    store.append(*(Event("retry", f"{n}", name) for n in (1, 2) for name in ("a", "b")), Event("queued", "x", "a"))
    assert store.last_causes(["a", "b", "c"], "retry") == {"a": "2", "b": "2"}
    assert store.last_causes([], "retry") == {}
    assert [event.cause for event in store.events(workload_ids=["a"], kinds=["retry"])] == ["1", "2"]


def test_a_users_change_between_a_commit_and_its_being_known_waits_and_nothing_is_overwritten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([record("a", state="queued")], [])
    user = threading.Thread(target=lambda: store.change("a", Event("pause-requested", "x", "a"), paused=True))
    known = Store._committed

    def slow(self: Store, records: Mapping[str, Record], sequence: int) -> None:
        if not user.ident:
            user.start()
            user.join(0.2)
            assert user.is_alive(), "it wrote over what it did not know"
        known(self, records, sequence)

    monkeypatch.setattr(Store, "_committed", slow)
    store.put(record("a", state="starting", attempt=1), Event("starting", "x", "a"))
    user.join(10.0)
    (live,) = store.select(states=["starting", "queued"])
    assert (live.state, live.attempt, live.paused) == ("starting", 1, True)
    (stored,) = store.page(Filter()).records
    assert stored == live
