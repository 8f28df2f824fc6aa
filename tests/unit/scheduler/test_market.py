"""What `market` does when devices can be taken away again: who is stopped and moved, for whom, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making import configuration, est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create
from scheduler.policy.bidding import SETTLING_S, overdue_s
from scheduler.policy.market import REPEATED_TO
from scheduler.policy.prices import value_of_time_usd_h
from scheduler.policy.stays import STAY_S
from scheduler.policy.turns import DETAILED
from scheduler.types import Plan, Reason, WorkloadView
from simulating import simulate

ONE_T4 = snapshot(node("a", ("T4", 1)))
FOUR_T4 = snapshot(node("a", ("T4", 4)))
MIXED = snapshot(node("a", ("T4", 1)), node("b", ("A100", 1)))


def plan(where: Any, *views: WorkloadView, **fields: Any) -> Plan:
    return create("market").plan(situation(where, *views, **fields))


def running(name: str, *estimates: Any, at: Any, **fields: Any) -> WorkloadView:
    """A workload that can be stopped and goes on later."""
    fields = {"held_s": 1000.0, "resumes": True, "remaining": 0.9} | fields
    return view(name, *estimates, placement=placed(*at), **fields)


LONG = running("long", est(5000, T4=1), at=[("T4", "a")])
SHORT = view("short", est(100, T4=1))


def test_a_short_one_takes_the_device_of_a_long_one_that_can_go_on_later() -> None:
    found = plan(ONE_T4, LONG, SHORT)
    assert found.placements == {"short": placed(("T4", "a"))}
    assert found.explanations["long"].summary.startswith(
        "stops for now, others get more done by its devices: waits for T4 x1: free in about 100 s"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"resumes": False},
        {"remaining": 0.01},
        {"held_s": SETTLING_S - 1},
        {"unsaved_s": 60 * STAY_S},
        {"priority": 1},
        {"objective": "time", "remaining": 0.1},
    ],
    ids=[
        "it would begin again",
        "it is nearly done",
        "it has just begun",
        "its work of hours would be lost",
        "it has a higher priority",
        "its time is worth more",
    ],
)
def test_nobody_is_stopped_where_it_does_not_pay(fields: dict[str, Any]) -> None:
    found = plan(ONE_T4, replace(LONG, **fields), SHORT)
    assert found.placements == {"long": placed(("T4", "a"))}
    assert found.explanations["short"].summary.startswith("waits for T4 x1: free in about")


def test_a_start_up_is_not_thrown_away_for_a_little() -> None:
    begun = running("w", replace(est(400, T4=1), startup_s=200.0), at=[("T4", "a")], remaining=0.99, held_s=240.0)
    little = view("little", est(170, T4=1))
    assert set(plan(ONE_T4, begun, little).placements) == {"w"}
    assert set(plan(ONE_T4, replace(begun, estimates=(est(400, T4=1),)), little).placements) == {"little"}


def test_it_moves_where_it_is_faster_by_more_than_the_restart_takes() -> None:
    slow, fast = (replace(est(s, **{t: 1}), startup_s=60.0) for s, t in ((8060, "T4"), (960, "A100")))
    there = running("w", slow, fast, at=[("T4", "a")], remaining=0.5, objective="time")
    found = plan(MIXED, there)
    assert found.placements == {"w": placed(("A100", "b"))}
    assert found.explanations["w"].summary == (
        "moves to A100 x1: 510 s left there, the restart included, 67 min where it is"
    )
    assert plan(MIXED, replace(there, remaining=0.01)).placements["w"] == placed(("T4", "a"))


def test_a_higher_priority_goes_first_whatever_its_length() -> None:
    dear = view("dear", est(90_000, T4=1), priority=1)
    found = plan(ONE_T4, replace(LONG, remaining=0.5), SHORT, dear)
    assert set(found.placements) == {"dear"}
    assert "behind" not in found.explanations["short"].summary, "who runs is not in the queue"
    other = view("other", est(50, T4=1), priority=1)
    waits = plan(ONE_T4, SHORT, dear, other).explanations["short"].summary
    assert ", behind 1 other (1 of higher priority)" in waits


def test_what_was_lost_with_its_cluster_goes_first() -> None:
    lost = view("lost", est(5000, T4=1), interrupted=True, submitted_s=5.0)
    assert set(plan(ONE_T4, SHORT, lost).placements) == {"lost"}


def test_a_deadline_that_is_near_is_urgent() -> None:
    due = view("due", est(1000, T4=1), deadline_s=1100.0)
    assert set(plan(ONE_T4, SHORT, due).placements) == {"due"}
    assert set(plan(ONE_T4, SHORT, replace(due, deadline_s=20_000.0)).placements) == {"short"}
    assert set(plan(ONE_T4, SHORT, replace(due, deadline_s=900.0)).placements) == {"short"}, "it is late anyway"


def test_what_is_kept_for_a_gang_is_lent_to_who_gives_it_back_in_time() -> None:
    busy = view("busy", est(1000, T4=1), placement=placed(("T4", "a")), held_s=400.0)  # free in 600 s
    gang = view("gang", est(50, T4=4))
    quick, slow = view("quick", est(500, T4=1)), view("slow", est(700, T4=1))
    assert set(plan(FOUR_T4, busy, gang, quick).placements) == {"busy", "quick"}
    assert set(plan(FOUR_T4, busy, gang, slow).placements) == {"busy"}
    assert set(plan(FOUR_T4, busy, gang, replace(slow, resumes=True)).placements) == {"busy", "slow"}
    soon = replace(busy, held_s=990.0)
    assert set(plan(FOUR_T4, soon, gang, replace(slow, resumes=True)).placements) == {"busy"}, "it could not begin"


def test_a_gang_takes_the_nodes_where_least_is_disturbed() -> None:
    where = snapshot(node("a", ("T4", 2)), node("b", ("T4", 2)))
    there = running("there", est(90_000, T4=1), at=[("T4", "a")])
    found = plan(where, there, view("pair", est(50, T4=2)))
    assert found.placements == {"there": placed(("T4", "a")), "pair": placed(("T4", "b"), ("T4", "b"))}


def test_it_says_what_would_make_it_start() -> None:
    found = plan(ONE_T4, replace(LONG, remaining=0.01), SHORT)
    summary = found.explanations["short"].summary
    head, _, tail = summary.partition("; would start now on T4 x1 if its time were worth $")
    assert head == "waits for T4 x1: free in about 50 s"
    more_usd_h = float(tail.removesuffix(" an hour more"))
    assert more_usd_h > 0


def test_who_is_far_behind_gets_a_short_answer() -> None:
    crowd = [view(f"w{n:04}", est(100 + n, T4=1)) for n in range(DETAILED + 20)]
    found = plan(ONE_T4, *crowd)
    last = found.explanations[crowd[-1].id]
    assert last.summary == f"waits for its turn: behind at least {DETAILED} others"
    assert [option.reason.code for option in last.options if option.reason] == ["capacity"]


def test_how_long_placements_last_is_learnt() -> None:
    planner, now_s, memory = create("market"), 0.0, {}
    for _ in range(50):
        found = planner.plan(replace(situation(ONE_T4, LONG, now_s=now_s), memory=memory))
        memory, now_s = dict(found.memory), now_s + 600.0
    calm = memory["stays"]
    assert calm["moves"] == 0 < calm["held_s"] <= 50 * 600.0
    busy = planner.plan(replace(situation(ONE_T4, LONG, SHORT, now_s=now_s), memory=memory)).memory["stays"]
    assert busy["moves"] == 1


def test_what_is_noted_does_not_change_while_nothing_does() -> None:
    """The engine writes notes to the disk when they change: not every second."""
    first = create("market").plan(situation(ONE_T4, LONG, now_s=1000.0))
    second = create("market").plan(replace(situation(ONE_T4, LONG, now_s=1001.0), memory=first.memory))
    assert second.memory == first.memory != {}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 4),
    seconds=st.floats(20, 180),
    other_s=st.floats(400, 900),
    load=st.floats(1.0, 1.5),
    one_node=st.booleans(),
)
def test_nobody_waits_for_ever(width: int, seconds: float, other_s: float, load: float, one_node: bool) -> None:
    """However many small ones come: who is overdue is next, whatever its size, and wherever it can be."""
    limit_s = overdue_s(seconds) + 2 * other_s + 2
    gap_s = other_s / 4 / load
    small = [
        view(f"s{n}", est(other_s, T4=1), queued_s=n * gap_s, submitted_s=n * gap_s)
        for n in range(int(1.2 * limit_s / gap_s))
    ]
    one = view("one", est(seconds, T4=width), queued_s=1.0, submitted_s=1.0, one_node=one_node)
    where = snapshot(node("few", ("T4", 1)), node("some", ("T4", 4))) if one_node else FOUR_T4
    runs = simulate(create("market"), where, [one, *small], limit_s=1.1 * limit_s + seconds)
    assert runs["one"].started_s <= limit_s


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.floats(300, 5000), min_size=1, max_size=8),
    left=st.lists(st.floats(0.05, 1.0), min_size=8, max_size=8),
)
def test_on_devices_of_one_type_the_shortest_run(lengths: list[float], left: list[float]) -> None:
    """Where restarts cost nothing, whatever runs now."""
    views = [
        replace(view(f"w{n}", est(seconds, T4=1), resumes=True), remaining=left[n]) for n, seconds in enumerate(lengths)
    ]
    views[0] = replace(views[0], placement=placed(("T4", "t4-a")), held_s=500.0)
    found = plan(standard(), *views)
    assert len(found.placements) == min(4, len(views))
    rest = {each.id: lengths[n] * left[n] for n, each in enumerate(views)}
    longest_running = max(rest[name] for name in found.placements)
    waiting = [rest[name] for name in rest if name not in found.placements]
    if longest_running < sum(rest.values()) / 4:  # a longer one alone decides when all is done: it is not left for last
        assert all(longest_running <= 1.03 * seconds for seconds in waiting)


def test_the_configuration_of_everybody_is_listed() -> None:
    """Whole gangs, each of its own devices."""
    crowd = [view(f"w{n}", est(100 + n, T4=2), est(60 + n, A100=1), est(900, cpu=2)) for n in range(6)]
    found = plan(standard(), *crowd)
    taken = sorted(str(each.configuration) for each in found.placements.values())
    assert taken == ["A100 x1", "T4 x2", "T4 x2"], "900 s on cores is more than to wait for the others"
    assert all(each.configuration != configuration(cpu=2) for each in found.placements.values())


def test_a_displaced_one_waits_rather_than_move_to_what_is_far_slower() -> None:
    where = snapshot(node("b", ("A100", 1)), node("head", ("cpu", 4)))
    there = running("x", est(90_000, cpu=1), est(1000, A100=1), at=[("A100", "b")])
    found = plan(where, there, view("quick", est(50, A100=1)))
    assert found.placements == {"quick": placed(("A100", "b"))}
    assert "waits for A100 x1: free in about 50 s" in found.explanations["x"].summary


def test_what_is_near_and_does_not_come_is_not_waited_for_for_ever() -> None:
    busy = view("busy", est(300, A100=1), placement=placed(("A100", "b")))
    patient = view("w", est(40_000, T4=1), est(9000, A100=1), objective="time")
    memory: dict[str, Any] = {}
    starts = []
    for now_s in range(0, 6000, 300):  # each time another one is on the A100, and has just begun
        found = create("market").plan(replace(situation(MIXED, busy, patient, now_s=now_s), memory=memory))
        memory = dict(found.memory)
        starts.append("w" in found.placements)
    assert not starts[0]
    assert starts.index(True) == 6, "three times the 300 s that it was told, and 600 s"


def test_what_has_outlasted_everything_is_not_about_to_end() -> None:
    hung = view("hung", est(200, A100=1), placement=placed(("A100", "b")), remaining=0.001, held_s=10_000.0)
    found = plan(MIXED, hung, view("w", est(3600, T4=1), est(400, A100=1), objective="time"))
    assert found.placements["w"] == placed(("T4", "a"))


def test_what_runs_well_is_not_stopped_by_its_estimate() -> None:
    cannot = replace(est(5000, T4=1), infeasible=Reason("memory", "too big"))
    there = running("x", cannot, est(4000, A100=1), at=[("T4", "a")])
    busy = view("busy", est(9000, A100=1), placement=placed(("A100", "b")))
    assert plan(MIXED, there, busy).placements["x"] == placed(("T4", "a"))
    unlisted = replace(there, estimates=(est(10, A100=1),))
    assert plan(MIXED, unlisted).placements["x"] == placed(("T4", "a"))


def test_two_that_are_urgent_do_not_take_turns() -> None:
    """A second by second run of two trainings that can just be done one after the other."""
    left, held, since = {"a": 4000.0, "b": 3000.0}, None, 0.0
    due, whole, stops, memory = {"a": 8000.0, "b": 7400.0}, dict(left), 0, {}
    for now_s in range(0, 8000, 20):
        views = [
            view(
                name,
                replace(est(whole[name] + 20, T4=1), startup_s=20.0),
                deadline_s=due[name],
                remaining=max(1e-6, left[name] / whole[name]),
                placement=placed(("T4", "a")) if held == name else None,
                held_s=now_s - since if held == name else 0.0,
                resumes=True,
            )
            for name in left
            if left[name] > 0
        ]
        if not views:
            break
        found = create("market").plan(replace(situation(ONE_T4, *views, now_s=now_s), memory=memory))
        memory, now = dict(found.memory), next(iter(found.placements), None)
        if now != held:
            stops += held is not None and left[held] > 0
            held, since = now, float(now_s)
        if held is not None and now_s - since >= 20:
            left[held] -= 20.0
    assert stops <= 2
    assert all(seconds <= 0 for seconds in left.values()), "both are done in time"


@pytest.mark.parametrize(
    "memory",
    [
        {"prices": {"0": {"T4": float("nan")}}},
        {"prices": None, "stays": None, "patience": None},
        {"prices": [1], "stays": {"held_s": "x", "moves": -6, "at_s": []}, "patience": {"short": "soon"}},
        {"prices": {"0": {"T4": 1e300, "gone": 3.0}}, "stays": {"held_s": 1e300}},
    ],
)
def test_notes_that_make_no_sense_are_not_believed(memory: dict[str, Any]) -> None:
    seen = replace(situation(ONE_T4, LONG, SHORT), memory=memory)
    assert set(create("market").plan(seen).placements) == {"short"}


def test_a_device_is_never_given_twice_even_where_two_are_recorded_on_it() -> None:
    two = [
        running(n, est(5000, T4=1), at=[("T4", "a")], waited_s=1e6, submitted_s=float(s)) for s, n in enumerate("xy")
    ]
    assert len(plan(ONE_T4, *two).placements) == 1


def test_a_batch_of_low_priority_that_has_waited_does_not_stop_what_is_important() -> None:
    high = replace(LONG, id="high", priority=100)
    low = [view(f"low{n}", est(60, T4=1), priority=-5, queued_s=-2000.0) for n in range(5)]
    assert set(plan(ONE_T4, high, *low).placements) == {"high"}


@pytest.mark.parametrize("objective", ["cost", "balanced"])
def test_the_price_of_starting_now_is_the_right_one(objective: str) -> None:
    waits = view("b", est(200, T4=1), objective=objective)
    summary = plan(ONE_T4, view("a", est(100, T4=1)), waits).explanations["b"].summary
    more_usd_h = float(summary.split("worth $")[1].removesuffix(" an hour more"))
    # What bids twice as much for each second: $12 an hour against $6 for half as long.
    assert value_of_time_usd_h(objective) + more_usd_h == pytest.approx(12.0, rel=0.01)


def test_others_go_ahead_behind_what_waits_with_a_higher_priority() -> None:
    busy = view("busy", est(36_000, T4=2), placement=placed(("T4", "a"), ("T4", "a")), held_s=100.0)
    first = view("first", est(500, T4=3), priority=1)
    behind = view("behind", est(600, T4=1), resumes=True)
    assert set(plan(FOUR_T4, busy, first, behind).placements) == {"busy", "behind"}


def test_what_is_late_and_runs_is_not_stopped_to_wait_for_something_better() -> None:
    where = snapshot(node("a", ("T4", 2)), node("b", ("A100", 1)))
    busy = view("busy", est(200, A100=1), placement=placed(("A100", "b")), held_s=100.0)
    late = running(
        "late", est(9000, T4=1), est(5000, T4=2), est(300, A100=1), at=[("T4", "a")], objective="time", waited_s=1e6
    )
    assert set(plan(where, busy, late).placements) == {"busy", "late"}


@pytest.mark.parametrize("others", [100, REPEATED_TO + 100])
def test_in_a_crowd_nothing_is_stopped_whose_devices_nobody_takes(others: int) -> None:
    """It wins four devices that no single node has free, and must be on one."""
    where = snapshot(node("a", ("T4", 2)), node("b", ("T4", 2)), node("c", ("A100", 1)))
    there = running("there", est(900, T4=1), est(100, T4=4), at=[("T4", "a")], one_node=True, objective="time")
    crowd = [view(f"w{n:04}", est(9000 + n, A100=1)) for n in range(others)]
    assert plan(where, there, *crowd).placements["there"] == placed(("T4", "a"))


def test_a_plan_does_not_depend_on_what_was_planned_before() -> None:
    same = {"price_usd_h": 1.0}
    asked = situation(MIXED, view("w", est(600, **same, T4=1), est(600, **same, A100=1)))
    other = situation(MIXED, view("v", est(600, **same, A100=1), est(600, **same, T4=1)))
    planner = create("market")
    planner.plan(other)
    assert planner.plan(asked) == create("market").plan(asked)


def test_what_is_far_behind_hears_of_its_deadline_as_it_is_now() -> None:
    crowd = [view(f"w{n:04}", est(100 + n, T4=1)) for n in range(REPEATED_TO + 50)]
    crowd.append(view("z", est(50_000, T4=1), est(9000, A100=1), deadline_s=20_000.0))
    planner, where = create("market"), snapshot(node("a", ("T4", 1)), node("b", ("A100", 1)))
    for now_s in (0.0, 5000.0):
        asked = situation(where, *crowd, now_s=now_s)
        told, fresh = planner.plan(asked).explanations["z"], create("market").plan(asked).explanations["z"]
        assert told == fresh
        assert any("after the deadline" in o.reason.message for o in told.options if o.reason)


def test_in_a_crowd_what_one_got_is_not_held_against_it() -> None:
    two = snapshot(node("a", ("T4", 2)))
    wide = view("wide", est(100, T4=1), est(40, T4=2), objective="time")
    crowd = [view(f"w{n:04}", est(90_000 + n, T4=1)) for n in range(DETAILED + 20)]
    told = plan(two, wide, *crowd).explanations["wide"]
    assert str(told.chosen) == "T4 x2"
    (other,) = [o for o in told.options if o.reason is not None]
    assert other.wait_s == 0.0
