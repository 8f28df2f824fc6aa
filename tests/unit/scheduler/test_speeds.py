"""What a run shows of its speed corrects what was estimated of its family."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from making import est, node, placed, situation, snapshot, view
from scheduler.policy import create
from scheduler.policy.speeds import LIMIT, MOST_KNOWN, NOTED_EVERY_S, Corrected, Speed, Speeds, said
from scheduler.types import Estimate, Situation, WorkloadView

WHERE = snapshot(node("t4", ("T4", 2)), node("a100", ("A100", 1)))
TABLE = (est(1000.0, T4=1), est(400.0, A100=1))


def job(name: str, remaining: float = 1.0, held_s: float | None = None, **fields: Any) -> WorkloadView:
    """One of a family that trains, on a T4 for `held_s` seconds if that is given."""
    where = None if held_s is None else placed(("T4", "t4"))
    fields = {"family": "bert", "units": 100.0, "resumes": True, "placement": where, "held_s": held_s or 0.0} | fields
    return replace(view(name, *fields.pop("table", TABLE), remaining=remaining), **fields)


def told(*moments: tuple[float, WorkloadView]) -> Speeds:
    """What is known after these moments; between them the notes are JSON, as in the service."""
    memory: dict[str, Any] = {}
    found = Speeds()
    for now_s, each in moments:
        found = Speeds.of(Situation(1, now_s, 0, WHERE, (each,), memory=memory))
        memory = json.loads(json.dumps({"speeds": found.noted()}))
    return found


def run(slower: float, *at_s: float, **fields: Any) -> list[tuple[float, WorkloadView]]:
    """One that started at 0 and takes so many times as long on its T4 as estimated, at these moments."""
    return [(now_s, job("a", 1.0 - now_s / (1000.0 * slower), now_s, **fields)) for now_s in at_s]


def seconds_of(views: Any, name: str) -> list[float | None]:
    """The estimates that a workload has now."""
    return [each.seconds for one in views if one.id == name for each in one.estimates]


@pytest.mark.parametrize("slower", [0.6, 1.5, 3.0])
def test_after_a_while_an_estimate_is_what_was_measured(slower: float) -> None:
    speeds = told(*run(slower, 0, 10, 10 + NOTED_EVERY_S, 10 + 1.9 * NOTED_EVERY_S))
    (known,) = speeds.known.values()
    assert known.off == pytest.approx(math.log(slower))
    fixed = Corrected().of([job("a", 0.5, 300.0)], speeds.known)
    t4, a100 = seconds_of(fixed, "a")
    assert t4 == pytest.approx(1000 * slower, rel=abs(slower - 1) * 0.25)
    assert a100 == 400.0, "nothing was seen of the A100"


def test_others_of_the_family_are_corrected_whose_estimates_say_the_same_for_a_unit() -> None:
    speeds = told(*run(2.0, 0, 10, 700))
    alike = job("b", table=(est(3000.0, T4=1), est(1200.0, A100=1)), units=300.0)
    learnt = job("c", table=(est(1900.0, T4=1), est(400.0, A100=1)))
    stranger = job("d", family="gpt")
    fixed = Corrected().of([alike, learnt, stranger], speeds.known)
    assert seconds_of(fixed, "b")[0] == pytest.approx(6000, rel=0.1)
    assert fixed[1] is learnt, "its estimate is another one: the calibration has learnt since"
    assert fixed[2] is stranger


def test_dollars_and_intervals_follow_and_start_up_does_not() -> None:
    before = replace(est(1000.0, T4=1), startup_s=100.0)
    name = said(job("a", table=(before,)), before)
    (after,) = Corrected().of([job("a", table=(before,))], {name: Speed(math.log(2), 1e9)})[0].estimates
    assert after.seconds == pytest.approx(1900, rel=0.02)
    assert after.seconds is not None and before.money is not None and after.money is not None
    assert after.money.compute_usd == pytest.approx(before.money.compute_usd * after.seconds / 1000)
    assert (after.low_s, after.high_s) == pytest.approx((after.seconds, after.seconds))


def test_starting_up_is_not_taken_for_working_slowly() -> None:
    late = [(now_s, job("a", 1.0, now_s)) for now_s in (0.0, 200.0, 400.0)]
    works = [(400.0 + s, job("a", 1.0 - s / 1000.0, 400.0 + s)) for s in (1.0, 1.0 + NOTED_EVERY_S)]
    (known,) = told(*late, *works).known.values()
    assert known.off == pytest.approx(0.0, abs=1e-9)
    assert known.steps == 0


def test_what_was_lost_and_done_again_is_no_measure() -> None:
    back = [(600.0, job("a", 0.9, 600.0)), (610.0, job("a", 0.89, 610.0)), (1010.0, job("a", 0.49, 1010.0))]
    (known,) = told(*run(1.0, 0, 10, 320), *back).known.values()
    assert known.off == pytest.approx(0.0, abs=1e-9)


def test_a_new_attempt_is_measured_on_its_own() -> None:
    stopped = [(350.0, job("a", 0.7))]
    again = [(350.0 + s, job("a", 0.7 - s / 2000.0, s)) for s in (0.0, 60.0, 400.0)]
    (known,) = told(*run(1.0, 0, 10, 250), *stopped, *again).known.values()
    assert known.off == pytest.approx(math.log(2.0))
    assert known.seconds == pytest.approx(340.0)


@pytest.mark.parametrize(
    "fields",
    [{"resumes": False}, {"stopping": True}, {"table": (est(None, T4=1), est(400.0, A100=1))}],
    ids=["what begins again", "what is being stopped", "what nothing was estimated of"],
)
def test_nothing_is_learnt_of(fields: dict[str, Any]) -> None:
    assert not told(*run(2.0, 0, 10, 700, **fields)).known


def test_the_absurd_is_believed_in_part() -> None:
    (known,) = told(*run(100.0, 0, 10, 9000)).known.values()
    assert known.off == pytest.approx(math.log(LIMIT))


def test_speeds_change_and_the_old_ones_fade() -> None:
    known = Speed(math.log(2.0), 1e6)
    for _ in range(20):
        known = known.after(0.0, 3600.0)
    assert known.steps == 0


def test_no_more_is_noted_than_is_bearable() -> None:
    notes = {"known": {f"f{n}, T4 x1: 1": [0.5, 60.0] for n in range(MOST_KNOWN + 10)}}
    found = Speeds.of(Situation(1, 0.0, 0, WHERE, (), memory={"speeds": notes}))
    assert len(found.known) == MOST_KNOWN
    assert "f0, T4 x1: 1" not in found.known


@pytest.mark.parametrize(
    "notes",
    [
        7,
        {"runs": [], "known": 3},
        {"runs": {"a": ["T4 x1", 0.0, 0.0]}, "known": {"x": [0.5]}},
        {"runs": {"a": [1, 0.0, 0.0, 0.5], "b": ["T4 x1", "x", 0.0, 0.5]}, "known": {"x": [math.nan, 1.0]}},
        {"known": {"x": [0.5, -60.0], "y": ["a", "b"]}},
    ],
)
def test_notes_of_whoever_are_read_with_care(notes: Any) -> None:
    found = Speeds.of(Situation(1, 0.0, 0, WHERE, (job("a", 0.9, 100.0),), memory={"speeds": notes}))
    assert not found.known
    assert list(found.runs) == ["a"]


def test_a_table_that_was_corrected_once_is_the_same_object_then() -> None:
    corrected, known = Corrected(), told(*run(2.0, 0, 10, 700)).known
    waits = job("b")
    (first,) = corrected.of([waits], known)
    (again,) = corrected.of([replace(waits, remaining=0.5)], known)
    assert first.estimates is again.estimates
    assert first.estimates != waits.estimates
    assert corrected.of([waits], {}) == [waits]


def test_market_gives_the_device_to_whom_it_suits_once_that_is_seen() -> None:
    """Both are told to gain as much by the A100. One is slower on the T4 than was thought: it needs the A100 more."""
    where = snapshot(node("t4", ("T4", 1)), node("a100", ("A100", 1)))
    tables: dict[str, tuple[Estimate, ...]] = {
        "a": (est(20_000.0, T4=1), est(10_000.0, A100=1)),
        "b": (est(20_000.0, T4=1), est(9_900.0, A100=1)),
    }
    left, began_s, memory, market = {"a": 1.0, "b": 1.0}, dict.fromkeys("ab", 0.0), dict[str, Any](), create("market")
    held: dict[str, Any] = {"a": None, "b": None}
    chosen = []
    for now_s in range(0, 3600, 60):
        views = [
            job(
                name,
                left[name],
                now_s - began_s[name],
                family=name,
                table=tables[name],
                placement=held[name],
                objective="time",
            )
            for name in "ab"
        ]
        plan = market.plan(situation(where, *views, now_s=float(now_s), memory=json.loads(json.dumps(memory))))
        memory = dict(plan.memory)
        for name in "ab":
            there = plan.placements.get(name)
            if there != held[name]:
                held[name], began_s[name] = there, float(now_s)
            if there is not None:
                true_s = 60_000.0 if name == "a" and there.configuration.groups[0][0] == "T4" else 10_000.0
                left[name] -= 60.0 / (20_000.0 if name == "b" and there.configuration.groups[0][0] == "T4" else true_s)
        chosen.append({name: str(held[name].configuration) for name in "ab" if held[name]})
    assert chosen[0] == {"a": "T4 x1", "b": "A100 x1"}
    assert chosen[-1] == {"a": "A100 x1", "b": "T4 x1"}
