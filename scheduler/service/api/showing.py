"""Workloads as the API tells of them: what is stored, with what the last cycle knew. One question to the store for all
of a page, whatever its length."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...client import types
from ...engine.progress import Progress
from ...store import Record
from .. import views
from ..runtime import Runtime


@dataclass(frozen=True)
class _Seen:
    """What the views are made from."""

    record: Record
    progress: Progress
    now_s: float
    failure: str
    emulated: set[str]


def short(runtime: Runtime, records: Sequence[Record]) -> list[types.Workload]:
    """As in a list."""
    return [
        views.workload(each.record, each.progress, each.now_s, each.failure, each.emulated)
        for each in _seen(runtime, records)
    ]


def long(runtime: Runtime, records: Sequence[Record]) -> list[types.WorkloadLong]:
    """With spec, result and what was weighed."""
    return [
        views.workload_long(each.record, each.progress, each.now_s, each.failure, each.emulated)
        for each in _seen(runtime, records)
    ]


def explained(runtime: Runtime, records: Sequence[Record]) -> list[types.Explained]:
    """Why each runs where it does, with what it was told to keep to."""
    answers: list[types.Explained] = []
    for said, record in zip(short(runtime, records), records, strict=True):
        answers.append(
            {
                **views.explanation(_as_planned(runtime, record).explanation),
                "id": said["id"],
                "name": said["name"],
                "kind": said["kind"],
                "state": said["state"],
                "message": said["message"],
                "ended": said["ended"],
                "submitted_s": said["submitted_s"],
                "deadline_s": said["deadline_s"],
                "late_s": said["late_s"],
                "budget_usd": said["budget_usd"],
            }
        )
    return answers


def _seen(runtime: Runtime, records: Sequence[Record]) -> list[_Seen]:
    report, now_s = runtime.engine.last_report, time.time()
    device_types = report.situation.snapshot.device_types if report is not None else {}
    emulated = {name for name, kind in device_types.items() if kind.emulated}
    failures = _failures(runtime, records)
    return [
        _Seen(
            _as_planned(runtime, record),
            runtime.engine.progress_of(record),
            now_s,
            failures.get(record.id, ""),
            emulated,
        )
        for record in records
    ]


def _failures(runtime: Runtime, records: Sequence[Record]) -> dict[str, str]:
    """Why the last attempt of each that was to be tried again failed: kept in the record until it ends well, then in
    the log."""
    failed = [record for record in records if record.failures or record.losses]
    ended_well = [record.id for record in failed if record.state == "succeeded"]
    return {record.id: record.message for record in failed} | runtime.store.last_causes(ended_well, "retry")


def _as_planned(runtime: Runtime, record: Record) -> Record:
    """The record with what the last cycle said of it: the stored explanation is only written when the choice changes,
    its numbers grow old."""
    report = runtime.engine.last_report
    fresh = report.plan.explanations.get(record.id) if report is not None and record.state == "queued" else None
    return record if fresh is None else replace(record, explanation=fresh)
