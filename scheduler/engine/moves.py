"""The next record of a workload, given what happened: pure functions that the engine applies and stores."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from cluster.types import RunObservation, Snapshot
from workloads.errors import SpecError

from ..store import Event, Record
from ..types import Explanation, Placement
from .profiler import Profiler, Upstream
from .progress import Progress
from .resuming import resumes

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 60.0
MAX_LOSSES = 20
"""A workload whose runs are lost this often with their clusters is given up."""


def queued(record: Record, profiler: Profiler, upstream: Mapping[str, Upstream], now_s: float) -> tuple[Record, Event]:
    """Everything it needs has succeeded: measure the work and join the queue. What is wrong with the input is final;
    what only went wrong (a hub that does not answer) is tried again."""
    try:
        work = profiler.work(record.workload_spec(), upstream)
    except SpecError as error:
        after = replace(record, state="failed", message=str(error), ended_s=now_s)
        return after, Event("failed", str(error), record.id)
    except Exception as error:  # whatever is wrong with this one must not stop the others
        return _not_measured(record, error, now_s)
    cause = "everything it needs has succeeded" if record.needs else "submitted; it needs nothing else"
    after = replace(record, state="queued", queued_s=now_s, work=work, not_before_s=None, failures=0, message="")
    return after, Event("queued", cause, record.id)


def _not_measured(record: Record, error: Exception, now_s: float) -> tuple[Record, Event]:
    message = f"its work cannot be measured: {error!r}"
    failures = record.failures + 1
    if failures > record.workload_spec().retries:
        return replace(record, state="failed", message=message, ended_s=now_s), Event("failed", message, record.id)
    after = replace(record, failures=failures, not_before_s=now_s + _delay_s(failures), message=message)
    return after, Event("retry", message, record.id)


def started(
    record: Record, placement: Placement, snapshot: Snapshot, now_s: float, explanation: Explanation | None = None
) -> Record:
    """The next attempt on these devices; `explanation` says why."""
    estimates = record.estimates if explanation is None else tuple(each.estimate for each in explanation.options)
    estimate = next((e for e in estimates if e.configuration == placement.configuration), None)
    prices = [snapshot.device_types[device_type].price_usd_h for device_type, _ in placement.devices]
    return replace(
        record,
        state="starting",
        attempt=record.attempt + 1,
        placement=placement,
        started_s=now_s,
        first_started_s=now_s if record.first_started_s is None else record.first_started_s,
        waited_s=waited_s(record, now_s),
        interrupted=False,
        not_before_s=None,
        explanation=explanation or record.explanation,
        estimates=estimates,
        predicted=record.predicted if record.attempt else estimate,
        prices_usd_h={name: snapshot.device_types[name].price_usd_h for name, _ in placement.configuration.groups},
        price_usd_h=None if None in prices else sum(price for price in prices if price is not None),
    )


def gone(record: Record, here: Set[str]) -> list[str]:
    """Nodes of a workload's placement that are not among those of the cluster any more; one that comes back has another
    id."""
    held = () if record.placement is None else record.placement.devices
    return sorted({node_id for _, node_id in held if node_id not in here})


def judged(record: Record, run: RunObservation, progress: Progress, here: Set[str]) -> RunObservation:
    """A run that ended with a node of its own was lost, whatever its body said of that: it counts against no retries.
    What a body calls final stays so."""
    if run.state not in ("failed", "stopped") or not (progress.failed or {}).get("retryable", True):
        return run
    nodes = gone(record, here)
    if not nodes:
        return run
    return replace(run, state="lost", message=f"node {', '.join(nodes)} left the cluster")


def starting(record: Record) -> Event:
    """What the log is told of an attempt that begins."""
    assert record.placement is not None
    data = {
        "configuration": str(record.placement.configuration),
        "attempt": record.attempt,
        "nodes": [node for _, node in record.placement.devices],
        "predicted_s": record.predicted.seconds if record.predicted else None,
    }
    cause = record.explanation.summary if record.explanation else "the plan placed it"
    return Event("starting", cause, record.id, data=data)


def ended(
    record: Record, run: RunObservation, progress: Progress, now_s: float, seen_s: float | None = None
) -> tuple[Record, Event]:
    """The attempt was over at `now_s`: succeeded, cancelled, stopped for the plan, to be tried again, or failed.
    `seen_s` is when that was seen, where it is later: the next attempt waits from then on."""
    released = _released(record, progress, now_s)
    if progress.done is not None:  # its last word, whatever became of the process or the cluster after it
        after = replace(released, state="succeeded", ended_s=now_s, result=_result(progress), message="", fraction=1.0)
        metrics = after.result.get("metrics")
        return after, Event("succeeded", "its body ended well", record.id, data={"metrics": metrics})
    if record.cancel_requested:
        after = replace(released, state="cancelled", ended_s=now_s, message="cancelled by the user")
        return after, Event("cancelled", "its processes are gone, as the user wanted", record.id)
    if record.state == "stopping" and record.paused:
        return paused(released, now_s, lost_work(record, progress, now_s))
    if record.state == "stopping":
        after = replace(released, state="queued", queued_s=now_s, interrupted=run.state == "lost")
        lost = lost_work(record, progress, now_s)
        return after, Event("queued", run.message or "stopped for the plan; goes on later", record.id, data=lost)
    after, event = _not_succeeded(record, released, run, progress, now_s if seen_s is None else seen_s)
    return (replace(after, ended_s=now_s) if after.ended_s is not None else after), event


def paused(record: Record, now_s: float, lost: Mapping[str, float] | None = None) -> tuple[Record, Event]:
    """It holds nothing and waits for nothing, until its pause is over. `lost` is the work that a stop cost."""
    after = replace(record, state="paused", waited_s=waited_s(record, now_s), queued_s=None, not_before_s=None)
    return after, Event("paused", record.pause_cause or "the user paused it", record.id, data=dict(lost or {}))


def resumed(record: Record, now_s: float) -> tuple[Record, Event]:
    """Its pause is over: it waits for devices again."""
    after = replace(record, state="queued", queued_s=now_s)
    return after, Event("queued", "its pause is over", record.id)


def _not_succeeded(
    record: Record, released: Record, run: RunObservation, progress: Progress, now_s: float
) -> tuple[Record, Event]:
    """A run that failed counts against the user's retries; one that was lost with its cluster does not."""
    message = str((progress.failed or {}).get("message") or run.message or f"its run is {run.state}")
    lost = run.state == "lost"
    failures, losses = record.failures + (not lost), record.losses + lost
    retries = record.workload_spec().retries
    retryable = bool((progress.failed or {}).get("retryable", True))
    counted = replace(released, failures=failures, losses=losses, message=message)
    if not retryable or (losses > MAX_LOSSES if lost else failures > retries):
        return replace(counted, state="failed", ended_s=now_s), Event("failed", message, record.id)
    if lost:
        after, what = _with_its_place_kept(counted, now_s), "was lost"
    else:
        after = replace(counted, state="queued", queued_s=now_s, not_before_s=now_s + _delay_s(failures))
        what = f"failed ({failures} of {retries + 1})"
    delay_s = max(0.0, (after.not_before_s or now_s) - now_s)
    cause = f"attempt {record.attempt} {what}: {message}"
    return after, Event("retry", cause, record.id, data={"delay_s": delay_s, **lost_work(record, progress, now_s)})


def _with_its_place_kept(record: Record, now_s: float) -> Record:
    """A workload whose run went away with its cluster had its turn: it goes before all that waited behind it.

    Its attempts begin some time apart, so that a cluster that loses every run at once does not use up all of them in
    seconds."""
    not_before_s = (record.started_s or now_s) + _delay_s(record.losses)
    return replace(
        record,
        state="queued",
        queued_s=now_s,
        interrupted=True,
        not_before_s=not_before_s if not_before_s > now_s else None,
    )


def _delay_s(failures: int) -> float:
    return float(min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (failures - 1)))


def _result(progress: Progress) -> dict[str, Any]:
    """What is kept of a run that succeeded."""
    return {
        **(progress.done or {}),
        "by_device": dict(progress.rows_by_device),
        "row_errors": progress.row_errors,
        "resumed": progress.resumed,
        "note": progress.note,
    }


def hopeless(explanation: Explanation) -> str | None:
    """Why a queued workload can never run any more: its budget is gone, and what is within it is impossible. A device
    that is only busy, or gone for now, is no such reason."""
    reasons = [option.reason for option in explanation.options]
    over = [reason.message for reason in reasons if reason is not None and reason.code == "budget"]
    final = all(reason is not None and reason.code in ("budget", "device", "memory") for reason in reasons)
    return f"no configuration is within its budget any more: {over[0]}" if over and final else None


def _released(record: Record, progress: Progress, now_s: float) -> Record:
    """Its devices given back and paid for; what it left in checkpoints or finished blocks is kept."""
    kept = progress.saved if resumes(record) else 0.0
    return replace(
        record,
        placement=None,
        spent_usd=record.cost_usd(now_s) or record.spent_usd,
        spent_s=record.run_s(now_s),
        received_s=received_s(record, now_s),
        fraction=max(record.fraction, kept),
    )


def waited_s(record: Record, now_s: float) -> float:
    """Seconds that a workload was ready to run and held nothing, all waits together."""
    if record.placement is not None or record.queued_s is None:
        return record.waited_s
    return record.waited_s + max(0.0, now_s - record.queued_s)


def unsaved_s(record: Record, progress: Progress, now_s: float) -> float:
    """Seconds of the present attempt whose work a stop would lose: for a user's own training, since its last checkpoint
    or since it began. Nothing of the built-in one, which saves first, nor of inference, which finishes its blocks; what
    begins again anyhow is not stopped for a plan."""
    own = record.kind == "train" and record.spec.get("entrypoint") is not None
    if not own or record.placement is None or record.started_s is None:
        return 0.0
    return min(max(0.0, now_s - record.started_s), progress.unsaved_s(now_s))


def lost_work(record: Record, progress: Progress, ended_s: float) -> dict[str, float]:
    """What an attempt that ended at `ended_s` had done and does not keep: as a share of all the work, which counts what
    was reported (about once a second), and in seconds since what is kept was saved."""
    keeps = resumes(record)
    done = max(record.fraction, progress.fraction)
    kept = max(record.fraction, progress.saved) if keeps else 0.0
    told = progress.total_steps is not None or progress.total_rows is not None
    if keeps and told and done <= kept:
        return {"lost_fraction": 0.0, "lost_s": 0.0}
    last_s = min(ended_s, progress.last_s or ended_s)  # what came after its last word was no work
    return {"lost_fraction": max(0.0, done - kept), "lost_s": round(progress.unsaved_s(last_s), 3)}


def received_s(record: Record, now_s: float) -> dict[str, float]:
    """Seconds that a workload has held devices of each type, all attempts together."""
    held = dict(record.received_s)
    if record.placement is not None and record.started_s is not None:
        for name, _ in record.placement.configuration.groups:
            held[name] = held.get(name, 0.0) + max(0.0, now_s - record.started_s)
    return held


def gist(explanation: Explanation) -> tuple[object, ...]:
    """What an explanation says about what was chosen and why the others were not, without its numbers."""
    waits = explanation.summary.split(":")[0] if explanation.chosen is None else ""
    options = tuple((o.estimate.configuration, o.reason.code if o.reason else "") for o in explanation.options)
    return explanation.chosen, waits, options
