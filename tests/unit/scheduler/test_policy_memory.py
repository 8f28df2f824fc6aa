"""A policy's own notes: from cycle to cycle, over a restart, and where they cannot be kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scheduler.engine import policy_memory
from scheduler.engine.policy_memory import PolicyMemory
from scheduler.store import MemoryStore, Store
from scheduler.types import Plan, Situation
from world import World

NOTES = {"began_s": 12.5, "places": {"a": [["T4", "n1"]]}, "never": None}


class Writing:
    """Plans nothing, notes what it is told to and remembers what it was handed."""

    name = "writing"

    def __init__(self, notes: Any = None) -> None:
        self.notes: Any = {} if notes is None else notes
        self.handed: list[Mapping[str, Any]] = []

    def plan(self, situation: Situation) -> Plan:
        self.handed.append(situation.memory)
        return Plan(situation.cycle, {}, {}, memory=self.notes)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world takes a policy as it is where a name is asked for."""
    monkeypatch.setattr("world.create", lambda policy: policy)


def world_of(policy: Any, path: Path | str = ":memory:") -> World:
    return World(path, policy=policy)


def reopened(world: World, policy: Any, path: Path) -> World:
    world.store.close()
    return world_of(policy, path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_notes_outlive_the_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = world_of(Writing(NOTES), tmp_path / "db")
    world.cycle()
    after = Writing()
    world = reopened(world, after, tmp_path / "db")
    world.cycle()
    world.cycle()
    assert after.handed == [NOTES, {}], "and what it notes now takes their place"
    assert not warnings(caplog)
    world.store.close()


def test_notes_are_written_where_they_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Writing()
    world = world_of(policy)
    written: list[str] = []
    save = world.store.save_policy_memory
    monkeypatch.setattr(world.store, "save_policy_memory", lambda text: (written.append(text), save(text)))
    world.cycle()
    assert written == [], "no notes, nothing to write"
    for notes in (NOTES, dict(NOTES), {**NOTES, "began_s": 13.0}, {}, {}):
        policy.notes = notes
        world.cycle()
    assert len(written) == 3
    world.store.close()


def test_a_policy_cannot_change_what_was_handed_over() -> None:
    class Scribbling(Writing):
        def plan(self, situation: Situation) -> Plan:
            plan = super().plan(situation)
            if situation.memory:
                situation.memory["places"]["a"].append("scribble")
            return plan

    policy = Scribbling({"places": {"a": []}})
    world = world_of(policy)
    world.cycle()
    policy.notes["places"]["a"].append("later")
    report = world.cycle()
    assert report is not None
    assert report.situation.memory == {"places": {"a": []}}, "as it was when the last cycle ended"
    world.store.close()


FOREIGN = [
    ("nonsense", "{not json"),
    ("no object", "[1, 2]"),
    ("of another shape", '{"places": {}}'),
    ("notes that are none", '{"policy": "writing", "memory": 3}'),
    ("of another policy", '{"policy": "gavel-las", "memory": {"places": {}}}'),
]


@pytest.mark.parametrize("text", [row[1] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_foreign_notes_are_left_out_with_a_warning(text: str, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    store.save_policy_memory(text)
    memory = PolicyMemory(store, "writing")
    assert memory.handed_over() == {}
    assert len(warnings(caplog)) == 1
    assert "starts without them" in warnings(caplog)[0]
    memory.keep(NOTES)
    assert PolicyMemory(store, "writing").handed_over() == NOTES


def test_long_notes_are_handed_over_and_not_stored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(policy_memory, "MAX_CHARACTERS", 100)
    store = MemoryStore()
    memory = PolicyMemory(store, "writing")
    memory.keep(NOTES)
    for length in (200, 300):
        memory.keep({"long": "x" * length})
        assert memory.handed_over() == {"long": "x" * length}
        assert PolicyMemory(store, "writing").handed_over() == {}, "older ones would be wrong"
    assert [text for text in warnings(caplog) if "too long" in text] == warnings(caplog)
    assert len(warnings(caplog)) == 1, "it is told once"
    memory.keep(NOTES)
    assert PolicyMemory(store, "writing").handed_over() == NOTES


def test_what_json_cannot_hold_is_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    memory = PolicyMemory(MemoryStore(), "writing")
    memory.keep({"a set": {1, 2}})
    assert memory.handed_over() == {}
    assert "not plain values" in warnings(caplog)[0]


class Choking(Writing):
    """Cannot read what a version before it has noted."""

    def plan(self, situation: Situation) -> Plan:
        if "old" in situation.memory or self.notes == "broken":
            raise KeyError("new")
        return super().plan(situation)


def test_notes_that_make_the_policy_fail_do_not_stop_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = world_of(Writing({"old": 1}), tmp_path / "db")
    world.cycle()
    policy = Choking({"new": 1})
    world = reopened(world, policy, tmp_path / "db")
    report = world.cycle()
    assert report is not None
    assert (report.situation.memory, policy.handed) == ({}, [{}])
    assert "fails with the notes of the last service" in warnings(caplog)[0]
    policy.notes = "broken"
    with pytest.raises(KeyError):  # a policy that fails by itself is no matter of its notes
        world.cycle()
    world.store.close()


def test_both_stores_keep_them() -> None:
    for store in (MemoryStore(), Store(":memory:")):
        assert store.load_policy_memory() is None
        store.save_policy_memory("{}")
        assert store.load_policy_memory() == "{}"
