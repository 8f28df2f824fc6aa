"""Whole plans of both policies, and what holds for every situation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.types import Snapshot
from making import configuration, est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create, names
from scheduler.policy.bidding import OVERDUE_S, overdue_s
from scheduler.types import Estimate, Explanation, Option, Plan, Reason, Situation, WorkloadView
from simulating import check

POLICIES = ["first-fit", "market"]
"""Here on workloads that would begin again if they were stopped, which neither moves. What can be stopped: test_market;
what holds for all: test_every_policy."""


def test_the_policies_by_name() -> None:
    assert set(POLICIES) <= set(names())
    assert [create(name).name for name in names()] == names()
    with pytest.raises(KeyError):
        create("best-fit")


def test_first_fit_gives_the_oldest_the_first_that_fits() -> None:
    gang, slow, late = est(10, T4=3), est(100, T4=1), est(5, A100=1)
    new = view("new", gang, slow, queued_s=5.0)
    old = view("old", gang, slow, queued_s=1.0)
    third = view("third", est(1, T4=2), late, queued_s=9.0)
    plan = create("first-fit").plan(situation(standard(), new, third, old))
    busy = Reason("capacity", "not enough devices are free")
    assert plan == Plan(
        1,
        {
            "old": placed(("T4", "t4-a"), ("T4", "t4-a"), ("T4", "t4-b")),
            "new": placed(("T4", "t4-b")),
            "third": placed(("A100", "a100")),
        },
        {
            "old": Explanation(configuration(T4=3), "T4 x3 is the first configuration that fits", (Option(gang),)),
            "new": Explanation(configuration(T4=1), "T4 x1 is the first configuration that fits", (Option(slow),)),
            "third": Explanation(
                configuration(A100=1), "A100 x1 is the first configuration that fits", (Option(late),)
            ),
        },
    )
    assert busy not in [option.reason for each in plan.explanations.values() for option in each.options]


def test_first_fit_passes_over_what_does_not_fit() -> None:
    wide = est(10, T4=9)
    plan = create("first-fit").plan(
        situation(standard(), view("wide", wide), view("small", est(10, T4=1), queued_s=9.0))
    )
    assert plan.placements == {"small": placed(("T4", "t4-a"))}
    reason = Reason("capacity", "not enough devices are free")
    assert plan.explanations["wide"] == Explanation(
        None, "no configuration fits into what is free", (Option(wide, reason=reason),)
    )


def test_the_market_takes_the_least_money_and_says_what_the_others_cost() -> None:
    cheap, fast = est(3600, T4=1), est(450, A100=1)
    plan = create("market").plan(situation(standard(), view("w", cheap, fast, objective="balanced")))
    # T4: $0.5 and an hour of $6. A100: 450 s of $4 and of $6.
    rows = (
        Option(cheap, 6.5, reason=Reason("dearer", "$5.2500 dearer in all")),
        Option(fast, 1.25),
    )
    assert replace(plan, memory={}) == Plan(
        1,
        {"w": placed(("A100", "a100"))},
        {"w": Explanation(configuration(A100=1), "A100 x1 is the least money: $1.2500 with the time it takes", rows)},
        {"A100": 0.0, "T4": 0.0, "cpu": 0.0},
    )


@pytest.mark.parametrize(
    ("objective", "chosen"),
    [("cost", "cpu x1"), ("balanced", "T4 x1"), ("time", "A100 x1")],
    ids=["cost waits longest", "balanced", "time pays most"],
)
def test_the_value_of_time_decides(objective: str, chosen: str) -> None:
    choices = (est(2700, cpu=1), est(2400, T4=1), est(1800, A100=1))
    plan = create("market").plan(situation(standard(), view("w", *choices, objective=objective)))
    assert str(plan.explanations["w"].chosen) == chosen


def market(*views: WorkloadView, where: Snapshot | None = None, **fields: Any) -> Plan:
    return create("market").plan(situation(where or standard(), *views, **fields))


def reasons(plan: Plan, name: str) -> dict[str, str | None]:
    return {
        str(option.estimate.configuration): option.reason.message if option.reason else None
        for option in plan.explanations[name].options
    }


def test_a_running_workload_stays_where_it_is() -> None:
    here = placed(("T4", "t4-a"))
    for name in POLICIES:
        plan = create(name).plan(situation(standard(), view("w", est(1, A100=1), est(9999, T4=1), placement=here)))
        assert plan.placements == {"w": here}
        assert plan.explanations["w"].chosen == configuration(T4=1)


def test_one_waits_for_the_better_device_where_that_is_cheaper() -> None:
    runs = view("runs", est(100, A100=1), placement=placed(("A100", "a100")), remaining=0.5)
    plan = market(runs, view("w", est(3600, T4=1), est(400, A100=1), objective="time"))
    assert "w" not in plan.placements
    assert plan.explanations["w"].summary == (
        "waits for A100 x1: free in about 50 s; would start now on T4 x1 for $35.06 more"
    )
    assert reasons(plan, "w") == {"T4 x1": "$35.06 dearer in all", "A100 x1": "busy: free in about 50 s"}


def test_one_starts_on_the_worse_device_where_waiting_costs_more() -> None:
    runs = view("runs", est(7200, A100=1), placement=placed(("A100", "a100")))
    plan = market(runs, view("w", est(3600, T4=1), est(400, A100=1), objective="time"))
    assert plan.placements["w"] == placed(("T4", "t4-a"))
    assert reasons(plan, "w") == {"T4 x1": None, "A100 x1": "$44.39 dearer in all, free in about 2.0 h"}


def test_the_wait_for_a_device_counts_what_starts_in_the_same_cycle_and_what_waits_before() -> None:
    only = snapshot(node("a100", ("A100", 1)))
    plan = market(view("w1", est(100, A100=1)), view("w2", est(200, A100=1)), view("w3", est(300, A100=1)), where=only)
    assert plan.placements == {"w1": placed(("A100", "a100"))}
    said = [plan.explanations[name].summary.split(";") for name in ("w2", "w3")]
    assert [first for first, _ in said] == [
        "waits for A100 x1: free in about 100 s",
        "waits for A100 x1: free in about 300 s, behind 1 other",
    ]
    assert all(second.startswith(" would start now on A100 x1 if its time were worth $") for _, second in said)


def test_a_gang_is_whole_or_waits() -> None:
    runs = view("runs", est(60, T4=1), placement=placed(("T4", "t4-a")))
    plan = market(runs, view("gang", est(100, T4=4)))
    assert plan.placements == {"runs": placed(("T4", "t4-a"))}
    assert plan.explanations["gang"].summary == "waits for T4 x4: free in about 60 s"


def test_what_is_kept_for_a_gang_is_not_given_to_a_later_one() -> None:
    runs = view("runs", est(60, T4=1), placement=placed(("T4", "t4-a")))
    small = view("small", est(1000, T4=1), queued_s=0.0)
    plan = market(runs, view("gang", est(100, T4=4)), small)
    assert set(plan.placements) == {"runs"}
    assert plan.explanations["small"].summary == "waits for T4 x1: free in about 160 s, behind 1 other"


def test_backfill_takes_what_the_gang_does_not_need() -> None:
    runs = view("runs", est(60, T4=1), placement=placed(("T4", "t4-a")))
    plan = market(runs, view("gang", est(100, T4=3, A100=1)), view("small", est(1000, cpu=1)))
    assert plan.placements["small"] == placed(("cpu", "head"))


def test_priority_goes_before_length_and_starvation_before_priority() -> None:
    only = snapshot(node("a100", ("A100", 1)))
    short, long = view("short", est(10, A100=1)), view("long", est(100, A100=1))
    assert set(market(short, long, where=only).placements) == {"short"}
    assert set(market(short, replace(long, priority=1), where=only).placements) == {"long"}
    starving = replace(long, queued_s=-1.0 - overdue_s(100))
    assert set(market(short, starving, where=only).placements) == {"long"}
    assert set(market(replace(short, priority=5), starving, where=only).placements) == {"short"}
    starving = replace(long, queued_s=-1.0 - OVERDUE_S)
    assert set(market(replace(short, priority=5), starving, where=only).placements) == {"long"}


def test_dear_time_goes_first() -> None:
    only = snapshot(node("a100", ("A100", 1)))
    patient, hasty = view("patient", est(100, A100=1)), view("hasty", est(300, A100=1), objective="time")
    assert set(market(patient, hasty, where=only).placements) == {"hasty"}


def test_a_failed_attempt_waits_for_its_time() -> None:
    late = view("w", est(10, T4=1), not_before_s=30.0)
    plan = market(late, now_s=12.0)
    assert (plan.placements, plan.explanations["w"]) == (
        {},
        Explanation(None, "waits after a failed attempt: tries again in 18 s"),
    )
    assert set(market(late, now_s=30.0).placements) == {"w"}


def test_a_deadline_rules_out_what_is_too_slow() -> None:
    plan = market(view("w", est(7200, cpu=1), est(100, A100=1), objective="cost", deadline_s=3000.0), now_s=1000.0)
    assert plan.placements == {"w": placed(("A100", "a100"))}
    assert reasons(plan, "w") == {"cpu x1": "would be done 5200 s after the deadline", "A100 x1": None}


def test_a_deadline_that_is_gone_is_missed_by_as_little_as_can_be() -> None:
    plan = market(view("w", est(7200, cpu=1), est(100, A100=1), objective="cost", deadline_s=1000.0), now_s=1000.0)
    assert plan.placements == {"w": placed(("A100", "a100"))}
    totals = [option.total_usd for option in plan.explanations["w"].options]
    assert totals == [pytest.approx(2 * 40.05), pytest.approx(100 / 3600 * 44.0)], "dollars still count"


def test_a_budget_rules_out_what_is_too_dear_and_stays_ruled_out() -> None:
    plan = market(view("w", est(3600, T4=1), est(1800, A100=1), objective="time", budget_usd=1.0))
    assert plan.placements == {"w": placed(("T4", "t4-a"))}
    assert reasons(plan, "w") == {"T4 x1": None, "A100 x1": "would cost $1.0000 more than the budget leaves"}
    plan = market(view("w", est(3600, T4=1), budget_usd=0.1))
    assert (plan.placements, plan.explanations["w"].summary) == (
        {},
        "cannot run: would cost $0.4000 more than the budget leaves",
    )


def test_the_budget_of_a_half_done_workload_is_for_what_is_left() -> None:
    half = view("w", est(3600, T4=1), budget_usd=0.3, remaining=0.5)
    assert set(market(half).placements) == {"w"}


def test_an_unpriced_device_is_taken_only_where_there_is_nothing_else() -> None:
    where = snapshot(node("f", ("FPGA", 1)), node("t", ("T4", 1)))
    unpriced = Estimate(configuration(FPGA=1), 10.0)
    plan = market(view("w", unpriced, est(1000, T4=1)), where=where)
    assert plan.placements == {"w": placed(("T4", "t"))}
    assert reasons(plan, "w")["FPGA x1"] == "no price is known for it"
    assert market(view("w", unpriced), where=where).placements == {"w": placed(("FPGA", "f"))}


def test_an_unknown_time_compares_the_prices_of_an_hour() -> None:
    plan = market(view("w", est(None, T4=2), est(None, A100=1), est(None, T4=1)))
    assert plan.explanations["w"].chosen == configuration(T4=1)
    assert plan.explanations["w"].summary == "T4 x1 is the cheapest to try; its run time is not known yet"


@pytest.mark.parametrize("name", POLICIES)
def test_a_command_is_never_spread_over_nodes(name: str) -> None:
    a, b = (view(node_id, est(100, T4=1), placement=placed(("T4", node_id))) for node_id in ("t4-a", "t4-b"))
    choices = (est(100, T4=2), est(150, T4=1))
    assert create(name).plan(situation(standard(), a, view("w", *choices, one_node=True))).placements["w"] == placed(
        ("T4", "t4-b"), ("T4", "t4-b")
    )
    plan = create(name).plan(situation(standard(), a, b, view("w", *choices, one_node=True)))
    assert plan.placements["w"] == placed(("T4", "t4-a"))


def test_a_configuration_of_unknown_speed_is_tried_where_it_is_cheaper_an_hour() -> None:
    plan = market(view("w", est(1000, A100=1), est(None, T4=1)))
    assert plan.explanations["w"].chosen == configuration(T4=1)
    assert plan.explanations["w"].summary == "T4 x1 is the cheapest to try; its run time is not known yet"
    assert market(view("w", est(1000, T4=1), est(None, A100=1))).explanations["w"].chosen == configuration(T4=1)


def test_what_has_waited_too_long_is_next_but_need_not_take_what_is_dearer() -> None:
    runs = view("runs", est(100, A100=1), placement=placed(("A100", "a100")))
    waits = view("w", est(3600, T4=1), est(400, A100=1), objective="time", queued_s=0.0)
    late_s = overdue_s(400) + 1
    others = [view(f"o{n}", est(10, A100=1), queued_s=late_s - 60) for n in range(3)]
    early, late = (market(runs, waits, *others, now_s=now_s) for now_s in (late_s - 2, late_s))
    assert set(early.placements) == set(late.placements) == {"runs"}
    assert "free in about 100 s" in late.explanations["w"].summary
    assert "behind" not in late.explanations["w"].summary
    assert "free in about 500 s, behind 1 other" in late.explanations["o0"].summary
    assert "free in about 100 s" in early.explanations["o0"].summary
    assert "behind 3 others" in early.explanations["w"].summary


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"remaining": 0.25, "held_s": 150.0}, "waits for A100 x1: free in about 50 s"),
        ({"held_s": 150.0}, "waits for A100 x1: free in about 50 s"),
        ({"held_s": 199.9}, "waits for A100 x1: free in about 1 s"),
        ({"held_s": 1000.0}, "waits for A100 x1: busy, and nothing predicts when what runs there ends"),
    ],
    ids=[
        "by the work it reports",
        "by the clock where it reports nothing",
        "any moment now",
        "it has outlasted every guess",
    ],
)
def test_when_a_running_workload_gives_its_devices_back(fields: dict[str, float], summary: str) -> None:
    runs = view("runs", est(200, A100=1), placement=placed(("A100", "a100")), **fields)
    assert market(runs, view("w", est(10, A100=1))).explanations["w"].summary == summary


def test_what_is_impossible_keeps_its_reason() -> None:
    too_big = Estimate(
        configuration(T4=1), None, infeasible=Reason("memory", "needs 20.0 GB a device, 4.0 GB too much")
    )
    plan = market(view("w", too_big, est(10, A100=1)), view("never", too_big))
    assert reasons(plan, "w")["T4 x1"] == "needs 20.0 GB a device, 4.0 GB too much"
    assert plan.explanations["never"] == Explanation(
        None, "cannot run: needs 20.0 GB a device, 4.0 GB too much", (Option(too_big, reason=too_big.infeasible),)
    )


def test_a_workload_without_any_configuration_and_a_cluster_without_devices() -> None:
    for name in POLICIES:
        plan = create(name).plan(situation(Snapshot(0.0, (), {}), view("a"), view("b", est(1, T4=1))))
        assert plan.placements == {}
        assert all(each.chosen is None and each.summary for each in plan.explanations.values())


# Any situation at all.

_ESTIMATES = st.lists(
    st.builds(
        lambda seconds, counts, infeasible, priced: replace(
            est(seconds, **counts),
            infeasible=Reason("memory", "too big") if infeasible else None,
            **({} if priced else {"money": None, "price_usd_h": None}),
        ),
        st.one_of(st.none(), st.floats(1.0, 1e5)),
        st.sampled_from([{"T4": 1}, {"T4": 2}, {"T4": 4}, {"A100": 1}, {"cpu": 3}, {"A100": 1, "T4": 2}, {"T4": 9}]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda each: each.configuration,
)
_PLACEMENTS = [placed(("T4", "t4-a")), placed(("A100", "a100")), placed(("cpu", "head"), ("cpu", "head"))]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    views = [
        view(
            f"w{index}",
            *draw(_ESTIMATES),
            priority=draw(st.integers(-1, 1)),
            objective=draw(st.sampled_from(["cost", "balanced", "time"])),
            queued_s=draw(st.floats(0, 2000)),
            deadline_s=draw(st.one_of(st.none(), st.floats(0, 1e5))),
            budget_usd=draw(st.one_of(st.none(), st.floats(-1, 10))),
            remaining=draw(st.floats(0, 1)),
            held_s=draw(st.floats(0, 1e5)),
            one_node=draw(st.booleans()),
            not_before_s=draw(st.one_of(st.none(), st.floats(0, 4000))),
            placement=_PLACEMENTS[index] if index < 3 and draw(st.booleans()) else None,
        )
        for index in range(draw(st.integers(0, 6)))
    ]
    prices = draw(st.dictionaries(st.sampled_from(["T4", "A100"]), st.floats(0, 50)))
    return situation(standard(), *views, now_s=2000.0, congestion_usd_h=prices)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(given_situation=situations())
def test_what_holds_for_every_plan(name: str, given_situation: Situation) -> None:
    plan = create(name).plan(given_situation)
    check(plan.placements.values(), given_situation.snapshot)
    assert plan == create(name).plan(given_situation), "the same situation, another plan"
    assert set(plan.explanations) == {each.id for each in given_situation.workloads}
    assert all(price >= 0 for price in plan.congestion_usd_h.values())
    for each in given_situation.workloads:
        explanation, placement = plan.explanations[each.id], plan.placements.get(each.id)
        assert explanation.summary
        assert explanation.chosen == (None if placement is None else placement.configuration)
        if each.placement is not None:
            assert placement == each.placement
        elif placement is not None:
            chosen = next(e for e in each.estimates if e.configuration == placement.configuration)
            assert chosen.infeasible is None
        else:
            assert all(option.reason or option.wait_s == 0 for option in explanation.options)


def test_nobody_can_say_what_an_unknown_run_time_costs_in_all() -> None:
    plan = market(view("w", est(None, price_usd_h=0.5, T4=1), est(None, price_usd_h=4.0, A100=1)))
    explanation = plan.explanations["w"]
    assert str(explanation.chosen) == "T4 x1"
    assert explanation.summary == "T4 x1 is the cheapest to try; its run time is not known yet"
    assert [option.total_usd for option in explanation.options] == [None, None]
    assert reasons(plan, "w") == {"T4 x1": None, "A100 x1": "$3.5000 an hour dearer"}


def test_an_unknown_one_is_compared_as_if_it_were_as_fast_as_the_fastest() -> None:
    plan = market(view("w", est(100, price_usd_h=0.5, T4=1), est(None, price_usd_h=4.0, A100=1)))
    assert [option.total_usd is None for option in plan.explanations["w"].options] == [False, True]
    assert reasons(plan, "w") == {
        "T4 x1": None,
        "A100 x1": "run time not known; dearer even at the speed of the fastest",
    }


@pytest.mark.parametrize(
    ("seconds", "message"),
    [(100.0, "costs the same in all"), (100.01, "<$0.0001 dearer in all"), (200.0, "$0.1806 dearer in all")],
)
def test_a_small_difference_is_not_said_to_be_none(seconds: float, message: str) -> None:
    plan = market(view("w", est(100, price_usd_h=0.5, A100=1), est(seconds, price_usd_h=0.5, T4=1)))
    assert reasons(plan, "w") == {"A100 x1": None, "T4 x1": message}
