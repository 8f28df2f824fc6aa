"""What came out of a simulation in numbers: one `Summary` a policy, to compare them by. Pure. `bounds.py` says how good
any policy could be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .bounds import Bounds, lower_bounds
from .types import JobResult, Sample, SimulationResult

__all__ = ["Bounds", "Summary", "lower_bounds", "summary"]

UNFAIR = 1.1
"""A job was treated unfairly where it took over this many times its fair share's seconds."""
TOLERANCE = 1e-9
"""Relative: a budget or deadline passed by less is rounding."""


@dataclass(frozen=True)
class Summary:
    """One policy on one trace. Seconds, dollars and device-hours; None where there is nothing to take a number of.

    Percentiles are interpolated. Completion times, fairness and waiting are of finished jobs only: of two policies, the
    one that finished fewer jobs is not better for a shorter mean.
    """

    policy: str
    trace: str
    seed: int
    jobs: int
    finished: int
    failed: int
    """Failed or cancelled."""
    unfinished: int
    """Neither finished nor failed: still waiting or running at the end."""
    mean_jct_s: float | None
    """JCT: from a job's arrival to its end."""
    median_jct_s: float | None
    p99_jct_s: float | None
    makespan_s: float | None
    """From the start of the trace to the last end of a job that finished."""
    usd: float | None
    """Of all jobs whose dollars are known; None where they are of none."""
    unpriced: int
    """Jobs whose dollars are not known."""
    device_hours: float
    device_hours_by_type: Mapping[str, float]
    """Held, start-up included."""
    utilisation: float | None
    """Held device-seconds / device-seconds that were there, until the makespan; without one, until the last sample."""
    utilisation_by_type: Mapping[str, float]
    fairness_mean: float | None
    """JCT / seconds with a fair share (finish-time fairness, Themis 2020): 1 or less is fair."""
    fairness_p99: float | None
    fairness_worst: float | None
    unfair_share: float | None
    """Share of jobs over 1.1."""
    deadlines: int
    """Jobs that have one."""
    deadlines_missed: int
    """Not finished by it, or not at all."""
    deadline_miss_share: float | None
    budgets: int
    budgets_missed: int
    """Spent more; where it is not known what was spent, not counted."""
    preemptions: int
    preemptions_per_job: float | None
    restarts: int
    """Attempts after the first, whatever ended the one before."""
    restarts_per_job: float | None
    waiting_mean_s: float | None
    """From arrival to the first placement."""
    stopped_mean_s: float | None
    """Without devices after the first placement; None where no spans were kept."""
    cycles: int
    """Plans that the policy made."""
    decision_mean_s: float | None
    """Real seconds of one plan."""
    decision_p99_s: float | None
    decision_max_s: float | None
    rented_usd: float | None
    """What the rented nodes cost, boot and idle time included; None where there was nothing to rent. `usd` is what jobs
    held, on whatever node."""
    idle_usd: float | None
    """The part of it for devices that no job held."""
    node_hours: float | None
    """Rented, from the request to the end."""
    launches: int | None
    """Nodes that were asked for."""
    failed_launches: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def summary(result: SimulationResult) -> Summary:
    """All numbers of a result; none of them fails where nothing finished."""
    jobs = result.jobs
    finished = [job for job in jobs if job.state == "succeeded" and job.ended_s is not None]
    failed = sum(job.state in ("failed", "cancelled") for job in jobs)
    jcts = [_jct_s(job) for job in finished]
    spent = [job.spent_usd for job in jobs if job.spent_usd is not None]
    makespan_s = max((job.ended_s for job in finished if job.ended_s is not None), default=None)
    held, there = _device_seconds(result.samples, makespan_s)
    hours = _device_hours(jobs)
    fairness = [_jct_s(job) / job.fair_s for job in finished if job.fair_s]
    due = [job for job in jobs if job.deadline_s is not None]
    late = sum(_missed(job) for job in due)
    limited = [job for job in jobs if job.budget_usd is not None]
    restarts = sum(max(job.attempts - 1, 0) for job in jobs)
    preemptions = sum(job.preemptions for job in jobs)
    decisions = [seconds for sample in result.samples for seconds in sample.decisions_s]
    started = [job.started_s - job.arrived_s for job in finished if job.started_s is not None]
    return Summary(
        policy=result.policy,
        trace=result.trace,
        seed=result.seed,
        jobs=len(jobs),
        finished=len(finished),
        failed=failed,
        unfinished=len(jobs) - len(finished) - failed,
        mean_jct_s=_mean(jcts),
        median_jct_s=_percentile(jcts, 50),
        p99_jct_s=_percentile(jcts, 99),
        makespan_s=makespan_s,
        usd=sum(spent) if spent else None,
        unpriced=len(jobs) - len(spent),
        device_hours=sum(hours.values()),
        device_hours_by_type=hours,
        utilisation=_ratio(sum(held.values()), sum(there.values())),
        utilisation_by_type={name: held[name] / seconds for name, seconds in sorted(there.items()) if seconds > 0},
        fairness_mean=_mean(fairness),
        fairness_p99=_percentile(fairness, 99),
        fairness_worst=max(fairness, default=None),
        unfair_share=_ratio(sum(each > UNFAIR for each in fairness), len(fairness)),
        deadlines=len(due),
        deadlines_missed=late,
        deadline_miss_share=_ratio(late, len(due)),
        budgets=len(limited),
        budgets_missed=sum(_overspent(job) for job in limited),
        preemptions=preemptions,
        preemptions_per_job=_ratio(preemptions, len(jobs)),
        restarts=restarts,
        restarts_per_job=_ratio(restarts, len(jobs)),
        waiting_mean_s=_mean(started),
        stopped_mean_s=_mean([_stopped_s(job) for job in finished if job.spans]),
        cycles=len(decisions),
        decision_mean_s=_mean(decisions),
        decision_p99_s=_percentile(decisions, 99),
        decision_max_s=max(decisions, default=None),
        **_rent(result),
    )


def _rent(result: SimulationResult) -> dict[str, Any]:
    """Dollars, hours and launches of rented nodes."""
    if result.rentals is None:
        return dict.fromkeys(("rented_usd", "idle_usd", "node_hours", "launches", "failed_launches"))
    held: dict[str, float] = defaultdict(float)
    for job in result.jobs:
        for span in job.spans:
            held[span.node] += span.count * (span.ended_s - span.began_s)
    paid = [each for each in result.rentals if not each.failed]
    used_usd = sum(held[each.node] / max(1, each.devices) / 3600 * each.usd_h for each in paid)
    rented_usd = sum(each.usd for each in paid)
    asked = [each for each in result.rentals if each.launched]
    return {
        "rented_usd": rented_usd,
        "idle_usd": rented_usd - used_usd,
        "node_hours": sum(each.ended_s - each.asked_s for each in paid) / 3600,
        "launches": len(asked),
        "failed_launches": sum(each.failed for each in asked),
    }


def _jct_s(job: JobResult) -> float:
    assert job.ended_s is not None
    return job.ended_s - job.arrived_s


def _device_hours(jobs: Iterable[JobResult]) -> dict[str, float]:
    hours: dict[str, float] = defaultdict(float)
    for job in jobs:
        for span in job.spans:
            hours[span.device_type] += span.count * (span.ended_s - span.began_s) / 3600
    return dict(sorted(hours.items()))


def _device_seconds(samples: Sequence[Sample], until_s: float | None) -> tuple[dict[str, float], dict[str, float]]:
    """Device-seconds held and there are, by type. A sample holds until the next one."""
    held: dict[str, float] = defaultdict(float)
    there: dict[str, float] = defaultdict(float)
    ends = [sample.at_s for sample in samples[1:]]
    ends += [max(until_s or 0.0, samples[-1].at_s)] if samples else []
    for sample, end in zip(samples, ends, strict=True):
        seconds = max(0.0, (end if until_s is None else min(end, until_s)) - sample.at_s)
        for name, count in sample.total.items():
            there[name] += count * seconds
            held[name] += sample.busy.get(name, 0) * seconds
    return held, there


def _missed(job: JobResult) -> bool:
    assert job.deadline_s is not None
    if job.state != "succeeded" or job.ended_s is None:
        return True
    return job.ended_s > job.deadline_s + TOLERANCE * abs(job.deadline_s)


def _overspent(job: JobResult) -> bool:
    if job.spent_usd is None or job.budget_usd is None:
        return False
    return job.spent_usd > job.budget_usd * (1 + TOLERANCE)


def _stopped_s(job: JobResult) -> float:
    """Seconds without devices between the first span and the last."""
    gaps, covered = 0.0, min(span.began_s for span in job.spans)
    for span in sorted(job.spans, key=lambda span: span.began_s):
        gaps += max(0.0, span.began_s - covered)
        covered = max(covered, span.ended_s)
    return gaps


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
