"""The next record of a workload, given what happened: pure functions that the engine applies and stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cluster.types import RunObservation, Snapshot
from workloads.errors import SpecError

from ..store import Event, Record
from ..types import Explanation, Placement
from .profiler import Profiler, Upstream
from .progress import Progress

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0


def queued(record: Record, profiler: Profiler, upstream: Mapping[str, Upstream], now_s: float) -> tuple[Record, Event]:
    """Everything it needs has succeeded: measure the work and join the queue, or fail with what is wrong."""
    try:
        work = profiler.work(record.workload_spec(), upstream)
    except Exception as error:  # whatever is wrong with this one must not stop the others
        message = str(error) if isinstance(error, SpecError) else f"its work cannot be measured: {error!r}"
        after = replace(record, state="failed", message=message, ended_s=now_s)
        return after, Event("failed", message, record.id)
    cause = "everything it needs has succeeded" if record.needs else "submitted; it needs nothing else"
    return replace(record, state="queued", queued_s=now_s, work=work), Event("queued", cause, record.id)


def started(record: Record, placement: Placement, snapshot: Snapshot, now_s: float) -> Record:
    """The next attempt on these devices."""
    estimate = next((e for e in record.estimates if e.configuration == placement.configuration), None)
    prices = [snapshot.device_types[device_type].price_usd_h for device_type, _ in placement.devices]
    return replace(
        record,
        state="starting",
        attempt=record.attempt + 1,
        placement=placement,
        started_s=now_s,
        first_started_s=record.first_started_s or now_s,
        not_before_s=None,
        predicted=record.predicted if record.attempt else estimate,
        price_usd_h=None if None in prices else sum(price for price in prices if price is not None),
    )


def ended(record: Record, run: RunObservation, progress: Progress, now_s: float) -> tuple[Record, Event]:
    """The attempt is over: succeeded, cancelled, stopped for the plan, to be tried again, or failed."""
    released = _released(record, now_s)
    if run.state == "succeeded" and progress.done is not None:
        result = {**progress.done, "by_device": dict(progress.rows_by_device), "row_errors": progress.row_errors}
        after = replace(released, state="succeeded", ended_s=now_s, result=result, message="")
        return after, Event("succeeded", "its body ended well", record.id, data={"metrics": result.get("metrics")})
    if record.state == "stopping":
        if record.cancel_requested:
            after = replace(released, state="cancelled", ended_s=now_s, message="cancelled by the user")
            return after, Event("cancelled", "its processes are gone, as the user wanted", record.id)
        return replace(released, state="queued"), Event("queued", "stopped for the plan; goes on later", record.id)
    message = str((progress.failed or {}).get("message") or run.message or f"its run is {run.state}")
    retryable = bool((progress.failed or {}).get("retryable", True))
    retries = record.workload_spec().retries
    if retryable and record.attempt <= retries and not record.cancel_requested:
        delay_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** (record.attempt - 1))
        after = replace(released, state="queued", not_before_s=now_s + delay_s, message=message)
        cause = f"attempt {record.attempt} of {retries + 1} failed: {message}"
        return after, Event("retry", cause, record.id, data={"delay_s": delay_s})
    after = replace(released, state="failed", ended_s=now_s, message=message)
    return after, Event("failed", message, record.id)


def hopeless(explanation: Explanation) -> str | None:
    """Why a queued workload can never run any more: its budget is gone, and what is within it is impossible. A device
    that is only busy, or gone for now, is no such reason."""
    reasons = [option.reason for option in explanation.options]
    over = [reason.message for reason in reasons if reason is not None and reason.code == "budget"]
    final = all(reason is not None and reason.code in ("budget", "device", "memory") for reason in reasons)
    return f"no configuration is within its budget any more: {over[0]}" if over and final else None


def _released(record: Record, now_s: float) -> Record:
    """Its devices given back and paid for."""
    return replace(
        record,
        placement=None,
        spent_usd=record.cost_usd(now_s) or record.spent_usd,
        spent_s=record.run_s(now_s),
    )


def same_choice(before: Explanation | None, after: Explanation) -> bool:
    """Whether two explanations say the same about what was chosen and why the others were not."""
    if before is None or before.chosen != after.chosen:
        return False
    if after.chosen is None and before.summary.split(":")[0] != after.summary.split(":")[0]:
        return False
    return _gist(before) == _gist(after)


def _gist(explanation: Explanation) -> list[tuple[str, str]]:
    return [(str(o.estimate.configuration), o.reason.code if o.reason else "") for o in explanation.options]
