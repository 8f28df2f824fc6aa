"""What the simple policies that rent place, ask for and give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cluster.types import Node, NodeType, Snapshot
from making import TYPES, est, node, placed, situation, snapshot, view
from scheduler.policy import create
from scheduler.types import Plan, WorkloadView

A100_8 = NodeType("a100-8", (("A100", 8),), 32.0, most=4)
T4_1 = NodeType("t4-1", (("T4", 1),), 0.5, most=8)
T4_4 = NodeType("t4-4", (("T4", 4),), 4.0, most=4)
ALL = (A100_8, T4_1, T4_4)


def where(*nodes: Node, types: Sequence[NodeType] = ALL, cap: float | None = None) -> Snapshot:
    kinds = {name: TYPES[name] for name in ("A100", "T4")}
    return replace(snapshot(*nodes), device_types=kinds, node_types=tuple(types), rent_cap_usd_h=cap)


def one(name: str = "w", seconds: float = 3600.0) -> WorkloadView:
    """One device; four times as fast on an A100, which costs eight times as much."""
    return view(name, est(seconds / 4, A100=1), est(seconds, T4=1), submitted_s=float(len(name)))


def gang(name: str, count: int) -> WorkloadView:
    return view(name, est(900.0, A100=count), est(3600.0, T4=count))


def plan(policy: str, at: Snapshot, *views: WorkloadView, now_s: float = 1000.0, **memory: object) -> Plan:
    return create(policy).plan(situation(at, *views, now_s=now_s, memory=memory))


def asked(found: Plan) -> dict[str, int]:
    return {each.node_type: each.count for each in found.requests}


def released(found: Plan) -> list[str]:
    return [each.node_id for each in found.releases]


# Ray's scoring

ASKED_BY_RAY: dict[str, tuple[Snapshot, list[WorkloadView], dict[str, int]]] = {
    "one device: the node that it fills, whatever that costs": (where(), [one()], {"t4-1": 1}),
    "of two that are filled as well, the one that is listed first": (
        where(types=(replace(T4_1, name="dear", price_usd_h=9.0), T4_1)),
        [one()],
        {"dear": 1},
    ),
    "eight single devices: one large node that they fill": (
        where(),
        [one(f"{'w' * n}") for n in range(1, 9)],
        {"a100-8": 1},
    ),
    "two single devices: small nodes, as they fill half of the next": (where(), [one("a"), one("bb")], {"t4-1": 2}),
    "three: three quarters of a larger one count for more than a small one that is full": (
        where(),
        [one("a"), one("bb"), one("ccc")],
        {"t4-4": 1},
    ),
    "a gang of four: the node that it fills": (where(), [gang("g", 4)], {"t4-4": 1}),
    "a gang of five: a full node of four and one beside it": (
        where(types=(T4_1, T4_4)),
        [gang("g", 5)],
        {"t4-1": 1, "t4-4": 1},
    ),
    "nothing for who is served by what is on its way": (
        where(types=(replace(T4_1, joins_s=(1100.0,)),)),
        [one()],
        {},
    ),
    "nothing while the type is not to be had, and no other instead": (
        where(types=(replace(T4_1, unavailable_until_s=1e6), A100_8)),
        [one()],
        {},
    ),
    "no more than may be": (where(types=(replace(T4_1, most=1),)), [one("a"), one("bb")], {"t4-1": 1}),
    "nothing over the cap": (where(types=(T4_1,), cap=0.6), [one("a"), one("bb")], {"t4-1": 1}),
    "no half of a gang": (where(types=(T4_1,), cap=1.4), [gang("g", 3)], {}),
}


@pytest.mark.parametrize(("at", "views", "expected"), ASKED_BY_RAY.values(), ids=ASKED_BY_RAY)
def test_what_ray_asks_for(at: Snapshot, views: list[WorkloadView], expected: dict[str, int]) -> None:
    assert asked(plan("ray-autoscaler", at, *views)) == expected


def test_ray_takes_the_first_configuration_that_fits() -> None:
    found = plan("ray-autoscaler", where(A100_8.node("big"), T4_1.node("small")), one())
    assert dict(found.placements) == {"w": placed(("A100", "big"))}
    assert asked(found) == {}


# The cheapest for each alone

ASKED_BY_THE_CHEAPEST: dict[str, tuple[Snapshot, list[WorkloadView], dict[str, int]]] = {
    "the least dollars, boot included": (where(), [one()], {"t4-1": 1}),
    "each alone, though eight would fill the large node": (where(), [one("w" * n) for n in range(1, 9)], {"t4-1": 8}),
    "what is on its way is shared": (
        where(types=(replace(T4_4, joins_s=(1100.0,)), T4_1)),
        [gang("g", 2), one("a")],
        {"t4-1": 3},
    ),
    "a type that is soon to be had is waited for": (
        where(types=(A100_8, replace(T4_1, unavailable_until_s=1100.0))),
        [one()],
        {},
    ),
    "not one that is away for long": (
        where(types=(A100_8, replace(T4_1, unavailable_until_s=9000.0))),
        [one()],
        {"a100-8": 1},
    ),
    "nothing over the cap": (where(cap=0.4), [one()], {}),
}


@pytest.mark.parametrize(("at", "views", "expected"), ASKED_BY_THE_CHEAPEST.values(), ids=ASKED_BY_THE_CHEAPEST)
def test_what_the_cheapest_fit_asks_for(at: Snapshot, views: list[WorkloadView], expected: dict[str, int]) -> None:
    assert asked(plan("cheapest-fit", at, *views)) == expected


def test_the_cheapest_fit_takes_free_devices_at_their_part_of_the_price() -> None:
    """An eighth of the A100's node is cheaper than a T4 of its own: 0.25 h x $4 against (1 h + boot) x $0.5 is not, but
    with a T4 at $2 an hour it is."""
    dear = replace(T4_1, price_usd_h=2.0)
    found = plan("cheapest-fit", where(A100_8.node("big"), types=(A100_8, dear)), one())
    assert dict(found.placements) == {"w": placed(("A100", "big"))}
    assert asked(plan("cheapest-fit", where(A100_8.node("big"), types=(A100_8, T4_1)), one())) == {"t4-1": 1}


@pytest.mark.parametrize("policy", ["ray-autoscaler", "cheapest-fit"])
def test_an_idle_node_goes_back_after_five_minutes_unless_somebody_waits_with_it(policy: str) -> None:
    at = where(T4_1.node("t4-1-a"), T4_1.node("t4-1-b"))
    assert plan(policy, at).memory["idle"] == {"t4-1-a": 1000.0, "t4-1-b": 1000.0}
    idle = {"t4-1-a": 701.0, "t4-1-b": 700.0}
    assert released(plan(policy, at, idle=idle)) == ["t4-1-b"]
    only = where(T4_1.node("t4-1-a"), T4_1.node("t4-1-b"), types=(T4_1,))
    wide = view("g", est(3600.0, T4=3))
    found = plan(policy, only, wide, idle=idle)
    assert (asked(found), released(found)) == ({"t4-1": 1}, []), "a gang waits for the third"


# One instance a task


def test_each_has_nodes_of_its_own() -> None:
    at = where(A100_8.node("big"), T4_4.node("four"))
    found = plan("no-packing", at, one("a"), one("bb"))
    assert (dict(found.placements), asked(found)) == ({}, {"t4-1": 2})
    assert released(found) == ["big", "four"], "nobody wants them"
    joined = where(T4_1.node("x"), T4_1.node("y"))
    found = plan("no-packing", joined, one("a"), one("bb"))
    assert dict(found.placements) == {"a": placed(("T4", "x")), "bb": placed(("T4", "y"))}
    assert (asked(found), released(found)) == ({}, [])


def test_a_gang_waits_for_all_of_its_nodes_and_keeps_those_that_are_there() -> None:
    at = where(T4_1.node("x"), types=(replace(T4_1, joins_s=(1100.0,)),))
    found = plan("no-packing", at, gang("g", 3))
    assert (dict(found.placements), asked(found), released(found)) == ({}, {"t4-1": 1}, [])


def test_nobody_has_a_node_after_another() -> None:
    busy = where(T4_1.node("x"))
    found = plan("no-packing", busy, replace(one("a"), placement=placed(("T4", "x"))))
    assert found.memory["had_work"] == ["x"]
    after = plan("no-packing", busy, one("bb"), had_work=["x"])
    assert (dict(after.placements), asked(after), released(after)) == ({}, {"t4-1": 1}, ["x"])
    assert plan("no-packing", where(), had_work=["x", "gone"]).memory["had_work"] == []


def test_what_stays_is_used_before_anything_is_rented() -> None:
    for policy in ("no-packing", "cheapest-fit", "ray-autoscaler"):
        found = plan(policy, where(node("own", ("T4", 1))), one())
        assert dict(found.placements) == {"w": placed(("T4", "own"))}
        assert asked(found) == {}


def test_without_anything_to_rent_nothing_is_noted() -> None:
    for policy in ("no-packing", "cheapest-fit", "ray-autoscaler"):
        assert plan(policy, where(node("own", ("T4", 1)), types=()), one()).memory == {}
