"""What a policy may know of one workload. Pure."""

from __future__ import annotations

from ..store import Record
from ..types import WorkloadView
from . import moves
from .estimates import Known
from .progress import Progress
from .reconcile import resumes


def view_of(record: Record, known: Known, progress: Progress, now_s: float, *, leaving: bool = False) -> WorkloadView:
    """`progress` is of the present attempt; `leaving` says that it must give back what it holds."""
    spec = known.spec
    return WorkloadView(
        id=record.id,
        name=record.name,
        queue=spec.queue,
        priority=spec.priority,
        objective=spec.objective,
        queued_s=record.queued_s or record.submitted_s,
        submitted_s=record.submitted_s,
        family=known.work.family,
        units=known.work.samples,
        deadline_s=record.deadline_s,
        budget_usd=None if record.budget_usd is None else record.budget_usd - record.spent_usd,
        remaining=1.0 - _fraction(record, progress),
        held_s=0.0 if record.placement is None or record.started_s is None else now_s - record.started_s,
        received_s=moves.received_s(record, now_s),
        waited_s=moves.waited_s(record, now_s),
        unsaved_s=moves.unsaved_s(record, progress, now_s),
        interrupted=record.interrupted,
        resumes=resumes(record),
        stopping=record.state == "stopping" or leaving,
        one_node=record.kind == "command" and not known.work.items,
        estimates=known.table,
        placement=record.placement,
        not_before_s=record.not_before_s,
    )


def _fraction(record: Record, progress: Progress) -> float:
    """Share of the work that is done: what ended attempts have left, and what the present one reports, or will leave
    where it is being stopped."""
    if record.placement is None:
        return record.fraction
    return max(record.fraction, progress.saved if record.state == "stopping" else progress.fraction)
