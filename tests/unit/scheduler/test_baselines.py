"""The simple rules: what each takes, who waits for whom, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Snapshot
from making import configuration, est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create
from scheduler.types import Plan, WorkloadView

RULES = ["fifo", "least-loaded", "cheapest", "srtf"]


def plan(policy: str, *views: WorkloadView, where: Snapshot | None = None, **fields: Any) -> Plan:
    return create(policy).plan(situation(where or standard(), *views, **fields))


def told(made: Plan, name: str) -> dict[str, tuple[str, str] | None]:
    rows = made.explanations[name].options
    return {str(o.estimate.configuration): (o.reason.code, o.reason.message) if o.reason else None for o in rows}


def test_fifo_takes_the_fastest_that_is_free_in_the_order_of_submission() -> None:
    fast, slow = est(100, A100=1), est(400, T4=1)
    made = plan("fifo", view("new", slow, fast, submitted_s=5.0), view("old", slow, fast, submitted_s=1.0))
    assert made.placements == {"old": placed(("A100", "a100")), "new": placed(("T4", "t4-a"))}
    assert told(made, "old") == {"T4 x1": ("dearer", "300 s slower"), "A100 x1": None}
    assert told(made, "new") == {"T4 x1": None, "A100 x1": ("capacity", "not enough devices are free")}
    assert made.explanations["new"].summary == "T4 x1 is the fastest that is free"


def test_fifo_goes_by_submission_and_not_by_the_last_stop() -> None:
    stopped = view("stopped", est(9, A100=1), submitted_s=1.0, queued_s=90.0)
    made = plan("fifo", view("other", est(9, A100=1), submitted_s=2.0, queued_s=2.0), stopped)
    assert sorted(made.placements) == ["stopped"]


def test_fifo_lets_nobody_overtake() -> None:
    runs = view("runs", est(50, T4=1), placement=placed(("T4", "t4-a")))
    wide, small = view("wide", est(9, T4=4), submitted_s=1.0), view("small", est(9, cpu=1), submitted_s=2.0)
    made = plan("fifo", small, wide, runs)
    assert sorted(made.placements) == ["runs"]
    assert made.explanations["wide"].summary == "waits at the head of the queue: not enough devices are free"
    assert made.explanations["small"].summary == "waits in the queue: behind wide"
    assert told(made, "small") == {"cpu x1": ("capacity", "whoever came before goes first")}


@pytest.mark.parametrize("policy", RULES)
def test_what_can_never_run_holds_up_nobody(policy: str) -> None:
    views = [
        view("wide", est(9, T4=5)),
        view("split", est(9, T4=3), one_node=True),
        view("dear", est(3600, A100=1), budget_usd=3.0),
        view("resting", est(9, T4=1), not_before_s=30.0),
        view("empty"),
        view("small", est(9, T4=1), submitted_s=9.0),
    ]
    made = plan(policy, *views)
    assert sorted(made.placements) == ["small"]
    assert {name: each.summary for name, each in made.explanations.items() if name != "small"} == {
        "wide": "cannot run: the cluster has 4 T4",
        "split": "cannot run: one node has at most 2 T4",
        "dear": "cannot run: would cost $1.0000 more than the budget leaves",
        "resting": "waits after a failed attempt: tries again in 30 s",
        "empty": "cannot run: no configuration",
    }


@pytest.mark.parametrize("policy", ["fifo", "least-loaded", "cheapest"])
def test_what_runs_stays(policy: str) -> None:
    here = placed(("T4", "t4-a"))
    slow = view("slow", est(1, A100=1), est(9999, T4=1), placement=here)
    made = plan(policy, slow, view("short", est(1, T4=1)))
    assert made.placements["slow"] == here
    assert made.explanations["slow"].chosen == configuration(T4=1)


def test_the_least_loaded_type() -> None:
    half = view("runs", est(9, T4=2), placement=placed(("T4", "t4-a"), ("T4", "t4-a")))
    made = plan("least-loaded", half, view("w", est(1, T4=1), est(50, A100=1), est(50, T4=2, A100=1)))
    assert made.placements["w"] == placed(("A100", "a100"))
    assert made.explanations["w"].summary == "A100 x1: 100% of its devices are free"
    assert told(made, "w") == {
        "T4 x1": ("capacity", "50% of its devices are free, 100% there"),
        "A100 x1": None,
        "A100 x1 + T4 x2": ("capacity", "50% of its devices are free, 100% there"),
    }


def test_the_least_loaded_spreads_and_passes_over_what_does_not_fit() -> None:
    views = [view("a", est(1, T4=1), est(2, cpu=1)), view("wide", est(1, T4=4), submitted_s=1.0)]
    views += [view(name, est(1, T4=1), est(2, cpu=1), submitted_s=2.0) for name in ("b", "c")]
    made = plan("least-loaded", *views)
    assert {name: str(each.configuration) for name, each in made.placements.items()} == {
        "a": "T4 x1",
        "b": "cpu x1",
        "c": "T4 x1",
    }
    assert made.explanations["wide"].summary == "waits: not enough devices are free"


def test_the_cheapest_waits_for_the_cheapest_and_keeps_its_place() -> None:
    # A CPU costs $0.05 an hour, a T4 $0.5.
    runs = view("runs", est(9, cpu=3), placement=placed(*[("cpu", "head")] * 3))
    dollar, dear = est(7200, cpu=2), est(3600, T4=1)
    made = plan("cheapest", runs, view("w", dollar, dear), view("late", est(9, cpu=1), submitted_s=9.0))
    assert sorted(made.placements) == ["runs"]
    assert made.explanations["w"].summary == "waits for cpu x2: the cheapest ($0.2000) is not free"
    assert told(made, "w") == {
        "cpu x2": ("capacity", "not enough devices are free"),
        "T4 x1": ("dearer", "$0.3000 dearer"),
    }
    assert made.explanations["late"].chosen is None, "the core that is free is kept for the one before"


def test_the_cheapest_hour_where_no_time_is_known() -> None:
    made = plan("cheapest", view("w", est(None, A100=1), est(None, T4=1)))
    assert made.placements == {"w": placed(("T4", "t4-a"))}
    assert made.explanations["w"].summary == "T4 x1 is the cheapest: $0.5000 an hour"
    assert told(made, "w") == {"A100 x1": ("dearer", "$3.5000 an hour dearer"), "T4 x1": None}


def test_an_unknown_time_is_not_the_cheapest() -> None:
    made = plan("cheapest", view("w", est(None, cpu=1), est(60, T4=1)))
    assert made.placements == {"w": placed(("T4", "t4-a"))}
    assert told(made, "w")["cpu x1"] == ("unpriced", "nobody can say what it would cost")


def test_the_shortest_preempts() -> None:
    where = snapshot(node("a", ("A100", 1)), node("t", ("T4", 1)))
    fast, slow = est(1000, A100=1), est(4000, T4=1)
    long = view("long", fast, slow, placement=placed(("A100", "a")), remaining=0.9)
    short = view("short", est(100, A100=1), est(300, T4=1), submitted_s=50.0)
    made = plan("srtf", long, short, where=where)
    assert made.placements == {"short": placed(("A100", "a")), "long": placed(("T4", "t"))}
    alone = plan("srtf", long, replace(short, estimates=(est(100, A100=1),)), where=snapshot(where.nodes[0]))
    assert sorted(alone.placements) == ["short"]
    assert alone.explanations["long"].summary == "stops: shorter ones go first"


def test_what_is_nearly_done_is_not_preempted() -> None:
    where = snapshot(node("a", ("A100", 1)))
    long = view("long", est(1000, A100=1), placement=placed(("A100", "a")), remaining=0.05)
    made = plan("srtf", long, view("short", est(100, A100=1)), where=where)
    assert made.placements == {"long": placed(("A100", "a"))}
    assert made.explanations["short"].summary == "waits: shorter ones need the devices"


def test_a_move_must_be_worth_its_start_up() -> None:
    here = placed(("T4", "t4-a"))
    fast = replace(est(100, A100=1), startup_s=60.0)
    runs = view("runs", est(150, T4=1), fast, placement=here, remaining=0.5)
    assert plan("srtf", runs).placements == {"runs": here}, "75 s here, 20 s and 60 s of start-up there"
    far = replace(runs, remaining=1.0)
    assert plan("srtf", far).placements == {"runs": placed(("A100", "a100"))}


def test_a_running_workload_keeps_its_node() -> None:
    here = placed(("T4", "t4-b"))
    made = plan("srtf", view("runs", est(150, T4=1), placement=here), view("new", est(10, T4=2)))
    assert made.placements == {"runs": here, "new": placed(("T4", "t4-a"), ("T4", "t4-a"))}
