"""Who gets the devices when all are given out anew, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from making import configuration, est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create
from scheduler.policy.auction import STARVING_S, STAY_S
from scheduler.types import Plan, WorkloadView

ONE_T4 = snapshot(node("a", ("T4", 1)))
MIXED = snapshot(node("a", ("T4", 1)), node("b", ("A100", 1)))


def plan(where: Any, *views: WorkloadView, **fields: Any) -> Plan:
    return create("auction").plan(situation(where, *views, **fields))


def test_the_shortest_goes_first_even_before_what_runs() -> None:
    runs = view("long", est(1000, T4=1), placement=placed(("T4", "a")))
    assert set(plan(ONE_T4, runs, view("short", est(100, T4=1))).placements) == {"short"}
    nearly_done = replace(runs, remaining=0.05)
    found = plan(ONE_T4, nearly_done, view("short", est(100, T4=1)))
    assert found.placements == {"long": placed(("T4", "a"))}
    assert found.explanations["long"].summary.startswith("stays on T4 x1")
    assert found.explanations["short"].summary == "waits for its turn: others get more done by the devices there are"


def test_each_goes_where_it_is_faster_than_others_would_be() -> None:
    alike, picky = est(100, T4=1), est(1000, T4=1)
    found = plan(MIXED, view("alike", alike, est(95, A100=1)), view("picky", picky, est(100, A100=1)))
    assert {name: str(each.configuration) for name, each in found.placements.items()} == {
        "alike": "T4 x1",
        "picky": "A100 x1",
    }
    rows = {str(o.estimate.configuration): o for o in found.explanations["alike"].options}
    assert rows["A100 x1"].reason is not None and rows["A100 x1"].reason.code == "dearer"


def test_nothing_is_moved_for_less_than_the_restart_takes() -> None:
    slow, fast = (replace(est(s, **{t: 1}), startup_s=0.5 * STAY_S) for s, t in ((1000, "T4"), (990, "A100")))
    stays = view("w", slow, fast, placement=placed(("T4", "a")), remaining=0.9)
    assert plan(MIXED, stays).placements["w"] == placed(("T4", "a"))
    much_faster = replace(stays, estimates=(slow, replace(est(310, A100=1), startup_s=10.0)))
    assert plan(MIXED, much_faster).placements["w"] == placed(("A100", "b"))


@pytest.mark.parametrize(
    "wins", [{"priority": 4}, {"objective": "time"}], ids=["a higher priority", "its time is worth more"]
)
def test_what_a_user_wants_counts(wins: dict[str, Any]) -> None:
    short, long = view("short", est(100, T4=1)), view("long", est(900, T4=1))
    assert set(plan(ONE_T4, short, long).placements) == {"short"}
    assert set(plan(ONE_T4, short, replace(long, **wins)).placements) == {"long"}


def test_nobody_starves() -> None:
    """However short those are that keep coming, who waits long enough goes first."""
    now_s = 200 * STARVING_S
    fresh = [view(f"s{n}", est(100, T4=1), queued_s=now_s) for n in range(5)]
    long = view("long", est(5000, T4=1), queued_s=0.0)
    assert "long" not in plan(ONE_T4, *fresh, replace(long, queued_s=now_s), now_s=now_s).placements
    assert set(plan(ONE_T4, *fresh, long, now_s=now_s).placements) == {"long"}


def test_a_job_that_decides_when_all_is_done_is_not_left_for_last() -> None:
    short = [view(f"s{n}", est(4000, T4=1), est(4000, A100=1)) for n in range(20)]
    long = view("long", est(20_000, T4=1), est(10_000, A100=1))
    assert plan(standard(), *short[:5], long).placements["long"] == placed(("A100", "a100"))
    assert "long" not in plan(standard(), *short, long).placements, "all the others take longer than it does"


def test_money_counts_where_the_objective_is_cost() -> None:
    quick, cheap = est(100, A100=1), est(300, T4=1)
    wanted = view("w", quick, cheap)
    assert plan(MIXED, wanted).placements["w"].configuration == configuration(A100=1)
    saving = plan(MIXED, replace(wanted, objective="cost"))
    assert saving.placements["w"].configuration == configuration(T4=1)


def test_prices_say_what_a_device_is_worth_to_those_who_wait() -> None:
    crowd = [view(f"w{n}", est(100 + n, T4=1), est(400, A100=1)) for n in range(8)]
    crowded, idle = plan(standard(), *crowd), plan(standard(), crowd[0])
    assert crowded.congestion_usd_h["T4"] > 0
    assert idle.congestion_usd_h["T4"] == 0.0
    waiting = next(e for name, e in crowded.explanations.items() if name not in crowded.placements)
    assert all(option.congestion_usd > 0 for option in waiting.options if "T4" in str(option.estimate.configuration))
