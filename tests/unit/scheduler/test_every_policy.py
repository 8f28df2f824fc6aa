"""What holds for every policy that ships in every situation: no device twice, gangs whole, a reason for everybody, the
same plan for the same situation, and memory that survives being written down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.types import Snapshot
from making import est, node, situation, snapshot, view
from scheduler.policy import create, names
from scheduler.policy.capacity import Capacity
from scheduler.types import Estimate, Plan, Reason, Situation, WorkloadView
from simulating import check

COUNTS = [{"T4": 1}, {"T4": 2}, {"T4": 4}, {"A100": 1}, {"A100": 2}, {"cpu": 1}, {"A100": 1, "T4": 1}, {"Z9": 1}]


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    kinds = draw(st.lists(st.sampled_from(["T4", "A100", "cpu"]), min_size=1, max_size=4))
    return snapshot(*(node(f"n{n}", (kind, draw(st.integers(1, 4)))) for n, kind in enumerate(kinds)))


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    seconds = draw(st.one_of(st.none(), st.floats(1, 1e5)))
    made = est(seconds, **draw(st.sampled_from(COUNTS)))
    if draw(st.integers(0, 5)) == 0:
        return replace(made, infeasible=Reason("memory", "too little"))
    return made if seconds is None else replace(made, startup_s=draw(st.sampled_from([0.0, 0.5, seconds / 2])))


@st.composite
def workloads(draw: st.DrawFn, number: int) -> WorkloadView:
    listed = draw(st.lists(estimates(), max_size=4, unique_by=lambda each: each.configuration))
    return view(
        f"w{number}",
        *listed,
        submitted_s=float(draw(st.integers(0, 900))),
        queued_s=float(draw(st.integers(0, 900))),
        priority=draw(st.integers(-1, 3)),
        objective=draw(st.sampled_from(["cost", "balanced", "time"])),
        remaining=draw(st.sampled_from([1.0, 0.5, 0.01, 0.0])),
        budget_usd=draw(st.sampled_from([None, None, 0.01, 5.0])),
        deadline_s=draw(st.sampled_from([None, None, 10.0, 1e6])),
        one_node=draw(st.booleans()),
        resumes=draw(st.booleans()),
        interrupted=draw(st.sampled_from([False, False, True])),
        waited_s=draw(st.sampled_from([0.0, 3000.0, 1e6])),
        unsaved_s=draw(st.sampled_from([0.0, 100.0])),
        not_before_s=draw(st.sampled_from([None, None, 5.0, 1200.0])),
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    where = draw(clusters())
    capacity, views = Capacity(where), []
    for number in range(draw(st.integers(0, 6))):
        one = draw(workloads(number))
        if one.estimates and draw(st.booleans()):
            there = capacity.place(one.estimates[0].configuration, one_node=one.one_node)
            if there is not None and one.estimates[0].infeasible is None:
                capacity.take(there)
                received = {name: 30.0 for name, _ in there.configuration.groups}
                held_s, stopping = draw(st.sampled_from([3.0, 300.0])), draw(st.booleans())
                one = replace(one, placement=there, held_s=held_s, received_s=received, stopping=stopping)
        views.append(one)
    return replace(situation(where, *views, now_s=1000.0), seed=draw(st.integers(0, 3)))


def assert_sound(plan: Plan, seen: Situation) -> None:
    check(plan.placements.values(), seen.snapshot)
    views = {each.id: each for each in seen.workloads}
    assert set(plan.explanations) == set(views)
    assert set(plan.placements) <= set(views)
    for name, explanation in plan.explanations.items():
        placement = plan.placements.get(name)
        assert explanation.chosen == (None if placement is None else placement.configuration)
        assert explanation.summary
        if placement is None:
            assert all(option.reason is not None for option in explanation.options if option.wait_s == 0)
            continue
        listed = {each.configuration: each for each in views[name].estimates}
        assert placement.configuration in listed
        assert listed[placement.configuration].infeasible is None
        if views[name].one_node:
            assert len({node_id for _, node_id in placement.devices}) == 1


@pytest.mark.parametrize("policy", names())
@given(seen=situations())
@settings(max_examples=40, deadline=None)
def test_every_plan_is_sound(policy: str, seen: Situation) -> None:
    plan = create(policy).plan(seen)
    assert_sound(plan, seen)
    assert create(policy).plan(seen) == plan


@pytest.mark.parametrize("policy", names())
@given(seen=situations(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_sequence_of_cycles_is_sound(policy: str, seen: Situation, data: st.DataObject) -> None:
    """Workloads start where they are placed, end and come; memory is written down and read between cycles."""
    planner, memory = create(policy), {}
    for _ in range(6):
        plan = planner.plan(replace(seen, memory=memory))
        assert_sound(plan, seen)
        written: dict[str, Any] = json.loads(json.dumps(dict(plan.memory)))
        assert written == plan.memory
        again = create(policy).plan(replace(seen, memory=memory))
        assert again == plan
        after_s = data.draw(st.sampled_from([0.0, 1.0, 60.0, 360.0, 2000.0]))
        left = [each for each in seen.workloads if data.draw(st.integers(0, 5)) > 0]
        views = tuple(_later(each, plan, after_s) for each in left)
        memory, seen = written, replace(seen, workloads=views, now_s=seen.now_s + after_s, cycle=seen.cycle + 1)


def _later(each: WorkloadView, plan: Plan, after_s: float) -> WorkloadView:
    there = plan.placements.get(each.id)
    received = dict(each.received_s)
    for name, _ in there.configuration.groups if there is not None else ():
        received[name] = received.get(name, 0.0) + after_s
    return replace(each, placement=there, received_s=received)
