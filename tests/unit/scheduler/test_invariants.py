"""Random submissions, failures, cancels, restarts and outages: what must always hold, holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.fake import Script
from making import inference, node, standard
from scheduler.policy import names
from scheduler.states import ENDED, TRANSITIONS, State, check_transition
from scheduler.store import Event
from world import World

RESOURCES: list[dict[str, Any]] = [
    {"devices": "cpu", "count": "1..3"},
    {"devices": ["T4"]},
    {"devices": ["T4"], "count": "2..4"},
    {"devices": "accelerator", "count": "1..2", "mix": True},
    {"devices": {"T4": 1, "A100": 1}},
    {"devices": "any"},
]


def _submit(world: World, rng: random.Random, number: int, resources: Sequence[dict[str, Any]] = RESOURCES) -> None:
    scripts = []
    for _ in range(3):
        run_s = rng.uniform(0.0, 40.0)
        fails = rng.uniform(0.0, run_s) if rng.random() < 0.3 else None
        scripts.append(Script(startup_s=rng.choice([0.0, 2.0]), run_s=run_s, fail_at_s=fails))
    earlier = [name for name in world.submitted if rng.random() < 0.15][:2]
    world.submit(
        f"w{number}",
        *earlier,
        script=scripts,
        gang=True,
        work=inference(rng.uniform(1e3, 1e6)) if rng.random() < 0.5 else None,
        resources=rng.choice(resources),
        objective=rng.choice(["cost", "balanced", "time"]),
        priority=rng.randint(-1, 1),
        retries=rng.randint(0, 2),
        deadline_s=world.now_s + rng.uniform(1, 300) if rng.random() < 0.2 else None,
        budget_usd=rng.uniform(0.001, 0.1) if rng.random() < 0.2 else None,
    )


def _answer(world: World, rng: random.Random) -> None:
    """What a user does to what is paused: gives it more money, or gives it up; and pauses something now and then."""
    for record in world.store.select(states=["paused"]):
        if rng.random() < 0.1:
            event = Event("changed", "the user raised its budget", record.id)
            world.store.change(record.id, event, budget_usd=None, paused=False, pause_cause="")
        elif rng.random() < 0.02:
            world.cancel(record.id)
    waiting = world.store.select(states=["queued", "running"])
    if waiting and rng.random() < 0.05:
        record = rng.choice(waiting)
        world.store.change(record.id, Event("pause-requested", "the user asked for it", record.id), paused=True)


def _disturb(world: World, rng: random.Random) -> None:
    what = rng.random()
    active = sorted(job.run_id for job in world.cluster.active_runs())
    if what < 0.05 and world.submitted:
        world.cancel(rng.choice(world.submitted))
    elif what < 0.07 and active:
        world.cluster.forget(rng.choice(active))
    elif what < 0.09:
        world.cluster.lose_node("t4-b")
    elif what < 0.12:
        world.cluster.add_node(node("t4-b", ("T4", 2)))
    elif what < 0.15:
        world.restart()
    elif what < 0.18:
        world.cluster.set_reachable(False)
    elif what < 0.4:
        world.cluster.set_reachable(True)


ONE_TYPE = [each for each in RESOURCES if not isinstance(each["devices"], dict)]
"""Gavel's policies say that they take one type at a time."""
CASES = [(policy, seed) for policy in names() for seed in range(6 if policy in ("first-fit", "market") else 3)]


@pytest.mark.parametrize(("policy", "seed"), CASES)
def test_whatever_happens(seed: int, policy: str) -> None:
    rng = random.Random(seed)
    resources = ONE_TYPE if policy.startswith("gavel") else RESOURCES
    world = World(where=standard(), policy=policy)
    for number in range(150):
        if number < 100 and rng.random() < 0.25:
            _submit(world, rng, number, resources)
        _disturb(world, rng)
        _answer(world, rng)
        world.cycle(rng.uniform(0.1, 5.0))
        if number % 10 == 0 and world.engine.last_report is not None:
            world.check()
    world.cluster.set_reachable(True)
    world.cluster.add_node(node("t4-b", ("T4", 2)))
    for record in world.store.select():
        if record.paused:
            event = Event("changed", "the user raised its budget", record.id)
            world.store.change(record.id, event, budget_usd=None, paused=False, pause_cause="")
    world.run_until_ended(cycles=2000, advance_s=120.0 if policy.startswith("gavel") else 3.0)  # those plan in rounds
    world.check()
    records = world.store.select()
    assert len(records) == len(world.submitted) > 12
    assert {record.state for record in records} <= ENDED
    assert {"succeeded", "failed"} <= {record.state for record in records}
    forgotten = [e for e in world.store.events(limit=100_000) if "does not know" in e.cause]
    held = sum(record.spent_usd for record in records)
    if not forgotten:
        assert held == pytest.approx(world.paid_usd())
    assert held >= world.paid_usd() - 1e-9, "devices that nobody paid for"
    assert world.cluster.active_runs() == []


def test_the_same_seed_gives_the_same_history() -> None:
    def history() -> list[tuple[object, ...]]:
        rng, world = random.Random(3), World()
        for number in range(60):
            if rng.random() < 0.3:
                _submit(world, rng, number)
            world.cycle(rng.uniform(0.1, 5.0))
        return [
            (e.kind, e.cause, e.workload_id, e.cycle, e.at_s, tuple(e.data.items())) for e in world.store.events(limit=9999) if e.kind != "starting"
        ]  # fmt: skip

    first = history()
    assert len(first) > 25
    assert history() == first


def test_every_move_of_the_table_is_made_by_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[str, str]] = set()

    def note(workload_id: str, before: State, after: State) -> None:
        check_transition(workload_id, before, after)
        made.add((before, after))

    monkeypatch.setattr("scheduler.store.store.check_transition", note)
    for seed in range(8):
        test_whatever_happens(seed, "market")
    world = World()
    world.submit("a", script=Script(startup_s=100.0))
    world.submit("b", script=Script(run_s=3.0))
    world.submit("poor", budget_usd=1e-9)
    world.cycle()
    world.cancel("a")
    world.cycle()
    world.cluster.stop = lambda run_id: None  # type: ignore[method-assign]  # too late: it ends well
    world.cancel("b")
    world.run_until_ended()
    assert world.states() == {"a": "cancelled", "b": "succeeded", "poor": "failed"}
    # What is submitted here begins again when it is stopped: nothing is, but what a user cancels.
    # A run that says it began, and ended, in one cycle is told of as running first.
    never = {("stopping", "queued"), ("starting", "cancelled"), ("running", "cancelled"), ("starting", "succeeded")}
    assert set(TRANSITIONS) - made == never
