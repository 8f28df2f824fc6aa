"""The store in memory says what the one on disk says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler.estimate.calibration import Calibration
from scheduler.estimate.device_rates import DeviceRates
from scheduler.states import IllegalTransitionError
from scheduler.store import Event, MemoryStore, Record, Store


def record(name: str, state: Any = "queued") -> Record:
    return Record(name, name, "command", {"kind": "command", "name": name, "command": "x"}, state, 0.0, "/o", "/r")


@pytest.fixture(params=[MemoryStore, lambda: Store(":memory:")], ids=["in memory", "on disk"])
def store(request: pytest.FixtureRequest) -> MemoryStore | Store:
    made: MemoryStore | Store = request.param()
    made.add([record("a"), record("b"), record("c")], [Event("submitted", "a user", "a", cycle=1)])
    return made


def names(found: Any) -> list[str]:
    return [each.id for each in found]


def test_records_and_states(store: MemoryStore | Store) -> None:
    store.put(replace(record("b"), state="starting"), Event("starting", "placed", "b", cycle=7))
    assert names(store.select(states=["queued"])) == ["a", "c"]
    assert names(store.select(states=("starting", "queued"))) == ["a", "b", "c"]
    store.put(replace(record("a"), state="failed"))
    assert names(store.select(states=["failed"])) == ["a"]
    assert sorted(names(store.select())) == ["a", "b", "c"]
    found = store.get("a")
    assert found is not None and found.state == "failed"
    assert store.get("z") is None
    assert store.last_cycle() == 7
    assert [event.kind for event in store.events()] == ["submitted", "starting"]
    assert [event.sequence for event in store.events()] == [1, 2]


def test_moves_that_the_table_does_not_have(store: MemoryStore | Store) -> None:
    with pytest.raises(IllegalTransitionError):
        store.put(replace(record("a"), state="succeeded"))
    found = store.get("a")
    assert found is not None and found.state == "queued"


def test_what_was_learnt(store: MemoryStore | Store) -> None:
    calibration = Calibration()
    calibration.observe_overhead("train", "bert", 2, 20.0)
    store.save_calibration(calibration, {"T4": DeviceRates("T4", {"fp32": 1e12})})
    store.save_calibration(calibration)
    assert store.load_calibration().entries == calibration.entries
    assert store.load_device_rates() == {"T4": DeviceRates("T4", {"fp32": 1e12})}


def test_an_id_is_taken_once() -> None:
    store = MemoryStore(keep_events=False)
    store.add([record("a")], [Event("submitted", "a user", "a", cycle=3)])
    with pytest.raises(ValueError, match="a already"):
        store.add([record("a")], [])
    assert (store.events(), store.last_cycle()) == ([], 3)
