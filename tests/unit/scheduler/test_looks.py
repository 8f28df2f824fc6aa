"""What an attempt is charged for that went away while no service looked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.fake import Script
from scheduler.engine.looks import NOTED_EVERY_S, Looks
from scheduler.store import MemoryStore, Record, Store
from world import World

LONG = Script(run_s=1e6)


class Counting(MemoryStore):
    """Says how often a look was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[float] = []

    def save_last_look(self, at_s: float) -> None:
        super().save_last_look(at_s)
        self.saved.append(at_s)


def record(started_s: float | None) -> Record:
    return Record("a", "a", "command", {}, "running", 0.0, "/out", "/run", attempt=1, started_s=started_s)


def test_what_was_lost_while_the_service_was_down_is_charged_until_it_was_seen_last() -> None:
    world = World()
    world.submit("a", script=[LONG, Script(run_s=1.0)])
    world.cycle()
    begun_s = world.get("a").started_s
    assert begun_s is not None
    for _ in range(300):
        world.cycle()
    seen_s = world.now_s
    world.cluster.forget("a")
    world.restart()
    world.cycle(5000.0)
    charged_s = world.get("a").spent_s
    assert seen_s - begun_s - NOTED_EVERY_S <= charged_s <= seen_s - begun_s
    assert sum(charge.device_s for charge in world.store.charges()) == pytest.approx(charged_s)


@pytest.mark.parametrize(
    ("started_s", "said_s", "until_s"),
    [
        (1000.0, None, 5000.0),
        (1000.0, 4000.0, 5000.0),
        (1000.0, 5500.0, 5500.0),
        (5001.0, None, 5001.0),
        (None, None, 0.0),
    ],
    ids=["it was there then", "its last word came before", "after it", "it began after it", "it never began"],
)
def test_no_more_is_charged_than_was_seen(started_s: float | None, said_s: float | None, until_s: float) -> None:
    store = MemoryStore()
    store.save_last_look(5000.0)
    assert Looks(store).last_s(record(started_s), said_s, 9000.0) == until_s


def test_a_look_from_the_future_says_nothing() -> None:
    store = MemoryStore()
    store.save_last_look(5000.0)
    assert Looks(store).last_s(record(1000.0), None, 4000.0) == 1000.0, "the clock was set back"


def test_a_look_is_stored_once_a_minute() -> None:
    store = Counting()
    looks = Looks(store)
    for second in range(1000, 1000 + 200):
        for run_id in ("a", "b"):
            looks.saw(run_id, float(second))
    assert store.saved == [1000.0, 1060.0, 1120.0, 1180.0]
    looks.saw("a", 500.0)
    assert store.saved[-1] == 500.0, "the clock was set back"


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda path: Store(path / "db")], ids=["memory", "disk"])
def test_a_store_keeps_it(make: Callable[[Path], Store | MemoryStore], tmp_path: Path) -> None:
    store = make(tmp_path)
    assert store.load_last_look() is None
    store.save_last_look(12.5)
    store.save_last_look(1_764_300_000.25)
    assert store.load_last_look() == 1_764_300_000.25
