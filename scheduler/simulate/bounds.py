"""What no schedule of a trace can be better than: bounds on mean JCT and makespan. Pure; beside the results of policies
it shows how much is left to gain."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Configuration
from .types import Phase, Trace, TraceJob

Floats = NDArray[np.float64]
WEIGHT_STEPS = 40
FIRST_FACTOR, LAST_FACTOR = 4.0, 1.05
"""The search over shares of types multiplies one by the first, then by ever less, until the last."""
LEAST_SHARE = 1e-3
LEAST_GAIN = 1e-4
"""Of the bound, relative: less is no improvement, so that the search ends."""


@dataclass(frozen=True)
class Bounds:
    """Lower bounds in seconds, over the jobs that the cluster can hold. None where there is no such job."""

    jobs: int
    impossible: int
    """Jobs that have no configuration within the cluster: left out of all bounds."""
    alone_mean_jct_s: float | None
    """Without contention: each job on its fastest configuration from its arrival on, with one start-up."""
    alone_median_jct_s: float | None
    alone_p99_jct_s: float | None
    srpt_mean_jct_s: float | None
    """Shortest remaining work first on one machine as large as the cluster. None where jobs need each other: they come
    when a schedule lets them."""
    mean_jct_s: float | None
    """The best bound that was found: at least those above."""
    makespan_s: float | None
    """From the start of the trace to the last end."""


def lower_bounds(trace: Trace, totals: Mapping[str, int]) -> Bounds:
    """Bounds for every schedule of a trace on `totals` devices by type, also one that preempts and resizes for free.

    Alone: progress is never faster than on the fastest configuration of each phase, and every job starts up once.

    One machine: give the types any shares that add up to 1, so that a device of type k weighs share_k / total_k. What
    all jobs hold then weighs at most 1 at any moment, and a job needs at least p = the least weight x seconds of each
    of its phases and of one start-up. So every schedule is, cut down to p a job, also one of jobs of size p on one
    machine of speed 1, where nothing ends later; there SRPT has the least total completion time, and no order ends
    all before arrivals and sizes allow. This holds for any shares: the ones that give the most are searched.

    Both together: let M be the mean time at which a job's p is done. As it is done no faster than alone, its end is at
    least M + h, with h = p / (2 x its greatest speed) for one phase; it is also at least arrival + time alone, hence at
    least any mean w of the two. The sum of w M is least on one machine by the fixed order of p / w (Goemans 1996), so
    each choice of w in 0..1 bounds the total; w is improved by subgradient steps.
    """
    work = _Work.of(trace, {name: count for name, count in totals.items() if count > 0})
    if not work.jobs:
        return Bounds(0, work.impossible, *[None] * 6)
    alone = work.alone_s
    known = {job.id for job in trace.jobs}
    srpt = busy = None
    if not any(need in known for job in trace.jobs for need in job.needs):
        srpt, _ = _best_shares(lambda shares: work.srpt_jct_s(work.sizes(shares).sum(axis=0)), work.totals)
        busy, shares = _best_shares(lambda shares: work.weighted_jct_s(work.sizes(shares), work.ones)[0], work.totals)
        busy = max(busy, _best_weights(work, work.sizes(shares)))
    makespan, _ = _best_shares(lambda shares: work.makespan_s(work.sizes(shares).sum(axis=0)), work.totals)
    mean = float(alone.mean())
    return Bounds(
        jobs=work.jobs,
        impossible=work.impossible,
        alone_mean_jct_s=mean,
        alone_median_jct_s=float(np.median(alone)),
        alone_p99_jct_s=float(np.percentile(alone, 99)),
        srpt_mean_jct_s=srpt,
        mean_jct_s=max(mean, srpt or 0.0, busy or 0.0),
        makespan_s=max(makespan, float((work.arrivals + alone).max())),
    )


@dataclass(frozen=True)
class _Work:
    """The jobs that fit as arrays. A stage is a job's start-up or one of its phases; jobs with fewer stages than the
    longest have stages of no seconds. Rows are the ways to do a stage: configurations."""

    arrivals: Floats
    totals: Floats
    """Devices, by type."""
    seconds: Floats
    """Of each row."""
    counts: Floats
    """Devices of each row, by type."""
    first: NDArray[np.int64]
    """First row of each stage, by job and stage."""
    stages: int
    impossible: int

    @classmethod
    def of(cls, trace: Trace, totals: Mapping[str, int]) -> _Work:
        """Without the jobs that no configuration within `totals` can do."""
        fitting = {job.id: ways for job in trace.jobs if (ways := _ways(job, totals)) is not None}
        jobs = [job for job in trace.jobs if job.id in fitting]
        stages = max((len(ways) for ways in fitting.values()), default=0)
        number = {name: index for index, name in enumerate(totals)}
        vectors: dict[Configuration, list[float]] = {}
        seconds: list[float] = []
        counts: list[list[float]] = []
        first: list[int] = []
        nothing = [0.0] * len(number)
        for job in jobs:
            ways = fitting[job.id]
            for stage in [*ways, *[{}] * (stages - len(ways))]:
                first.append(len(seconds))
                for configuration, each in (stage or {Configuration(()): 0.0}).items():
                    if configuration not in vectors:
                        vectors[configuration] = [*nothing]
                        for name, count in configuration.groups:
                            vectors[configuration][number[name]] = float(count)
                    seconds.append(each)
                    counts.append(vectors[configuration])
        return cls(
            arrivals=np.array([job.arrives_s for job in jobs], dtype=float),
            totals=np.array(list(totals.values()), dtype=float),
            seconds=np.array(seconds, dtype=float),
            counts=np.array(counts, dtype=float).reshape(len(counts), len(number)),
            first=np.array(first, dtype=np.int64),
            stages=stages,
            impossible=len(trace.jobs) - len(jobs),
        )

    @property
    def jobs(self) -> int:
        return len(self.arrivals)

    @property
    def ones(self) -> Floats:
        return np.ones(self.jobs)

    @property
    def stage_s(self) -> Floats:
        """Least seconds of each stage: stages by jobs."""
        return self._least(self.seconds)

    @property
    def alone_s(self) -> Floats:
        return np.asarray(self.stage_s.sum(axis=0), dtype=float)

    def sizes(self, shares: Floats) -> Floats:
        """Least weight x seconds of each stage: stages by jobs."""
        return self._least(self.seconds * (self.counts @ (shares / self.totals)))

    def _least(self, values: Floats) -> Floats:
        return np.asarray(np.minimum.reduceat(values, self.first).reshape(self.jobs, self.stages).T, dtype=float)

    def srpt_jct_s(self, size: Floats) -> float:
        ended, _ = _one_machine(self.arrivals, size, None)
        return float((ended - self.arrivals).mean())

    def makespan_s(self, size: Floats) -> float:
        ended, _ = _one_machine(self.arrivals, size, self.arrivals)
        return float(ended.max())

    def weighted_jct_s(self, sizes: Floats, weights: Floats) -> tuple[float, Floats]:
        """The bound for these weights, and what it gains by more of each."""
        size, stage_s, alone = sizes.sum(axis=0), self.stage_s, self.alone_s
        rank = np.divide(size, weights, out=np.full(self.jobs, math.inf), where=weights > 0)
        _, busy = _one_machine(self.arrivals, size, rank)
        after = alone - np.cumsum(stage_s, axis=0)  # the stages that follow each
        share = np.divide(sizes, size, out=np.zeros_like(sizes), where=size > 0)
        half = (share * (stage_s / 2 + after)).sum(axis=0)
        gain = busy + half - self.arrivals - alone
        return float((alone + weights * gain).mean()), gain


def _ways(job: TraceJob, totals: Mapping[str, int]) -> list[dict[Configuration, float]] | None:
    """Least seconds of start-up and each phase by configuration; None where a phase fits none."""
    ends = [*(phase.begins for phase in job.phases[1:]), 1.0]
    phases = []
    for phase, end in zip(job.phases, ends, strict=True):
        work = max(0.0, end - phase.begins) * job.work
        rates = {c: rate for c, rate in _rates(phase).items() if rate > 0 and _fits(c, totals)}
        if work > 0:
            phases.append({c: work / rate for c, rate in rates.items()})
            if not rates:
                return None
    started = phases[0] if phases else {c: 0.0 for c in _rates(job.phases[0]) if _fits(c, totals)}
    return [dict.fromkeys(started, job.startup_s), *phases] if started else None


def _rates(phase: Phase) -> dict[Configuration, float]:
    """The better of packed and spread."""
    best = dict(phase.rates)
    for configuration, rate in phase.spread_rates.items():
        best[configuration] = max(rate, best.get(configuration, 0.0))
    return best


def _fits(configuration: Configuration, totals: Mapping[str, int]) -> bool:
    return all(count <= totals.get(name, 0) for name, count in configuration.groups)


def _one_machine(arrivals: Floats, sizes: Floats, rank: Floats | None) -> tuple[Floats, Floats]:
    """End and mean busy time of each job on one machine of speed 1 that always does the job of the least rank of those
    that are there; without ranks, of the least remaining size."""
    order = [int(job) for job in np.argsort(arrivals, kind="stable")]
    arrives, left = [float(arrivals[job]) for job in order] + [math.inf], sizes.tolist()
    ranks = None if rank is None else rank.tolist()
    moments, ended = [0.0] * len(order), [0.0] * len(order)
    heap: list[tuple[float, int]] = []
    now, come = 0.0, 0
    while heap or come < len(order):
        now = now if heap else max(now, arrives[come])
        while arrives[come] <= now:
            job = order[come]
            heapq.heappush(heap, (left[job] if ranks is None else ranks[job], job))
            come += 1
        job = heap[0][1]
        spent = min(left[job], arrives[come] - now)
        moments[job] += spent * (now + spent / 2)
        if spent < left[job]:
            now, left[job] = arrives[come], left[job] - spent
            heapq.heapreplace(heap, (left[job] if ranks is None else ranks[job], job))
        else:
            now, left[job] = now + spent, 0.0
            heapq.heappop(heap)
            ended[job] = now
    busy = np.divide(np.array(moments), sizes, out=arrivals.copy(), where=sizes > 0)
    return np.array(ended), busy


def _best_shares(value: Callable[[Floats], float], totals: Floats) -> tuple[float, Floats]:
    """The greatest value found, and its shares: from equal ones and from those by devices, one share at a time."""
    starts = [np.full(len(totals), 1 / len(totals)), totals / totals.sum()]
    best, shares = max(((value(start), start) for start in starts), key=lambda found: found[0])
    factor = FIRST_FACTOR
    while factor > LAST_FACTOR and len(totals) > 1:
        improved = False
        for index in range(len(totals)):
            for step in (factor, 1 / factor):
                tried = shares.copy()
                tried[index] *= step
                tried = np.maximum(tried / tried.sum(), LEAST_SHARE)
                tried /= tried.sum()
                found = value(tried)
                if found > best * (1 + LEAST_GAIN):
                    best, shares, improved = found, tried, True
        factor = factor if improved else math.sqrt(factor)
    return best, shares


def _best_weights(work: _Work, sizes: Floats) -> float:
    """The greatest bound found by subgradient steps from all weights 1."""
    weights, best = work.ones, -math.inf
    for step in range(1, WEIGHT_STEPS + 1):
        value, gain = work.weighted_jct_s(sizes, weights)
        best = max(best, value)
        scale = float(np.abs(gain).mean())
        if scale <= 0:
            break
        weights = np.clip(weights + gain / (scale * step), 0.0, 1.0)
    return best
