"""What a pending step needs is read until it has ended, and then no more."""

from __future__ import annotations

from scheduler.engine.needs import Needs
from scheduler.store import Record
from scheduler.store.memory import MemoryStore


class Counting(MemoryStore):
    """Notes what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, workload_id: str) -> Record | None:
        self.asked.append(workload_id)
        return super().get(workload_id)


def made(name: str, state: str = "pending", *needs: str) -> Record:
    return Record(name, name, "command", {}, state, 0.0, "/o", "/r", needs=needs)  # type: ignore[arg-type]


def test_what_has_ended_is_asked_for_once_as_long_as_somebody_needs_it() -> None:
    store = Counting()
    store.add([made("over", "succeeded"), made("goes", "running"), made("x", "pending", "over", "goes", "never")], [])
    needs, pending = Needs(store), store.select(states=["pending"])
    for _ in range(3):
        ((record, found),) = needs.of(pending)
        assert (record.id, [need.id for need in found]) == ("x", ["over", "goes"])
    assert (store.asked.count("over"), store.asked.count("goes")) == (1, 3)
    assert list(needs.of([])) == []
    list(needs.of(pending))
    assert store.asked.count("over") == 2, "nobody needed it in between"
