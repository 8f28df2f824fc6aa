"""Packing: no node is ever overfilled, the choice is the one that a scoring of every node gives, and gangs are whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy.packing import Demand, Nodes, Packer, Request, Room, Space, Spot, Stranding, typical

TYPES = ("A", "B")

rooms = st.lists(
    st.tuples(
        st.sampled_from(TYPES),
        st.lists(st.sampled_from([0, 190, 500, 1000]), max_size=4),
        st.integers(0, 16),
        st.integers(0, 16),
    ),
    min_size=1,
    max_size=6,
).map(lambda drawn: [Room((name,) * len(free), tuple(free), cpu, memory) for name, free, cpu, memory in drawn])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    devices = draw(st.integers(0, 3))
    milli = draw(st.sampled_from([160, 500, 810, 1000])) if devices == 1 else 1000
    types = draw(st.sampled_from([frozenset(), frozenset({"A"}), frozenset({"B", "unheard-of"})]))
    return Request(devices, milli, draw(st.integers(0, 6)), draw(st.integers(0, 6)), types)


def packer(nodes: Nodes, wanted: list[Request]) -> Packer:
    return Packer(nodes, Stranding(Demand(Counter(wanted), nodes.types)))


@given(rooms, st.lists(requests(), max_size=25))
def test_no_node_is_overfilled_and_nothing_is_refused_that_fits(there: list[Room], wanted: list[Request]) -> None:
    nodes = Nodes(there)
    packing, held = packer(nodes, wanted), list[Spot]()
    for request in wanted:
        spot = packing.choose(request)
        assert (spot is None) == (not nodes.fits(request).any())
        if spot is not None:
            nodes.take(spot)
            held.append(spot)
    for row, room in enumerate(there):
        ours = [spot for spot in held if spot.node == row]
        assert sum(spot.request.cpu for spot in ours) <= room.cpu
        assert sum(spot.request.memory for spot in ours) <= room.memory
        for device, free in enumerate(room.milli):
            assert sum(spot.request.milli for spot in ours if device in spot.devices) <= free
        for spot in ours:
            assert len(set(spot.devices)) == spot.request.devices
            assert not spot.request.types or {room.types[device] for device in spot.devices} <= spot.request.types


@given(rooms, st.lists(st.tuples(requests(), st.booleans()), max_size=20))
def test_what_is_remembered_of_scores_changes_no_choice(there: list[Room], moves: list[tuple[Request, bool]]) -> None:
    nodes, wanted = Nodes(there), [request for request, _ in moves]
    remembering, held = packer(nodes, wanted), list[Spot]()
    for request, gives_back in moves:
        spot = remembering.choose(request)
        assert spot == packer(nodes, wanted).choose(request)
        if spot is not None:
            nodes.take(spot)
            held.append(spot)
        if gives_back and held:
            nodes.give_back(held.pop(0))


@given(rooms, requests(), st.integers(1, 6))
def test_a_gang_is_whole_or_none_and_asking_takes_nothing(there: list[Room], shard: Request, count: int) -> None:
    nodes = Nodes(there)
    before = (nodes.free.copy(), nodes.cpu.copy(), nodes.memory.copy())
    spots = packer(nodes, [shard]).gang(shard, count)
    for array, was in zip((nodes.free, nodes.cpu, nodes.memory), before, strict=True):
        assert np.array_equal(array, was)
    if spots is None:
        return
    assert len(spots) == count
    for spot in spots:
        nodes.take(spot)  # raises where it is not free


def test_a_gang_goes_to_as_few_nodes_as_hold_it() -> None:
    nodes = Nodes([Room(("A",) * free, (1000,) * free, 99, 99) for free in (1, 2, 3, 4)])
    shard = Request(1)
    for count, on in ((4, {3}), (3, {2}), (6, {1, 3}), (7, {2, 3}), (10, {0, 1, 2, 3})):
        spots = packer(nodes, [shard]).gang(shard, count)
        assert spots is not None
        assert {spot.node for spot in spots} == on, count
    assert packer(nodes, [shard]).gang(shard, 11) is None


def test_a_share_goes_beside_another_share() -> None:
    nodes = Nodes([Room(("A", "A"), (1000, 1000), 8, 8), Room(("A", "A"), (500, 1000), 8, 8)])
    half, whole = Request(1, 500, 1), Request(1, 1000, 1)
    assert packer(nodes, [half, whole]).choose(half) == Spot(1, (0,), half)


def test_work_with_much_cpu_goes_where_cpu_is_plentiful() -> None:
    poor, rich = Room(("A",) * 4, (1000,) * 4, 12, 99), Room(("A",) * 4, (1000,) * 4, 64, 99)
    light, heavy = Request(1, 1000, 4), Request(1, 1000, 16)
    packing = packer(Nodes([poor, rich]), [light, light, light, heavy])
    chosen = packing.choose(heavy)
    assert chosen is not None and chosen.node == 1
    chosen = packing.choose(light)
    assert chosen is not None and chosen.node == 0


def test_stranded_is_what_typical_demand_cannot_use() -> None:
    demand = Demand({Request(1, 500, 2): 3.0, Request(2, 1000, 4): 1.0}, ("A",))
    space = Space(np.array([[1000.0, 700.0]]), np.array([[0, 0]]), np.array([3.0]), np.array([0.0]))
    # Halves, weight 3/4: both devices have room for one more; CPU for 1.5 copies, so 750 of 1700.
    # Pairs, weight 1/4: no second whole device, nothing is usable.
    expected = 0.75 * (1700 - 1700) + 0.25 * 1700 + 0.75 * (1700 - 750) + 0.25 * 1700
    assert Stranding(demand).stranded(space) == pytest.approx([expected])


def test_demand_keeps_the_heaviest() -> None:
    seen = {Request(1): 90.0, Request(2): 6.0, Request(4): 4.0}
    assert [request.devices for request, _ in typical(seen, 0.95)] == [1, 2]
    assert typical({}, 0.95) == []
    assert len(Demand(seen, ("A",), share=0.95)) == 2


def test_what_is_not_free_cannot_be_taken() -> None:
    nodes = Nodes([Room(("A",), (500,), 4, 4)])
    for request, devices in ((Request(1, 600), (0,)), (Request(1, 100, cpu=5), (0,)), (Request(2, 100), (0, 0))):
        with pytest.raises(ValueError, match="node 0 has no room"):
            nodes.take(Spot(0, devices, request))
    assert nodes.free.tolist() == [[500]]


def test_an_empty_cluster_holds_nothing() -> None:
    assert packer(Nodes([]), []).choose(Request(1)) is None
    assert packer(Nodes([Room((), (), 4, 4)]), []).choose(Request(0, cpu=1)) == Spot(0, (), Request(0, cpu=1))
