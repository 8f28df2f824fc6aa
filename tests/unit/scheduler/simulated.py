"""Results of simulations that look like real ones, made in rounds by three simple policies on a made-up trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scheduler.simulate.types import Ending, JobResult, Phase, Sample, SimulationResult, Span, Trace, TraceJob
from scheduler.types import Configuration

SPEEDS = {"k80": 1.0, "p100": 2.2, "v100": 4.0}
PRICES_USD_H = {"k80": 0.45, "p100": 1.46, "v100": 2.48}
FAMILIES = tuple(
    f"{model} (batch size {size})" for model in ("ResNet-50", "LM", "CycleGAN", "A3C") for size in (16, 64, 128)
)


def nodes(per_type: int = 12, per_node: int = 4) -> dict[str, tuple[str, int]]:
    """Type and devices of each node."""
    each = range(per_type // per_node)
    return {f"{name}-{number}": (name, per_node) for name in SPEEDS for number in each}


def made_trace(jobs: int = 240, seed: int = 0, every_s: float = 480.0) -> Trace:
    """Jobs of a few families, most of one device, sizes over two orders of magnitude."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(every_s, jobs)) - every_s / 2
    made = []
    for number, arrival in enumerate(arrivals):
        family = int(random.integers(len(FAMILIES)))
        count = int(random.choice([1, 1, 1, 2, 4]))
        factors = 1 + 0.5 * np.sin(family + np.arange(len(SPEEDS)))
        rates = {
            Configuration.of({name: count}): count**0.9 * speed * float(factor)
            for (name, speed), factor in zip(SPEEDS.items(), factors, strict=True)
        }
        work = float(10 ** random.uniform(3.3, 5.2))
        deadline = float(arrival + work * random.uniform(0.4, 2.5)) if number % 3 == 0 else None
        job = TraceJob(str(number), FAMILIES[family], max(0.0, float(arrival)), work, (Phase(0.0, rates),))
        made.append(replace(job, startup_s=30.0, deadline_s=deadline, budget_usd=8.0 if number % 5 == 0 else None))
    return Trace("made-240", tuple(made))


@dataclass
class _Running:
    """A job in the made-up simulation."""

    job: TraceJob
    left: float
    spans: list[Span] = field(default_factory=list)
    where: tuple[Configuration, dict[str, int], float] | None = None
    started_s: float | None = None
    ended_s: float | None = None
    attempts: int = 0
    preemptions: int = 0
    usd: float = 0.0

    def stop(self, now_s: float, ended: Ending = "stopped") -> None:
        assert self.where is not None
        (((name, _),), taken, began) = self.where[0].groups, *self.where[1:]
        self.spans += [Span(node, name, count, began, now_s, ended) for node, count in taken.items()]
        self.usd += sum(taken.values()) * PRICES_USD_H[name] * (now_s - began) / 3600
        self.where = None

    def result(self, fair_s: float) -> JobResult:
        job = self.job
        state = "succeeded" if self.ended_s is not None else "running" if self.where else "queued"
        return JobResult(
            job.id, job.family, job.arrives_s, self.started_s, self.ended_s, state, self.usd, self.attempts,
            self.preemptions, 0, _alone_s(job), fair_s, job.deadline_s, job.budget_usd, tuple(self.spans),
        )  # fmt: skip


def _alone_s(job: TraceJob) -> float:
    return job.startup_s + min(job.seconds(each) or 0.0 for each in job.configurations)


Key = Callable[[_Running, float], float]
POLICIES: Mapping[str, tuple[Key, bool]] = {
    "fifo": (lambda run, now_s: run.job.arrives_s, False),
    "market": (lambda run, now_s: run.left, False),
    "las": (lambda run, now_s: sum(s.count * (s.ended_s - s.began_s) for s in run.spans) + (1e3 if run.where else 0), True),
}  # fmt: skip


def made_result(policy: str, trace: Trace, round_s: float = 720.0, limit_s: float = 2e6) -> SimulationResult:
    """One of `POLICIES` in rounds."""
    key, preempts = POLICIES[policy]
    cluster = nodes()
    totals = {name: sum(n for kind, n in cluster.values() if kind == name) for name in SPEEDS}
    runs = [_Running(job, job.work) for job in trace.jobs]
    samples, now_s = [], 0.0
    while any(run.ended_s is None for run in runs) and now_s < limit_s:
        there = [run for run in runs if run.job.arrives_s <= now_s and run.ended_s is None]
        _place(there, key, preempts, cluster, now_s)
        busy = {
            name: sum(run.where[0].devices for run in there if run.where and run.where[0].groups[0][0] == name)
            for name in SPEEDS
        }
        queued = sum(run.where is None for run in there)
        usd_h = sum(PRICES_USD_H[name] * count for name, count in busy.items())
        congestion = {
            name: round(0.02 * queued * SPEEDS[name], 4) if busy[name] == totals[name] else 0.0 for name in SPEEDS
        }
        samples.append(
            Sample(now_s, queued, len(there) - queued, busy, totals, usd_h, congestion, (0.004 + 0.0002 * len(there),))
        )
        for run in there:
            _progress(run, now_s, round_s)
        now_s += round_s
    samples.append(Sample(now_s, 0, 0, dict.fromkeys(SPEEDS, 0), totals, 0.0, dict.fromkeys(SPEEDS, 0.0), (0.003,)))
    jobs = tuple(run.result(fair_s=3.0 * _alone_s(run.job)) for run in runs)
    options = {"round": f"{round_s:g} s", "estimate error": "none"}
    return SimulationResult(policy, trace.name, 0, jobs, tuple(samples), options)


def _place(
    there: Sequence[_Running], key: Key, preempts: bool, cluster: dict[str, tuple[str, int]], now_s: float
) -> None:
    """The first by the key keep or get devices, on the fastest type that has some; what runs stays without `preempts`."""
    free = {node: count for node, (_, count) in cluster.items()}
    order = sorted(there, key=lambda run: (not preempts and run.where is None, key(run, now_s)))
    for run in order:
        if run.where and all(free[node] >= count for node, count in run.where[1].items()):
            for node, count in run.where[1].items():
                free[node] -= count
            continue
        if run.where:
            run.stop(now_s)
            run.preemptions += 1
        for configuration in sorted(run.job.configurations, key=lambda c: run.job.seconds(c) or 0.0):
            name, need = configuration.groups[0]
            taken: dict[str, int] = {}
            for node, (kind, _) in cluster.items():
                if kind == name and need and free[node]:
                    taken[node] = min(need, free[node])
                    need -= taken[node]
            if not need:
                for node, count in taken.items():
                    free[node] -= count
                run.where, run.attempts = (configuration, taken, now_s), run.attempts + 1
                run.started_s = now_s if run.started_s is None else run.started_s
                break


def _progress(run: _Running, now_s: float, round_s: float) -> None:
    if run.where is None:
        return
    configuration, _, began = run.where
    rate = run.job.phases[0].rates[configuration]
    working_s = round_s - (run.job.startup_s if began == now_s else 0.0)
    if run.left > rate * working_s:
        run.left -= rate * working_s
        return
    run.ended_s = now_s + round_s - working_s + run.left / rate
    run.left = 0.0
    run.stop(run.ended_s, "succeeded")
