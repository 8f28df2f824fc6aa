"""The keeper of a local cluster: what it mends, in which order, and how long it waits between two tries."""

from __future__ import annotations

import threading

import pytest

from cluster.keeper import Keeper
from cluster.local import ClusterStartError


class FakeLocal:
    """Nodes that die when a test says so."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.mended: list[str] = []
        self.fails = False
        self.abandoned = threading.Event()

    def missing(self) -> list[str]:
        return [name for name in ("head", "t4", "a100") if name in self.dead]

    def mend(self, name: str) -> None:
        self.mended.append(name)
        if self.fails:
            raise ClusterStartError(f"node {name} did not start: as the test wanted")
        self.dead -= {"head", "t4", "a100"} if name == "head" else {name}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def local() -> FakeLocal:
    return FakeLocal()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(local: FakeLocal, clock: Clock) -> Keeper:
    return Keeper(local, clock)  # type: ignore[arg-type]


def test_a_whole_cluster_is_left_alone(keeper: Keeper, local: FakeLocal) -> None:
    assert keeper.look() == []
    assert local.mended == []


def test_every_node_that_is_missing_is_brought_back(keeper: Keeper, local: FakeLocal) -> None:
    local.dead = {"a100", "t4"}
    assert keeper.look() == ["t4", "a100"]
    assert keeper.look() == []


def test_with_the_head_everything_is_brought_back_in_one_go(keeper: Keeper, local: FakeLocal) -> None:
    local.dead = {"head", "t4"}
    assert keeper.look() == ["head"]
    assert local.mended == ["head"]


def test_what_does_not_start_is_tried_after_pauses_that_double_up_to_a_minute(
    keeper: Keeper, local: FakeLocal, clock: Clock
) -> None:
    local.dead, local.fails = {"t4"}, True
    tried = []
    for second in range(200):
        clock.now_s = float(second)
        before = len(local.mended)
        assert keeper.look() == []
        if len(local.mended) > before:
            tried.append(second)
    assert tried == [0, 2, 6, 14, 30, 62, 122, 182]


def test_what_dies_again_and_again_has_pauses_too_and_what_was_calm_is_mended_at_once(
    keeper: Keeper, local: FakeLocal, clock: Clock
) -> None:
    for now_s, back in (
        (0.0, True),
        (1.0, False),
        (2.0, True),
        (5.0, False),
        (6.0, True),
        (200.0, True),
        (201.0, False),
    ):
        local.dead, clock.now_s = {"t4"}, now_s
        assert keeper.look() == (["t4"] if back else []), now_s


def test_one_that_does_not_start_does_not_keep_the_others_waiting(
    keeper: Keeper, local: FakeLocal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = local.mend

    def only_a100(name: str) -> None:
        if name == "t4":
            raise ClusterStartError("no")
        mend(name)

    monkeypatch.setattr(local, "mend", only_a100)
    local.dead = {"t4", "a100"}
    assert keeper.look() == ["a100"]


def test_who_is_told_hears_of_each_node_and_after_the_stop_nothing_is_started(local: FakeLocal, clock: Clock) -> None:
    told: list[str] = []
    keeper = Keeper(local, clock, on_mended=told.append)  # type: ignore[arg-type]
    local.dead = {"t4"}
    keeper.look()
    assert told == ["t4"]
    keeper.stop()
    local.dead = {"a100"}
    assert keeper.look() == []
    assert local.abandoned.is_set()
