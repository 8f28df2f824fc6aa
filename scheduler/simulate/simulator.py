"""Runs `Engine.run_cycle()` on a virtual clock over the jobs of a trace: the very engine that the service runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.types import Snapshot

from ..engine import Engine
from ..engine.reconcile import Stop
from ..engine.report import CycleReport
from ..policy import Policy
from ..policy.renting import IDLE
from ..states import ENDED, HOLDS_DEVICES
from ..store import Event, MemoryStore, Record
from ..types import Plan, QueueRules, Situation
from .fairness import fair_seconds
from .nodes import Failures, Nodes
from .pace import Pace, watched
from .profiler import TraceProfiler
from .types import JobResult, NodeRental, Sample, SimulationResult, Span, Trace, TraceJob
from .world import SimulatedCluster

AGAIN = 4
"""Cycles at one moment, at most: what is stopped in one is placed in the next."""
LEARNS_AFTER_S = 60.0
"""Of work, then the speed of a job's family on its configuration is known."""
_IDLE_CYCLES = 3
"""Cycles without anything that runs, comes or changes, after which nothing ever will."""
_LIVE = ("pending", "queued", *sorted(HOLDS_DEVICES))


@dataclass(frozen=True)
class Options:
    """What is simulated beside the trace."""

    round_s: float | None = None
    """Plan every so many seconds and at no other time, as round-based schedulers do; None: whenever something
    happens, and in between after `tick_s`, then after ever longer."""
    tick_s: float = 60.0
    longest_tick_s: float = 1800.0
    """The interval doubles up to this as long as a cycle changes nothing. Not over `tick_s`: it never does."""
    noise: float = 0.0
    """Standard deviation of the logarithm of predicted / true seconds, of each family on each configuration."""
    learns: bool = False
    """What ran for a minute on a configuration is predicted without error there from then on, and all of its family."""
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
            name: "yes" if value is True else f"{value:g}"
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
    queues: Mapping[str, QueueRules] | None = None,
) -> SimulationResult:
    """One policy on one trace. `on_progress` is told the number of jobs that ended, and the time."""
    return _Simulation(trace, snapshot, policy, options or Options(), seed, queues or {}).run(on_progress)


@dataclass
class _TimedPolicy:
    """A policy, and the real seconds that its plans took."""

    policy: Policy
    name: str
    seconds: list[float] = field(default_factory=list)

    def plan(self, situation: Situation) -> Plan:
        start = time.perf_counter()
        plan = self.policy.plan(situation)
        self.seconds.append(time.perf_counter() - start)
        return plan

    def taken(self) -> tuple[float, ...]:
        """The seconds since this was asked last."""
        seconds, self.seconds = tuple(self.seconds), []
        return seconds


class _Simulation:
    """One run. `now_s` is the clock."""

    def __init__(
        self,
        trace: Trace,
        snapshot: Snapshot,
        policy: Policy,
        options: Options,
        seed: int,
        queues: Mapping[str, QueueRules],
    ) -> None:
        self.trace, self.snapshot, self.options, self.seed = trace, snapshot, options, seed
        self.now_s = min((job.arrives_s for job in trace.jobs), default=0.0)
        self.policy = _TimedPolicy(policy, policy.name)
        jobs = {job.id: job for job in trace.jobs}
        self.names = {job.id: f"job-{number}" for number, job in enumerate(trace.jobs)}
        self.cluster = SimulatedCluster(snapshot, lambda: self.now_s, jobs, options.checkpoint_every_s)
        failures = Failures(options.node_failures_per_h, options.launch_s, options.launch_failures)
        self.nodes = Nodes.of(self.cluster, snapshot, failures, seed, lambda: self.now_s)
        self.store = MemoryStore(keep_events=False)
        self.profiler = TraceProfiler({self.names[name]: job for name, job in jobs.items()}, options.noise, seed)
        self.engine = Engine(
            self.store,
            self.cluster,
            self.cluster,
            self.policy,
            self.profiler,
            lambda: self.now_s,
            seed=seed,
            provider=self.nodes.provider,
            queues=queues,
        )
        submitted = submitted_s(trace.jobs)
        self.waiting = sorted(((submitted[job.id], job) for job in trace.jobs), key=lambda each: each[0])
        self.live: Sequence[Record] = ()
        """As of the last cycle."""
        self.samples: list[Sample] = []
        self.pace = Pace(options.tick_s, options.longest_tick_s)
        self.idle = 0
        self.gives_back = False
        """Whether rented nodes stand idle that the policy will give back, or are still to join."""

    def run(self, on_progress: Callable[[int, float], None]) -> SimulationResult:
        notes = []
        while self.waiting or self.live or self.gives_back:
            happened = [self.nodes.apply(self.now_s), self._submit(), self._learn()]
            changed = self._cycles() or any(happened)
            on_progress(len(self.names) - len(self.waiting) - len(self.live), self.now_s)
            next_s = self._next_s(self.pace.after(changed=changed))
            if next_s is None:
                what = "is there or joins" if self.snapshot.node_types else "is there"
                notes.append(f"{len(self.live)} jobs never ran: nothing that {what} can hold them")
                break
            if next_s > self.options.limit_s:
                self.now_s = max(self.now_s, self.options.limit_s)
                notes.append(f"cut off after {self.options.limit_s:g} s with {len(self.live)} jobs unfinished")
                break
            self.now_s = next_s
        return self._result(notes)

    def _submit(self) -> bool:
        """Whether anything came."""
        before = len(self.waiting)
        while self.waiting and self.waiting[0][0] <= self.now_s:
            job = self.waiting.pop(0)[1]
            needs = tuple(need for need in job.needs if need in self.names)
            self.store.add([_record(job, self.names[job.id], needs)], [Event("submitted", "it arrived", job.id)])
        return len(self.waiting) < before

    def _learn(self) -> bool:
        """What runs has shown by now how fast its family is there: all of the family is estimated anew."""
        if not self.options.learns:
            return False
        learnt = set()
        for job, configuration, at_s in self.cluster.measured(LEARNS_AFTER_S):
            if at_s <= self.now_s and not self.profiler.knows(job.family, str(configuration)):
                self.profiler.learn(job.family, str(configuration))
                learnt.add(job.family)
        if learnt:
            for record in self.store.select(states=("queued", *HOLDS_DEVICES)):
                if record.work is not None and record.work.family in learnt:
                    self.store.put(replace(record, work=self.profiler.work_of(record.name)))
        return bool(learnt)

    def _cycles(self) -> bool:
        """Cycles of this moment: as long as what one stops lets the next start something. Whether anything changed, or
        soon may."""
        ended, changed, report = len(self.cluster.attempts), False, None
        for _ in range(AGAIN):
            report = self.engine.run_cycle()
            changed |= report is None or bool(report.actions or report.node_actions)
            if report is None or not any(isinstance(action, Stop) for action in report.actions):
                break
        self.live = self.store.select(states=_LIVE)
        if report is not None:
            self._sample(report)
            self.gives_back = bool(report.plan.memory.get(IDLE)) or self.nodes.provider.launching > 0
            changed |= watched(report, self.live, self.now_s)
        return changed or len(self.cluster.attempts) > ended

    def _sample(self, report: CycleReport) -> None:
        running = [record for record in self.live if record.placement is not None]
        busy = Counter(name for record in running for name, _ in (record.placement.devices if record.placement else ()))
        total = dict.fromkeys(report.situation.snapshot.device_types, 0)
        for node in report.situation.snapshot.nodes:
            for each in node.devices:
                total[each.device_type] += each.total
        prices = [record.price_usd_h for record in running]
        self.samples.append(
            Sample(
                self.now_s,
                sum(record.state == "queued" for record in self.live),
                len(running),
                dict(busy),
                total,
                None if None in prices else sum(price for price in prices if price is not None),
                dict(report.plan.congestion_usd_h),
                self.policy.taken(),
            )
        )
        self.idle = 0 if running else self.idle + 1

    def _next_s(self, tick_s: float) -> float | None:
        """When the next cycle is; None where nothing will ever change."""
        arrival_s = self.waiting[0][0] if self.waiting else math.inf
        end_s = self.cluster.next_end_s()
        retry_s = min((at_s for each in self.live if (at_s := each.not_before_s or 0.0) > self.now_s), default=math.inf)
        still = not self.waiting and end_s is None and not self.nodes.may_come and math.isinf(retry_s)
        if self.live and self.idle >= _IDLE_CYCLES and still and not self.gives_back:
            return None  # that a node is lost would help nobody
        if not self.live and not self.waiting and not self.gives_back:
            return self.now_s
        if self.options.round_s is not None:
            away_s = self.options.round_s if self.live or self.gives_back else arrival_s - self.now_s
            return self.now_s + max(1, math.ceil(away_s / self.options.round_s)) * self.options.round_s
        if not self.live and not self.gives_back:
            return arrival_s
        end_s = math.inf if end_s is None else end_s
        event_s = min(arrival_s, end_s, retry_s, self.nodes.next_s(), self._lesson_s())
        return max(self.now_s + 1e-3, min(event_s, self.now_s + tick_s))

    def _lesson_s(self) -> float:
        """When what runs will next have shown how fast it is."""
        if not self.options.learns:
            return math.inf
        return min(
            (
                at_s
                for job, configuration, at_s in self.cluster.measured(LEARNS_AFTER_S)
                if at_s > self.now_s and not self.profiler.knows(job.family, str(configuration))
            ),
            default=math.inf,
        )

    def _result(self, notes: list[str]) -> SimulationResult:
        spans: dict[str, list[Span]] = {}
        endings: Counter[tuple[str, str]] = Counter()
        for attempt in self.cluster.attempts:
            spans.setdefault(attempt.job, []).extend(attempt.spans)
            endings[attempt.job, attempt.ended] += 1
        for name, held in self.cluster.held_now().items():
            spans.setdefault(name, []).extend(held)
        records = {record.id: record for record in self.store.select()}
        most = self.snapshot.with_rentable()
        totals = {name: most.total(name) for name in most.device_types}
        came = [replace(job, arrives_s=_arrived_s(job, records)) for job in self.trace.jobs if job.id in records]
        lives = {
            job.id: (job.arrives_s, self.now_s if (ended := records[job.id].ended_s) is None else ended) for job in came
        }
        fair = fair_seconds({job.id: job for job in came}, lives, totals)
        jobs = [
            _job_result(job, records[job.id], endings, tuple(spans.get(job.id, ())), fair[job.id], totals, self.now_s)
            for job in came
        ]
        text = self.options.as_text()
        rentals = self._rentals()
        return SimulationResult(self.policy.name, self.trace.name, self.seed, jobs, self.samples, text, notes, rentals)

    def _rentals(self) -> list[NodeRental] | None:
        if not self.snapshot.node_types:
            return None
        there = {node.node_id for node in self.snapshot.nodes}
        return [
            NodeRental(
                node=each.node_id,
                node_type=each.node_type.name,
                devices=sum(count for _, count in each.node_type.devices),
                usd_h=each.node_type.price_usd_h,
                asked_s=each.asked_s,
                joined_s=None if each.fails or each.joins_s > self.now_s else each.joins_s,
                ended_s=self.now_s if each.ended_s is None else each.ended_s,
                failed=each.fails and each.joins_s <= self.now_s,
                launched=each.node_id not in there,
            )
            for each in self.nodes.provider.rentals()
        ]


def submitted_s(jobs: Sequence[TraceJob]) -> dict[str, float]:
    """When each job is known to the scheduler: not before everything it needs is."""
    known = {job.id: job.arrives_s for job in jobs}
    while True:
        after = {job.id: max([known[job.id], *(known[need] for need in job.needs if need in known)]) for job in jobs}
        if after == known:
            return known
        known = after


def _arrived_s(job: TraceJob, records: Mapping[str, Record]) -> float:
    """When everything that it needs had succeeded."""
    needs = [records[name] for name in job.needs if name in records]
    ends = [need.ended_s for need in needs if need.state == "succeeded" and need.ended_s is not None]
    return max([job.arrives_s, *ends])


_BODIES: Mapping[str, Mapping[str, Any]] = {
    "train": {"entrypoint": "trace:job"},
    "batch-infer": {"input": "trace", "entrypoint": "trace:job"},
    "preprocess": {"input": "trace", "entrypoint": "trace:job"},
    "command": {"command": "trace job"},
}


def _record(job: TraceJob, name: str, needs: tuple[str, ...]) -> Record:
    """A job as a user would have submitted it: a body of their own, on any of the configurations."""
    counts = sorted({c.devices for c in job.configurations})
    types = sorted({device for c in job.configurations for device, _ in c.groups})
    resources: dict[str, Any] = {"devices": types, "count": f"{counts[0]}..{counts[-1]}"}
    if any(len(c.groups) > 1 for c in job.configurations):
        resources["mix"] = True
    spec: dict[str, Any] = {
        "kind": job.kind,
        "name": name,
        **_BODIES.get(job.kind, {}),
        "resources": resources,
        "objective": job.objective,
        "priority": job.priority,
        "queue": job.queue,
        "retries": 100,
    }
    return Record(
        job.id,
        name,
        job.kind,
        spec,
        "pending",
        job.arrives_s,
        f"/trace/{name}",
        f"/trace/{name}",
        needs=needs,
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
        started_s=min((span.began_s for span in spans), default=None),
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
