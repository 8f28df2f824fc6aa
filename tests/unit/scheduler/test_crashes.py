"""The service is killed at every call it makes, and comes back: nothing is lost, nothing runs twice, what runs is adopted.

A few seeded points of each scenario here; all of them with `make torture` (`RAYWISE_CRASH_POINTS=all`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.fake import Script
from crashing import LONG, CrashingWorld, Injector, Killed, plays
from making import node
from scheduler.estimate.work import Work
from scheduler.store import Event, Record
from scheduler.types import Plan, Situation


class At(Injector):
    """Kills the first time at a named place."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def _point(self, at: str) -> None:
        self.count += 1
        if at == self._where and not self.at:
            self.at = at
            raise Killed(at)


SOME_POINTS, SOME_PAIRS = 12, 4
ALL = os.environ.get("RAYWISE_CRASH_POINTS") == "all"


def pipelines(world: CrashingWorld) -> None:
    """Two in a row, one of two needs, one whose need fails, one that is over before a cycle sees it."""
    world.submit("a", script=Script(run_s=3.0))
    world.submit("b", "a", script=Script(startup_s=1.0, run_s=3.0))
    world.submit("c", "a", "b", script=Script(run_s=2.0))
    world.submit("bad", script=Script(fail_at_s=1.0), retries=0)
    world.submit("never", "bad")
    world.submit("short", script=Script(run_s=0.1))


def gangs_and_retries(world: CrashingWorld) -> None:
    """Gangs over nodes that fail and are tried again; one that fails for good."""
    twice = [Script(run_s=9.0, fail_at_s=2.0), Script(run_s=4.0)]
    world.submit("gang", gang=True, script=twice, resources={"devices": ["T4"], "count": 4})
    world.submit("other", gang=True, script=Script(run_s=5.0), resources={"devices": ["T4"], "count": "1..2"})
    world.submit("fails", script=Script(fail_at_s=1.0), retries=1, resources={"devices": "cpu"})
    world.submit("a100", script=twice, resources={"devices": ["A100"]})


def cancels(world: CrashingWorld) -> None:
    """What waits for a need, what is queued, what runs, and what is over."""
    world.submit("runs", script=LONG, resources={"devices": ["A100"]})
    world.cycle()  # it has the device before another wants it
    world.submit("queued", script=LONG, resources={"devices": ["A100"]})
    world.submit("pending", "runs")
    world.submit("stays", script=Script(run_s=6.0), resources={"devices": ["T4"]})
    for number in range(8):
        world.cycle()
        if number == 2:
            world.cancel("pending")
            world.cancel("queued")
        if number == 4:
            world.cancel("runs")


class _Preempts:
    """As the policy it wraps, but that between two times `low` may hold nothing."""

    def __init__(self, world: CrashingWorld) -> None:
        self._world, self._policy, self.name = world, world.policy, world.policy.name

    def plan(self, situation: Situation) -> Plan:
        plan = self._policy.plan(situation)
        if 1004.0 <= self._world.now_s < 1012.0:
            kept = {name: each for name, each in plan.placements.items() if name != "low"}
            return Plan(plan.cycle, kept, plan.explanations)
        return plan


def preemption(world: CrashingWorld) -> None:
    """A training is stopped for the plan and goes on later."""
    world.policy = _Preempts(world)
    world.engine = world._engine()
    saved = [
        (2.0, {"kind": "step", "step": 20, "total_steps": 100, "epoch": 0, "loss": 0.5, "samples_s": 1.0}),
        (2.0, {"kind": "checkpoint", "step": 20}),
    ]
    spec = {"kind": "train", "name": "low", "entrypoint": "mine:loop", "resources": {"devices": ["T4"]}}
    world.profiler.works["low"] = Work("train", "low", declared_s=30.0)
    world.scripts["low"] = [Script(run_s=30.0, records=saved), Script(run_s=5.0)]
    record = Record("low", "low", "train", spec, "pending", world.now_s, "/out/low", "/run/low")
    world.store.add([record], [Event("submitted", "a user submitted it", "low", at_s=world.now_s)])
    world.submitted.append("low")
    world.submit("next", "low", script=Script(run_s=2.0))
    for _ in range(5):
        world.cycle()


def losses(world: CrashingWorld) -> None:
    """The cluster forgets a run, loses a node with a gang on it, is away for a while, and gets the node back."""
    world.submit("forgotten", script=[LONG, Script(run_s=4.0)], resources={"devices": ["A100"]})
    world.submit("gang", gang=True, script=[LONG, Script(run_s=4.0)], resources={"devices": ["T4"], "count": 4})
    for number in range(14):
        world.cycle()
        if number == 3:
            world.cluster.forget("forgotten")
        if number == 4:
            world.cluster.lose_node("t4-b")
        world.cluster.set_reachable(number not in (6, 7, 8))
        if number == 10:
            world.cluster.add_node(node("t4-b", ("T4", 2)))


SCENARIOS: dict[str, Callable[[CrashingWorld], None]] = {
    each.__name__: each for each in (pipelines, gangs_and_retries, cancels, preemption, losses)
}


def outcome(world: CrashingWorld) -> dict[str, tuple[str, int]]:
    """How each workload ended, and after how many attempts."""
    return {record.id: (record.state, record.attempt) for record in world.store.select()}


def calls(scenario: Callable[[CrashingWorld], None], path: Path) -> tuple[int, dict[str, tuple[str, int]]]:
    """How many points to be killed at a scenario has, and what comes out of it without any."""
    world = plays(scenario, path)
    ended = outcome(world)
    world.store.close()
    return world.injector.count, ended


def chosen(name: str, points: int) -> list[tuple[int, ...]]:
    """Single kills, and pairs of which the second comes while the service is coming back from the first."""
    rng = random.Random(name)
    ones = range(points) if ALL else sorted(rng.sample(range(points), SOME_POINTS))
    pairs = [(rng.randrange(points), rng.randrange(60)) for _ in range(10 * SOME_PAIRS if ALL else SOME_PAIRS)]
    return [*((each,) for each in ones), *pairs]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.timeout(3600 if ALL else 300)
def test_a_kill_at_any_call_loses_nothing_and_repeats_nothing(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    points, expected = calls(scenario, tmp_path / "none.db")
    assert points > 2 * SOME_POINTS
    for number, kills in enumerate(chosen(name, points)):
        path = tmp_path / f"{number}.db"
        world = plays(scenario, path, kills)
        assert len(world.crashes) >= 1, kills
        assert outcome(world) == expected, (kills, world.crashes)
        world.store.close()
        path.unlink()


def test_the_scenarios_come_by_every_way_to_end_and_begin_again(tmp_path: Path) -> None:
    kinds: set[str] = set()
    for name, scenario in SCENARIOS.items():
        world = plays(scenario, tmp_path / f"{name}.db")
        kinds |= {event.kind for event in world.store.events(limit=100_000)}
        world.store.close()
    assert kinds >= {"succeeded", "failed", "cancelled", "retry", "stopping", "running", "queued", "starting"}


def test_a_kill_between_record_and_start_submits_the_run_once_more_under_its_id(tmp_path: Path) -> None:
    world = CrashingWorld(tmp_path / "one.db", injector := At("before start"))
    world.submit("a", script=Script(run_s=3.0))
    world.run_until_ended()
    world.check()
    assert injector.at == "before start"
    assert (world.get("a").state, world.get("a").attempt) == ("succeeded", 1)
    assert world.kinds("a").count("resubmitted") == 1
    world.store.close()


def test_a_kill_after_the_start_adopts_the_run(tmp_path: Path) -> None:
    world = CrashingWorld(tmp_path / "one.db", injector := At("after start"))
    world.submit("a", script=Script(run_s=3.0))
    world.run_until_ended()
    world.check()
    assert injector.at == "after start"
    assert (world.get("a").attempt, "resubmitted" in world.kinds("a")) == (1, False)
    world.store.close()
