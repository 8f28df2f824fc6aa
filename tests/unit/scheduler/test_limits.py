"""Pauses, budgets, monthly limits and what is charged, on the whole engine with a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.fake import Script
from cluster.types import Snapshot
from making import node, placed, snapshot
from scheduler.engine.charges import charges_of, days_of
from scheduler.engine.engine import Engine
from scheduler.engine.limits import BUDGET_SPENT, grace_s
from scheduler.estimate.work import Work
from scheduler.store import Charge, Event, Record
from scheduler.types import QueueRules
from world import World

MIDNIGHT_S = 1_796_083_200.0
"""2026-12-01 00:00 UTC."""
ROWS = tuple((float(at_s), {"kind": "rows", "rows": at_s, "total_rows": 1000}) for at_s in range(0, 1000, 10))
LONG = Script(run_s=1000.0, records=ROWS)


@pytest.fixture
def world() -> Iterator[World]:
    made = World(where=one_t4())
    yield made
    made.check()


def one_t4(count: int = 1) -> Snapshot:
    return snapshot(node("t4", ("T4", count)))


def infer(world: World, name: str, **fields: Any) -> str:
    """A batch inference over a T4 that takes 1,000 s: it goes on where it was."""
    work = Work("batch-infer", name, declared_s=1000.0)
    return world.submit(name, script=LONG, work=work, gang=True, **({"resources": {"devices": ["T4"]}} | fields))


def pause(world: World, name: str, paused: bool = True) -> None:
    world.store.change(name, Event("pause-requested", "the user asked for it", name), paused=paused)


def test_a_paused_workload_that_waits_gets_nothing_until_it_is_resumed(world: World) -> None:
    infer(world, "a")
    pause(world, "a")
    for _ in range(3):
        world.cycle()
    assert world.states() == {"a": "pending"}, "it was paused before it was looked at"
    pause(world, "a", False)
    infer(world, "b")
    world.cycle()
    assert world.states() == {"a": "starting", "b": "queued"}
    pause(world, "b")
    world.cycle()
    assert world.get("b").state == "paused"
    assert world.get("b").queued_s is None
    world.cancel("a")
    for _ in range(3):
        world.cycle()
    assert world.states() == {"a": "cancelled", "b": "paused"}
    pause(world, "b", False)
    for _ in range(2):
        world.cycle()
    assert world.get("b").state == "starting"
    assert world.get("b").waited_s < 4.0, "a pause is no wait"


def test_what_runs_is_stopped_for_a_pause_and_goes_on_where_it_was(world: World) -> None:
    infer(world, "a")
    world.cycle()
    for _ in range(10):
        world.cycle(10.0)
    pause(world, "a")
    for _ in range(3):
        world.cycle()
    paused = world.get("a")
    assert (paused.state, paused.placement) == ("paused", None)
    assert paused.fraction == pytest.approx(0.1, abs=0.02)
    assert world.kinds("a")[-3:] == ["pause-requested", "stopping", "paused"]
    pause(world, "a", False)
    for _ in range(3):
        world.cycle()
    assert (world.get("a").state, world.get("a").attempt) == ("running", 2)


def test_a_paused_workload_can_be_cancelled(world: World) -> None:
    infer(world, "a")
    world.cycle()
    infer(world, "b")
    pause(world, "b")
    pause(world, "a")
    for _ in range(3):
        world.cycle()
    for name in ("a", "b"):
        world.cancel(name)
    for _ in range(2):
        world.cycle()
    assert world.states() == {"a": "cancelled", "b": "cancelled"}


def test_a_budget_is_kept_with_what_the_stop_takes(world: World) -> None:
    """A T4 costs 0.50 $/h here: ten seconds of it are 0.14 cents."""
    usd_h = world.cluster.snapshot().device_types["T4"].price_usd_h
    assert usd_h is not None
    infer(world, "a", budget_usd=usd_h / 3600 * 5000)
    world.cycle()
    budget_usd = usd_h / 3600 * 120
    world.store.change("a", Event("changed", "x", "a"), budget_usd=budget_usd)
    for _ in range(40):
        world.cycle(5.0)
    stopped = world.get("a")
    assert (stopped.state, stopped.pause_cause) == ("paused", BUDGET_SPENT)
    assert 0.6 * budget_usd < stopped.spent_usd <= budget_usd
    assert stopped.fraction > 0.05, "what it did is kept"
    assert "budget-spent" in world.kinds("a")
    raised = {"budget_usd": 100.0, "paused": False, "pause_cause": ""}
    world.store.change("a", Event("changed", "x", "a"), **raised)
    for _ in range(3):
        world.cycle()
    assert world.get("a").state == "running"


def queue_world(limit_usd: float, now_s: float = MIDNIGHT_S - 86_400.0) -> World:
    world = World(where=one_t4(2))
    world.now_s = now_s
    rules = {"night": QueueRules(limit_usd_month=limit_usd)}
    clock = lambda: world.now_s  # noqa: E731
    world.engine = Engine(world.store, world.cluster, world.cluster, world.policy, world.profiler, clock, queues=rules)
    return world


def test_a_queue_that_has_spent_its_month_holds_nothing_until_the_next() -> None:
    world = queue_world(limit_usd=0.02, now_s=MIDNIGHT_S - 300.0)
    infer(world, "a", queue="night")
    infer(world, "b", queue="day")
    world.cycle()
    assert world.states() == {"a": "starting", "b": "starting"}
    for _ in range(40):
        world.cycle(5.0)
    assert world.states() == {"a": "queued", "b": "running"}
    assert 0.0 < world.get("a").spent_usd <= 0.02
    infer(world, "c", queue="night")
    report = world.cycle()
    assert report is not None
    said = report.explanation_of(world.get("c"))
    assert said is not None and said.summary.startswith("waits: queue night has spent its $0.02 of 2026-11")
    for _ in range(30):
        world.cycle(5.0)
    assert world.now_s > MIDNIGHT_S
    assert "running" in (world.get("a").state, world.get("c").state), "another month"
    world.check()


def test_what_was_spent_is_known_to_the_next_service() -> None:
    world = queue_world(limit_usd=0.02)
    infer(world, "a", queue="night")
    for _ in range(60):
        world.cycle(5.0)
    spent_usd = world.get("a").spent_usd
    assert world.get("a").state == "queued"
    assert sum(charge.usd or 0.0 for charge in world.store.charges(queue="night")) == pytest.approx(spent_usd)
    rules = {"night": QueueRules(limit_usd_month=0.02)}
    world.cluster = world.cluster.reopened()
    clock = lambda: world.now_s  # noqa: E731
    world.engine = Engine(world.store, world.cluster, world.cluster, world.policy, world.profiler, clock, queues=rules)
    for _ in range(3):
        world.cycle()
    assert world.get("a").state == "queued"
    assert world.get("a").spent_usd == spent_usd


def test_a_command_only_begins_where_the_month_can_pay_for_all_of_it() -> None:
    world = queue_world(limit_usd=0.02)
    resources = {"devices": ["T4"]}
    world.submit("long", work=Work("command", "long", declared_s=3600.0), queue="night", resources=resources)
    world.submit("short", work=Work("command", "short", declared_s=30.0), queue="night", resources=resources)
    report = world.cycle()
    assert world.states() == {"long": "queued", "short": "starting"}
    assert report is not None
    assert [refusal.workload_id for refusal in report.refusals] == ["long"]
    assert "left this month" in report.refusals[0].message
    assert world.said("long") == f"waits: {report.refusals[0].message}", "and not that a device is the least money"


def test_an_attempt_over_midnight_is_charged_to_both_days() -> None:
    record = Record(
        "a", "a", "train", {"queue": "night"}, "running", 0.0, "/o", "/r", attempt=2, owner="eve",
        started_s=MIDNIGHT_S - 60.0, placement=placed(("A100", "n"), ("T4", "n"), ("T4", "m")),
        prices_usd_h={"T4": 0.5, "A100": None},
    )  # fmt: skip
    charges = charges_of(record, MIDNIGHT_S + 30.0)
    first = Charge("a", 2, "2026-11-30", "A100", "eve", "night", 60.0, None)
    t4 = replace(first, device_type="T4", device_s=120.0, usd=pytest.approx(120 / 3600 * 0.5))
    second = replace(first, day="2026-12-01", device_s=30.0)
    assert charges == [
        first,
        t4,
        second,
        replace(t4, day="2026-12-01", device_s=60.0, usd=pytest.approx(60 / 3600 * 0.5)),
    ]
    assert charges_of(replace(record, placement=None), MIDNIGHT_S) == []


def test_days_are_whole_where_they_lie_in_between() -> None:
    found = list(days_of(MIDNIGHT_S - 1.0, MIDNIGHT_S + 86_400.0 + 2.0))
    assert found == [("2026-11-30", 1.0), ("2026-12-01", 86_400.0), ("2026-12-02", 2.0)]
    assert list(days_of(MIDNIGHT_S, MIDNIGHT_S)) == [("2026-12-01", 0.0)]


def test_every_attempt_is_charged_as_much_as_its_record_says(world: World) -> None:
    world.submit("a", script=[Script(fail_at_s=7.0), Script(run_s=20.0)], resources={"devices": ["T4"]})
    world.run_until_ended()
    charges = world.store.charges()
    assert [charge.attempt for charge in charges] == [1, 2]
    assert sum(charge.usd or 0.0 for charge in charges) == pytest.approx(world.get("a").spent_usd)
    assert {charge.owner for charge in charges} == {"admin"}


def test_a_plan_gives_time_to_save_and_a_user_who_cancels_gives_none() -> None:
    record = Record("a", "a", "train", {"grace": 120.0}, "stopping", 0.0, "/o", "/r")
    assert grace_s(record, 50.0, 1.0) == 120.0
    assert grace_s(replace(record, spec={}), 50.0, 1.0) == 30.0
    assert grace_s(replace(record, cancel_requested=True), 50.0, 1.0) == 0.0


def test_a_spent_budget_gives_the_time_it_can_pay_for() -> None:
    record = Record(
        "a", "a", "train", {"grace": 30.0}, "stopping", 0.0, "/o", "/r", attempt=1, started_s=0.0, price_usd_h=3.6,
        placement=placed(("T4", "n")), budget_usd=0.1, pause_cause=BUDGET_SPENT,
    )  # fmt: skip
    assert grace_s(record, 60.0, 1.0) == 30.0, "40 s are left"
    assert grace_s(record, 80.0, 1.0) == pytest.approx(15.0)
    assert grace_s(record, 97.0, 1.0) == 0.0


def test_what_will_end_within_its_budget_is_not_stopped(world: World) -> None:
    usd_h = world.cluster.snapshot().device_types["T4"].price_usd_h
    assert usd_h is not None
    rows = tuple((float(at_s), {"kind": "rows", "rows": at_s, "total_rows": 100}) for at_s in range(0, 100, 5))
    work, resources = Work("batch-infer", "a", declared_s=100.0), {"devices": ["T4"]}
    budget_usd = usd_h / 3600 * 115
    script = Script(run_s=100.0, records=rows)
    world.submit("a", script=script, work=work, gang=True, resources=resources, budget_usd=budget_usd)
    world.run_until_ended()
    assert world.states() == {"a": "succeeded"}


def test_what_is_promised_to_commands_that_run_is_not_given_to_another() -> None:
    world = queue_world(limit_usd=0.60)
    for name in ("a", "b", "c"):
        work = Work("command", name, declared_s=3600.0)
        world.submit(name, script=Script(run_s=3600.0), work=work, queue="night", resources={"devices": ["T4"]})
        for _ in range(3):
            world.cycle()
    held = [name for name in ("a", "b", "c") if world.get(name).placement is not None]
    assert held == ["a"], "an hour is more than half of what there is"
    assert "left this month" in world.said("b")


def test_a_stop_for_the_plan_too_takes_no_more_than_the_budget_can_pay_for() -> None:
    record = Record(
        "a", "a", "train", {"grace": 600.0}, "stopping", 0.0, "/o", "/r", attempt=1, started_s=0.0, budget_usd=1.0,
        placement=placed(("T4", "n")), price_usd_h=1.0,
    )  # fmt: skip
    assert grace_s(record, 0.0, 1.0) == record.grace_s
    assert 0.0 < grace_s(record, 3600.0 - 100.0, 1.0) < 100.0
