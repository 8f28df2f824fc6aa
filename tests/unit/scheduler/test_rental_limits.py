"""No policy that rents ever passes the most of a type or the cap, whatever becomes of launches and nodes; and what
nobody needs goes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cluster.fake import Script
from cluster.types import NodeType, Snapshot
from making import TYPES, node, snapshot
from scheduler.estimate.work import Work
from world import World

POLICIES = ["market", "ray-autoscaler", "cheapest-fit", "no-packing"]
HEAD = replace(node("head", ("cpu", 1)), is_head=True)
T4 = NodeType("t4", (("T4", 1),), 0.5, most=4)
WIDE = NodeType("wide", (("T4", 4),), 2.5, most=2)
A100 = NodeType("a100", (("A100", 2),), 8.0, most=2)
KINDS = {"T4 x1": 900.0, "T4 x3": 400.0, "A100 x1": 300.0}


def where(cap: float | None, launch_s: float) -> Snapshot:
    types = tuple(replace(each, launch_s=launch_s) for each in (T4, WIDE, A100))
    kinds = {name: TYPES[name] for name in ("A100", "T4", "cpu")}
    return replace(snapshot(HEAD), device_types=kinds, node_types=types, rent_cap_usd_h=cap)


def within(world: World) -> None:
    seen = world.cluster.snapshot()
    for kind in seen.node_types:
        assert len(seen.rented(kind.name)) + kind.launching <= kind.most
    assert seen.rent_cap_usd_h is None or seen.rented_usd_h() <= seen.rent_cap_usd_h * (1 + 1e-9)


def submit(world: World, name: str, scale: float, resumes: bool) -> None:
    """One that goes on where it was, or one that begins again."""
    seconds = {text: each * scale for text, each in KINDS.items()}
    work = Work("batch-infer", name, declared_by=seconds, samples=100.0, startup_s=5.0)
    script = Script(run_s=900.0 * scale, startup_s=5.0)
    resources = {"devices": ["T4", "A100"], "count": "1..3"}
    if resumes:
        world.submit(name, gang=True, work=work, script=script, resources=resources, retries=50)
    else:
        world.submit(name, work=replace(work, kind="command"), script=script, resources=resources, retries=50)


moments = some.tuples(
    some.floats(0.1, 6.0), some.booleans(), some.floats(1.0, 700.0), some.booleans(), some.integers(0, 6)
)
"""A job, whether it goes on where it was, the time until the next, whether launches fail, a node that is lost."""


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=10, deadline=None)
@given(
    some.lists(moments, min_size=1, max_size=10),
    some.sampled_from([None, 0.4, 3.1, 8.0, 13.0]),
    some.sampled_from([5.0, 180.0, 900.0]),
)
def test_the_limits_hold_whatever_happens(
    policy: str, jobs: list[tuple[float, bool, float, bool, int]], cap: float | None, launch_s: float
) -> None:
    world = World(where=where(cap, launch_s), policy=policy)
    for number, (scale, resumes, wait_s, fails, lost) in enumerate(jobs):
        world.launches_fail = lambda _, fails=fails: fails  # type: ignore[misc]
        submit(world, f"w{number}", scale, resumes)
        for _ in range(3):
            world.cycle(advance_s=wait_s / 3)
            within(world)
        rented = [each.node_id for each in world.cluster.snapshot().nodes if each.node_type in ("t4", "wide", "a100")]
        if lost < len(rented):
            world.provider.lose(rented[lost])
    world.launches_fail = lambda _: False
    for _ in range(100 if policy == "market" else 900):
        if all(state == "succeeded" for state in world.states().values()):
            break
        world.cycle(advance_s=120.0)
        within(world)
    if policy == "market":  # it moves what runs, and here that begins again
        world.check()
        return
    assert set(world.states().values()) == ({"succeeded"} if cap != 0.4 else {"queued"})
    for _ in range(70):
        world.cycle(advance_s=60.0)
        within(world)
    assert world.cluster.snapshot().rented_usd_h() == 0.0, "what nobody needs goes back"
    world.check()
