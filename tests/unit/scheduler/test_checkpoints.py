"""What is done, what a stop keeps of it and what it would lose: from the records of a run to what a policy is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.fake import Script
from making import configuration, node, snapshot
from scheduler.engine import engine as engine_module
from scheduler.engine.progress import Progress
from scheduler.estimate.work import Work
from scheduler.policy import create
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import Phase, SimulationResult, Trace, TraceJob
from scheduler.store import Event, Record, Store
from scheduler.types import Plan, Situation, WorkloadView
from world import World


def step(number: int) -> dict[str, Any]:
    return {"kind": "step", "step": number, "total_steps": 100, "epoch": 0, "loss": 0.5, "samples_s": 1.0}


def checkpoint(number: int) -> dict[str, Any]:
    return {"kind": "checkpoint", "step": number}


class Stopping:
    """As another policy, but that nothing runs while `stop` is set."""

    name = "stopping"

    def __init__(self) -> None:
        self.policy, self.stop = create("first-fit"), False

    def plan(self, situation: Situation) -> Plan:
        return Plan(situation.cycle, {}, {}) if self.stop else self.policy.plan(situation)


@pytest.fixture
def policy(world: World) -> Stopping:
    made = Stopping()
    world.policy = made
    world.restart()
    return made


def train(world: World, name: str, *scripts: Script, **fields: Any) -> None:
    """A training run of the user's own, on a T4; a script for each attempt."""
    spec = {"kind": "train", "name": name, "entrypoint": "mine:loop", "resources": {"devices": ["T4"]}, **fields}
    world.profiler.works[name] = Work("train", name, declared_s=100.0)
    world.scripts[name] = list(scripts)
    record = Record(name, name, "train", spec, "pending", world.now_s, f"/out/{name}", f"/run/{name}")
    world.store.add([record], [Event("submitted", "a user submitted it", name, at_s=world.now_s)])
    world.submitted.append(name)


def view(world: World) -> WorkloadView:
    report = world.engine.last_report
    assert report is not None
    (found,) = report.situation.workloads
    return found


def test_a_stop_keeps_what_the_last_checkpoint_has_and_a_policy_knows_what_it_would_lose(
    world: World, policy: Stopping
) -> None:
    records = [(20.0, step(10)), (50.0, step(40)), (50.0, checkpoint(40)), (70.0, step(60))]
    train(world, "a", Script(startup_s=10.0, run_s=100.0, records=records), Script(run_s=60.0))
    seen = {}
    for _ in range(77):
        world.cycle()
        seen[world.now_s - (world.get("a").started_s or world.now_s)] = view(world)
    assert view(world).resumes
    assert {at: round(seen[at].remaining, 9) for at in (5.0, 20.0, 50.0, 75.0)} == {5: 1.0, 20: 0.9, 50: 0.6, 75: 0.4}
    assert {at: seen[at].unsaved_s for at in (5.0, 20.0, 49.0, 50.0, 75.0)} == {5: 0, 20: 10, 49: 39, 50: 0, 75: 25}
    policy.stop = True
    world.cycle()
    assert (world.states(), view(world).remaining) == ({"a": "stopping"}, pytest.approx(0.4))
    world.cycle()
    assert world.get("a").state == "queued"
    assert world.get("a").fraction == pytest.approx(0.4)
    assert (view(world).remaining, view(world).unsaved_s) == (pytest.approx(0.6), 0.0)
    policy.stop = False
    world.run_until_ended()
    assert world.get("a").fraction == 1.0


def test_what_is_being_stopped_has_as_much_left_as_it_will_go_on_from(
    world: World, policy: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world, "a", Script(run_s=100.0, records=[(5.0, checkpoint(20)), (9.0, step(50))]), Script(run_s=60.0))
    for _ in range(15):
        world.cycle()
    monkeypatch.setattr(world.cluster, "stop", lambda *_: None)
    policy.stop = True
    world.cycle()
    world.cycle()
    assert view(world).stopping
    assert view(world).remaining == pytest.approx(0.8)
    monkeypatch.undo()
    policy.stop = False
    world.run_until_ended()


def begun(world: World, policy: Stopping, stop_s: float, grace_s: float = 30.0) -> None:
    """A training half done and never saved, which is being stopped: it takes `stop_s` to save."""
    records = [(9.0, step(50))]
    saving = Script(run_s=100.0, records=records, stop_s=stop_s, saves=[checkpoint(50)])
    train(world, "a", saving, Script(run_s=50.0), grace=grace_s)
    for _ in range(15):
        world.cycle()
    policy.stop = True
    world.cycle()
    assert world.states() == {"a": "stopping"}


@pytest.mark.parametrize(
    ("grace_s", "took_s", "fraction"), [(30.0, 3.0, 0.5), (2.0, 2.0, 0.0)], ids=["in time", "not in time"]
)
def test_a_stop_for_the_plan_gives_time_to_save(
    world: World, policy: Stopping, grace_s: float, took_s: float, fraction: float
) -> None:
    begun(world, policy, 3.0, grace_s)
    asked_s = world.now_s
    while world.get("a").state == "stopping":
        world.cycle()
    assert world.now_s - asked_s == took_s
    assert (world.get("a").state, world.get("a").fraction) == ("queued", fraction)
    lost = world.event("a", "queued").data
    assert lost["lost_fraction"] == 0.5 - fraction
    assert (lost["lost_s"] == 0.0) == (fraction > 0)
    policy.stop = False
    world.run_until_ended()
    assert world.states() == {"a": "succeeded"}


def test_a_user_who_cancels_waits_for_no_checkpoint(world: World, policy: Stopping) -> None:
    begun(world, policy, 20.0)
    world.cancel("a")
    world.cycle()
    world.cycle()
    assert world.states() == {"a": "cancelled"}
    assert not world.cluster.active_runs()


class Watching:
    """As another policy; keeps what it was told."""

    name = "watching"

    def __init__(self, policy: str) -> None:
        self.policy = create(policy)
        self.told: list[WorkloadView] = []

    def plan(self, situation: Situation) -> Plan:
        self.told.extend(situation.workloads)
        return self.policy.plan(situation)

    def lost(self) -> list[float]:
        """Shares of the work that were done twice, one by one."""
        left: dict[str, float] = {}
        found = []
        for each in self.told:
            if each.remaining > left.get(each.id, 1.0) + 1e-6:
                found.append(each.remaining - left[each.id])
            left[each.id] = each.remaining
        return found


def simulated(policy: Watching, **options: Any) -> SimulationResult:
    one, four = configuration(T4=1), configuration(A100=1)
    jobs = [
        TraceJob(f"j{n}", "bert", 40.0 * n, 100.0 * (1 + n % 3), (Phase(0.0, {one: 1.0, four: 4.0}),), startup_s=5.0)
        for n in range(8)
    ]
    where = snapshot(node("a", ("T4", 1)), node("b", ("A100", 1)))
    result = simulate(Trace("t", tuple(jobs)), where, policy, Options(tick_s=10.0, **options), seed=1)
    assert {each.state for each in result.jobs} == {"succeeded"}
    assert {each.unsaved_s for each in policy.told} == {0.0}
    return result


def test_in_a_simulation_a_stop_writes_a_checkpoint_first() -> None:
    policy = Watching("srtf")
    assert any(each.preemptions for each in simulated(policy).jobs)
    assert policy.lost() == []


def test_in_a_simulation_a_lost_node_costs_what_came_after_the_last_checkpoint() -> None:
    policy = Watching("first-fit")
    result = simulated(policy, node_failures_per_h=30.0, launch_s=20.0, checkpoint_every_s=40.0)
    assert any(each.failures for each in result.jobs)
    assert policy.lost()
    assert max(policy.lost()) <= 40.0 * 4.0 / 100.0, "40 s at four a second of the shortest job"


# What is remembered of runs that ended.


def test_only_so_many_runs_that_ended_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ENDED_KEPT", 3)
    names = [f"w{number}" for number in range(6)]
    for name in names:
        rows = {"kind": "rows", "rows": 7, "total_rows": 9, "by_device": {"cpu": 7}}
        world.submit(name, script=Script(run_s=2.0, records=[(1.0, rows)]))
    world.submit("tried", script=[Script(fail_at_s=1.0)] * 4 + [Script(run_s=2.0)], retries=9)
    world.run_until_ended()
    assert len(world.engine._progress) <= 3
    assert not world.engine._looks.seen_s
    early, late = (world.engine.progress_of(world.get(name)) for name in (names[0], "tried"))
    assert (early.phase, early.rows_by_device, early.rows) == ("finishing", {"cpu": 7}, 0), "from its result"
    assert late.done is not None


def test_a_failed_run_is_remembered_until_others_have_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ENDED_KEPT", 2)
    world.submit("bad", script=Script(fail_at_s=5.0, records=[(2.0, step(30))]), retries=0)
    world.run_until_ended()
    assert world.engine.progress_of(world.get("bad")).step == 30
    for number in range(2):
        world.submit(f"w{number}")
    world.run_until_ended()
    assert world.engine.progress_of(world.get("bad")) == Progress()


def test_one_that_cannot_be_started_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise ValueError("no such image")

    monkeypatch.setattr(engine_module, "ENDED_KEPT", 0)
    monkeypatch.setattr(world.cluster, "start", refuse)
    world.submit("bad", retries=2)
    world.run_until_ended()
    assert (world.engine._progress, world.engine._looks.seen_s, world.engine._resubmitted) == ({}, {}, {})


def test_what_was_saved_is_known_after_a_restart_of_the_service(tmp_path: Path) -> None:
    world = World(tmp_path / "raywise.db")
    train(world, "a", Script(run_s=100.0, records=[(5.0, checkpoint(20)), (9.0, step(50))]))
    for _ in range(12):
        world.cycle()
    world.store.close()
    world.store = Store(tmp_path / "raywise.db")
    world.restart()
    world.cycle()
    assert (world.engine.progress_of(world.get("a")).saved, view(world).unsaved_s) == (0.2, 7.0)
    world.store.close()
