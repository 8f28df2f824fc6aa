"""What the API returns: plain JSON made from records. Seconds, bytes and dollars carry their unit in the name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

from workloads.loading import Submission
from workloads.quantities import exact_usd_text

from ..admission import StepPlan
from ..client import types
from ..engine.progress import Progress
from ..states import ENDED
from ..store import Event, Record
from ..types import Configuration, Estimate, Explanation, Option


def workload(
    record: Record, progress: Progress, now_s: float, failure: str = "", emulated: Collection[str] = ()
) -> types.Workload:
    """One workload, short. `failure` is why its last failed attempt failed; `emulated` names the cluster's emulated
    device types."""
    until_s = record.ended_s or now_s
    return {
        "id": record.id,
        "name": record.name,
        "kind": record.kind,
        "pipeline_id": record.pipeline_id,
        "owner": record.owner,
        "queue": record.queue,
        "priority": int(record.spec.get("priority") or 0),
        "objective": str(record.spec.get("objective") or "balanced"),
        "state": record.state,
        "paused": record.paused,
        "pause_cause": record.pause_cause,
        "attempt": record.attempt,
        "needs": list(record.needs),
        "submitted_s": record.submitted_s,
        "started_s": record.first_started_s,
        "ended_s": record.ended_s,
        "run_s": record.run_s(until_s),
        "attempt_s": _attempt_s(record, until_s),
        "cost_usd": record.cost_usd(until_s),
        "deadline_s": record.deadline_s,
        "late_s": _late_s(record, until_s),
        "budget_usd": record.budget_usd,
        "placement": _placement(record),
        "emulated": [name for name in _types(record) if name in emulated],
        "predicted_s": record.predicted.seconds if record.predicted else None,
        "predicted_usd": record.predicted.money.total_usd if record.predicted and record.predicted.money else None,
        "predicted_source": record.predicted.source if record.predicted else None,
        "explanation": record.explanation.summary if record.explanation else None,
        "progress": progress_view(progress),
        "metrics": dict((record.result.get("metrics") if record.result else None) or progress.metrics),
        "output": record.output,
        "message": record.message,
        "failure": failure,
        "cancel_requested": record.cancel_requested,
        "ended": record.state in ENDED,
    }


def workload_long(
    record: Record, progress: Progress, now_s: float, failure: str = "", emulated: Collection[str] = ()
) -> types.WorkloadLong:
    """One workload with its spec, result and explanation."""
    return {
        **workload(record, progress, now_s, failure, emulated),
        "spec": dict(record.spec),
        "result": dict(record.result),
        "options": [option(item) for item in record.explanation.options] if record.explanation else [],
    }


def _configuration(record: Record) -> Configuration | None:
    """Where it runs, or ran last."""
    if record.placement is not None:
        return record.placement.configuration
    return record.predicted.configuration if record.predicted is not None else None


def _placement(record: Record) -> str | None:
    found = _configuration(record)
    return None if found is None else str(found)


def _types(record: Record) -> list[str]:
    found = _configuration(record)
    return [] if found is None else [name for name, _ in found.groups]


def _attempt_s(record: Record, until_s: float) -> float | None:
    """Seconds of the present or last attempt; None where it is not known by itself: between two attempts."""
    if record.attempt < 2:
        return record.run_s(until_s) if record.attempt else None
    if record.started_s is None or (record.placement is None and record.state not in ("succeeded", "failed")):
        return None
    return min(record.run_s(until_s), max(0.0, until_s - record.started_s))


def _late_s(record: Record, until_s: float) -> float | None:
    """Seconds by which the deadline was or is already missed; None where there is none, or it is not."""
    late_s = 0.0 if record.deadline_s is None else until_s - record.deadline_s
    return late_s if late_s > 0 else None


def progress_view(progress: Progress) -> types.ProgressView:
    """How far a run is."""
    return {
        "phase": progress.phase,
        "fraction": progress.fraction,
        "step": progress.step,
        "total_steps": progress.total_steps,
        "rows": progress.rows,
        "total_rows": progress.total_rows,
        "per_second": progress.per_second,
        "loss": progress.loss,
        "epoch": progress.epoch,
        "rows_by_device": dict(progress.rows_by_device),
        "row_errors": progress.row_errors,
        "resumed": progress.resumed,
        "note": progress.note,
        "metrics": dict(progress.metrics),
    }


def configuration(value: Configuration) -> dict[str, int]:
    """Devices per type."""
    return dict(value.groups)


def estimate(value: Estimate) -> types.EstimateView:
    """One configuration's prediction."""
    money = value.money
    return {
        "configuration": configuration(value.configuration),
        "seconds": value.seconds,
        "low_s": value.low_s,
        "high_s": value.high_s,
        "startup_s": value.startup_s,
        "memory_bytes": value.memory_bytes,
        "price_usd_h": value.price_usd_h,
        "money_usd": money.total_usd if money else None,
        "compute_usd": money.compute_usd if money else None,
        "storage_usd": money.storage_usd if money else None,
        "communication_usd": money.communication_usd if money else None,
        "source": value.source,
        "bound": value.bound,
        "market": value.market,
        "note": value.note,
        "breakdown": asdict(value.breakdown) if value.breakdown else None,
        "energy": asdict(value.energy) if value.energy else None,
    }


def option(value: Option) -> types.OptionView:
    """One row of an explanation."""
    return {
        **estimate(value.estimate),
        "total_usd": value.total_usd,
        "congestion_usd": value.congestion_usd,
        "wait_s": value.wait_s,
        "reason": {"code": value.reason.code, "message": value.reason.message} if value.reason else None,
    }


def explanation(value: Explanation | None) -> types.ExplanationView:
    """Why a workload runs where it does, or why it waits."""
    if value is None:
        return {"chosen": None, "summary": "not planned yet", "options": []}
    chosen = None if value.chosen is None else configuration(value.chosen)
    return {"chosen": chosen, "summary": value.summary, "options": [option(item) for item in value.options]}


def plan(submission: Submission, policy: str, steps: Sequence[StepPlan]) -> types.PlanView:
    """What would be chosen for a submission; `notes` say what the plan cannot tell."""
    return {
        "name": submission.name,
        "policy": policy,
        "steps": [step_plan(step) for step in steps],
        "notes": _unchecked(submission, steps),
    }


def _unchecked(submission: Submission, steps: Sequence[StepPlan]) -> list[str]:
    """A sentence for each step with a deadline or a budget of its own, and for the pipeline, that no unknown run time
    can be compared with."""
    chosen = {step.name: _chosen(step) for step in steps}
    unknown = [name for name, estimate in chosen.items() if estimate is not None and estimate.seconds is None]
    limited = [(spec.deadline, spec.budget_usd, [spec.name]) for spec in submission.steps if spec.name in unknown]
    if submission.is_pipeline and unknown:
        limited.append((submission.deadline, submission.budget_usd, unknown))
    sentences = []
    for deadline_s, budget_usd, names in limited:
        limits = [] if deadline_s is None else [f"the deadline of {deadline_s:g} s"]
        limits += [] if budget_usd is None else [f"the budget of {exact_usd_text(budget_usd)}"]
        if limits:
            sentences.append(
                f"the run time of {', '.join(names)} is not known: it cannot be checked against {' and '.join(limits)}"
            )
    return sentences


def _chosen(step: StepPlan) -> Estimate | None:
    rows = (row.estimate for row in step.explanation.options)
    return next((row for row in rows if row.configuration == step.explanation.chosen), None)


def step_plan(value: StepPlan) -> types.StepPlanView:
    """One step of a plan."""
    return {
        "name": value.name,
        "kind": value.kind,
        "needs": list(value.needs),
        "samples": value.work.samples,
        "tokens_per_sample": value.work.tokens_per_sample,
        **explanation(value.explanation),
    }


def event(value: Event) -> types.EventView:
    """One line of the log."""
    return {
        "sequence": value.sequence,
        "at_s": value.at_s,
        "cycle": value.cycle,
        "kind": value.kind,
        "workload_id": value.workload_id,
        "cause": value.cause,
        "data": dict(value.data),
    }
