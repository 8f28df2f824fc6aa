"""Rented nodes cost no more than a month may, whatever becomes of them; who has a node that will be gone saves and goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cluster.fake import Script
from cluster.types import NO_DEADLINE_S, Node, NodeType, Snapshot
from making import TYPES, node, placed, snapshot
from scheduler.engine.rentals import NOTICE_S
from scheduler.estimate.work import Work
from scheduler.store import MemoryStore, Rental, Store
from world import World

SPOT = NodeType("t4-spot", (("T4", 1),), 0.2, most=4, launch_s=100.0, market="spot", on_demand_usd_h=0.5)
A100 = NodeType("a100", (("A100", 1),), 4.0, most=2, launch_s=200.0)
HEAD = replace(node("head", ("cpu", 1)), is_head=True)


def where(*nodes: Node, month: float | None = None, types: Sequence[NodeType] = (SPOT, A100)) -> Snapshot:
    kinds = {name: TYPES[name] for name in ("A100", "T4", "cpu")}
    return replace(snapshot(HEAD, *nodes), device_types=kinds, node_types=tuple(types), rent_cap_usd_month=month)


def submit(world: World, name: str, seconds: float, kind: str = "batch-infer", **fields: Any) -> None:
    devices = {"T4 x1": seconds, "A100 x1": seconds / 4}
    work, script = Work(kind, name, declared_by=devices, samples=100.0, startup_s=5.0), Script(run_s=seconds)
    resources = {"devices": ["T4", "A100"], "count": 1}
    world.submit(name, gang=kind != "command", work=work, script=script, resources=resources, **fields)


def paid_usd(world: World) -> float:
    """What the cloud would ask for by now."""
    return sum(each.usd(world.now_s) for each in world.provider.rentals())


happenings = some.tuples(
    some.floats(20.0, 4000.0),
    some.sampled_from(["time", "balanced", "cost"]),
    some.lists(some.floats(1.0, 60.0), min_size=1, max_size=6),
    some.sampled_from(["nothing", "fails", "lost", "notice"]),
)


@settings(max_examples=40)
@given(some.lists(happenings, min_size=1, max_size=10), some.sampled_from([0.05, 0.4, 1.5, 6.0]))
def test_no_failure_delay_or_interruption_passes_the_months_cap(
    jobs: list[tuple[float, str, list[float], str]], month_usd: float
) -> None:
    world = World(where=where(month=month_usd))
    for number, (seconds, objective, gaps_s, what) in enumerate(jobs):
        world.launches_fail = lambda _, what=what: what == "fails"  # type: ignore[misc]
        submit(world, f"w{number}", seconds, objective=objective)
        for gap_s in gaps_s:
            world.cycle(advance_s=gap_s)
            assert paid_usd(world) <= month_usd
        rented = [each for each in world.cluster.snapshot().nodes if not each.is_head]
        if rented and what == "lost":
            world.provider.lose(rented[0].node_id)
        if rented and what == "notice":
            world.provider.drain(rented[0].node_id, world.now_s + 30.0, "its cloud takes it back")
    for _ in range(200):
        world.cycle(advance_s=60.0)
        assert paid_usd(world) <= month_usd
    told = sum(each.usd(world.now_s) for each in world.store.rentals())
    assert told >= paid_usd(world) - 1e-9, "what is told is no less than what is paid"
    world.check()


def test_what_the_month_cannot_pay_for_any_longer_is_given_notice_and_what_ran_there_goes_on_next_month() -> None:
    world = World(where=where(month=1.0, types=(SPOT,)))
    submit(world, "long", 40 * 3600.0, objective="time")
    while not [event for event in world.store.events(limit=100_000) if event.kind == "node-notice"]:
        world.cycle(advance_s=30.0)
        assert world.now_s < 20 * 3600
    assert 0.9 < paid_usd(world) < 1.0
    for _ in range(20):
        world.cycle(advance_s=30.0)
    assert world.get("long").state == "queued"
    assert [each.is_head for each in world.cluster.snapshot().nodes] == [True]
    assert paid_usd(world) <= 1.0
    assert (
        "month's $1.00" in world.event("long", "stopping").cause
        or "will be gone" in world.event("long", "stopping").cause
    )
    world.now_s = 32 * 24 * 3600.0
    for _ in range(10):
        world.cycle(advance_s=30.0)
    assert world.get("long").state in ("starting", "running"), "another month, another dollar"


def test_a_command_must_go_as_well_where_the_month_cannot_pay_for_its_node() -> None:
    world = World(where=where(month=1.0, types=(SPOT,)))
    submit(world, "long", 40 * 3600.0, "command", objective="time")
    while world.now_s < 8 * 3600.0 and not [e for e in world.store.events(limit=100_000) if e.kind == "node-notice"]:
        world.cycle(advance_s=30.0)
    world.cycle(advance_s=5.0)
    assert world.get("long").state == "stopping"
    assert "will be gone" in world.event("long", "stopping").cause


def test_a_service_that_was_away_charges_what_is_gone_until_it_was_last_looked_at() -> None:
    world = World(where=where(types=(SPOT,)))
    submit(world, "a", 600.0)
    for _ in range(30):
        world.cycle(advance_s=10.0)
    last_s = world.now_s
    (rented,) = [each for each in world.cluster.snapshot().nodes if not each.is_head]
    world.provider.lose(rented.node_id)
    world.now_s += 5 * 24 * 3600.0
    world.restart()
    world.cycle(advance_s=1.0)
    (rental,) = world.store.rentals(ended=True)
    assert rental.ended_s is not None
    assert last_s - 60.0 <= rental.ended_s <= last_s


def test_a_rental_of_a_type_that_is_offered_no_more_ends_with_its_node() -> None:
    world = World(where=where(types=(SPOT,)))
    gone = Rental("r", "old", "spot", 0.2, None, world.now_s, "n", world.now_s)
    world.store.put_rentals([gone])
    world.restart()
    world.cycle(advance_s=100.0)
    assert [each.id for each in world.store.rentals(ended=True)] == ["r"]


def test_who_has_a_node_that_will_be_gone_saves_and_goes_on_elsewhere() -> None:
    world = World(where=where(spot := SPOT.node("t4-1"), node("own", ("T4", 1)), types=(replace(SPOT, most=1),)))
    submit(world, "a", 1000.0)
    world.cycle()
    first = world.get("a").placement
    assert first is not None
    ((_, where_it_runs),) = first.devices
    other = "own" if where_it_runs == spot.node_id else spot.node_id
    world.cycle(advance_s=100.0)
    world.cluster.give_notice(where_it_runs, world.now_s + 20.0)
    world.cycle(advance_s=1.0)
    assert world.get("a").state == "stopping"
    assert world.event("a", "stopping").cause.endswith("will be gone in 19 s")
    for _ in range(40):
        world.cycle(advance_s=1.0)
    assert world.get("a").placement == placed(("T4", other))
    assert world.event("a", "queued").data["lost_fraction"] == 0.0
    world.check()


def test_a_node_that_is_drained_without_a_deadline_leaves_all_the_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(where=where(node("own", ("T4", 1)), types=(replace(SPOT, most=1),)))
    submit(world, "a", 1000.0)
    world.cycle()
    graces_s: list[float] = []
    monkeypatch.setattr(world.cluster, "stop", lambda _, grace_s=0.0: graces_s.append(grace_s))
    world.cluster.give_notice("own", NO_DEADLINE_S)
    world.cycle(advance_s=1.0)
    assert world.event("a", "stopping").cause == "node own is drained, and goes when nothing runs there"
    assert graces_s == [world.get("a").grace_s]
    (told,) = [event for event in world.store.events() if event.kind == "node-notice"]
    assert told.data["notice_s"] is None


def test_nothing_begins_on_a_node_that_will_be_gone() -> None:
    world = World(where=where(node("own", ("T4", 1)), types=(replace(SPOT, most=1),)))
    world.cluster.give_notice("own", world.now_s + 600.0)
    submit(world, "a", 10.0)
    for _ in range(5):
        world.cycle(advance_s=10.0)
        assert world.get("a").placement is None


def test_a_command_stays_on_a_node_that_will_be_gone_as_it_would_begin_again() -> None:
    world = World(where=where(node("own", ("T4", 1)), types=(replace(SPOT, most=1),)))
    submit(world, "a", 50.0, "command")
    world.cycle()
    world.cluster.give_notice("own", world.now_s + 60.0)
    world.cycle(advance_s=55.0)
    assert world.get("a").state == "succeeded"


@pytest.mark.parametrize("kind", [Store, MemoryStore])
def test_rentals_are_kept(kind: type[Store | MemoryStore]) -> None:
    store = Store(":memory:") if kind is Store else MemoryStore()
    there = Rental("b", "t4", "spot", 0.2, 0.5, 100.0)
    gone = Rental("a", "t4", "spot", 0.2, None, 50.0, "n", 60.0, 90.0, "given back")
    store.put_rentals([there, gone])
    store.put_rentals([joined := replace(there, node_id="m", joined_s=130.0)])
    assert list(store.rentals(ended=False)) == [joined]
    assert list(store.rentals(ended=True)) == [gone]
    assert list(store.rentals(ended=True, since_s=91.0)) == []
    assert {each.id for each in store.rentals()} == {"a", "b"}
    assert gone.usd(1e9) == pytest.approx(40 / 3600 * 0.2)
    assert gone.usd(1e9, since_s=80.0) == pytest.approx(10 / 3600 * 0.2)
    assert joined.hours(100.0 + NOTICE_S) == pytest.approx(NOTICE_S / 3600)


def test_nodes_that_are_always_there_are_paid_for_first_and_never_given_notice() -> None:
    world = World(where=where(SPOT.node("t4-spot-0"), month=200.0, types=(replace(SPOT, least=1), A100)))
    submit(world, "w", 100 * 3600.0, objective="time")
    for _ in range(6 * 24 * 12):
        world.cycle(advance_s=300.0)
    noticed = [event.data["node"] for event in world.store.events(limit=100_000) if event.kind == "node-notice"]
    assert "t4-spot-0" not in noticed
    assert paid_usd(world) <= 200.0
