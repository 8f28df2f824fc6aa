"""Estimates are made again exactly where something changed, and are then what they would be without the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from making import A100, T4, inference, node, snapshot
from scheduler.engine import estimates
from scheduler.engine.estimates import EstimateCache
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.candidates import estimate_tables
from scheduler.store import Record

WHERE = snapshot(node("a", ("T4", 2)), node("b", ("A100", 1)))
SPEC: dict[str, Any] = {
    "kind": "batch-infer",
    "name": "label",
    "input": "/in",
    "entrypoint": "mine:P",
    "resources": {"count": "1..2"},
}


def record(name: str, **fields: Any) -> Record:
    return Record(name, name, "batch-infer", SPEC, "queued", 0.0, "/o", "/r", **({"work": inference()} | fields))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workloads were estimated, call by call."""
    counts: list[int] = []

    def counting(requests: Any, *rest: Any) -> Any:
        counts.append(len(requests))
        return estimate_tables(requests, *rest)

    monkeypatch.setattr(estimates, "estimate_tables", counting)
    return counts


def test_nothing_is_estimated_twice(asked: list[int]) -> None:
    cache, calibration = EstimateCache(), Calibration()
    busy = snapshot(node("a", ("T4", 2, 0)), node("b", ("A100", 1)), at_s=9.0)
    first = cache.of([record("a"), record("b")], WHERE, calibration)
    assert first == cache.of([record("a"), replace(record("b"), attempt=3, state="running")], busy, calibration)
    assert asked == [2]
    assert cache.of([record("c"), record("b")], busy, calibration)[1] == first[1]
    assert asked == [2, 1]
    cache.of([record("a")], WHERE, calibration)
    assert asked == [2, 1, 1], "what has gone is forgotten"


OTHER_SPEC = SPEC | {"resources": {"devices": "accelerator", "count": 2}}


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (record("a", work=inference(samples=9.0)), WHERE),
        (replace(record("a"), spec=OTHER_SPEC), WHERE),
        (record("a"), snapshot(node("a", ("T4", 2)), node("b", ("A100", 2)))),
        (record("a"), replace(WHERE, device_types={"T4": replace(T4, price_usd_h=9.0), "A100": A100})),
    ],
    ids=["the work", "the spec", "the nodes", "a price"],
)
def test_what_changed_is_estimated_again(asked: list[int], changed: Record, where: Any) -> None:
    cache, calibration = EstimateCache(), Calibration()
    before = cache.of([record("a")], WHERE, calibration)
    after = cache.of([changed], where, calibration)
    assert asked == [1, 1]
    assert after[0].table != before[0].table
    assert changed.work is not None
    spec = changed.workload_spec()
    assert list(after[0].table) == list(estimate_tables([(changed.work, spec.resources)], where, calibration)[0])


def test_what_was_learnt_changes_the_estimates(asked: list[int]) -> None:
    cache, calibration = EstimateCache(), Calibration()
    before = cache.of([record("a")], WHERE, calibration)
    work = inference()
    subject = Subject(work.kind, work.family, "T4", work.precision)
    steps = (
        lambda: calibration.observe(subject, 1, "b7 t11", 3.0, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        lambda: calibration.observe_overhead(work.kind, work.family, 1, 99.0),
        calibration.forget,
    )
    for step in steps:
        step()
        after = cache.of([record("a")], WHERE, calibration)
        assert after[0].table != before[0].table
        before = after
    assert asked == [1, 1, 1, 1]
    assert cache.of([record("a")], WHERE, Calibration())[0].table == before[0].table, "another calibration"
    assert asked == [1, 1, 1, 1, 1]
