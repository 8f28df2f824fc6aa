"""What the API returns: plain JSON made from records. Seconds, bytes and dollars carry their unit in the name."""

from __future__ import annotations

from typing import Any

from cluster.types import Snapshot

from ..admission import StepPlan
from ..engine.progress import Progress
from ..states import ENDED
from ..store import Event, Record
from ..types import Configuration, Estimate, Explanation, Option


def workload(record: Record, progress: Progress, now_s: float) -> dict[str, Any]:
    """One workload, short."""
    return {
        "id": record.id,
        "name": record.name,
        "kind": record.kind,
        "pipeline_id": record.pipeline_id,
        "state": record.state,
        "attempt": record.attempt,
        "needs": list(record.needs),
        "submitted_s": record.submitted_s,
        "started_s": record.first_started_s,
        "ended_s": record.ended_s,
        "run_s": record.run_s(record.ended_s or now_s),
        "cost_usd": record.cost_usd(record.ended_s or now_s),
        "placement": _placement(record),
        "predicted_s": record.predicted.seconds if record.predicted else None,
        "predicted_usd": record.predicted.money.total_usd if record.predicted and record.predicted.money else None,
        "predicted_source": record.predicted.source if record.predicted else None,
        "explanation": record.explanation.summary if record.explanation else None,
        "progress": progress_view(progress),
        "metrics": dict((record.result.get("metrics") if record.result else None) or progress.metrics),
        "output": record.output,
        "message": record.message,
        "cancel_requested": record.cancel_requested,
        "ended": record.state in ENDED,
    }


def workload_long(record: Record, progress: Progress, now_s: float) -> dict[str, Any]:
    """One workload with its spec, result and explanation."""
    return workload(record, progress, now_s) | {
        "spec": dict(record.spec),
        "result": dict(record.result),
        "options": [option(item) for item in record.explanation.options] if record.explanation else [],
    }


def _placement(record: Record) -> str | None:
    if record.placement is not None:
        return str(record.placement.configuration)
    return str(record.predicted.configuration) if record.predicted is not None else None


def progress_view(progress: Progress) -> dict[str, Any]:
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


def estimate(value: Estimate) -> dict[str, Any]:
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
    }


def option(value: Option) -> dict[str, Any]:
    """One row of an explanation."""
    return estimate(value.estimate) | {
        "total_usd": value.total_usd,
        "congestion_usd": value.congestion_usd,
        "wait_s": value.wait_s,
        "reason": {"code": value.reason.code, "message": value.reason.message} if value.reason else None,
    }


def explanation(value: Explanation | None) -> dict[str, Any]:
    """Why a workload runs where it does, or why it waits."""
    if value is None:
        return {"chosen": None, "summary": "not planned yet", "options": []}
    chosen = None if value.chosen is None else configuration(value.chosen)
    return {"chosen": chosen, "summary": value.summary, "options": [option(item) for item in value.options]}


def step_plan(value: StepPlan) -> dict[str, Any]:
    """One step of a plan."""
    return {
        "name": value.name,
        "kind": value.kind,
        "needs": list(value.needs),
        "samples": value.work.samples,
        "tokens_per_sample": value.work.tokens_per_sample,
        **explanation(value.explanation),
    }


def event(value: Event) -> dict[str, Any]:
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


def devices(snapshot: Snapshot) -> dict[str, Any]:
    """Device types with their counts and prices, and the nodes that carry them."""
    types = [
        {
            "name": name,
            "kind": kind.kind,
            "emulated": kind.emulated,
            "emulated_speed": kind.emulated_speed,
            "total": snapshot.total(name),
            "free": snapshot.free(name),
            "price_usd_h": kind.price_usd_h,
            "price_source": kind.price_source,
            "price_as_of": kind.price_as_of,
            "memory_bytes": kind.memory_bytes,
            "peak_flops": dict(kind.peak_flops),
        }
        for name, kind in sorted(snapshot.device_types.items())
    ]
    nodes = [
        {
            "node_id": node.node_id,
            "name": node.name,
            "node_type": node.node_type,
            "is_head": node.is_head,
            "devices": [{"type": held.device_type, "total": held.total, "free": held.free} for held in node.devices],
        }
        for node in snapshot.nodes
    ]
    return {"device_types": types, "nodes": nodes, "warnings": list(snapshot.warnings)}
