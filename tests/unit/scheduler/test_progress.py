"""Progress records folded into one picture; broken ones are passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.progress import Progress, Timing, fold

T = {"t": 100.0}


def after(*records: dict[str, Any]) -> Progress:
    return fold(Progress(), records)


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {**T, "kind": "step", "step": number, "total_steps": 10, "epoch": 1, "loss": 0.5, "samples_s": 8.0, **fields}


def timing(**fields: Any) -> dict[str, Any]:
    return {
        **T,
        "kind": "timing",
        "device_type": "T4",
        "count": 2,
        "seconds": 3.0,
        "samples": 30,
        "tokens": 90,
    } | fields


FOLDED = [
    ("nothing", [], Progress()),
    ("a phase", [{**T, "kind": "phase", "phase": "running"}], Progress(phase="running", running_since_s=100.0)),
    (
        "running began once, also after a resume",
        [{"t": 5.0, "kind": "phase", "phase": "running"}, {"t": 9.0, "kind": "phase", "phase": "running"}],
        Progress(phase="running", running_since_s=5.0),
    ),
    ("steps", [step(3), step(4, loss=0.25)], Progress(step=4, total_steps=10, epoch=1, loss=0.25, per_second=8.0)),
    (
        "rows by device",
        [{"kind": "rows", "rows": 7, "total_rows": 9, "rows_s": 2, "by_device": {"T4": 4, "A100": 3}}, {"kind": "rows", "rows": 9}],
        Progress(rows=9, total_rows=9, rows_by_device={"T4": 4, "A100": 3}),
    ),
    (
        "timings add up by device and count",
        [timing(), timing(seconds=1.0, samples=10, tokens=30), timing(count=1)],
        Progress(timings=(Timing("T4", 2, 4.0, 40.0, 120.0), Timing("T4", 1, 3.0, 30.0, 90.0))),
    ),
    (
        "absurd timings are left out",
        [timing(seconds=0), timing(seconds=-1.0), timing(seconds=1e9), timing(samples=0)],
        Progress(),
    ),
    ("metrics", [{"kind": "metrics", "values": {"a": 1, "b": "x"}}, {"kind": "metrics", "values": {"a": 2}}], Progress(metrics={"a": 2.0})),
    ("a row left out", [{"kind": "row_error", "row": 4, "error": "no text"}], Progress(row_errors=1, note="row 4: no text")),
    (
        "resumed twice",
        [{"kind": "resumed", "step": 1}, {"kind": "resumed", "step": 2, "t": 7.0}],
        Progress(resumed=2, step=2, saved_step=2, saved_s=7.0),
    ),
    ("resumed with rows", [{"kind": "resumed", "rows": 4, "from": "2 finished parts"}], Progress(resumed=1)),
    (
        "checkpoints",
        [step(3), {"kind": "checkpoint", "step": 3}, step(5), {"kind": "checkpoint", "step": 5, "t": 8.0}, step(6)],
        Progress(step=6, total_steps=10, epoch=1, loss=0.5, per_second=8.0, saved_step=5, saved_s=8.0),
    ),
    ("a checkpoint that does not say where it is", [{"kind": "checkpoint"}], Progress(saved_s=100.0)),
    (
        "shards that died and went back to the checkpoint",
        [step(3), {"kind": "checkpoint", "step": 3}, step(6), {"kind": "resumed", "step": 3, "t": 9.0}],
        Progress(step=3, total_steps=10, epoch=1, loss=0.5, per_second=8.0, saved_step=3, saved_s=9.0, resumed=1),
    ),
    ("a note", [{"kind": "note", "message": "hello"}], Progress(note="hello")),
    (
        "done",
        [{"kind": "done", "outputs": {"model": "/m"}, "metrics": {"accuracy": 0.9}}],
        Progress(metrics={"accuracy": 0.9}, done={"kind": "done", "outputs": {"model": "/m"}, "metrics": {"accuracy": 0.9}}),
    ),
    ("done with metrics that are none", [{"kind": "done", "metrics": 5}], Progress(done={"kind": "done", "metrics": {}})),
    (
        "numbers that JSON has not",
        [step(3, loss=float("nan"), samples_s=float("inf")), {"kind": "metrics", "values": {"loss": float("nan")}}, {"kind": "done", "metrics": {"f1": float("nan"), "n": 2}}],
        Progress(step=3, total_steps=10, epoch=1, metrics={"n": 2.0}, done={"kind": "done", "metrics": {"n": 2.0}}),
    ),
    (
        "failed",
        [{"kind": "failed", "message": "no", "retryable": False}],
        Progress(failed={"kind": "failed", "message": "no", "retryable": False}),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("records", "expected"), [row[1:] for row in FOLDED], ids=[row[0] for row in FOLDED])
def test_a_fold(records: list[dict[str, Any]], expected: Progress) -> None:
    assert fold(Progress(), [{**T, **record} for record in records]) == replace(
        expected, last_s=_said(records, expected)
    )


def _said(records: list[dict[str, Any]], expected: Progress) -> float | None:
    """When the body last said anything, also what was not believed; what it said last is part of `done`."""
    for last in (expected.done, expected.failed):
        if isinstance(last, dict):
            last.setdefault("t", 100.0)
    return float({**T, **records[-1]}["t"]) if records else None


MALFORMED: list[dict[str, Any]] = [
    {},
    {"kind": "note", "message": "when?", "t": None},
    {"kind": "unknown"},
    {"kind": None},
    {"kind": "phase"},
    {"kind": "phase", "phase": "running", "t": "soon"},
    {"kind": "step"},
    {"kind": "step", "step": "x", "total_steps": 3},
    {"kind": "step", "step": None, "total_steps": 3},
    {"kind": "checkpoint", "step": "x"},
    {"kind": "checkpoint", "step": 3, "t": float("inf")},
    {"kind": "resumed", "step": [1]},
    {"kind": "rows"},
    {"kind": "rows", "rows": [1]},
    {"kind": "rows", "rows": 3, "by_device": 7},
    {"kind": "timing", "device_type": "T4"},
    {"kind": "timing", "device_type": "T4", "count": 1, "seconds": "long", "samples": 3},
    {"kind": "metrics"},
    {"kind": "metrics", "values": 3},
    {"kind": "metrics", "values": [1]},
    {"kind": "row_error"},
    {"kind": "note"},
]


@pytest.mark.parametrize("record", MALFORMED, ids=str)
def test_a_malformed_record_changes_nothing(record: dict[str, Any]) -> None:
    good = after(step(3))
    assert fold(good, [{**T, **record}]) == good
    assert fold(good, [record, step(4)]).step == 4, "what comes after it counts"


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["phase", "step", "checkpoint", "rows", "timing", "metrics", "row_error", "resumed", "note", "done", "failed"])},
        optional=dict.fromkeys(("t", "phase", "step", "total_steps", "rows", "total_rows", "by_device", "device_type", "count", "seconds", "samples", "values", "metrics", "row", "error", "message", "loss"), _JSON),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_RECORDS)
def test_whatever_a_body_writes_the_engine_goes_on(records: list[dict[str, Any]]) -> None:
    progress = after(*records)
    assert 0.0 <= progress.fraction <= 1.0
    assert 0.0 <= progress.saved <= 1.0
    assert progress.unsaved_s(1e9) >= 0.0
    assert fold(after(*records[:3]), records[3:]) == progress or any(x != x for x in _numbers(progress)), (
        "it matters not how records are cut"
    )


def _numbers(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        return [n for item in value.values() for n in _numbers(item)]
    if isinstance(value, list | tuple):
        return [n for item in value for n in _numbers(item)]
    return _numbers(vars(value)) if hasattr(value, "__dict__") else []


@pytest.mark.parametrize(
    ("progress", "fraction"),
    [
        (Progress(), 0.0),
        (Progress(step=3, total_steps=12), 0.25),
        (Progress(step=13, total_steps=12), 1.0),
        (Progress(rows=3, total_rows=4), 0.75),
        (Progress(rows=3), 0.0),
        (Progress(done={}), 1.0),
    ],
)
def test_the_fraction_done(progress: Progress, fraction: float) -> None:
    assert progress.fraction == fraction


@pytest.mark.parametrize(
    ("progress", "saved"),
    [
        (Progress(), 0.0),
        (Progress(step=9, total_steps=12), 0.0),
        (Progress(step=9, total_steps=12, saved_step=6), 0.5),
        (Progress(step=9, saved_step=6), 0.0),
        (Progress(step=9, total_steps=12, saved_s=50.0), 0.0),
        (Progress(rows=3, total_rows=4), 0.75),
    ],
    ids=["nothing", "no checkpoint yet", "the last one", "of nobody knows how much", "one without a step", "rows"],
)
def test_what_a_restart_keeps(progress: Progress, saved: float) -> None:
    assert progress.saved == saved


@pytest.mark.parametrize(
    ("progress", "unsaved_s"),
    [
        (Progress(), 0.0),
        (Progress(saved_s=60.0), 0.0),
        (Progress(running_since_s=30.0), 70.0),
        (Progress(running_since_s=30.0, saved_s=90.0), 10.0),
        (Progress(running_since_s=30.0, saved_s=20.0), 70.0),
        (Progress(running_since_s=30.0, saved_s=105.0), 0.0),
    ],
    ids=[
        "before anything is said",
        "gone on from a checkpoint, not at work yet",
        "since the first step",
        "since the last checkpoint",
        "gone on from a checkpoint and at work since",
        "a clock that is ahead",
    ],
)
def test_seconds_that_a_stop_would_lose(progress: Progress, unsaved_s: float) -> None:
    assert progress.unsaved_s(100.0) == unsaved_s


@pytest.mark.parametrize(
    "record",
    [
        step(10**400),
        step(3) | {"total_steps": 2**63},
        step(-1),
        step(3) | {"t": 1e300},
        step(3) | {"t": -5.0},
        {**T, "kind": "rows", "rows": 10**400, "total_rows": 5},
        {**T, "kind": "resumed", "step": 10**400},
        {**T, "kind": "checkpoint", "step": 2**64},
    ],
)
def test_numbers_that_nothing_can_hold_are_passed_over(record: dict[str, Any]) -> None:
    assert after(record) == Progress()
