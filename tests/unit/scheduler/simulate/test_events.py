"""Our own store as a trace: what really ran takes as long as it really took, and what else was weighed as much longer
or shorter as was predicted."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from making import configuration, est, node, snapshot, training
from scheduler.policy import create
from scheduler.simulate.simulator import simulate
from scheduler.simulate.traces import events, read
from scheduler.store import SCHEMA_VERSION, Event, Record, Store
from scheduler.types import Configuration, Estimate, Explanation, Reason
from workloads.errors import SpecError

BEGIN = 1_700_000_000.0
PREDICTED = (est(100, T4=1), est(60, T4=2), est(20, A100=1))


def ran(name: str, spent_s: float, **fields: object) -> Record:
    """A training that really took `spent_s` on one T4."""
    spec = {"kind": "command", "name": name, "command": "x", "objective": "cost", "priority": 3, "queue": "nightly"}
    known: dict[str, object] = {
        "attempt": 1,
        "queued_s": BEGIN + 50,
        "first_started_s": BEGIN + 60,
        "ended_s": BEGIN + 60 + spent_s,
        "spent_s": spent_s,
        "spent_usd": 0.5,
        "price_usd_h": 0.5,
        "estimates": PREDICTED,
        "predicted": PREDICTED[0],
        "work": training(),
    }
    known |= fields
    return Record(name, name, "train", spec, "succeeded", BEGIN, "/out", "/run", **known)  # type: ignore[arg-type]


def stored(folder: Path, records: Sequence[Record], *happened: Event) -> Path:
    store = Store(folder / events.DATABASE)
    store.add(records, happened)
    store.close()
    return folder / events.DATABASE


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        read(path)
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_it_takes_as_long_as_it_took(tmp_path: Path) -> None:
    happened = Event("queued", "ready", "a", 1, BEGIN + 10), Event("queued", "stopped", "a", 9, BEGIN + 500)
    path = stored(tmp_path, [ran("a", 150.0, deadline_s=BEGIN + 1000, budget_usd=2.0)], *happened)
    replay = events.replay(path)
    job = replay.trace.jobs[0]
    assert {held: job.seconds(held) for held in job.configurations} == {
        configuration(T4=1): pytest.approx(150),
        configuration(T4=2): pytest.approx(90),
        configuration(A100=1): pytest.approx(30),
    }
    assert (job.arrives_s, job.deadline_s, job.budget_usd) == (0, 990, 2.0)
    assert (job.priority, job.queue, job.objective, job.family) == (3, "nightly", "cost", "train bert-2x32")
    assert replay.really["a"] == events.Really(configuration(T4=1), 150, 0.5, 50, 200)


def test_start_up_grows_with_what_was_measured(tmp_path: Path) -> None:
    def slow(seconds: float, startup_s: float, **counts: int) -> Estimate:
        return Estimate(configuration(**counts), seconds, startup_s=startup_s)

    weighed = (slow(100, 10, T4=1), slow(50, 20, A100=1))
    job = read(stored(tmp_path, [ran("a", 200.0, estimates=weighed, predicted=weighed[0])])).jobs[0]
    assert job.startup_s == pytest.approx(20)
    assert job.seconds(configuration(T4=1)) == pytest.approx(200 - 20)
    assert job.seconds(configuration(A100=1)) == pytest.approx(100 - 20)


def test_several_attempts_take_the_factor_of_their_family(tmp_path: Path) -> None:
    records = [ran("a", 150.0), ran("b", 250.0), ran("c", 200.0), ran("d", 999.0, attempt=3)]
    other = ran("e", 999.0, attempt=2, work=training(family="other"))
    jobs = {job.id: job for job in read(stored(tmp_path, [*records, other])).jobs}
    assert jobs["d"].seconds(configuration(T4=1)) == pytest.approx(200)
    assert jobs["e"].seconds(configuration(T4=1)) == pytest.approx(100)


def test_what_was_never_predicted_ran_where_it_ran(tmp_path: Path) -> None:
    unknown = Estimate(configuration(T4=1), None)
    chosen = Explanation(configuration(T4=1), "the only one")
    records = [
        ran("a", 70.0, estimates=(unknown,), predicted=unknown, explanation=chosen),
        ran("b", 70.0, estimates=(), predicted=None),
    ]
    replay = events.replay(stored(tmp_path, records))
    assert {job.id: job.seconds(configuration(T4=1)) for job in replay.trace.jobs} == {"a": pytest.approx(70)}
    assert replay.skipped == {"nothing was predicted or measured": 1}


def test_the_impossible_stays_impossible(tmp_path: Path) -> None:
    too_large = Estimate(configuration(TPU=1), 5.0, infeasible=Reason("memory", "too little"))
    job = read(stored(tmp_path, [ran("a", 150.0, estimates=(*PREDICTED, too_large))])).jobs[0]
    assert Configuration.of({"TPU": 1}) not in job.configurations


def test_what_did_not_succeed_is_counted(tmp_path: Path) -> None:
    records = [ran("a", 150.0)]
    records += [replace(ran("f", 10.0), state="failed"), replace(ran("c", 10.0), state="cancelled")]
    records.append(Record("w", "w", "train", {}, "queued", BEGIN, "/out", "/run"))
    assert events.replay(stored(tmp_path, records)).skipped == {"failed": 1, "cancelled": 1, "not ended": 1}


def test_a_folder_is_read_by_its_store_and_an_objective_replaces_all(tmp_path: Path) -> None:
    stored(tmp_path, [ran("a", 150.0)])
    assert read(tmp_path).jobs[0].objective == "cost"
    assert read(tmp_path, objective="time").jobs[0].objective == "time"
    assert read(tmp_path).name == tmp_path.name


def test_reading_changes_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path, [ran("a", 150.0)])
    before = path.read_bytes()
    read(path)
    assert path.read_bytes() == before


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, [Record("w", "w", "train", {}, "queued", BEGIN, "/out", "/run")])
    assert refused(path).startswith("raywise.db: holds no workload to replay (1 not ended)\n  hint: only workloads")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE workloads SET record = '{\"id\": 7}'")
    db.close()
    assert refused(path).startswith("raywise.db: workload w: id: Input should be a valid string\n  hint: the record")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert f"has schema version 1; this Raywise reads {SCHEMA_VERSION}\n  hint: start this" in refused(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert refused(other).startswith("other.db: is a database, but no store of Raywise\n  hint: give")
    cut = tmp_path / "cut.db"
    cut.write_bytes(path.read_bytes()[:5000])
    assert refused(cut).startswith("cut.db: cannot be read as a store: ")


def test_a_step_needs_in_the_replay_what_it_needed(tmp_path: Path) -> None:
    records = [
        ran("prepare", 100.0),
        ran("train", 200.0, needs=("prepare",), queued_s=BEGIN + 400, first_started_s=BEGIN + 410),
        ran("judge", 50.0, needs=("train", "prepare"), queued_s=BEGIN + 700),
    ]
    happened = [Event("queued", "ready", name, 1, BEGIN + at_s) for name, at_s in (("prepare", 2), ("train", 400))]
    trace = read(stored(tmp_path, records, *happened))
    jobs = {job.id: job for job in trace.jobs}
    assert [jobs[name].needs for name in ("prepare", "train", "judge")] == [(), ("prepare",), ("train", "prepare")]
    one = snapshot(node("a", ("T4", 1)))
    result = simulate(trace, one, create("first-fit"))
    came = {each.id: each.arrived_s for each in result.jobs}
    ends = {each.id: each.ended_s for each in result.jobs}
    assert (came["train"], came["judge"]) == (ends["prepare"], ends["train"])
    assert ends["judge"] == pytest.approx(came["prepare"] + 350.0)


def test_a_step_of_what_cannot_be_replayed_comes_when_it_really_did(tmp_path: Path) -> None:
    lacking = ran("prepare", 100.0, estimates=(), predicted=None)
    step = ran("train", 200.0, needs=("prepare",))
    path = stored(tmp_path, [lacking, step, ran("x", 10.0)], Event("queued", "ready", "train", 1, BEGIN + 400))
    arrives = {job.id: job.arrives_s for job in read(path).jobs}
    assert arrives == {"train": 350.0, "x": 0.0}


def test_a_command_stays_on_one_node(tmp_path: Path) -> None:
    both = est(20, T4=2)
    path = stored(tmp_path, [replace(ran("a", 20.0, estimates=(both,), predicted=both), kind="command")])
    trace = read(path)
    assert trace.jobs[0].kind == "command"
    apart = simulate(trace, snapshot(node("a", ("T4", 1)), node("b", ("T4", 1))), create("first-fit"))
    together = simulate(trace, snapshot(node("a", ("T4", 2))), create("first-fit"))
    assert [each.jobs[0].state for each in (apart, together)] == ["queued", "succeeded"]
