"""The states of a workload, and every move that is allowed, each with its reason. Any other move raises."""

from __future__ import annotations

from typing import Literal, get_args

from workloads.errors import RaywiseError

State = Literal["pending", "queued", "starting", "running", "stopping", "paused", "succeeded", "failed", "cancelled"]

ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
LIVE: frozenset[State] = frozenset(get_args(State)) - ENDED
HOLDS_DEVICES: frozenset[State] = frozenset({"starting", "running", "stopping"})

TRANSITIONS: dict[tuple[State, State], str] = {
    ("pending", "queued"): "everything it needs has succeeded",
    ("pending", "failed"): "something it needs failed or was cancelled, or its input is not what was promised",
    ("pending", "cancelled"): "the user cancelled it",
    ("queued", "starting"): "the plan placed it and the executor accepted it",
    ("queued", "failed"): "it can never run: its input is not what was promised, or its budget is gone",
    ("queued", "cancelled"): "the user cancelled it",
    ("queued", "paused"): "the user paused it, or its budget is spent",
    ("paused", "queued"): "its pause is over",
    ("paused", "cancelled"): "the user cancelled it",
    ("starting", "running"): "its body reported the first step or row",
    ("starting", "succeeded"): "it ended before a cycle saw it run",
    ("starting", "queued"): "the attempt failed or was lost; it is tried again from its last checkpoint",
    ("starting", "failed"): "the attempt failed and no retry is left or none would help",
    ("starting", "stopping"): "the user cancelled it, or the plan wants its devices",
    ("starting", "cancelled"): "it ended by itself while it was to be cancelled",
    ("running", "succeeded"): "its body ended well",
    ("running", "cancelled"): "it ended by itself while it was to be cancelled",
    ("running", "queued"): "the attempt failed or was lost; it is tried again from its last checkpoint",
    ("running", "failed"): "the attempt failed and no retry is left or none would help",
    ("running", "stopping"): "the user cancelled it, or the plan wants its devices",
    ("stopping", "cancelled"): "its processes are gone, as the user wanted",
    ("stopping", "queued"): "its processes are gone, as the plan wanted; it goes on later",
    ("stopping", "paused"): "its processes are gone; it goes on when its pause is over",
    ("stopping", "succeeded"): "it ended well before the stop reached it",
}


class IllegalTransitionError(RaywiseError):
    """A workload was to make a move that the table does not have: a defect of Raywise, never of the user."""


def check_transition(workload_id: str, before: State, after: State) -> None:
    """Raise IllegalTransitionError unless the table has the move."""
    if (before, after) not in TRANSITIONS:
        raise IllegalTransitionError(f"workload {workload_id} cannot go from {before} to {after}")
