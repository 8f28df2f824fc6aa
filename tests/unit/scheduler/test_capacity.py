"""What is free, and where a gang goes."""

from __future__ import annotations

import pytest

from making import configuration, node, placed, snapshot, standard
from scheduler.policy.capacity import Capacity

PLACES = [
    ("one goes to the tightest node", {"T4": 1}, (("T4", "b"),)),
    ("two go to the tightest node that holds both", {"T4": 2}, (("T4", "a"), ("T4", "a"))),
    ("three fit whole on one node", {"T4": 3}, (("T4", "c"),) * 3),
    ("four do not: the emptiest first", {"T4": 4}, (("T4", "c"),) * 3 + (("T4", "a"),)),
    ("two types together", {"T4": 1, "A100": 1}, (("A100", "d"), ("T4", "b"))),
    ("more than there is", {"T4": 9}, None),
    ("one of two types is missing", {"T4": 1, "A100": 2}, None),
    ("a type nobody has", {"Z9": 1}, None),
]


@pytest.fixture
def capacity() -> Capacity:
    return Capacity(
        snapshot(node("a", ("T4", 4, 2)), node("b", ("T4", 1)), node("c", ("T4", 3)), node("d", ("A100", 1)))
    )


@pytest.mark.parametrize(("counts", "devices"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_places(capacity: Capacity, counts: dict[str, int], devices: tuple[tuple[str, str], ...] | None) -> None:
    found = capacity.place(configuration(**counts))
    assert (None if found is None else found.devices) == devices
    assert capacity.fits(configuration(**counts)) == (devices is not None)
    assert capacity.free("T4") == 6, "placing takes nothing"


@pytest.mark.parametrize(
    ("counts", "whole"), [({"T4": 3}, True), ({"T4": 4}, False), ({"T4": 1, "A100": 1}, False), ({"T4": 9}, False)]
)
def test_what_must_be_on_one_node(capacity: Capacity, counts: dict[str, int], whole: bool) -> None:
    found = capacity.place(configuration(**counts), one_node=True)
    assert capacity.fits(configuration(**counts), one_node=True) == whole
    assert (found is not None) == whole
    assert found is None or len({node_id for _, node_id in found.devices}) == 1


def test_taking_and_holding(capacity: Capacity) -> None:
    two = placed(("T4", "a"), ("T4", "a"))
    assert capacity.holds(two)
    capacity.take(two)
    assert capacity.free("T4") == 4
    assert not capacity.holds(placed(("T4", "a")))
    assert capacity.holds(placed(("T4", "b"), ("T4", "c")))
    assert not capacity.holds(placed(("T4", "b"), ("T4", "b")))
    assert not capacity.holds(placed(("T4", "gone")))


def test_what_ray_sees_and_what_we_hold_overlap() -> None:
    where = snapshot(node("a", ("T4", 4, 2)))
    held = placed(("T4", "a"), ("T4", "a"))
    assert Capacity(where, [held]).free("T4") == 2
    assert Capacity(where, [held, placed(("T4", "a"))]).free("T4") == 1
    assert Capacity(where, [placed(*[("T4", "a")] * 9)]).free("T4") == 0


def test_a_reservation_takes_what_is_free_up_to_the_count() -> None:
    capacity = Capacity(standard(), [placed(("T4", "t4-a"))])
    capacity.reserve(configuration(T4=2, A100=1))
    assert (capacity.free("T4"), capacity.free("A100"), capacity.free("cpu")) == (1, 0, 4)
    capacity.reserve(configuration(T4=9))
    assert capacity.free("T4") == 0
