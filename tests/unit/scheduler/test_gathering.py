"""What runs is moved so that a node can go back, where that saves money; and nobody is stopped for who could rent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Node, NodeType, Snapshot
from making import TYPES, est, node, placed, situation, snapshot, view
from scheduler.policy import create
from scheduler.policy.gathering import EMPTIED, emptied, without_emptied
from scheduler.policy.keeping import kept
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import Phase, Trace, TraceJob
from scheduler.types import Configuration, Explanation, Placement, Plan, WorkloadView

BIG = NodeType("big", (("A100", 8),), 32.0, most=4)
SMALL = NodeType("small", (("T4", 1),), 0.5, most=4)
NOW_S = 100_000.0


def where(*nodes: Node, types: Sequence[NodeType] = (BIG,)) -> Snapshot:
    kinds = {name: TYPES[name] for name in ("A100", "T4")}
    return replace(snapshot(*nodes), device_types=kinds, node_types=tuple(types))


def held(kind: NodeType, name: str, count: int) -> Node:
    """A node of which so many devices are held."""
    whole = kind.node(name)
    return replace(whole, devices=tuple(replace(each, free=each.total - count) for each in whole.devices))


def runs(name: str, hours: float, there: Placement, **fields: Any) -> WorkloadView:
    """Has run for an hour; so many are left, and twice as many on a T4."""
    count = there.configuration.devices
    listed = est(2 * hours * 3600, A100=count), est(4 * hours * 3600, T4=count)
    known = {"resumes": True, "remaining": 0.5, "held_s": 3600.0, "objective": "cost", **fields}
    return view(name, *listed, placement=there, **known)


def on(node_id: str, count: int) -> Placement:
    return placed(*[("A100", node_id)] * count)


TWO = where(held(BIG, "a", 5), held(BIG, "b", 2))
LONG = runs("long", 9.0, on("a", 5), resumes=False), runs("short", 3.0, on("b", 2))

EMPTIES: dict[str, tuple[Snapshot, tuple[WorkloadView, ...], list[str]]] = {
    "two of eight go where five of eight run": (TWO, LONG, ["b"]),
    "not where they do not fit": (where(held(BIG, "a", 7), held(BIG, "b", 2)), (runs("long", 9.0, on("a", 7), resumes=False), LONG[1]), []),
    "not what would begin again": (TWO, (LONG[0], runs("short", 3.0, on("b", 2), resumes=False)), []),
    "not what has hardly begun": (TWO, (LONG[0], runs("short", 3.0, on("b", 2), held_s=10.0)), []),
    "not what has no other node": (where(held(BIG, "b", 2)), (LONG[1],), []),
    "not a node that others use as well": (where(held(BIG, "a", 5), held(BIG, "b", 3)), LONG, []),
    "not one that is not rented": (
        where(held(BIG, "a", 5), node("own", ("A100", 8, 6))),
        (LONG[0], runs("short", 3.0, on("own", 2))),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("at", "views", "expected"), EMPTIES.values(), ids=EMPTIES)
def test_which_node_is_emptied(at: Snapshot, views: tuple[WorkloadView, ...], expected: list[str]) -> None:
    found = create("market").plan(situation(at, *views, now_s=NOW_S))
    assert found.memory.get(EMPTIED, []) == expected
    leaves = {each.id for each in views if each.placement and {n for _, n in each.placement.devices} & set(expected)}
    assert set(found.placements) == {each.id for each in views} - leaves
    for name in leaves:
        assert found.explanations[name].summary == "moves: what runs on b is less money elsewhere: the node goes back"


def test_what_leaves_goes_on_elsewhere_and_the_node_goes_back() -> None:
    first = create("market").plan(situation(TWO, *LONG, now_s=NOW_S))
    stopped = replace(LONG[1], placement=None, held_s=0.0, queued_s=NOW_S)
    at = where(held(BIG, "a", 5), BIG.node("b"))
    after = create("market").plan(situation(at, LONG[0], stopped, now_s=NOW_S + 1, memory=dict(first.memory)))
    assert dict(after.placements) == {"long": on("a", 5), "short": on("a", 2)}
    assert [each.node_id for each in after.releases] == ["b"]
    assert after.requests == ()


def test_a_smaller_node_is_asked_for_before_a_large_one_is_emptied() -> None:
    at = where(held(BIG, "a", 1), types=(BIG, SMALL))
    alone = runs("alone", 20.0, on("a", 1))
    found = create("market").plan(situation(at, alone, now_s=NOW_S))
    assert [(each.node_type, each.count) for each in found.requests] == [("small", 1)]
    assert dict(found.placements) == {"alone": on("a", 1)}, "it runs on until that is there"
    coming = where(held(BIG, "a", 1), types=(BIG, replace(SMALL, joins_s=(NOW_S + 100,))))
    assert create("market").plan(situation(coming, alone, now_s=NOW_S)).requests == (), "once"
    joined = where(held(BIG, "a", 1), SMALL.node("s"), types=(BIG, SMALL))
    assert dict(create("market").plan(situation(joined, alone, now_s=NOW_S)).placements) == {
        "alone": placed(("T4", "s"))
    }


def test_a_note_of_what_is_not_there_or_cannot_be_meant_is_not_believed() -> None:
    for noted in (["gone", "own"], "a", {"a": 1}, [3], None):
        seen = situation(where(BIG.node("a"), node("own", ("A100", 1))), memory={EMPTIED: noted})
        assert emptied(seen) == frozenset()
        assert without_emptied(seen) is seen


# Who is not stopped

SHORT = view("short", est(600.0, A100=2), submitted_s=NOW_S, queued_s=NOW_S)
STAYS = runs("long", 9.0, on("a", 8))


def planned(**placements: Placement) -> Plan:
    names = ("short", "long")
    said = {name: Explanation(each.configuration, "x") for name, each in placements.items()}
    return Plan(1, placements, {name: said.get(name, Explanation(None, "x")) for name in names})


KEEPS = {
    "who is stopped for what begins": (SHORT, STAYS, True),
    "not for what is of higher priority": (replace(SHORT, priority=1), STAYS, False),
    "not for what has a deadline": (replace(SHORT, deadline_s=NOW_S + 1000), STAYS, False),
    "not for what moves there": (replace(SHORT, placement=on("b", 2)), STAYS, False),
    "not what is on its way out": (SHORT, replace(STAYS, stopping=True), False),
}


@pytest.mark.parametrize(("begins", "stays", "expected"), KEEPS.values(), ids=KEEPS)
def test_who_could_be_kept(begins: WorkloadView, stays: WorkloadView, expected: bool) -> None:
    seen = situation(where(held(BIG, "a", 8), BIG.node("b")), begins, stays, now_s=NOW_S)
    found = kept(seen, planned(short=on("a", 2)))
    assert (found is not None) == expected
    if found is not None:
        assert dict(found.placements) == {"long": on("a", 8)}
        assert (found.stays, [each.id for each in found.waits]) == (frozenset({"long"}), ["short"])


def test_nothing_is_kept_where_nobody_is_stopped_for_another() -> None:
    seen = situation(where(held(BIG, "a", 8), BIG.node("b")), SHORT, STAYS, now_s=NOW_S)
    assert kept(seen, planned(short=on("b", 2), long=on("a", 8))) is None
    assert kept(seen, planned(short=on("b", 2))) is None, "it stops for another reason"


def test_a_long_job_that_is_left_over_on_a_large_node_is_moved_and_pays_less() -> None:
    """Two long jobs remain on two nodes of eight when the short ones are done: they end up on one."""

    def job(name: str, count: int, work: float) -> TraceJob:
        wanted = Configuration.of({"A100": count})
        return TraceJob(name, "f", 0.0, work, (Phase(0.0, {wanted: 1.0}),), startup_s=20.0, objective="cost")

    jobs = [job("a", 4, 8 * 3600.0), job("b", 4, 8 * 3600.0), job("c", 4, 1800.0), job("d", 4, 1800.0)]
    result = simulate(Trace("four", tuple(jobs)), where(types=(BIG,)), create("market"), Options())
    assert {each.state for each in result.jobs} == {"succeeded"}
    usd = sum(each.usd for each in result.rentals or ())
    assert usd < 32.0 * (8 + 0.5 + 1.5), "not two nodes for eight hours"
