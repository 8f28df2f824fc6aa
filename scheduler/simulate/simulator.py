"""Runs `Engine.run_cycle()` on a virtual clock over the jobs of a trace: the very engine that the service runs."""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.types import Node, Snapshot
from workloads.spec import WorkloadSpec

from ..engine import Engine, Upstream
from ..engine.engine import CycleReport
from ..engine.reconcile import Stop
from ..estimate.work import Work
from ..policy import Policy
from ..states import ENDED
from ..store import Event, MemoryStore, Record
from ..types import Plan, Situation
from .fairness import fair_seconds
from .types import JobResult, Sample, SimulationResult, Span, Trace, TraceJob
from .world import SimulatedCluster

AGAIN = 4
"""Cycles at one moment, at most: what is stopped in one is placed in the next."""
_IDLE_CYCLES = 3
"""Cycles without anything that runs, comes or changes, after which nothing ever will."""


@dataclass(frozen=True)
class Options:
    """What is simulated beside the trace."""

    round_s: float | None = None
    """Plan every so many seconds and at no other time, as round-based schedulers do; None: whenever something
    happens, and every `tick_s`."""
    tick_s: float = 60.0
    noise: float = 0.0
    """Standard deviation of the logarithm of predicted / true seconds, of each family on each configuration."""
    node_failures_per_h: float = 0.0
    """Of each node; spot nodes are taken back as often as their catalog says besides."""
    launch_s: float = 180.0
    """Until a lost node is there again."""
    launch_failures: float = 0.0
    """Share of the launches that fail, and are tried again."""
    checkpoint_every_s: float = 600.0
    limit_s: float = math.inf
    """Simulated seconds after which it is cut off."""

    def as_text(self) -> dict[str, str]:
        """What differs from the defaults, for the reader."""
        default = Options()
        return {
            name: f"{value:g}"
            for name, value in vars(self).items()
            if value is not None and value != vars(default)[name]
        }


def simulate(
    trace: Trace,
    snapshot: Snapshot,
    policy: Policy,
    options: Options | None = None,
    seed: int = 0,
    on_progress: Callable[[int, float], None] = lambda *_: None,
) -> SimulationResult:
    """One policy on one trace. `on_progress` is told the number of jobs that ended, and the time."""
    return _Simulation(trace, snapshot, policy, options or Options(), seed).run(on_progress)


class TraceProfiler:
    """Says how long a job of the trace takes on each configuration: what is true, times an error of its own for each
    family and configuration."""

    def __init__(self, jobs: Mapping[str, TraceJob], noise: float, seed: int) -> None:
        """`jobs` by the name of their spec."""
        self._jobs, self._noise, self._seed = jobs, noise, seed

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        """The work in numbers."""
        del upstream
        job = self._jobs[spec.name]
        seconds = {str(c): s * self.error(job.family, str(c)) for c in job.configurations if (s := job.seconds(c))}
        return Work("train", job.family, samples=job.work, declared_by=seconds, startup_s=job.startup_s)

    def error(self, family: str, configuration: str) -> float:
        """Predicted / true; the same in every run with the same seed."""
        if self._noise <= 0:
            return 1.0
        key = zlib.crc32(f"{family}\t{configuration}".encode())
        return float(np.exp(self._noise * np.random.default_rng([self._seed, key]).standard_normal()))


@dataclass
class _TimedPolicy:
    """A policy, and the real seconds that its last plan took."""

    policy: Policy
    name: str
    seconds: float = 0.0

    def plan(self, situation: Situation) -> Plan:
        start = time.perf_counter()
        plan = self.policy.plan(situation)
        self.seconds = time.perf_counter() - start
        return plan


@dataclass
class _Nodes:
    """When nodes are lost and come back."""

    cluster: SimulatedCluster
    options: Options
    random: np.random.Generator
    losses: list[tuple[float, Node]] = field(default_factory=list)
    returns: list[tuple[float, Node]] = field(default_factory=list)

    @classmethod
    def of(cls, cluster: SimulatedCluster, snapshot: Snapshot, options: Options, seed: int) -> _Nodes:
        """Every node's first loss is drawn, in the order of the nodes."""
        nodes = cls(cluster, options, np.random.default_rng([seed, 1]))
        nodes._types = snapshot.device_types
        for node in snapshot.nodes:
            nodes._live(node, 0.0)
        return nodes

    _types: Mapping[str, Any] = field(default_factory=dict)

    def _live(self, node: Node, now_s: float) -> None:
        per_h = self.options.node_failures_per_h
        if node.market == "spot":
            per_h += max((self._types[d.device_type].interruptions_per_h or 0.0 for d in node.devices), default=0.0)
        if per_h > 0 and not node.is_head:
            self.losses.append((now_s + float(self.random.exponential(3600 / per_h)), node))

    def next_s(self) -> float:
        """When something happens to a node next."""
        return min((at_s for at_s, _ in (*self.losses, *self.returns)), default=math.inf)

    def apply(self, now_s: float) -> None:
        """What has happened by now."""
        for at_s, node in sorted((each for each in self.losses if each[0] <= now_s), key=lambda each: each[0]):
            self.losses.remove((at_s, node))
            self.cluster.lose_node(node.node_id)
            tries = int(self.random.geometric(1 - self.options.launch_failures))
            self.returns.append((at_s + tries * self.options.launch_s, node))
        for at_s, node in sorted((each for each in self.returns if each[0] <= now_s), key=lambda each: each[0]):
            self.returns.remove((at_s, node))
            self.cluster.add_node(node)
            self._live(node, at_s)


class _Simulation:
    """One run. `now_s` is the clock."""

    def __init__(self, trace: Trace, snapshot: Snapshot, policy: Policy, options: Options, seed: int) -> None:
        self.trace, self.snapshot, self.options, self.seed = trace, snapshot, options, seed
        self.now_s = min((job.arrives_s for job in trace.jobs), default=0.0)
        self.policy = _TimedPolicy(policy, policy.name)
        jobs = {job.id: job for job in trace.jobs}
        names = {job.id: f"job-{number}" for number, job in enumerate(trace.jobs)}
        self.names = names
        self.cluster = SimulatedCluster(snapshot, lambda: self.now_s, jobs, options.checkpoint_every_s)
        self.nodes = _Nodes.of(self.cluster, snapshot, options, seed)
        self.store = MemoryStore(keep_events=False)
        profiler = TraceProfiler({names[name]: job for name, job in jobs.items()}, options.noise, seed)
        self.engine = Engine(
            self.store, self.cluster, self.cluster, self.policy, profiler, lambda: self.now_s, seed=seed
        )
        self.waiting = sorted(trace.jobs, key=lambda job: job.arrives_s)
        self.samples: list[Sample] = []
        self.idle = 0
        self.ended = 0

    def run(self, on_progress: Callable[[int, float], None]) -> SimulationResult:
        notes = []
        while self.waiting or self._live():
            self.nodes.apply(self.now_s)
            self._submit()
            self._cycles()
            on_progress(self.ended, self.now_s)
            next_s = self._next_s()
            if next_s is None:
                notes.append(f"{self._live()} jobs never ran: nothing that is there can hold them")
                break
            if next_s > self.options.limit_s:
                self.now_s = max(self.now_s, self.options.limit_s)
                notes.append(f"cut off after {self.options.limit_s:g} s with {self._live()} jobs unfinished")
                break
            self.now_s = next_s
        return self._result(notes)

    def _live(self) -> int:
        return len(self.store.select(states=("pending", "queued", "starting", "running", "stopping")))

    def _submit(self) -> None:
        while self.waiting and self.waiting[0].arrives_s <= self.now_s:
            job = self.waiting.pop(0)
            self.store.add([_record(job, self.names[job.id])], [Event("submitted", "it arrived", job.id)])

    def _cycles(self) -> None:
        """Cycles of this moment: as long as what one stops lets the next start something."""
        decision_s, report = 0.0, None
        for _ in range(AGAIN):
            report = self.engine.run_cycle()
            decision_s += self.policy.seconds
            if report is None or not any(isinstance(action, Stop) for action in report.actions):
                break
        if report is not None:
            self._sample(report, decision_s)

    def _sample(self, report: CycleReport, decision_s: float) -> None:
        records = self.store.select(states=("queued", "starting", "running", "stopping"))
        running = [record for record in records if record.placement is not None]
        self.ended = len(self.names) - len(self.waiting) - len(records)
        busy = Counter(name for record in running for name, _ in (record.placement.devices if record.placement else ()))
        total = {name: report.situation.snapshot.total(name) for name in report.situation.snapshot.device_types}
        prices = [record.price_usd_h for record in running]
        usd_h = None if None in prices else sum(price for price in prices if price is not None)
        queued = len(records) - len(running)
        self.samples.append(
            Sample(
                self.now_s,
                queued,
                len(running),
                dict(busy),
                total,
                usd_h,
                dict(report.plan.congestion_usd_h),
                decision_s,
            )
        )
        self.idle = 0 if running else self.idle + 1

    def _next_s(self) -> float | None:
        """When the next cycle is; None where nothing will ever change."""
        arrival_s = self.waiting[0].arrives_s if self.waiting else math.inf
        end_s = self.cluster.next_end_s()
        event_s = min(arrival_s, math.inf if end_s is None else end_s, self.nodes.next_s())
        if self.idle >= _IDLE_CYCLES and not self.waiting and end_s is None and not self.nodes.returns:
            return None  # that a node is lost would help nobody
        live = self._live()
        if not live and not self.waiting:
            return self.now_s
        if self.options.round_s is not None:
            away_s = self.options.round_s if live else arrival_s - self.now_s
            return self.now_s + max(1, math.ceil(away_s / self.options.round_s)) * self.options.round_s
        if not live:
            return arrival_s
        return max(self.now_s + 1e-3, min(event_s, self.now_s + self.options.tick_s))

    def _result(self, notes: list[str]) -> SimulationResult:
        spans: dict[str, list[Span]] = {}
        endings: Counter[tuple[str, str]] = Counter()
        for attempt in self.cluster.attempts:
            spans.setdefault(attempt.job, []).extend(attempt.spans)
            endings[attempt.job, attempt.ended] += 1
        for name, held in self.cluster.held_now().items():
            spans.setdefault(name, []).extend(held)
        records = {record.id: record for record in self.store.select()}
        totals = {name: self.snapshot.total(name) for name in self.snapshot.device_types}
        lives = {
            job.id: (job.arrives_s, self.now_s if (ended := records[job.id].ended_s) is None else ended)
            for job in self.trace.jobs
            if job.id in records
        }
        fair = fair_seconds({job.id: job for job in self.trace.jobs if job.id in records}, lives, totals)
        jobs = [
            _job_result(job, records[job.id], endings, tuple(spans.get(job.id, ())), fair[job.id], totals, self.now_s)
            for job in self.trace.jobs
            if job.id in records
        ]
        text = self.options.as_text()
        return SimulationResult(self.policy.name, self.trace.name, self.seed, jobs, self.samples, text, notes)


def _record(job: TraceJob, name: str) -> Record:
    """A job as a user would have submitted it: a trainer of their own, on any of the configurations."""
    counts = sorted({c.devices for c in job.configurations})
    types = sorted({device for c in job.configurations for device, _ in c.groups})
    spec: dict[str, Any] = {
        "kind": "train",
        "name": name,
        "entrypoint": "trace:job",
        "resources": {"devices": types, "count": f"{counts[0]}..{counts[-1]}"},
        "objective": job.objective,
        "priority": job.priority,
        "queue": job.queue,
        "retries": 100,
    }
    return Record(
        job.id,
        name,
        "train",
        spec,
        "pending",
        job.arrives_s,
        f"/trace/{name}",
        f"/trace/{name}",
        deadline_s=job.deadline_s,
        budget_usd=job.budget_usd,
    )


def _job_result(
    job: TraceJob,
    record: Record,
    endings: Mapping[tuple[str, str], int],
    spans: tuple[Span, ...],
    fair_s: float | None,
    totals: Mapping[str, int],
    now_s: float,
) -> JobResult:
    possible = [c for c in job.configurations if all(totals.get(name, 0) >= n for name, n in c.groups)]
    alone = [seconds for c in possible if (seconds := job.seconds(c)) is not None]
    return JobResult(
        id=job.id,
        family=job.family,
        arrived_s=job.arrives_s,
        started_s=record.first_started_s,
        ended_s=record.ended_s if record.state in ENDED else None,
        state=record.state,
        spent_usd=record.cost_usd(now_s),
        attempts=record.attempt,
        preemptions=endings.get((job.id, "stopped"), 0),
        failures=endings.get((job.id, "failed"), 0),
        alone_s=min(alone) + job.startup_s if alone else None,
        fair_s=fair_s,
        deadline_s=job.deadline_s,
        budget_usd=job.budget_usd,
        spans=spans,
    )
