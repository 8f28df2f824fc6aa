"""Gavel's rounds: turns by what was received, preemption, what is kept between cycles, what is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Snapshot
from making import UNPRICED, configuration, est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create, names
from scheduler.types import Placement, Plan, Situation, WorkloadView

GAVEL = [name for name in names() if name.startswith("gavel-")]
ONE = snapshot(node("a", ("T4", 1)))
TWO = snapshot(node("a", ("T4", 1)), node("b", ("T4", 1)))


def test_their_names() -> None:
    assert GAVEL == [
        "gavel-fifo",
        "gavel-ftf",
        "gavel-las",
        "gavel-las-het",
        "gavel-makespan",
        "gavel-throughput-per-cost",
    ]


def play(
    policy: str, where: Snapshot, views: Sequence[WorkloadView], rounds: int, round_s: float = 360.0
) -> list[dict[str, Placement]]:
    """The placements of so many rounds in which nothing ends; time received is told to the policy."""
    memory: dict[str, Any] = {}
    seen = {each.id: each for each in views}
    told = []
    for number in range(rounds):
        plan = create(policy).plan(situation(where, *seen.values(), now_s=number * round_s, memory=memory))
        memory = json.loads(json.dumps(plan.memory))
        told.append(dict(plan.placements))
        for name, each in seen.items():
            there = plan.placements.get(name)
            received = dict(each.received_s)
            for kind, _ in there.configuration.groups if there is not None else ():
                received[kind] = received.get(kind, 0.0) + round_s
            seen[name] = replace(each, placement=there, received_s=received)
    return told


@pytest.mark.parametrize("policy", ["gavel-las", "gavel-las-het", "gavel-ftf"])
def test_two_equals_take_turns_on_one_device(policy: str) -> None:
    views = [view("a", est(9000, T4=1)), view("b", est(9000, T4=1))]
    told = [sorted(placements) for placements in play(policy, ONE, views, 6)]
    assert all(len(names) == 1 for names in told), "one device, one job"
    assert sum(names == ["a"] for names in told) == 3
    assert told[0] != told[1], "who has received nothing goes before who has"


def test_first_come_first_served_is_not_preempted() -> None:
    views = [view("old", est(9000, T4=1)), view("new", est(10, T4=1), submitted_s=1.0)]
    assert [sorted(each) for each in play("gavel-fifo", ONE, views, 4)] == [["old"]] * 4


def test_who_is_chosen_again_stays_where_it_is() -> None:
    views = [view("b", est(9000, T4=1), placement=placed(("T4", "b"))), view("a", est(9000, T4=1))]
    for placements in play("gavel-las", TWO, views, 4):
        assert placements == {"b": placed(("T4", "b")), "a": placed(("T4", "a"))}


def test_a_gang_is_whole_and_goes_before_smaller_ones_to_one_node() -> None:
    where = snapshot(node("a", ("T4", 2)), node("b", ("T4", 1)))
    small, gang = view("small", est(9000, T4=1)), view("gang", est(9000, T4=2))
    plan = create("gavel-las").plan(situation(where, small, gang))
    assert plan.placements == {"gang": placed(("T4", "a"), ("T4", "a")), "small": placed(("T4", "b"))}


def test_the_type_aware_one_gives_each_its_type() -> None:
    where = snapshot(node("t", ("T4", 1)), node("a", ("A100", 1)))
    fast = view("fast", est(100, A100=1), est(1000, T4=1))
    same = view("same", est(900, A100=1), est(1000, T4=1))
    plan = create("gavel-las-het").plan(situation(where, same, fast))
    assert plan.placements == {"fast": placed(("A100", "a")), "same": placed(("T4", "t"))}


def test_of_several_counts_the_lowest_is_taken() -> None:
    wide, narrow, mixed = est(10, T4=4), est(100, T4=2), est(1, T4=1, A100=1)
    plan = create("gavel-las").plan(situation(standard(), view("w", wide, narrow, mixed)))
    explanation = plan.explanations["w"]
    assert explanation.chosen == configuration(T4=2)
    told = [(str(o.estimate.configuration), o.reason.code if o.reason else None) for o in explanation.options]
    assert told == [("T4 x4", "count"), ("T4 x2", None), ("A100 x1 + T4 x1", "count")]


def begin(policy: str, *views: WorkloadView, where: Snapshot = ONE, now_s: float = 0.0) -> tuple[Situation, Plan]:
    first = situation(where, *views, now_s=now_s)
    return first, create(policy).plan(first)


@pytest.mark.parametrize("policy", GAVEL)
def test_a_cycle_that_is_repeated_decides_the_same(policy: str) -> None:
    a, b = view("a", est(9000, T4=1), received_s={"T4": 360.0}), view("b", est(9000, T4=1))
    _, plan = begin(policy, replace(a, placement=placed(("T4", "a"))), b)
    # What runs is stopped and waits now; what was chosen could not start yet.
    again = create(policy).plan(situation(ONE, a, b, now_s=1.0, memory=plan.memory))
    assert again.placements == plan.placements
    assert again.memory == plan.memory
    assert again.explanations == plan.explanations


@pytest.mark.parametrize("policy", GAVEL)
def test_nothing_changes_within_a_round(policy: str) -> None:
    old = view("old", est(9000, T4=1))
    _, plan = begin(policy, old)
    new = view("new", est(10, T4=1), submitted_s=100.0)
    there = replace(old, placement=plan.placements["old"])
    during = create(policy).plan(situation(TWO, there, new, now_s=200.0, memory=plan.memory))
    assert during.placements == plan.placements
    assert during.explanations["new"].summary.startswith("waits for its share: ")
    after = create(policy).plan(situation(TWO, there, new, now_s=360.0, memory=during.memory))
    assert sorted(after.placements) == ["new", "old"]


def test_a_round_is_over_when_nothing_of_it_is_left() -> None:
    _, plan = begin("gavel-las", view("a", est(10, T4=1)))
    after = create("gavel-las").plan(situation(ONE, view("b", est(10, T4=1)), now_s=20.0, memory=plan.memory))
    assert sorted(after.placements) == ["b"]


def test_shares_are_computed_anew_after_32_minutes_at_the_earliest() -> None:
    policy, memory, told = create("gavel-las"), {}, {}
    for number in range(9):
        views = [view(f"w{n}", est(9e5, T4=1), submitted_s=360.0 * n) for n in range(number + 1)]
        plan = policy.plan(situation(TWO, *views, now_s=360.0 * number, memory=memory))
        memory = plan.memory
        told[number] = len(memory["shares"])
    # At once at first, and then every 1,920 s, that is after six rounds.
    assert told == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 8, 8: 8}


def test_another_policys_memory_is_not_taken() -> None:
    _, plan = begin("gavel-las", view("a", est(10, T4=1)))
    other = create("gavel-fifo").plan(situation(ONE, view("b", est(10, T4=1)), now_s=1.0, memory=plan.memory))
    assert sorted(other.placements) == ["b"]
    assert other.memory["policy"] == "gavel-fifo"


def test_a_node_that_is_gone_takes_its_job_off_the_round() -> None:
    _, plan = begin("gavel-las", view("a", est(9000, T4=1)), view("b", est(9000, T4=1)), where=TWO)
    views = [view(name, est(9000, T4=1), placement=plan.placements[name]) for name in ("a", "b")]
    after = create("gavel-las").plan(situation(ONE, *views, now_s=100.0, memory=plan.memory))
    assert list(after.placements.values()) == [placed(("T4", "a"))]


def test_devices_that_others_hold_are_not_given_away() -> None:
    where = snapshot(node("a", ("T4", 2, 0)))
    runs = view("a", est(9000, T4=1), placement=placed(("T4", "a")))
    plan = create("gavel-las").plan(situation(where, runs, view("b", est(9000, T4=1))))
    assert len(plan.placements) == 1, "one of the two is held by somebody else"


@pytest.mark.parametrize("policy", GAVEL)
def test_what_cannot_run_is_told_and_does_not_stop_the_others(policy: str) -> None:
    views = [
        view("wide", est(10, T4=9)),
        view("nothing"),
        view("dear", est(3600, T4=1), budget_usd=0.1),
        view("later", est(10, T4=1), not_before_s=50.0),
        view("unknown", est(None, T4=1), submitted_s=5.0),
    ]
    plan = create(policy).plan(situation(standard(), *views))
    assert sorted(plan.placements) == ["unknown"]
    said = {name: each.summary for name, each in plan.explanations.items()}
    assert said["wide"] == "cannot run: the cluster has 4 T4"
    assert said["nothing"] == "cannot run: no configuration"
    assert said["dear"] == "cannot run: would cost $0.4000 more than the budget leaves"
    assert said["later"] == "waits after a failed attempt: tries again in 50 s"


def test_a_dollar_decides_where_every_type_has_a_price() -> None:
    where = snapshot(node("t", ("T4", 1)), node("a", ("A100", 1)))
    # The A100 is four times as fast for eight times the price.
    one = view("w", est(400, T4=1), est(100, A100=1))
    dollar = create("gavel-throughput-per-cost").plan(situation(where, one))
    assert dollar.explanations["w"].options[0].reason is not None
    assert dollar.memory["shares"]["w"]["T4"] == pytest.approx(1.0, abs=1e-4)
    free = {**where.device_types, "A100": replace(UNPRICED, name="A100")}
    none = create("gavel-throughput-per-cost").plan(situation(replace(where, device_types=free), one))
    assert none.memory["shares"]["w"]["A100"] == pytest.approx(1.0, abs=1e-4)
