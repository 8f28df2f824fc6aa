"""Which nodes `decide` rents, which it gives back, and what it says to who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cluster.types import Node, NodeType, Snapshot
from making import TYPES, est, node, placed, situation, snapshot, view
from scheduler.policy import create
from scheduler.policy.renting import Decision, Wait, decide
from scheduler.types import Placement, WorkloadView

T4 = NodeType("t4", (("T4", 1),), 0.5, most=8)
T4X4 = NodeType("t4x4", (("T4", 4),), 2.0, most=4)
A100 = NodeType("a100", (("A100", 1),), 4.0, most=4)
SPOT = replace(T4, name="t4-spot", price_usd_h=0.15, market="spot", interruptions_per_h=0.01)
OWN = node("own", ("T4", 1))


def where(*nodes: Node, types: Sequence[NodeType] = (T4,), cap: float | None = None) -> Snapshot:
    """These nodes, and what may be rented beside them."""
    kinds = {name: TYPES[name] for name in ("A100", "T4", "cpu")}
    return replace(snapshot(*nodes), device_types=kinds, node_types=tuple(types), rent_cap_usd_h=cap)


def wants(name: str, hours: float, wait_h: float | None = None, time_usd_h: float = 2.5, **fields: Any) -> Wait:
    """Somebody who wants a T4 for so long, or an A100 for a quarter of that; `wait_h` until one is free."""
    seconds = hours * 3600
    counts = fields.pop("counts", ({"T4": 1}, {"A100": 1}))
    estimates = [est(seconds / (4 if "A100" in each else 1), **each) for each in counts]
    total_usd = None if wait_h is None else hours * 0.5 + (hours + wait_h) * time_usd_h
    wait_s = None if wait_h is None else wait_h * 3600
    return Wait(view(name, *estimates, resumes=True, **fields), time_usd_h, total_usd, wait_s)


def runs(name: str, hours: float, *devices: tuple[str, str], **fields: Any) -> WorkloadView:
    """Something that cannot be moved and has so long to go."""
    held = placed(*devices)
    counts = dict(held.configuration.groups)
    return view(name, est(hours * 3600, **counts), placement=held, **fields)


def decided(
    at: Snapshot,
    waits: Sequence[Wait],
    *running: WorkloadView,
    idle: Mapping[str, float] | None = None,
    now_s: float = 10_000.0,
    placements: Mapping[str, Placement] | None = None,
) -> Decision:
    views = [each.view for each in waits] + list(running)
    held = {each.id: each.placement for each in running if each.placement is not None}
    asked = situation(at, *views, now_s=now_s, memory={"idle": dict(idle or {})})
    return decide(asked, waits, {**held, **(placements or {})})


@dataclass(frozen=True)
class Case:
    """A cluster, who waits, and what is asked for."""

    at: Snapshot
    waits: Sequence[Wait]
    running: Sequence[WorkloadView] = ()
    asks: Mapping[str, int] = field(default_factory=dict)


BUSY = (runs("long", 20.0, ("T4", "own")),)
QUEUE = [wants(f"w{n}", 1.0, 20.0 + n, counts=({"T4": 1},)) for n in range(4)]
GANG = [wants("gang", 1.0, counts=({"T4": 8},))]
CASES = {
    "nobody waits": Case(where(OWN), []),
    "nothing may be rented": Case(where(OWN, types=()), QUEUE, BUSY),
    "four wait 20 h for an hour each: a node for each": Case(where(OWN), QUEUE, BUSY, {"t4": 4}),
    "what is free in a minute is waited for": Case(
        where(OWN), [wants("w", 1.0, 1 / 60, counts=({"T4": 1},))], (runs("short", 1 / 60, ("T4", "own")),)
    ),
    "of those that need seconds a few serve many": Case(
        where(OWN), [wants(f"w{n}", 0.02, 20.0, counts=({"T4": 1},)) for n in range(20)], BUSY, {"t4": 5}
    ),
    "what can only run on rented nodes gets the cheapest in all": Case(
        where(types=(T4, A100)), [wants("w", 1.0, time_usd_h=0.5)], (), {"t4": 1}
    ),
    "whose time is worth much gets the fastest": Case(
        where(types=(T4, A100)), [wants("w", 1.0, time_usd_h=40.0)], (), {"a100": 1}
    ),
    "a gang gets all its nodes": Case(where(types=(T4X4,)), GANG, (), {"t4x4": 2}),
    "a gang gets those that are missing": Case(
        where(replace(T4X4.node("t4x4-1")), types=(T4X4,)), GANG, (), {"t4x4": 1}
    ),
    "a gang that the most of a type cannot hold gets none": Case(where(types=(replace(T4X4, most=1),)), GANG),
    "never more than may be, those that are there and on their way included": Case(
        where(OWN, T4.node("t4-1"), types=(replace(T4, most=4, joins_s=(10_100.0,)),)),
        [wants(f"w{n}", 5.0, 20.0, counts=({"T4": 1},)) for n in range(9)],
        (*BUSY, runs("other", 20.0, ("T4", "t4-1"))),
        {"t4": 2},
    ),
    "what is on its way is not asked for again": Case(
        where(OWN, types=(replace(T4, joins_s=(10_100.0,) * 4),)), QUEUE, BUSY
    ),
    "nor is what is idle and there": Case(where(T4.node("t4-1"), types=(T4,)), QUEUE[:1]),
    "the cap is never passed, what is there included": Case(
        where(OWN, T4.node("t4-1"), types=(replace(T4, joins_s=(10_100.0,)),), cap=2.0),
        [wants(f"w{n}", 5.0, 20.0, counts=({"T4": 1},)) for n in range(9)],
        (*BUSY, runs("other", 20.0, ("T4", "t4-1"))),
        {"t4": 2},
    ),
    "where the cap is in the way, the cheap ones for many": Case(
        where(types=(T4, A100), cap=4.0), [wants(f"w{n}", 1.0, time_usd_h=2.5) for n in range(8)], (), {"t4": 8}
    ),
    "a type whose launch failed lately is not asked for": Case(
        where(OWN, types=(replace(T4, unavailable_until_s=10_060.0),)), QUEUE, BUSY
    ),
    "but another is": Case(
        where(types=(replace(T4, unavailable_until_s=10_060.0), A100)), [wants("w", 1.0)], (), {"a100": 1}
    ),
    "and it is again after that": Case(
        where(OWN, types=(replace(T4, unavailable_until_s=9_999.0),)), QUEUE, BUSY, {"t4": 4}
    ),
    "on spot where little is lost": Case(where(types=(T4, SPOT)), [wants("w", 1.0)], (), {"t4-spot": 1}),
    "on demand where it would hardly ever end on spot": Case(
        where(types=(T4, replace(SPOT, interruptions_per_h=6.0))),
        [wants("w", 4.0, counts=({"T4": 1},)), wants("x", 4.0, counts=({"T4": 1},))],
        (),
        {"t4": 2},
    ),
    "what its budget forbids is not rented for it": Case(
        where(types=(A100,)), [wants("w", 4.0, counts=({"A100": 1},), budget_usd=1.0)]
    ),
    "for a deadline that waiting would miss": Case(
        where(OWN),
        [wants("w", 1.0, 0.4, time_usd_h=0.5, counts=({"T4": 1},), deadline_s=10_000 + 1.15 * 3600)],
        (runs("x", 0.4, ("T4", "own")),),
        {"t4": 1},
    ),
    "not without it": Case(
        where(OWN), [wants("w", 1.0, 0.4, time_usd_h=0.5, counts=({"T4": 1},))], (runs("x", 0.4, ("T4", "own")),)
    ),
    "of two device types together, the one that is missing": Case(
        where(node("cores", ("cpu", 4))), [wants("w", 1.0, counts=({"T4": 1, "cpu": 2},))], (), {"t4": 1}
    ),
    "on one node, if it must be": Case(
        where(types=(T4, T4X4)), [wants("w", 1.0, counts=({"T4": 3},), one_node=True)], (), {"t4x4": 1}
    ),
    "what nobody can say the end of is not waited for": Case(
        where(OWN), [wants("w", 0.5, counts=({"T4": 1},))], (runs("x", 0.1, ("T4", "own"), held_s=90_000.0),), {"t4": 1}
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_asked_for(case: Case) -> None:
    found = decided(case.at, case.waits, *case.running)
    assert {each.node_type: each.count for each in found.requests} == case.asks
    assert all(each.cause for each in found.requests)
    assert found == decided(case.at, case.waits, *case.running), "the same situation, the same decision"


@pytest.mark.parametrize("jobs", [1, 3, 9, 20])
@pytest.mark.parametrize("hours", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("time_usd_h", [0.5, 2.5, 40.0])
def test_so_many_as_are_least_money_counted_by_hand(jobs: int, hours: float, time_usd_h: float) -> None:
    """Equal jobs on equal nodes: n nodes serve them round about. All n are tried."""
    keep_h = min(1.0, 0.05 * (1 + 6.0 / 0.5))  # 180 s, and what an hour of `balanced` is worth

    def usd(count: int) -> float:
        rounds = [number // count + 1 for number in range(jobs)]
        time_usd = sum(0.05 + hours * each for each in rounds) * time_usd_h
        return time_usd + sum(0.5 * (0.05 + hours * max(rounds[n::count], default=0) + keep_h) for n in range(count))

    found = decided(where(), [wants(f"w{n}", hours, counts=({"T4": 1},), time_usd_h=time_usd_h) for n in range(jobs)])
    assert usd(found.requests[0].count) <= 1.03 * min(usd(count) for count in range(1, T4.most + 1))


def test_the_queue_behind_moves_up() -> None:
    """The node is worth it to none of them alone; to all that move up behind who takes it, it is."""
    short = [wants(f"w{n}", 0.25, 0.1 + 0.25 * n, time_usd_h=0.5, counts=({"T4": 1},)) for n in range(8)]
    busy = runs("x", 0.1, ("T4", "own"))
    assert decided(where(OWN), short[:1], busy).requests == ()
    assert decided(where(OWN), short, busy).requests[0].count >= 1


# Giving back

IDLE_CASES = {
    "one that has just become idle stays": ({"t4-1": 10_000.0}, [], ()),
    "one of which nobody noted when stays": ({}, [], ()),
    "one that has stood idle for as long as a launch would cost goes": ({"t4-1": 7_500.0}, [], ("t4-1",)),
    "not if somebody will have it soon": (
        {"t4-1": 7_500.0},
        [wants("gang", 1.0, counts=({"T4": 3},))],
        (),
    ),
    "whoever could have it now and did not take it is no reason": (
        {"t4-1": 7_500.0},
        [wants("w", 1.0, counts=({"T4": 1},))],
        ("t4-1",),
    ),
}


@pytest.mark.parametrize(("idle", "waits", "gone"), IDLE_CASES.values(), ids=IDLE_CASES)
def test_what_is_given_back(idle: dict[str, float], waits: list[Wait], gone: tuple[str, ...]) -> None:
    """At $0.50 an hour and $6 for an hour of who waits, a launch of 180 s costs as much as 2340 s of standing idle."""
    kind = replace(T4, joins_s=(10_030.0, 10_040.0)) if waits and waits[0].view.id == "gang" else T4
    found = decided(where(OWN, T4.node("t4-1"), types=(kind,)), waits, runs("own", 9.0, ("T4", "own")), idle=idle)
    assert tuple(each.node_id for each in found.releases) == gone
    assert all("idle for 2500 s" in each.cause for each in found.releases)
    assert found.idle == {"t4-1": idle.get("t4-1", 10_000.0)}


def test_an_idle_node_makes_room_below_the_cap() -> None:
    """$4 an hour may be spent: the A100 that somebody needs fits only where the T4 goes, however short it was idle."""
    idle, needs = {"t4-1": 9_990.0}, [wants("w", 1.0, counts=({"A100": 1},))]
    at = where(T4.node("t4-1"), types=(T4, A100), cap=4.0)
    found = decided(at, needs, idle=idle)
    assert (found.requests, [each.node_id for each in found.releases]) == ((), ["t4-1"])
    assert found.releases[0].cause == "idle, and the cap, of which it takes $0.5000 an hour, keeps others waiting"
    roomy = decided(replace(at, rent_cap_usd_h=4.5), needs, idle=idle)
    assert ([each.node_type for each in roomy.requests], roomy.releases) == (["a100"], ())


def test_what_is_held_or_given_out_is_not_idle() -> None:
    at = where(T4.node("t4-1"), T4.node("t4-2"), node("own", ("T4", 1)), T4.node("t4-3"))
    taken = {"w": placed(("T4", "t4-2"))}
    others = replace(at, nodes=(*at.nodes[:3], replace(at.nodes[3], devices=node("x", ("T4", 1, 0)).devices)))
    old = dict.fromkeys(("t4-1", "t4-2", "t4-3", "own"), 0.0)
    found = decided(others, [], runs("x", 1.0, ("T4", "t4-1")), idle=old, placements=taken)
    assert found.idle == {}
    assert found.releases == ()
    assert set(decided(at, [], idle=old).idle) == {"t4-1", "t4-2", "t4-3"}, "what is not rented is no business of ours"


def test_a_note_that_cannot_be_meant_is_not_believed() -> None:
    at = where(T4.node("t4-1"))
    for noted in ({"t4-1": "yesterday"}, {"t4-1": float("nan")}, {"t4-1": 1e12}):
        asked = situation(at, now_s=10_000.0, memory={"idle": noted})
        assert decide(asked, [], {}).idle == {"t4-1": 10_000.0}


# What is said

WORDS = {
    "on its way": (replace(T4, joins_s=(10_170.0,)), None, "a node t4 is on its way: joins in about 3 min"),
    "asked for now": (T4, None, "a node t4 is asked for: joins in about 3 min"),
    "soon there": (replace(T4, joins_s=(10_020.0,)), None, "a node t4 is on its way: joins in about 20 s"),
    "the cap": (T4, 0.4, "waits for a node to be rented: with t4 the cap of $0.4000 an hour would be passed"),
    "not to be had": (
        replace(T4, unavailable_until_s=10_900.0),
        None,
        "waits for a node to be rented: t4 could not be had, it is asked for again in about 15 min",
    ),
}


@pytest.mark.parametrize(("kind", "cap", "says"), WORDS.values(), ids=WORDS)
def test_what_is_said_to_who_can_only_run_on_rented_nodes(kind: NodeType, cap: float | None, says: str) -> None:
    assert decided(where(types=(kind,), cap=cap), [wants("w", 1.0, counts=({"T4": 1},))]).causes == {"w": says}


def test_who_waits_for_what_is_there_is_told_nothing() -> None:
    assert decided(where(OWN), QUEUE[:1], runs("x", 1 / 60, ("T4", "own"))).causes == {}
    dear = replace(T4, price_usd_h=400.0)
    assert decided(where(OWN, types=(dear,)), [wants("w", 1.0, 0.5)], runs("x", 0.5, ("T4", "own"))).causes == {}


def test_each_request_says_what_it_is_for() -> None:
    alone = decided(where(), [wants("w", 1.0, counts=({"T4": 1},))]).requests[0]
    assert alone.cause == "one workload would run on it, and what is there cannot hold all that wait"
    saves = decided(where(OWN), QUEUE, *BUSY).requests[0]
    assert saves.cause.startswith("4 workloads would run on it: all together pay $")


def test_a_node_for_nothing_is_taken_and_kept_for_an_hour() -> None:
    free = replace(T4, price_usd_h=0.0)
    at, asks = where(T4.node("t4-1"), types=(free,), cap=1.0), [wants("w", 1.0, counts=({"T4": 2},))]
    assert [each.count for each in decided(at, asks).requests] == [1]
    gone = [len(decided(at, [], idle={"t4-1": 10_000.0 - idle_s}).releases) for idle_s in (3500.0, 3600.0)]
    assert gone == [0, 1]


# Through the policy


def test_market_puts_it_into_its_plan() -> None:
    at = where(OWN)
    held = runs("long", 20.0, ("T4", "own"), held_s=3600.0)
    waiting = view("w", est(3600.0, T4=1), resumes=True)
    plan = create("market").plan(situation(at, held, waiting, now_s=10_000.0))
    assert [(each.node_type, each.count) for each in plan.requests] == [("t4", 1)]
    assert plan.memory["idle"] == {}
    said = plan.explanations["w"].summary
    assert said.startswith("a node t4 is asked for: joins in about 3 min; waits for T4 x1: free in about")


def test_market_says_of_what_is_nowhere_that_it_could_be_rented() -> None:
    plan = create("market").plan(situation(where(), view("w", est(3600.0, T4=1)), now_s=10_000.0))
    told = plan.explanations["w"]
    assert told.chosen is None
    assert told.summary == "a node t4 is asked for: joins in about 3 min"
    assert [each.reason.code for each in told.options if each.reason] == ["unavailable"]
    assert [each.reason.message for each in told.options if each.reason] == ["none is there; up to 8 could be rented"]


def test_what_runs_on_something_slow_is_worth_a_fast_node() -> None:
    """Nobody waits: the core that was free was taken. The node is asked for all the same."""
    slow = runs("slow", 20.0, ("cpu", "cores"), resumes=True, remaining=0.9, held_s=600.0)
    both = replace(slow, estimates=(*slow.estimates, est(3600.0, T4=1)))
    at = where(node("cores", ("cpu", 1)))
    assert [each.node_type for each in decided(at, [], both).requests] == ["t4"]
    assert decided(at, [], replace(both, resumes=False)).requests == (), "what would begin again is not moved"
    near = replace(both, estimates=(est(1300.0, cpu=1), est(1200.0, T4=1)), remaining=0.5)
    assert decided(at, [], near).requests == (), "for a little it is not worth a restart"


def test_what_could_not_move_again_waits_for_the_better_node_though_not_for_ever() -> None:
    at = where(OWN, types=(A100,))
    asked = view("w", est(8 * 3600.0, T4=1), est(2 * 3600.0, A100=1), objective="time")
    plan = create("market").plan(situation(at, asked, now_s=10_000.0))
    assert ([each.node_type for each in plan.requests], dict(plan.placements)) == (["a100"], {})
    told = plan.explanations["w"]
    assert told.chosen is None
    assert told.summary == "a node a100 is asked for: joins in about 3 min; that is less money than T4 x1 now"
    coming = replace(at, node_types=(replace(A100, joins_s=(10_100.0,)),))
    again = create("market").plan(situation(coming, asked, now_s=10_000.0))
    assert (again.requests, dict(again.placements)) == ((), {})
    for takes in (
        situation(at, replace(asked, waited_s=3600.0, queued_s=6400.0), now_s=10_000.0),
        situation(at, replace(asked, resumes=True), now_s=10_000.0),
        situation(replace(at, node_types=(replace(A100, unavailable_until_s=10_050.0),)), asked, now_s=10_000.0),
    ):
        assert list(create("market").plan(takes).placements) == ["w"]


@pytest.mark.parametrize("policy", ["market", "first-fit", "fifo", "srtf", "cheapest", "gavel-las-het", "sia"])
def test_no_policy_places_on_what_is_not_there(policy: str) -> None:
    at = where(OWN, types=(T4, T4X4, A100))
    views = [view(f"w{n}", est(3600.0, T4=1), est(900.0, T4=4), est(600.0, A100=1)) for n in range(3)]
    plan = create(policy).plan(situation(at, *views, now_s=10_000.0))
    assert {node_id for placement in plan.placements.values() for _, node_id in placement.devices} <= {"own"}


def test_without_anything_to_rent_nothing_is_noted() -> None:
    plan = create("market").plan(situation(snapshot(OWN), view("w", est(3600.0, T4=1))))
    assert (plan.requests, plan.releases, "idle" in plan.memory) == ((), (), False)
