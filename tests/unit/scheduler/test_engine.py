"""The life of a workload through `Engine.run_cycle`, on a fake cluster and a virtual clock."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from cluster.fake import Script
from making import inference, node, snapshot
from scheduler.engine.engine import MAX_RESUBMISSIONS
from scheduler.engine.report import CycleReport
from scheduler.estimate.work import Work
from scheduler.policy import create
from scheduler.store import Store
from scheduler.types import Situation
from workloads.errors import Problem, SpecError
from world import World

LONG = Script(run_s=1000.0)


def test_the_life_of_a_workload(world: World) -> None:
    world.submit("a", script=Script(startup_s=3.0, run_s=10.0))
    seen = []
    for _ in range(20):
        world.cycle()
        seen.append(world.get("a").state)
    assert list(dict.fromkeys(seen)) == ["starting", "running", "succeeded"]
    assert world.kinds("a") == ["submitted", "queued", "planned", "starting", "running", "succeeded"]
    record = world.get("a")
    assert (record.attempt, record.started_s, record.ended_s, record.run_s(0.0)) == (1, 1001.0, 1014.0, 13.0)
    assert record.spent_usd == pytest.approx(13 / 3600 * 0.05)
    starting = world.event("a", "starting").data
    assert starting == {"configuration": "cpu x1", "attempt": 1, "nodes": ["head"], "predicted_s": 13.0}


def test_every_event_names_its_cycle(world: World) -> None:
    world.submit("a")
    world.run_until_ended()
    events = world.store.events(workload_id="a")[1:]
    assert all(event.cycle for event in events)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_a_step_waits_for_what_it_needs_and_is_told_of_it(world: World) -> None:
    world.submit("a")
    world.submit("b", "a")
    world.submit("c", "a", "b")
    world.cycle()
    assert world.states() == {"a": "starting", "b": "pending", "c": "pending"}
    world.run_until_ended()
    assert set(world.states().values()) == {"succeeded"}
    assert world.get("b").started_s >= world.get("a").ended_s  # type: ignore[operator]
    assert world.get("c").started_s >= world.get("b").ended_s  # type: ignore[operator]
    upstream = world.profiler.upstream["c"]
    assert {name: each.output for name, each in upstream.items()} == {"a": "/out/a", "b": "/out/b"}
    assert upstream["a"].result["kind"] == "done"


def test_a_failure_goes_down_the_line_and_not_beside_it(world: World) -> None:
    world.submit("a", script=Script(fail_at_s=1.0, message="boom"), retries=0)
    world.submit("b", "a")
    world.submit("c", "b")
    world.submit("other")
    world.run_until_ended()
    assert world.states() == {"a": "failed", "b": "failed", "c": "failed", "other": "succeeded"}
    assert [world.get(name).message for name in "abc"] == [
        "boom",
        "a failed, and this needs it",
        "b failed, and this needs it",
    ]


def test_an_input_that_is_not_what_was_promised_fails_the_step(world: World) -> None:
    world.submit("a")
    world.submit("b", "a", work=SpecError(Problem("has no rows", "input")))
    world.run_until_ended()
    assert world.states() == {"a": "succeeded", "b": "failed"}
    assert world.get("b").message == "input: has no rows"


def test_a_workload_nobody_can_measure_does_not_stop_the_others(world: World) -> None:
    world.submit("broken", work=RuntimeError("what a strange file"))
    world.submit("good")
    world.run_until_ended()
    assert world.states() == {"broken": "failed", "good": "succeeded"}
    assert "what a strange file" in world.get("broken").message


def test_a_failed_attempt_is_tried_again_after_a_delay(world: World) -> None:
    world.submit("a", script=[Script(fail_at_s=1.0), Script(fail_at_s=1.0), Script(run_s=5.0)])
    world.run_until_ended()
    assert world.kinds("a").count("retry") == 2
    starts = [event.at_s for event in world.store.events(workload_id="a") if event.kind == "starting"]
    assert [round(after - before) for before, after in pairwise(starts)] == [3, 5]
    record = world.get("a")
    assert (record.state, record.attempt, record.run_id, record.spent_s) == ("succeeded", 3, "a.r3", 7.0)
    assert record.first_started_s == starts[0]
    assert record.spent_usd == pytest.approx(world.paid_usd())


def test_retries_used_up(world: World) -> None:
    world.submit("a", script=Script(fail_at_s=1.0, message="boom"), retries=1)
    world.run_until_ended()
    assert (world.get("a").state, world.get("a").attempt, world.get("a").message) == ("failed", 2, "boom")


def test_what_the_body_calls_hopeless_is_not_tried_again(world: World) -> None:
    failed = {"kind": "failed", "message": "row 3 is broken", "retryable": False}
    world.submit("a", script=Script(fail_at_s=9.5))
    world.cluster.progress = lambda run_id: [{"t": 1.0, **failed}]  # type: ignore[method-assign]
    world.run_until_ended()
    assert (world.get("a").state, world.get("a").attempt, world.get("a").message) == ("failed", 1, "row 3 is broken")


# Cancelling, in every state.


def test_cancel_while_pending_takes_the_later_steps_too(world: World) -> None:
    world.submit("a", script=LONG)
    world.submit("b", "a")
    world.submit("c", "b")
    world.cycle()
    world.cancel("b")
    world.cycle()
    assert world.states() == {"a": "running", "b": "cancelled", "c": "pending"}
    world.cycle()
    assert (world.states()["c"], world.get("c").message) == ("failed", "b cancelled, and this needs it")
    world.cancel("a")
    world.run_until_ended()


def test_cancel_while_queued(world: World) -> None:
    world.submit("big", resources={"devices": ["T4"], "count": 4}, script=LONG)
    world.submit("a", resources={"devices": ["T4"]})
    world.cycle()
    assert world.states() == {"big": "queued", "a": "starting"} or world.states() == {"big": "starting", "a": "queued"}
    waiting = next(name for name, state in world.states().items() if state == "queued")
    world.cancel(waiting)
    world.cycle()
    assert world.states()[waiting] == "cancelled"
    assert world.get(waiting).attempt == 0


@pytest.mark.parametrize("startup_s", [100.0, 0.0], ids=["starting", "running"])
def test_cancel_while_it_holds_devices(world: World, startup_s: float) -> None:
    world.submit("a", script=Script(startup_s=startup_s, run_s=1000.0))
    world.cycle()
    world.cycle()
    assert world.states() == {"a": "starting" if startup_s else "running"}
    world.cancel("a")
    world.cycle()
    assert world.states() == {"a": "stopping"}
    world.cycle()
    record = world.get("a")
    assert (record.state, record.message, world.cluster.active_runs()) == ("cancelled", "cancelled by the user", [])
    assert record.spent_usd == pytest.approx(2 / 3600 * 0.05)


def test_cancel_while_it_waits_for_the_next_attempt(world: World) -> None:
    world.submit("a", script=Script(fail_at_s=1.0))
    for _ in range(3):
        world.cycle()
    assert world.kinds("a")[-2:] == ["retry", "planned"]
    assert world.said("a") == "waits after a failed attempt: tries again in 1 s"
    world.cancel("a")
    world.cycle()
    assert world.states() == {"a": "cancelled"}


def test_cancel_after_the_end_changes_nothing(world: World) -> None:
    world.submit("a")
    world.run_until_ended()
    before = world.get("a")
    world.cancel("a")
    world.cycle()
    assert (world.get("a").state, world.get("a").ended_s) == ("succeeded", before.ended_s)


def test_a_stop_that_did_not_reach_the_cluster_is_said_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit("a", script=LONG)
    world.cycle()
    world.cancel("a")
    monkeypatch.setattr(world.cluster, "stop", lambda run_id, grace_s: None)
    world.cycle()
    assert [job.run_id for job in world.cluster.active_runs()] == ["a"]
    monkeypatch.undo()
    world.cycle()
    world.cycle()
    assert (world.states(), world.cluster.active_runs()) == ({"a": "cancelled"}, [])


# What goes wrong around it.


def test_a_cluster_that_cannot_be_reached_decides_nothing(world: World) -> None:
    world.submit("a", script=Script(run_s=5.0))
    world.submit("b", "a")
    world.cycle()
    before = world.store.events(limit=10_000)
    world.cluster.set_reachable(False)
    assert [world.cycle() for _ in range(20)] == [None] * 20
    assert world.store.events(limit=10_000) == before
    world.cluster.set_reachable(True)
    world.run_until_ended()
    assert world.states() == {"a": "succeeded", "b": "succeeded"}
    assert world.get("a").ended_s == 1006.0, "it ended when it ended, not when somebody looked"


def test_a_lost_node_fails_the_gang_which_starts_again_elsewhere(world: World) -> None:
    world.submit("a", resources={"devices": ["T4"], "count": 2}, script=Script(run_s=30.0))
    world.cycle()
    lost = world.get("a").placement.devices[0][1]  # type: ignore[union-attr]
    world.cycle()
    world.cluster.lose_node(lost)
    world.run_until_ended()
    record = world.get("a")
    assert (record.state, record.attempt) == ("succeeded", 2)
    assert world.event("a", "retry").cause == f"attempt 1 was lost: node {lost} left the cluster"
    assert (record.failures, record.losses) == (0, 1), "what a node takes with it is no failure of the workload"
    assert {lost} & set(world.event("a", "starting").data["nodes"]) == set()


def test_a_run_that_goes_on_without_its_node_is_stopped_and_starts_again_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit("a", gang=True, resources={"devices": ["T4"], "count": 2}, script=[LONG, Script(run_s=3.0)])
    world.cycle()
    lost = world.get("a").placement.devices[0][1]  # type: ignore[union-attr]
    monkeypatch.setattr(world.cluster, "_end", lambda *_: None)  # its body does not notice
    held = world.cluster._world.nodes[lost]
    world.cluster.lose_node(lost)
    monkeypatch.undo()
    for _ in range(2):
        world.cycle()
        assert world.get("a").state == "running", "a node may be away for a moment"
    world.cluster.add_node(held)
    world.cycle()
    world.cluster._world.nodes.pop(lost)
    for _ in range(3):
        assert world.get("a").state == "running"
        world.cycle()
    assert world.get("a").state == "stopping"
    assert world.event("a", "stopping").cause == f"node {lost} left the cluster"
    world.run_until_ended()
    record = world.get("a")
    assert (record.state, record.attempt, record.failures) == ("succeeded", 2, 0)


def test_a_run_that_was_done_when_the_cluster_forgot_it_is_not_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit("a", script=Script(run_s=3.0))
    world.cycle()
    world.cycle()
    world.now_s += 10.0
    progress = world.cluster.progress("a")
    monkeypatch.setattr(world.cluster, "progress", lambda _: progress)  # the file outlives the cluster
    world.cluster.forget("a")
    world.cycle()
    assert (world.get("a").state, world.get("a").attempt) == ("succeeded", 1)


def test_a_gang_waits_until_a_lost_node_is_back(world: World) -> None:
    world.cluster.lose_node("t4-b")
    world.submit("a", gang=True, resources={"devices": ["T4"], "count": 4})
    for _ in range(5):
        world.cycle()
    assert world.states() == {"a": "queued"}
    assert world.said("a") == "cannot run: 4 T4 wanted, the cluster has 2"
    world.cluster.add_node(node("t4-b", ("T4", 2)))
    world.run_until_ended()
    assert world.states() == {"a": "succeeded"}


def test_a_run_the_cluster_forgot_is_tried_again(world: World) -> None:
    world.submit("a", script=LONG)
    world.cycle()
    world.cluster.forget("a")
    world.scripts["a"] = Script(run_s=1.0)
    world.cycle()
    assert (world.states(), world.kinds("a")[-2:]) == ({"a": "starting"}, ["starting", "resubmitted"])
    world.run_until_ended()
    assert (world.get("a").state, world.get("a").run_id, world.get("a").failures) == ("succeeded", "a", 0)


def test_a_run_that_was_lost_while_it_ran_is_tried_again_and_is_no_failure(world: World) -> None:
    world.submit("a", script=[LONG, Script(run_s=1.0)], retries=0)
    for _ in range(3):
        world.cycle()
    assert world.states() == {"a": "running"}
    world.cluster.forget("a")
    world.cycle()
    assert (world.states(), world.get("a").attempt) == ({"a": "starting"}, 2)
    assert world.event("a", "retry").cause == "attempt 1 was lost: the cluster does not know this run"
    world.run_until_ended()
    record = world.get("a")
    assert (record.state, record.run_id, record.failures, record.losses) == ("succeeded", "a.r2", 0, 1)


@pytest.mark.parametrize("policy", ["market", "first-fit"])
@pytest.mark.parametrize("second_s", [None, 10.0, 1000.0], ids=["of unknown length", "shorter", "longer"])
@pytest.mark.parametrize("down_s", [1.0, 90.0], ids=["at once", "after a while"])
def test_what_ran_when_the_cluster_went_away_goes_first_again(
    policy: str, second_s: float | None, down_s: float
) -> None:
    world = World(policy=policy)
    a100 = {"devices": ["A100"]}
    world.submit("z-first", script=LONG, work=Work("command", "z-first", declared_s=300.0), resources=a100)
    for _ in range(3):
        world.cycle()
    world.submit("second", script=LONG, work=Work("command", "second", declared_s=second_s), resources=a100)
    for _ in range(20):
        world.cycle()
    assert world.states() == {"z-first": "running", "second": "queued"}
    world.cluster.forget("z-first")  # a new cluster: it knows no run of the old one
    world.restart()
    world.cycle(down_s)
    assert (world.states()["z-first"], world.get("z-first").attempt) == ("starting", 2)
    assert world.states()["second"] == "queued"
    world.check()


def test_one_that_cannot_be_started_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start = world.cluster.start

    def refuse(request: Any) -> None:
        if request.job.workload_id == "bad":
            raise ValueError("no such image")
        start(request)

    monkeypatch.setattr(world.cluster, "start", refuse)
    world.submit("bad", retries=0)
    world.submit("good")
    world.run_until_ended()
    assert world.states() == {"bad": "failed", "good": "succeeded"}
    assert world.get("bad").message == "could not be started: no such image"


# Another process takes over.


def test_a_restarted_engine_adopts_what_runs_and_runs_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path / "raywise.db")
    world.submit("a", script=Script(run_s=20.0, records=[(4.0, {"kind": "rows", "rows": 3, "total_rows": 9})]))
    world.submit("b", "a")
    for _ in range(6):
        world.cycle()
    last_cycle = world.engine.cycle
    world.store.close()
    world.store = Store(tmp_path / "raywise.db")
    world.restart()
    assert world.engine.cycle <= last_cycle
    world.cycle()
    assert world.states() == {"a": "running", "b": "pending"}
    assert world.engine.progress_of(world.get("a")).rows == 3, "progress is read from the beginning"
    assert [job.run_id for job in world.cluster.active_runs()] == ["a"]
    world.run_until_ended()
    assert (world.get("a").attempt, world.get("b").attempt) == (1, 1)
    assert world.get("a").spent_s == 20.0
    world.check()
    world.store.close()


def test_a_crash_between_the_store_and_the_cluster_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: Any) -> None:
        raise KeyboardInterrupt

    world.submit("a")
    monkeypatch.setattr(world.cluster, "start", crash)
    with pytest.raises(KeyboardInterrupt):
        world.cycle()
    monkeypatch.undo()
    assert (world.get("a").state, world.cluster.active_runs()) == ("starting", [])
    world.restart()
    world.run_until_ended()
    assert (world.get("a").state, world.get("a").attempt) == ("succeeded", 1)
    assert world.kinds("a").count("resubmitted") == 1


def test_a_run_that_never_arrives_is_given_up_after_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.cluster, "start", lambda request: None)
    world.submit("a")
    for _ in range(MAX_RESUBMISSIONS + 2):
        world.cycle()
    assert world.kinds("a").count("resubmitted") == MAX_RESUBMISSIONS
    assert (world.get("a").attempt, world.get("a").losses, world.get("a").failures) == (2, 1, 0)
    monkeypatch.undo()
    world.run_until_ended()
    assert (world.get("a").state, world.get("a").attempt) == ("succeeded", 2)


def test_a_run_that_ended_while_nobody_looked_is_found_ended(world: World) -> None:
    world.submit("a", script=Script(run_s=5.0))
    world.cycle()
    world.restart()
    world.cycle(600.0)
    assert (world.get("a").state, world.get("a").ended_s) == ("succeeded", 1006.0)
    assert world.get("a").spent_usd == pytest.approx(5 / 3600 * 0.05)


# Money, time and reasons.


def test_dollars_and_seconds_of_ended_attempts_are_what_the_cluster_held(world: World) -> None:
    world.submit("a", script=[Script(fail_at_s=7.0), Script(run_s=11.0)], resources={"devices": ["A100"]})
    world.submit("b", gang=True, script=Script(run_s=30.0), resources={"devices": {"T4": 2, "A100": 1}})
    world.run_until_ended()
    records = world.store.select()
    assert sum(record.spent_usd for record in records) == pytest.approx(world.paid_usd())
    assert world.get("b").spent_usd == pytest.approx(30 / 3600 * 5.0)
    assert [record.spent_s for record in records] == [18.0, 30.0]


def test_an_unpriced_device_costs_nobody_knows_what() -> None:
    world = World(where=snapshot(node("f", ("FPGA", 1)), node("head", ("cpu", 1))))
    world.submit("a", resources={"devices": ["FPGA"]})
    world.cycle()
    assert world.get("a").cost_usd(world.now_s) is None
    world.run_until_ended()
    assert world.get("a").cost_usd(world.now_s) is None
    world.check()


def test_a_budget_that_retries_have_used_up_ends_it(world: World) -> None:
    # 13 s predicted on an A100 cost $0.0144; a failed attempt of 10 s has cost $0.0111 of $0.02.
    world.submit("a", script=Script(fail_at_s=10.0), resources={"devices": ["A100"]}, budget_usd=0.02, retries=9)
    world.run_until_ended(cycles=60)
    record = world.get("a")
    assert (record.state, record.attempt) == ("failed", 1)
    assert record.message.startswith("no configuration is within its budget any more: would cost $0.00")
    assert record.spent_usd <= 0.02


def test_a_deadline_chooses_the_faster_device(world: World) -> None:
    work = inference(samples=10_000.0)
    choices = {"devices": ["cpu", "A100"]}
    world.submit("easy", work=work, resources=choices, objective="cost")
    world.submit("hasty", work=work, resources=choices, objective="cost", deadline_s=world.now_s + 20.0)
    world.cycle()
    placements = {name: str(world.get(name).placement.configuration) for name in ("easy", "hasty")}  # type: ignore[union-attr]
    assert placements == {"easy": "cpu x1", "hasty": "A100 x1"}
    reasons = {str(o.estimate.configuration): o.reason for o in world.get("hasty").explanation.options}  # type: ignore[union-attr]
    assert reasons["cpu x1"] is not None
    assert reasons["cpu x1"].code == "deadline"


def test_an_unchanged_decision_is_written_once(world: World) -> None:
    world.submit("runs", resources={"devices": ["A100"]}, script=LONG, work=Work("command", "runs", declared_s=1000.0))
    world.cycle()
    world.submit("waits", resources={"devices": ["A100"]})
    for _ in range(20):
        world.cycle()
    kinds = [kind for name in ("runs", "waits") for kind in world.kinds(name)]
    assert kinds.count("planned") == 2


def test_a_situation_survives_json_and_gives_the_same_plan(world: World) -> None:
    adapter = TypeAdapter(Situation)
    world.submit("a", script=LONG, resources={"devices": {"T4": 2, "A100": 1}}, deadline_s=5000.0)
    world.submit("b", work=inference(1e6), resources={"devices": "any", "count": "1..4", "mix": True})
    world.submit("c", work=inference(1e5), resources={"devices": "accelerator"}, budget_usd=3.0)
    replayed = 0
    for _ in range(4):
        report = world.cycle()
        assert isinstance(report, CycleReport)
        dumped = adapter.dump_json(report.situation)
        again = adapter.validate_json(dumped)
        assert again == report.situation
        assert adapter.dump_json(again) == dumped
        assert create("market").plan(again) == report.plan
        replayed += len(report.plan.explanations)
    assert replayed >= 8
    for name in ("a", "b", "c"):
        world.cancel(name)
    world.run_until_ended()


def test_congestion_prices_are_carried_to_the_next_cycle(world: World) -> None:
    for number in range(6):
        world.submit(f"w{number}", work=inference(1e9), resources={"devices": ["A100", "cpu"]}, script=LONG)
    first = world.cycle()
    assert first is not None
    assert world.engine.congestion_usd_h == first.plan.congestion_usd_h
    assert max(world.engine.congestion_usd_h.values()) > 0
    assert (second := world.cycle()) is not None
    assert second.situation.congestion_usd_h == first.plan.congestion_usd_h
    for name in list(world.states()):
        world.cancel(name)


def test_a_run_that_began_and_ended_between_two_looks_is_told_whole(world: World) -> None:
    world.submit("short", script=Script(run_s=0.5))
    world.run_until_ended(advance_s=5.0)
    assert world.kinds("short") == ["submitted", "queued", "planned", "starting", "running", "succeeded"]
