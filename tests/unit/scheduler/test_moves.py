"""The next record of a workload, given what happened; and the table of all moves."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest

from cluster.types import RunObservation, RunState
from making import configuration, est, placed, standard
from scheduler.engine import moves
from scheduler.engine.progress import Progress
from scheduler.states import ENDED, HOLDS_DEVICES, TRANSITIONS, IllegalTransitionError, State, check_transition
from scheduler.store import Event, Record
from scheduler.types import Explanation, Option, Reason

STATES: tuple[State, ...] = get_args(State)
DONE = Progress(
    phase="running", done={"kind": "done", "metrics": {"accuracy": 0.9}}, rows_by_device={"T4": 5}, row_errors=1
)


def held(state: State = "running", attempt: int = 1, retries: int = 2, **fields: Any) -> Record:
    """A workload that has held a T4 at $0.5 an hour since second 100."""
    spec = {"kind": "command", "name": "w", "command": "x", "retries": retries}
    base = Record("w", "w", "command", spec, state, 0.0, "/out", "/run")
    return replace(base, attempt=attempt, started_s=100.0, placement=placed(("T4", "t4-a")), price_usd_h=0.5, **fields)


def end(record: Record, state: RunState, progress: Progress | None = None, message: str = "") -> tuple[Record, Event]:
    return moves.ended(record, RunObservation("w", state, message), progress or Progress(), 820.0)


def test_every_move_has_a_reason_and_leads_on() -> None:
    assert all(reason.strip() for reason in TRANSITIONS.values())
    assert {state for pair in TRANSITIONS for state in pair} == set(STATES)
    assert not [pair for pair in TRANSITIONS if pair[0] in ENDED], "what has ended stays so"
    assert {before for before, _ in TRANSITIONS} == set(STATES) - ENDED


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)), ids=lambda state: state)
def test_a_move_is_in_the_table_or_raises(before: State, after: State) -> None:
    if (before, after) in TRANSITIONS:
        check_transition("w", before, after)
    else:
        with pytest.raises(IllegalTransitionError, match=f"workload w cannot go from {before} to {after}"):
            check_transition("w", before, after)


def test_from_everywhere_an_end_can_be_reached() -> None:
    for state in set(STATES) - ENDED:
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {after for before, after in TRANSITIONS if before in fresh} - reached
            reached |= fresh
        assert (
            reached >= ENDED - {"failed"} and "failed" in reached | {"failed"}
            if state == "stopping"
            else reached >= ENDED
        )


def test_success_keeps_the_result_and_pays() -> None:
    after, event = end(held(), "succeeded", DONE)
    assert (after.state, after.placement, after.ended_s, after.spent_s) == ("succeeded", None, 820.0, 720.0)
    assert after.spent_usd == pytest.approx(720 / 3600 * 0.5)
    assert after.result == {
        "kind": "done",
        "metrics": {"accuracy": 0.9},
        "by_device": {"T4": 5},
        "row_errors": 1,
        "resumed": 0,
        "note": after.result["note"],
    }
    assert (event.kind, event.data) == ("succeeded", {"metrics": {"accuracy": 0.9}})


def test_an_end_without_a_last_word_is_no_success() -> None:
    after, event = end(held(), "succeeded")
    assert (after.state, after.message) == ("queued", "its run is succeeded")
    assert event.kind == "retry"


@pytest.mark.parametrize(
    ("failures", "retries", "state", "delay_s"),
    [
        (1, 2, "queued", 2.0),
        (2, 2, "queued", 4.0),
        (3, 2, "failed", None),
        (1, 0, "failed", None),
        (9, 20, "queued", 60.0),
    ],
    ids=["the first retry", "twice the delay", "none left", "none wanted", "the longest delay"],
)
def test_retries(failures: int, retries: int, state: str, delay_s: float | None) -> None:
    after, event = end(held(failures=failures - 1, attempt=7, retries=retries), "failed", message="boom")
    assert (after.state, after.message, after.placement) == (state, "boom", None)
    assert after.not_before_s == (None if delay_s is None else 820.0 + delay_s)
    assert (after.ended_s is None) == (state == "queued")
    assert (after.failures, after.losses) == (failures, 0)
    assert after.queued_s == (820.0 if state == "queued" else held().queued_s)
    if delay_s is not None:
        lost = {"lost_fraction": 0.0, "lost_s": 0.0}
        cause = f"attempt 7 failed ({failures} of {retries + 1}): boom"
        assert event == Event("retry", cause, "w", data={"delay_s": delay_s, **lost})


def test_what_would_fail_again_is_not_tried_again() -> None:
    said = Progress(failed={"message": "row 3 is broken", "retryable": False})
    after, event = end(held(), "failed", said, "exit code 1")
    assert (after.state, after.message, event.kind) == ("failed", "row 3 is broken", "failed")


def test_a_lost_run_is_tried_again() -> None:
    after, _ = end(held("running", retries=0), "lost", message="the cluster does not know this run")
    assert (after.state, after.message) == ("queued", "the cluster does not know this run")
    assert (after.failures, after.losses) == (0, 1)
    assert after.not_before_s is None, "it has run for long enough to be started again at once"
    often, _ = end(held("running", losses=20), "lost", message="the cluster does not know this run")
    assert often.state == "failed"


@pytest.mark.parametrize(
    ("losses", "ran_s", "delay_s"),
    [(1, 0.5, 1.5), (1, 2.0, None), (3, 2.0, 6.0), (20, 59.0, 1.0), (20, 61.0, None)],
    ids=["lost at once", "after some time", "the third time", "nearly a minute", "after a minute, whatever the count"],
)
def test_attempts_that_are_lost_begin_some_time_apart(losses: int, ran_s: float, delay_s: float | None) -> None:
    lost = RunObservation("w", "lost", "gone")
    after, event = moves.ended(held(losses=losses - 1), lost, Progress(), 100.0 + ran_s, 100.0 + ran_s)
    assert after.not_before_s == (None if delay_s is None else 100.0 + ran_s + delay_s)
    assert event.data["delay_s"] == (delay_s or 0.0)


@pytest.mark.parametrize(("state", "run"), [("running", "failed"), ("running", "lost"), ("stopping", "stopped")])
def test_what_an_attempt_leaves_in_checkpoints_is_kept(state: State, run: RunState) -> None:
    at_three = Progress(step=3, total_steps=4, saved_step=2)

    def left(kind: str, progress: Progress, before: float = 0.0) -> float:
        return end(replace(held(state), kind=kind, fraction=before), run, progress)[0].fraction

    assert left("command", at_three) == 0.0, "a command starts over"
    assert left("train", at_three) == 0.5, "what came after the last checkpoint is done again"
    assert left("train", Progress(step=3, total_steps=4)) == 0.0
    assert left("train", Progress(), before=0.75) == 0.75
    assert left("batch-infer", Progress(rows=3, total_rows=4)) == 0.75, "finished blocks stay"


def test_what_a_stop_would_lose() -> None:
    at_work = Progress(running_since_s=150.0)
    train = replace(held(), kind="train", spec={"entrypoint": "mine:loop"})
    assert moves.unsaved_s(train, at_work, 400.0) == 250.0
    assert moves.unsaved_s(train, replace(at_work, saved_s=380.0), 400.0) == 20.0
    assert moves.unsaved_s(train, Progress(running_since_s=3.0), 400.0) == 300.0, "it has held devices since 100 s"
    assert moves.unsaved_s(train, Progress(), 400.0) == 0.0
    assert moves.unsaved_s(replace(train, placement=None), at_work, 400.0) == 0.0
    for kind in ("batch-infer", "command"):
        assert moves.unsaved_s(replace(held(), kind=kind), at_work, 400.0) == 0.0
    assert moves.unsaved_s(replace(train, spec={}), at_work, 400.0) == 0.0, "the built-in trainer saves first"


def test_a_stop_for_the_plan_waits_on_and_a_stop_for_the_user_is_the_end() -> None:
    for_plan, event = end(held("stopping"), "stopped")
    assert (for_plan.state, for_plan.not_before_s, event.kind) == ("queued", None, "queued")
    for_user, event = end(held("stopping", cancel_requested=True), "stopped")
    assert (for_user.state, for_user.message, for_user.ended_s) == ("cancelled", "cancelled by the user", 820.0)
    failing, _ = end(held("stopping", cancel_requested=True), "failed", message="killed")
    assert failing.state == "cancelled"


def test_what_ended_well_before_the_stop_counts() -> None:
    assert end(held("stopping", cancel_requested=True), "succeeded", DONE)[0].state == "succeeded"


def test_a_cancelled_one_that_fails_is_not_tried_again() -> None:
    assert end(held(cancel_requested=True), "failed", message="boom")[0].state == "cancelled"


@pytest.mark.parametrize("run", ["succeeded", "failed", "stopped", "lost"])
@pytest.mark.parametrize("state", sorted(HOLDS_DEVICES))
def test_every_end_of_a_run_is_a_legal_move(state: State, run: RunState) -> None:
    for cancel, progress, attempt in product((False, True), (Progress(), DONE), (1, 3)):
        after, event = end(held(state, attempt, cancel_requested=cancel), run, progress)
        check_transition("w", state, after.state)
        assert event.cause
        assert after.placement is None


def test_starting_takes_the_price_and_the_prediction_of_the_first_attempt() -> None:
    queued = replace(held("queued", attempt=0), placement=None, started_s=None, price_usd_h=None, not_before_s=9.0)
    estimates = (est(10.0, T4=1), est(99.0, A100=1))
    both = placed(("A100", "a100"), ("T4", "t4-a"))
    first = moves.started(replace(queued, estimates=estimates), placed(("T4", "t4-a")), standard(), 50.0)
    assert (first.state, first.attempt, first.started_s, first.first_started_s) == ("starting", 1, 50.0, 50.0)
    assert (first.predicted, first.price_usd_h, first.not_before_s) == (estimates[0], 0.5, None)
    again = moves.started(replace(first, state="queued", placement=None), both, standard(), 80.0)
    assert (again.attempt, again.started_s, again.first_started_s) == (2, 80.0, 50.0)
    assert (again.predicted, again.price_usd_h) == (estimates[0], 4.5)


def test_costs_of_all_attempts_add_up_and_the_unpriced_costs_nobody_knows_what() -> None:
    second, _ = end(held(attempt=2, spent_usd=1.0, spent_s=60.0), "failed", message="x")
    assert second.spent_usd == pytest.approx(1.0 + 0.1)
    assert second.run_s(9999.0) == 780.0
    unpriced, _ = end(replace(held(), price_usd_h=None), "succeeded", DONE)
    assert unpriced.cost_usd(820.0) is None
    assert held().cost_usd(820.0) == pytest.approx(0.1)
    assert replace(held("queued", attempt=0), placement=None, price_usd_h=None).cost_usd(820.0) == 0.0


def test_a_budget_that_is_gone_ends_a_workload_and_a_busy_device_does_not() -> None:
    def explained(*codes: str) -> Explanation:
        reasons = [Reason(code, f"it is {code}") for code in codes]  # type: ignore[arg-type]
        return Explanation(None, "", tuple(Option(est(1.0, T4=1), reason=reason) for reason in reasons))

    assert (
        moves.hopeless(explained("budget", "memory", "device"))
        == "no configuration is within its budget any more: it is budget"
    )
    for codes in (("budget", "capacity"), ("budget", "count"), ("memory",), (), ("deadline", "budget")):
        assert moves.hopeless(explained(*codes)) is None


def test_the_same_choice_for_the_same_reasons() -> None:
    def said(chosen: str | None, summary: str, code: str | None) -> Explanation:
        reason = None if code is None else Reason(code, "whatever")  # type: ignore[arg-type]
        taken = None if chosen is None else configuration(**{chosen: 1})
        return Explanation(taken, summary, (Option(est(1.0, T4=1), reason=reason),))

    first = said(None, "waits for T4 x1: free in about 9 s", "capacity")
    assert moves.gist(first) == moves.gist(said(None, "waits for T4 x1: free in about 8 s", "capacity"))
    assert moves.gist(first) != moves.gist(said(None, "waits for A100 x1: free in about 9 s", "capacity"))
    assert moves.gist(first) != moves.gist(said("T4", "T4 x1 is the least money", "capacity"))
    assert moves.gist(first) != moves.gist(said(None, "waits for T4 x1: free in about 9 s", "memory"))


def trained(**spec: Any) -> Record:
    """A training that began when second 100 began."""
    own = {"kind": "train", "name": "w", "input": "/i", "model": "m", **spec}
    return replace(held("stopping", fraction=0.1), kind="train", spec=own)


SAVED = Progress(running_since_s=110.0, step=60, total_steps=100, saved_step=60, saved_s=800.0, last_s=805.0)
LOST = [
    ("what saved its very step loses nothing", SAVED, (0.0, 0.0)),
    ("steps after the last checkpoint", replace(SAVED, saved_step=20, saved_s=400.0, last_s=700.0), (0.4, 300.0)),
    ("no checkpoint: all of the attempt", replace(SAVED, saved_step=None, saved_s=None, last_s=700.0), (0.5, 590.0)),
    ("what an earlier attempt left is not lost again", replace(SAVED, step=5, saved_step=None), (0.0, 0.0)),
    ("who does not say where it is loses seconds", Progress(running_since_s=110.0, last_s=610.0), (0.0, 500.0)),
    ("nothing before the first step", Progress(), (0.0, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("progress", "lost"), [row[1:] for row in LOST], ids=[row[0] for row in LOST])
@pytest.mark.parametrize("kind", ["queued", "paused", "retry"])
def test_what_an_ended_attempt_has_lost_is_told(kind: str, progress: Progress, lost: tuple[float, float]) -> None:
    state: State = "running" if kind == "retry" else "stopping"
    record = replace(trained(), state=state, paused=kind == "paused")
    _, event = end(record, "failed" if kind == "retry" else "stopped", progress)
    assert event.kind == kind
    assert (event.data["lost_fraction"], event.data["lost_s"]) == pytest.approx(lost)


def test_what_begins_again_has_lost_all_of_it() -> None:
    rows = Progress(running_since_s=120.0, rows=30, total_rows=60, last_s=820.0)
    _, event = end(held(), "failed", rows)
    assert (event.data["lost_fraction"], event.data["lost_s"]) == (0.5, 700.0)


@pytest.mark.parametrize("state", ["lost", "failed", "stopped"])
def test_a_body_that_said_it_was_done_is_done_whatever_became_of_its_process(state: RunState) -> None:
    after, event = end(held(), state, DONE)
    assert (after.state, after.fraction, event.kind) == ("succeeded", 1.0, "succeeded")


ALL = frozenset({"head", "t4-a", "t4-b"})
WITHOUT_ITS_NODE = ALL - {"t4-a"}


def test_what_a_run_has_that_is_gone() -> None:
    both = replace(held(), placement=placed(("T4", "t4-b"), ("T4", "t4-a"), ("T4", "t4-a")))
    assert moves.gone(both, ALL) == []
    assert moves.gone(both, WITHOUT_ITS_NODE) == ["t4-a"]
    assert moves.gone(replace(both, placement=None), WITHOUT_ITS_NODE) == []


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_ended_with_its_node_is_lost_and_no_retry_is_used_up(state: RunState) -> None:
    seen = RunObservation("w", state, "the process that ran the command died", ended_s=500.0)
    run = moves.judged(held(), seen, Progress(failed={"message": "died", "retryable": True}), WITHOUT_ITS_NODE)
    assert run == replace(seen, state="lost", message="node t4-a left the cluster")
    after, event = moves.ended(held(retries=0), run, Progress(), 500.0)
    assert (after.state, after.failures, after.losses, after.interrupted) == ("queued", 0, 1, True)
    assert event.cause == "attempt 1 was lost: node t4-a left the cluster"


def test_what_a_body_calls_final_is_final_on_a_lost_node_too_and_a_node_that_is_there_excuses_nothing() -> None:
    failed = RunObservation("w", "failed", "boom")
    final = Progress(failed={"message": "no such file", "retryable": False})
    assert moves.judged(held(), failed, final, WITHOUT_ITS_NODE) == failed
    assert moves.judged(held(), failed, Progress(), ALL) == failed
    well = RunObservation("w", "succeeded", "")
    assert moves.judged(held(), well, DONE, WITHOUT_ITS_NODE) == well


def test_one_that_was_being_stopped_when_its_node_went_keeps_its_place() -> None:
    after, event = moves.ended(
        held("stopping"), RunObservation("w", "lost", "node t4-a left the cluster"), Progress(), 1.0
    )
    assert (after.state, after.interrupted, after.losses) == ("queued", True, 0)
    assert event.cause == "node t4-a left the cluster"
