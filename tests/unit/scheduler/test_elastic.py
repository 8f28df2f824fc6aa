"""A training with a range of counts shrinks for what is more urgent and grows again, by a checkpoint and a restart."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.fake import Script
from making import node, snapshot
from scheduler.estimate.work import Work
from scheduler.store import Event, Record
from world import World


def step(number: int) -> dict[str, Any]:
    return {"kind": "step", "step": number, "total_steps": 100, "epoch": 0, "loss": 0.5, "samples_s": 1.0}


def attempt(begins: int, reaches: int) -> Script:
    """Work from one step to another, which is saved when it is asked for."""
    saves = [{"kind": "checkpoint", "step": reaches}]
    records = [(20.0, {"kind": "resumed", "step": begins, "from": "a checkpoint"}), (60.0, step(reaches))]
    return Script(startup_s=16.0, run_s=1e5, records=records if begins else records[1:], stop_s=2.0, saves=saves)


@pytest.fixture
def world() -> World:
    return World(where=snapshot(node("head", ("cpu", 4)), node("t4-a", ("T4", 2))))


def test_a_training_shrinks_for_an_urgent_arrival_and_grows_when_that_is_done(world: World) -> None:
    resources = {"devices": ["T4"], "count": {"low": 1, "high": 2}}
    spec = {"kind": "train", "name": "a", "input": "/data", "model": "m", "resources": resources, "objective": "time"}
    seconds = {"T4 x1": 4000.0, "T4 x2": 2050.0}
    world.profiler.works["a"] = Work("train", "a", declared_by=seconds, startup_s=16.0)
    last = Script(startup_s=16.0, run_s=1200.0)
    world.scripts["a"] = [attempt(0, 20), attempt(20, 30), last]
    record = Record("a", "a", "train", spec, "pending", world.now_s, "/out/a", "/run/a")
    world.store.add([record], [Event("submitted", "a user submitted it", "a", at_s=world.now_s)])
    world.submitted.append("a")
    for _ in range(100):
        world.cycle()
    world.submit("urgent", script=Script(run_s=300.0), resources={"devices": ["T4"]}, priority=10)
    world.run_until_ended(cycles=3000)
    world.check()
    starts = [each.data["configuration"] for each in world.store.events(workload_id="a") if each.kind == "starting"]
    assert starts == ["T4 x2", "T4 x1", "T4 x2"]
    stops = [each for each in world.store.events(workload_id="a") if each.kind == "queued" and "stopped" in each.cause]
    assert [each.data for each in stops] == [{"lost_fraction": 0.0, "lost_s": 0.0}] * 2
    assert world.states() == {"a": "succeeded", "urgent": "succeeded"}
