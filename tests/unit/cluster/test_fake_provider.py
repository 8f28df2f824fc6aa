"""The fake provider: nodes join after their launch time, requests may be repeated, failures make a type scarce."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.backoff import FIRST_S, LONGEST_S
from cluster.fake import FakeCluster
from cluster.fake_provider import FakeProvider
from cluster.protocols import NothingToRent, Provider
from cluster.types import DeviceType, Node, NodeType, Snapshot

T4 = DeviceType("T4", "gpu", price_usd_h=0.5)
KIND = NodeType("t4x2", (("T4", 2),), 1.0, most=3, launch_s=100.0)
HEAD = Node("head", "head", is_head=True)


class Rented:
    """A fake cluster with a provider, and the clock."""

    def __init__(self, *nodes: Node, fails: list[bool] | None = None) -> None:
        self.now_s = 0.0
        self.fails = fails or []
        self.joined: list[tuple[str, float]] = []
        snapshot = Snapshot(0.0, (HEAD, *nodes), {"T4": T4}, node_types=(KIND,))
        self.cluster = FakeCluster(snapshot, lambda: self.now_s)
        self.provider = FakeProvider(
            self.cluster,
            lambda: self.now_s,
            lambda _: self.fails.pop(0) if self.fails else False,
            lambda node, at_s: self.joined.append((node.node_id, at_s)),
        )

    def at(self, now_s: float) -> Snapshot:
        self.now_s = now_s
        return self.cluster.snapshot()


def names(snapshot: Snapshot) -> list[str]:
    return [node.node_id for node in snapshot.nodes]


def test_a_node_joins_after_its_launch_time_and_is_paid_for_from_its_request_on() -> None:
    rented = Rented()
    rented.provider.request("t4x2", 2)
    seen = rented.at(0.0)
    assert names(seen) == ["head"]
    assert (seen.node_types[0].joins_s, seen.rented_usd_h()) == ((100.0, 100.0), 2.0)
    assert rented.provider.next_s() == 100.0
    seen = rented.at(150.0)
    assert names(seen) == ["head", "t4x2-1", "t4x2-2"]
    assert (seen.total("T4"), seen.free("T4"), seen.node_types[0].launching) == (4, 4, 0)
    assert rented.joined == [("t4x2-1", 100.0), ("t4x2-2", 100.0)]
    rented.now_s = 1900.0
    rented.provider.release("t4x2-1")
    assert names(rented.at(3600.0)) == ["head", "t4x2-2"]
    assert [each.usd(3600.0) for each in rented.provider.rentals()] == [pytest.approx(1900 / 3600), pytest.approx(1.0)]


def test_every_call_may_be_repeated() -> None:
    rented = Rented()
    for _ in range(3):
        rented.provider.request("t4x2", 2)
    assert rented.at(1.0).node_types[0].launching == 2
    rented.at(200.0)
    rented.provider.request("t4x2", 1)
    assert len(rented.at(201.0).nodes) == 3, "those that are more stay"
    for name in ("t4x2-1", "t4x2-1", "head", "nothing"):
        rented.provider.release(name)
    assert names(rented.at(202.0)) == ["head", "t4x2-2"]


def test_never_more_than_may_be_and_a_name_is_never_used_twice() -> None:
    rented = Rented(replace(KIND.node("t4x2-1"), node_id="t4x2-1"))
    rented.provider.request("t4x2", 99)
    assert names(rented.at(200.0)) == ["head", "t4x2-1", "t4x2-2", "t4x2-3"]
    rented.provider.release("t4x2-3")
    rented.provider.request("t4x2", 3)
    assert names(rented.at(400.0))[-1] == "t4x2-4"
    assert rented.provider.rentals()[0].asked_s == 0.0, "what was there from the start is paid for as well"


def test_a_type_whose_launches_fail_is_not_to_be_had_for_longer_and_longer() -> None:
    rented = Rented(fails=[True] * 10)
    waits = []
    for _ in range(9):
        rented.provider.request("t4x2", 1)
        asked_s = rented.now_s
        until_s = rented.at(asked_s + 100.0).node_types[0].unavailable_until_s
        assert until_s is not None
        waits.append(until_s - rented.now_s)
        rented.provider.request("t4x2", 1)
        assert rented.at(rented.now_s).node_types[0].launching == 0, "not while it is not to be had"
        assert rented.provider.next_s() == until_s
        rented.now_s = until_s
        assert rented.at(until_s).node_types[0].unavailable_until_s is None
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S
    assert sum(each.usd(rented.now_s) for each in rented.provider.rentals()) == 0.0
    rented.fails = []
    rented.provider.request("t4x2", 1)
    assert len(rented.at(rented.now_s + 100.0).nodes) == 2
    assert rented.provider.backoff.in_a_row["t4x2"] == 0


def test_launches_that_fail_together_are_one_failure() -> None:
    rented = Rented(fails=[True, True, False])
    rented.provider.request("t4x2", 3)
    seen = rented.at(100.0)
    assert (names(seen), seen.node_types[0].unavailable_until_s) == (["head", "t4x2-3"], 160.0)


def test_a_node_that_is_taken_back_costs_nothing_any_more() -> None:
    rented = Rented()
    rented.provider.request("t4x2", 1)
    rented.at(1800.0)
    assert rented.provider.lose("t4x2-1")
    assert not rented.provider.lose("t4x2-1")
    assert rented.provider.rentals()[0].usd(9999.0) == pytest.approx(0.5)


def test_nothing_to_rent_does_nothing() -> None:
    provider: Provider = NothingToRent()
    provider.request("t4x2", 1)
    provider.release("t4x2-1")
