"""Random situations of every kind: whatever is asked, the plan of `market` holds together."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Node
from making import configuration, est, node, placed, situation, snapshot
from scheduler.policy import create
from scheduler.types import Estimate, Placement, Plan, QueueRules, Reason, Situation, WorkloadView

WANTED: list[dict[str, int]] = [
    {"T4": 1}, {"T4": 2}, {"T4": 4}, {"A100": 1}, {"A100": 2}, {"cpu": 2}, {"T4": 1, "A100": 1}, {"FPGA": 1}, {"TPU-v4": 1},
]  # fmt: skip
NODES = [("a", ("T4", 2)), ("b", ("T4", 4)), ("c", ("A100", 2)), ("d", ("cpu", 4)), ("e", ("T4", 1), ("A100", 1)), ("f", ("FPGA", 2))]  # fmt: skip
QUEUES = ("x", "y", "z")


def estimate(rng: random.Random, counts: dict[str, int]) -> Estimate:
    known = None if rng.random() < 0.1 else 10 ** rng.uniform(0, 5)
    found = replace(est(known, **counts), startup_s=rng.choice([0.0, 5.0, 60.0]) if known else 0.0)
    found = replace(found, high_s=None) if rng.random() < 0.2 else found
    found = replace(found, price_usd_h=None, money=None) if "FPGA" in counts or rng.random() < 0.05 else found
    return replace(found, infeasible=Reason("memory", "too big")) if rng.random() < 0.05 else found


def workload(rng: random.Random, name: str, free: Counter[tuple[str, str]]) -> WorkloadView:
    """Some run on devices that are free still, some are on their way out."""
    tables = tuple(estimate(rng, counts) for counts in rng.sample(WANTED, rng.randint(0, 5)))
    view = WorkloadView(
        name, name,
        queue=rng.choice(QUEUES),
        priority=rng.choice([0, 0, 0, 1, -1]),
        objective=rng.choice(["cost", "balanced", "time"]),
        queued_s=rng.uniform(-1e5, 1e4),
        submitted_s=rng.uniform(-1e5, 1e4),
        deadline_s=rng.uniform(0, 1e5) if rng.random() < 0.2 else None,
        budget_usd=rng.uniform(0, 5) if rng.random() < 0.2 else None,
        remaining=rng.choice([1.0, rng.random()]),
        estimates=tables,
        interrupted=rng.random() < 0.05,
        resumes=rng.random() < 0.6,
        one_node=rng.random() < 0.2,
        not_before_s=2e4 if rng.random() < 0.05 else None,
        waited_s=rng.choice([0.0, 10 ** rng.uniform(0, 6)]),
    )  # fmt: skip
    there = [key for key, count in free.items() if count > 0]
    if not there or rng.random() < 0.6:
        return view
    kind, at = rng.choice(there)
    count = rng.randint(1, free[kind, at])
    free[kind, at] -= count
    held = placed(*[(kind, at)] * count)
    unsaved_s = rng.uniform(0, 600)
    return replace(view, placement=held, held_s=rng.uniform(0, 5000), unsaved_s=unsaved_s, stopping=rng.random() < 0.1)


def asked(seed: int, most: int) -> Situation:
    rng = random.Random(seed)
    nodes: list[Node] = [node(*each) for each in rng.sample(NODES, rng.randint(0, len(NODES)))]
    where = snapshot(*nodes)
    free = Counter({(d.device_type, n.node_id): d.total for n in nodes for d in n.devices})
    views = [workload(rng, f"w{number}", free) for number in range(rng.randint(0, most))]
    if rng.random() < 0.1 and nodes:  # what runs on a node that is gone
        where = snapshot(*nodes[1:])
    rules: dict[str, QueueRules] = {}
    for queue in QUEUES if rng.random() < 0.6 else ():
        quota = {name: rng.randint(0, 4) for name in rng.sample(["T4", "A100"], rng.randint(0, 2))}
        rules[queue] = QueueRules(rng.choice([1.0, 3.0]), quota, rng.choice([None, None, rng.uniform(0, 10)]))
    return situation(where, *views, now_s=1e4, queues=rules)


def check(seen: Situation, found: Plan) -> None:
    total = Counter({(d.device_type, n.node_id): d.total for n in seen.snapshot.nodes for d in n.devices})
    views = {view.id: view for view in seen.workloads}
    new = {name: each for name, each in found.placements.items() if each != views[name].placement}
    held: Counter[tuple[str, str]] = Counter()
    for each in found.placements.values():
        held.update(each.devices)
        assert Counter(name for name, _ in each.devices) == Counter(dict(each.configuration.groups)), "a gang is split"
    there = {at for _, at in total}
    assert all(count <= total[key] for key, count in held.items() if key[1] in there), "a device is given twice"
    for name, placement in new.items():
        view = views[name]
        assert all(device in total for device in placement.devices)
        assert any(e.configuration == placement.configuration for e in view.estimates)
        assert not view.one_node or len({at for _, at in placement.devices}) == 1
        assert view.placement is None or view.resumes, "what would begin again is moved"
    for queue, rules in seen.queues.items():
        mine: dict[str, Placement] = {n: p for n, p in found.placements.items() if views[n].queue == queue}
        if not any(name in new for name in mine):
            continue  # nothing was added to what it ran
        counts: Counter[str] = Counter(name for each in mine.values() for name, _ in each.devices)
        added = Counter(name for n in mine if n in new for name, _ in mine[n].devices)
        assert all(counts[name] <= most for name, most in rules.quota.items() if added[name])
        kinds = seen.snapshot.device_types
        usd_h = sum(n * ((kinds[t].price_usd_h if t in kinds else None) or 0.0) for t, n in counts.items())
        paid = any((kinds[t].price_usd_h or 0.0) > 0 for t in added if t in kinds)
        assert not paid or usd_h <= (math.inf if rules.limit_usd_h is None else rules.limit_usd_h) + 1e-9
    assert set(found.explanations) == set(views)
    assert all(found.explanations[name].summary for name in views)
    stopped = [v for v in views.values() if v.placement is not None and not v.resumes and v.id not in found.placements]
    assert not stopped, "what would begin again is stopped"


@pytest.mark.parametrize("block", range(10))
def test_every_plan_holds_together(block: int) -> None:
    planner: Any = create("market")
    for seed in range(60 * block, 60 * (block + 1)):
        seen = asked(seed, 14)
        found = create("market").plan(seen)
        check(seen, found)
        assert planner.plan(seen) == found, "it depends on what was planned before"


@pytest.mark.parametrize(("seed", "most"), [(1, 400), (2, 900), (3, 1500)])
def test_every_plan_among_many_holds_together(seed: int, most: int) -> None:
    rng = random.Random(seed)
    seen = asked(seed, 14)
    while len(seen.snapshot.nodes) < 4:
        seed += 100
        seen = asked(seed, 14)
    more = [workload(rng, f"m{number}", Counter()) for number in range(most)]
    seen = replace(seen, workloads=(*seen.workloads, *more))
    check(seen, create("market").plan(seen))


def later(rng: random.Random, seen: Situation, found: Plan) -> Situation:
    """What was placed runs; some make progress, some are new, some are equal but other objects, most are the same."""
    views = []
    for number, view in enumerate(seen.workloads):
        there, dice = found.placements.get(view.id), rng.random()
        if dice < 0.03:
            views.append(workload(rng, f"{seen.cycle}-{number}", Counter()))
        elif there != view.placement:
            views.append(replace(view, placement=there, held_s=0.0, stopping=False))
        elif there is not None:
            views.append(replace(view, held_s=view.held_s + 60, remaining=view.remaining * rng.choice([1.0, 0.9])))
        else:
            view_now = replace(view, budget_usd=rng.choice([None, 1.0])) if dice > 0.97 else view
            views.append(replace(view_now) if dice < 0.3 else view_now)
    rules = seen.queues if rng.random() < 0.7 else {"x": QueueRules(2.0, {"T4": rng.randint(0, 3)}, None)}
    memory, congestion = found.memory, found.congestion_usd_h
    return replace(
        seen, cycle=seen.cycle + 1, now_s=seen.now_s + 60, workloads=tuple(views), queues=rules,
        memory=memory, congestion_usd_h=congestion,
    )  # fmt: skip


@pytest.mark.parametrize(("seed", "most"), [*((seed, 0) for seed in range(20)), (20, 330), (21, 330)])
def test_a_policy_that_saw_the_situation_before_plans_as_one_that_saw_nothing(seed: int, most: int) -> None:
    rng = random.Random(seed)
    seen, planner = asked(seed, 14), create("market")
    more = tuple(workload(rng, f"m{number}", Counter()) for number in range(most))
    seen = replace(seen, workloads=(*seen.workloads, *more))
    for _ in range(4):
        found = planner.plan(seen)
        assert found == create("market").plan(seen)
        seen = later(rng, seen, found)


def test_nothing_at_all_is_a_plan() -> None:
    assert create("market").plan(situation(snapshot())).placements == {}
    alone = WorkloadView("w", "w", estimates=(est(10, **dict(configuration(T4=1).groups)),))
    assert create("market").plan(situation(snapshot(), alone)).placements == {}
