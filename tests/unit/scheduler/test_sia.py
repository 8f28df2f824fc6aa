"""The integer program after Sia: against every possible choice, restarts, rounds, a solver that is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making import est, node, placed, situation, snapshot, standard, view
from scheduler.policy import create
from scheduler.policy.sia import WAITING, Choice, Sia, costs, solve
from scheduler.types import Estimate, WorkloadView

TWO = snapshot(node("a", ("T4", 2)))


def slow_start(seconds: float, startup_s: float, **counts: int) -> Estimate:
    return replace(est(seconds, **counts), startup_s=startup_s)


def test_what_a_configuration_adds() -> None:
    one, four, mixed = est(400, T4=1), est(100, T4=4), est(None, A100=1)
    assert costs(view("w", one, four, mixed), (one, four, mixed), 0.0, 0) == pytest.approx((1.0, 0.5, 1.0))
    gang = (est(400, T4=4), est(100, A100=4))
    assert costs(view("w", *gang), gang, 0.0, 0) == pytest.approx((0.5, 0.25)), "the slowest has its four devices"


def test_a_restart_discounts_every_configuration_but_the_present_one() -> None:
    choices = (slow_start(400, 100, T4=1), slow_start(400, 100, A100=1))
    runs = view("w", *choices, placement=placed(("T4", "t4-a")))
    # After 300 s with one restart behind it: (300 - 100) / (300 + 100) of the goodput.
    assert costs(runs, choices, 300.0, 1) == pytest.approx((1.0, 0.5**-0.5))
    assert costs(runs, choices, 99.0, 0) == pytest.approx((1.0, 1.0)), "it is younger than one start-up"
    assert costs(replace(runs, placement=None), choices, 300.0, 1) == pytest.approx((1.0, 1.0)), "nothing is lost"
    assert costs(runs, choices, 100.0, 9)[1] == 100.0, "no life is left to discount"


@st.composite
def some(draw: st.DrawFn) -> list[Choice]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        counts = draw(st.lists(st.sampled_from([{"T4": 1}, {"T4": 2}, {"A100": 1}, {"A100": 1, "T4": 1}]), max_size=3))
        estimates = tuple(est(draw(st.floats(10, 1e4)), **each) for each in counts)
        if estimates:
            one = view(f"w{number}", *estimates)
            found.append(Choice(one, estimates, costs(one, estimates, 0.0, 0)))
    return found


@given(some(), st.integers(0, 4), st.integers(0, 2))
@settings(max_examples=80, deadline=None)
def test_the_sum_is_the_least_of_all_choices(choices: list[Choice], t4: int, a100: int) -> None:
    free = {"A100": a100, "T4": t4}

    def total(picked: Any) -> float | None:
        left = dict(free)
        for choice, n in zip(choices, picked, strict=True):
            for name, count in choice.estimates[n].configuration.groups if n is not None else ():
                left[name] -= count
        if min(left.values()) < 0:
            return None
        return sum(WAITING if n is None else c.costs[n] for c, n in zip(choices, picked, strict=True))

    every = (total(each) for each in product(*[[None, *range(len(choice.estimates))] for choice in choices]))
    picked, limited = solve(choices, free, 10.0, 1000)
    assert not limited
    assert total(picked) == pytest.approx(min(each for each in every if each is not None), abs=1e-3)


def test_two_share_rather_than_one_taking_all() -> None:
    choices = (est(400, T4=1), est(330, T4=2))
    made = create("sia").plan(situation(TWO, view("a", *choices), view("b", *choices)))
    assert {name: str(each.configuration) for name, each in made.placements.items()} == {"a": "T4 x1", "b": "T4 x1"}
    rows = [(str(o.estimate.configuration), o.reason) for o in made.explanations["a"].options]
    assert rows[0] == ("T4 x1", None)
    assert rows[1][1] is not None and rows[1][1].code == "dearer"
    assert rows[1][1].message == "others gain more from its devices: 0.91, 1.00 there"
    assert made.explanations["a"].summary == "T4 x1 for this round: the best for all together"


def runs(name: str, age_s: float, *estimates: Estimate, **fields: Any) -> WorkloadView:
    return view(name, *estimates, placement=placed(("T4", "t4-a")), submitted_s=1000.0 - age_s, **fields)


def test_a_small_gain_is_not_worth_a_restart() -> None:
    choices = (slow_start(400, 60, T4=1), slow_start(360, 60, A100=1))
    young = create("sia").plan(situation(standard(), runs("w", 120.0, *choices), now_s=1000.0))
    assert young.placements == {"w": placed(("T4", "t4-a"))}
    old = create("sia").plan(situation(standard(), runs("w", 990.0, *choices), now_s=1000.0))
    assert old.placements == {"w": placed(("A100", "a100"))}
    assert old.memory["restarts"] == {"w": 1}


def test_within_a_round_nothing_changes() -> None:
    first = create("sia").plan(situation(TWO, view("a", est(400, T4=1), est(330, T4=2))))
    assert str(first.placements["a"].configuration) == "T4 x2"
    new = view("b", est(400, T4=1), submitted_s=10.0)
    old = view("a", est(400, T4=1), est(330, T4=2))
    memory = json.loads(json.dumps(first.memory))
    during = create("sia").plan(situation(TWO, old, new, now_s=30.0, memory=memory))
    assert during.placements == first.placements
    assert during.memory == memory
    assert during.explanations["b"].summary == "waits for the next round: the best for all together"
    after = create("sia").plan(situation(TWO, old, new, now_s=60.0, memory=memory))
    assert sorted(after.placements) == ["a", "b"]


def test_a_solver_that_is_stopped_gives_the_best_so_far_and_says_so() -> None:
    here = placed(("T4", "t4-a"))
    views = [view(f"w{n}", est(400, T4=1), est(230, T4=2), est(90, A100=1)) for n in range(9)]
    made = Sia(time_limit_s=0.0).plan(situation(standard(), replace(views[0], placement=here), *views[1:]))
    assert made.memory["limited"] is True
    said = {each.summary.split(": ")[1] for each in made.explanations.values()}
    assert said == {"the solver ran out of time, this is the best so far"}
    assert set(made.explanations) == {each.id for each in views}
    assert made.placements["w0"] == here


def test_what_cannot_run_is_told() -> None:
    views = [view("wide", est(9, T4=9)), view("none"), view("later", est(9, T4=1), not_before_s=9.0)]
    made = create("sia").plan(situation(standard(), *views))
    assert made.placements == {}
    assert made.explanations["wide"].summary == "cannot run: the cluster has 4 T4"
    assert made.explanations["later"].summary == "waits after a failed attempt: tries again in 9 s"
