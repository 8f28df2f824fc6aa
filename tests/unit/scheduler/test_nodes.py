"""The engine rents and gives back what a plan says: against a fresh snapshot, once, with a cause, and never too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cluster.fake import Script
from cluster.types import Node, NodeType, Snapshot
from making import TYPES, node, placed, snapshot
from scheduler.engine.reconcile import GiveBack, NodeAction, Rent, reconcile_nodes
from scheduler.estimate.work import Work
from scheduler.store import Record
from scheduler.types import Explanation, NodeRelease, NodeRequest, Placement, Plan, Situation
from world import World

T4 = NodeType("t4", (("T4", 1),), 0.5, most=4, launch_s=100.0)
A100 = NodeType("a100", (("A100", 1),), 4.0, most=2, launch_s=200.0)
HEAD = replace(node("head", ("cpu", 1)), is_head=True)


def where(*nodes: Node, types: Sequence[NodeType] = (T4, A100), cap: float | None = None) -> Snapshot:
    kinds = {name: TYPES[name] for name in ("A100", "T4", "cpu")}
    return replace(snapshot(HEAD, *nodes), device_types=kinds, node_types=tuple(types), rent_cap_usd_h=cap)


def record(name: str, placement: Placement | None = None) -> Record:
    return Record(name, name, "train", {}, "running", 0.0, "/out", "/run", placement=placement)


RENTED = (T4.node("t4-1"), T4.node("t4-2"))
ON_FIRST = placed(("T4", "t4-1"))
HOLDS: dict[str, tuple[Snapshot, dict[str, Any], list[NodeAction]]] = {
    "what was asked for": (where(), {"requests": [("t4", 2)]}, [Rent("t4", 2, 2, "why")]),
    "beside what is there and on its way": (
        where(*RENTED, types=(replace(T4, joins_s=(5.0,)),)),
        {"requests": [("t4", 1)]},
        [Rent("t4", 1, 4, "why")],
    ),
    "no more than may be": (
        where(*RENTED, types=(replace(T4, joins_s=(5.0,)),)),
        {"requests": [("t4", 9)]},
        [Rent("t4", 1, 4, "why")],
    ),
    "nothing where all are there": (where(*RENTED, types=(replace(T4, most=2),)), {"requests": [("t4", 1)]}, []),
    "within the cap": (where(cap=1.7), {"requests": [("t4", 4)]}, [Rent("t4", 3, 3, "why")]),
    "up to the cap": (where(cap=2.0), {"requests": [("t4", 4)]}, [Rent("t4", 4, 4, "why")]),
    "all types together": (
        where(*RENTED, cap=6.0),
        {"requests": [("a100", 2), ("t4", 4)]},
        [Rent("a100", 1, 1, "why"), Rent("t4", 2, 4, "why")],
    ),
    "nothing where the cap is passed already": (where(*RENTED, cap=0.7), {"requests": [("t4", 1)]}, []),
    "nothing of a type that is not offered": (where(), {"requests": [("tpu", 1)]}, []),
    "an idle one goes back": (where(*RENTED), {"releases": ["t4-2"]}, [GiveBack("t4-2", "why")]),
    "not one that something runs on": (where(*RENTED), {"releases": ["t4-1"], "held": ON_FIRST}, []),
    "nor one that something starts on now": (where(*RENTED), {"releases": ["t4-1"], "starts": ON_FIRST}, []),
    "nor one that others use": (where(replace(RENTED[0], devices=node("x", ("T4", 1, 0)).devices)), {"releases": ["t4-1"]}, []),
    "not one of those that always are there": (
        where(*RENTED, types=(replace(T4, least=1),)),
        {"releases": ["t4-1", "t4-2"]},
        [GiveBack("t4-1", "why")],
    ),
    "nor one that is not rented": (where(node("own", ("T4", 1))), {"releases": ["own", "head", "gone"]}, []),
}  # fmt: skip


@pytest.mark.parametrize(("fresh", "said", "expected"), HOLDS.values(), ids=HOLDS)
def test_what_still_holds_of_a_plan(fresh: Snapshot, said: dict[str, Any], expected: list[NodeAction]) -> None:
    requests = tuple(NodeRequest(name, count, "why") for name, count in said.get("requests", ()))
    releases = tuple(NodeRelease(name, "why") for name in said.get("releases", ()))
    valid = {"new": said["starts"]} if "starts" in said else {}
    records = [record("old", said.get("held")), record("waits")]
    plan = Plan(1, valid, {}, requests=requests, releases=releases)
    assert reconcile_nodes(plan, valid, records, fresh) == expected


def declared(name: str, seconds: float) -> Work:
    return Work("batch-infer", name, declared_by={"T4 x1": seconds}, samples=100.0, startup_s=5.0)


def submit(world: World, name: str, seconds: float = 300.0, **fields: Any) -> None:
    """A job that runs on one T4 for so long."""
    work, script = declared(name, seconds), Script(run_s=seconds)
    world.submit(name, gang=True, work=work, script=script, resources={"devices": ["T4"], "count": 1}, **fields)


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.store.events(limit=10_000) if event.workload_id is None]


def test_a_node_is_rented_for_who_waits_and_given_back_when_idle() -> None:
    world = World(where=where(types=(T4,)))
    submit(world, "a")
    report = world.cycle()
    assert report is not None
    assert [type(each) for each in report.node_actions] == [Rent]
    asked = world.store.events()[-1]
    assert (asked.kind, asked.data) == ("node-requested", {"node_type": "t4", "count": 1, "total": 1})
    assert "would run on it" in asked.cause
    for _ in range(5):
        world.cycle(advance_s=10.0)
    assert kinds(world) == ["node-requested"], "it is asked for once"
    assert world.said("a") == "a node t4 is on its way: joins in about 50 s"
    world.cycle(advance_s=50.0)
    assert (world.get("a").state, world.get("a").placement) == ("starting", placed(("T4", "t4-1")))
    world.run_until_ended(advance_s=10.0)
    for _ in range(40):
        world.cycle(advance_s=60.0)
    assert kinds(world) == ["node-requested", "node-joined", "node-released", "node-left"]
    released, left = world.store.events(limit=10_000)[-2:]
    assert released.data == {"node": "t4-1"}
    assert (left.cause, left.data["node_type"], left.data["launch_s"]) == (released.cause, "t4", 100.0)
    (rented,), (rental,) = world.provider.rentals(), world.store.rentals()
    assert rental.ended_s is not None
    assert rental.usd(world.now_s) == left.data["usd"] == pytest.approx(rented.usd(world.now_s), abs=0.5 / 60)
    assert [each.node_id for each in world.cluster.snapshot().nodes] == ["head"]
    world.check()


def test_after_a_restart_of_the_service_nothing_is_asked_for_twice() -> None:
    world = World(where=where(types=(T4,)))
    submit(world, "a")
    world.cycle()
    world.restart()
    for _ in range(3):
        world.cycle()
    assert kinds(world) == ["node-requested"]
    assert world.cluster.snapshot().node_types[0].launching == 1


def test_a_provider_that_refuses_stops_nothing_else() -> None:
    world = World(where=where(node("own", ("T4", 1)), types=(T4,)))

    def refuse(node_type: str, count: int) -> None:
        raise RuntimeError(f"no {count} {node_type} today")

    world.provider.request = refuse  # type: ignore[method-assign]
    for number in range(3):
        submit(world, f"w{number}", 3600.0)
    report = world.cycle()
    assert report is not None
    assert report.node_actions
    assert kinds(world) == ["node-requested", "node-not-launched"]
    assert [each.usd(world.now_s + 3600) for each in world.store.rentals()] == [0.0] * 2, "it costs nothing"
    assert sum(record.placement is not None for record in world.store.select()) == 1
    world.check()


def test_launches_that_always_fail_do_not_stop_the_queue() -> None:
    world = World(where=where(node("own", ("T4", 1)), types=(T4,)))
    world.launches_fail = lambda _: True
    for number in range(4):
        submit(world, f"w{number}", 1800.0)
    world.run_until_ended(advance_s=30.0)
    failed = [each for each in world.provider.rentals() if each.fails]
    assert set(world.states().values()) == {"succeeded"}
    assert 1 <= len(failed) < 40, "tried again, ever less often"
    world.check()


class _Asks:
    """A policy that asks for whatever it is told to, and places nothing."""

    name = "asks"

    def __init__(self) -> None:
        self.requests: tuple[NodeRequest, ...] = ()
        self.releases: tuple[NodeRelease, ...] = ()

    def plan(self, situation: Situation) -> Plan:
        said = {view.id: Explanation(None, "waits") for view in situation.workloads}
        return Plan(situation.cycle, {}, said, requests=self.requests, releases=self.releases)


def within(world: World) -> None:
    """Never more of a type than may be, never more dollars an hour than the cap, launches included."""
    seen = world.cluster.snapshot()
    for kind in seen.node_types:
        assert len(seen.rented(kind.name)) + kind.launching <= kind.most
    assert seen.rent_cap_usd_h is None or seen.rented_usd_h() <= seen.rent_cap_usd_h * (1 + 1e-9)


asked = some.lists(some.tuples(some.sampled_from(["t4", "a100"]), some.integers(1, 9)), max_size=3)
steps = some.tuples(asked, some.lists(some.integers(1, 6), max_size=2), some.floats(1.0, 400.0), some.booleans())
caps = some.sampled_from([None, 0.4, 1.5, 4.2, 6.0])


@settings(max_examples=60)
@given(some.lists(steps, min_size=1, max_size=12), caps)
def test_no_sequence_of_plans_passes_the_most_or_the_cap(
    plans: list[tuple[list[tuple[str, int]], list[int], float, bool]], cap: float | None
) -> None:
    world = World(where=where(cap=cap))
    policy = _Asks()
    world.engine._policy = policy
    for requests, releases, seconds, fails in plans:
        world.launches_fail = lambda _, fails=fails: fails  # type: ignore[misc]
        policy.requests = tuple(NodeRequest(name, count, "drawn") for name, count in requests)
        policy.releases = tuple(NodeRelease(f"t4-{number}", "drawn") for number in releases)
        world.cycle(advance_s=seconds)
        within(world)
    world.check()


@settings(max_examples=25)
@given(
    some.lists(
        some.tuples(some.floats(5.0, 5000.0), some.floats(1.0, 900.0), some.booleans()), min_size=1, max_size=12
    ),
    caps,
)
def test_market_never_asks_for_too_much_and_finishes_what_it_may(
    jobs: list[tuple[float, float, bool]], cap: float | None
) -> None:
    world = World(where=where(cap=cap))
    for number, (seconds, wait_s, fails) in enumerate(jobs):
        world.launches_fail = lambda _, fails=fails: fails  # type: ignore[misc]
        submit(world, f"w{number}", seconds)
        for _ in range(3):
            world.cycle(advance_s=wait_s / 3)
            within(world)
    world.launches_fail = lambda _: False
    for _ in range(2000):
        if not world.cluster.active_runs() and all(state == "succeeded" for state in world.states().values()):
            break
        world.cycle(advance_s=60.0)
        within(world)
    may = cap is None or cap >= T4.price_usd_h
    assert set(world.states().values()) == ({"succeeded"} if may else {"queued"})
    for _ in range(70):
        world.cycle(advance_s=60.0)
    assert world.cluster.snapshot().rented_usd_h() == 0.0, "what nobody needs goes back"
    world.check()
