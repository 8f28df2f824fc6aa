"""Queues: quotas and limits that are never passed, and shares by weight of what the cluster costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making import est, node, placed, situation, snapshot, view
from scheduler.policy import create
from scheduler.policy.quotas import Quotas
from scheduler.types import Plan, QueueRules, WorkloadView

FOUR = snapshot(node("a", ("T4", 2)), node("b", ("T4", 2)))
MIXED = snapshot(node("a", ("T4", 4)), node("b", ("A100", 2)))


def plan(where: Any, rules: dict[str, QueueRules], *views: WorkloadView, **fields: Any) -> Plan:
    return create("market").plan(situation(where, *views, queues=rules, **fields))


def held(found: Plan, views: list[WorkloadView]) -> dict[str, Counter[str]]:
    """Devices by queue and type."""
    queue = {each.id: each.queue for each in views}
    counts: dict[str, Counter[str]] = {}
    for name, placement in found.placements.items():
        counts.setdefault(queue[name], Counter()).update(device for device, _ in placement.devices)
    return counts


def test_a_quota_is_never_passed_and_what_waits_for_it_says_so() -> None:
    views = [view(f"w{n}", est(100 + n, T4=1), queue="small") for n in range(3)]
    found = plan(FOUR, {"small": QueueRules(quota={"T4": 1})}, *views)
    assert set(found.placements) == {"w0"}
    told = found.explanations["w2"]
    assert told.summary.startswith("waits for T4 x1: ")
    assert [(o.reason.code, o.reason.message) for o in told.options if o.reason] == [
        ("quota", "queue small may hold 1 T4, it has 1")
    ]


def test_what_a_queue_may_never_hold_is_refused() -> None:
    rules = {"small": QueueRules(quota={"T4": 1}, limit_usd_h=3.0)}
    found = plan(MIXED, rules, view("w", est(100, T4=2), est(10, A100=1), queue="small"))
    assert not found.placements
    assert found.explanations["w"].summary == (
        "cannot run: queue small may hold $3.00 an hour; queue small may hold 1 T4"
    )


def test_a_queue_with_little_left_takes_what_it_may_have() -> None:
    """Its best configuration would pass the limit in dollars, its second best does not."""
    wide = view("w", est(100, T4=4), est(180, T4=2), queue="q", objective="time")
    assert str(plan(FOUR, {}, wide).placements["w"].configuration) == "T4 x4"
    limited = plan(FOUR, {"q": QueueRules(limit_usd_h=1.0)}, wide)
    assert str(limited.placements["w"].configuration) == "T4 x2"


def test_what_runs_and_cannot_be_moved_counts() -> None:
    runs = view("runs", est(900, T4=1), queue="q", placement=placed(("T4", "a")), held_s=100.0)
    other = view("other", est(50, T4=1), queue="q")
    assert set(plan(FOUR, {"q": QueueRules(quota={"T4": 1})}, runs, other).placements) == {"runs"}
    assert set(plan(FOUR, {"q": QueueRules(quota={"T4": 2})}, runs, other).placements) == {"runs", "other"}


def test_a_quota_that_was_lowered_stops_what_can_go_on_later() -> None:
    two = [
        view(n, est(5000, T4=1), queue="q", placement=placed(("T4", n)), held_s=500.0, resumes=True, remaining=0.5)
        for n in "ab"
    ]
    assert len(plan(FOUR, {"q": QueueRules(quota={"T4": 1})}, *two).placements) == 1


def test_queues_share_by_weight_what_both_want() -> None:
    views = [view(f"{q}{n}", est(1000 + n, T4=1), queue=q) for q in "ab" for n in range(6)]
    equal = held(plan(FOUR, {"a": QueueRules(), "b": QueueRules()}, *views), views)
    assert {q: counts["T4"] for q, counts in equal.items()} == {"a": 2, "b": 2}
    three = held(plan(FOUR, {"a": QueueRules(weight=3.0), "b": QueueRules()}, *views), views)
    assert {q: counts["T4"] for q, counts in three.items()} == {"a": 3, "b": 1}


def test_what_one_does_not_want_is_lent() -> None:
    views = [view(f"a{n}", est(1000, T4=1), queue="a") for n in range(6)]
    other = view("b", est(1000, A100=1), queue="b")
    found = plan(MIXED, {"a": QueueRules(), "b": QueueRules(weight=9.0)}, *views, other)
    assert len(found.placements) == 5, "all T4, though most of the dollars are b's"


def test_what_was_lent_is_given_back() -> None:
    nodes = ["a", "a", "b", "b"]
    borrowed = [
        view(
            f"a{n}", est(9000, T4=1), queue="a", placement=placed(("T4", at)), held_s=900.0, resumes=True, remaining=0.9
        )
        for n, at in enumerate(nodes)
    ]
    late = [view(f"b{n}", est(9000, T4=1), queue="b") for n in range(4)]
    found = held(plan(FOUR, {"a": QueueRules(), "b": QueueRules()}, *borrowed, *late), [*borrowed, *late])
    assert {q: counts["T4"] for q, counts in found.items()} == {"a": 2, "b": 2}


def test_a_gang_larger_than_its_share_gets_its_turn() -> None:
    """Half of four devices is two: the gang of four of `b` runs for as long as it is owed."""
    planner, memory, wide, now_s = create("market"), {}, 0.0, 0.0
    running: dict[str, Any] = {}
    for _ in range(240):
        views = [view(f"a{n}", est(1e6, T4=1), queue="a", resumes=True) for n in range(4)]
        views.append(view("b", est(1e6, T4=4), queue="b", resumes=True))
        views = [
            replace(each, placement=running[each.id][0], held_s=now_s - running[each.id][1], remaining=0.9)
            if each.id in running
            else each
            for each in views
        ]
        rules = {"a": QueueRules(), "b": QueueRules()}
        found = planner.plan(replace(situation(FOUR, *views, now_s=now_s, queues=rules), memory=memory))
        memory = dict(found.memory)
        running = {
            name: running[name] if name in running and running[name][0] == placement else (placement, now_s)
            for name, placement in found.placements.items()
        }
        wide += 60.0 * ("b" in found.placements)
        now_s += 60.0
    assert 0.3 * now_s <= wide <= 0.7 * now_s


def test_shares_are_divided_like_water() -> None:
    quotas = Quotas({"a": QueueRules(weight=2.0), "b": QueueRules(), "c": QueueRules()}, {})
    quotas.divide({"a": 100.0, "b": 100.0, "c": 1.0}, 10.0)
    assert quotas.share_usd_h == pytest.approx({"a": 6.0, "b": 3.0, "c": 1.0})
    quotas.divide({"a": 100.0}, 10.0)
    assert quotas.share_usd_h == {}, "nobody else wants anything"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.floats(50, 5000),
            st.sampled_from([{"T4": 1}, {"T4": 2}, {"A100": 1}, {"T4": 1, "A100": 1}]),
            st.sampled_from(["cost", "balanced", "time"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    quota=st.integers(0, 4),
    limit=st.floats(0.0, 12.0),
    weight=st.floats(0.1, 10.0),
)
def test_no_plan_passes_a_quota_or_a_limit(rows: list[Any], quota: int, limit: float, weight: float) -> None:
    rules = {"a": QueueRules(weight, {"T4": quota}), "b": QueueRules(limit_usd_h=limit)}
    views = [
        view(f"w{n}", est(seconds, **counts), queue=queue, objective=objective, resumes=resumes)
        for n, (queue, seconds, counts, objective, resumes) in enumerate(rows)
    ]
    found = plan(MIXED, rules, *views)
    counts = held(found, views)
    assert counts.get("a", Counter())["T4"] <= quota
    price = {"T4": 0.5, "A100": 4.0}
    assert sum(price[name] * n for name, n in counts.get("b", Counter()).items()) <= limit + 1e-9
    total = sum(counts.values(), Counter())
    assert total["T4"] <= 4
    assert total["A100"] <= 2


@pytest.mark.parametrize(
    "noted", [None, 3, {"credit_usd": 5}, {"credit_usd": {"a": "x", "b": float("nan")}, "at_s": -4}, {"at_s": []}]
)
def test_notes_of_shares_that_make_no_sense_are_not_believed(noted: Any) -> None:
    views = [view(f"{q}{n}", est(1000, T4=1), queue=q) for q in "ab" for n in range(4)]
    rules = {"a": QueueRules(), "b": QueueRules()}
    found = plan(FOUR, rules, *views, memory={"shares": noted})
    assert {q: counts["T4"] for q, counts in held(found, views).items()} == {"a": 2, "b": 2}


def test_a_queue_above_its_quota_stops_nobody_else() -> None:
    """Its quota was lowered while it ran what cannot be stopped."""
    held_by_q = [view(n, est(900, T4=1), queue="q", placement=placed(("T4", n)), held_s=100.0) for n in "ab"]
    waits = [view("more", est(50, T4=1), queue="q"), view("other", est(50, T4=1), queue="x")]
    found = plan(FOUR, {"q": QueueRules(quota={"T4": 1})}, *held_by_q, *waits)
    assert set(found.placements) == {"a", "b", "other"}


def test_shares_leave_no_device_idle() -> None:
    """Half of one device is none: it is lent to one of them, not kept until the other is owed enough."""
    one = snapshot(node("a", ("A100", 1)))
    views = [view(q, est(1000, A100=1), queue=q) for q in "xy"]
    assert len(plan(one, {"x": QueueRules(), "y": QueueRules()}, *views).placements) == 1


def test_what_is_late_and_runs_counts_against_the_quota_of_its_queue() -> None:
    runs = view("runs", est(9000, T4=1), queue="q", placement=placed(("T4", "a")), held_s=500.0, resumes=True)
    late = [replace(each, waited_s=1e6) for each in (runs, view("waits", est(9000, T4=1), queue="q"))]
    found = plan(FOUR, {"q": QueueRules(quota={"T4": 1})}, *late)
    assert set(found.placements) == {"runs"}
    assert set(found.explanations) == {"runs", "waits"}


def test_what_comes_to_just_the_limit_is_within_it() -> None:
    where = replace(FOUR, device_types={"T4": replace(FOUR.device_types["T4"], price_usd_h=1.1)})
    runs = view("runs", est(900, price_usd_h=1.1, T4=1), queue="q", placement=placed(("T4", "a")), held_s=100.0)
    two = view("two", est(900, price_usd_h=2.2, T4=2), queue="q")
    assert set(plan(where, {"q": QueueRules(limit_usd_h=3.3)}, runs, two).placements) == {"runs", "two"}
