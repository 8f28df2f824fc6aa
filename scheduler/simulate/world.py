"""The simulated cluster: what runs on it advances at the speed that its trace says of the very devices it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.fake import FakeCluster, Script
from cluster.types import Node, ProgressRecord, RunObservation, RunRequest, Snapshot

from ..engine.resuming import RESUMES
from ..types import Configuration
from .types import Ending, Phase, Span, TraceJob

STEPS = 10**9
"""A job's work as its progress is reported: fine enough that a resumed job loses nothing by rounding."""
_ROUNDING = 1e-9
"""Of amounts of devices."""


@dataclass(frozen=True)
class Attempt:
    """One run of a job that is over."""

    job: str
    ended: Ending
    spans: tuple[Span, ...]


@dataclass
class _Progress:
    """How one attempt of a job advances."""

    job: TraceJob
    configuration: Configuration
    spread: bool
    done: float
    """Share of the work when it began."""
    began_s: float


class SimulatedCluster(FakeCluster):
    """A `FakeCluster` whose runs are the jobs of a trace.

    A job that is stopped writes a checkpoint first; one that loses a node goes on from its last, which is at most
    `checkpoint_every_s` seconds of work old. Kinds that have no checkpoints begin again.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        now: Callable[[], float],
        jobs: Mapping[str, TraceJob],
        checkpoint_every_s: float = 600.0,
    ) -> None:
        super().__init__(snapshot, now, self._script)
        self._jobs, self._checkpoint_every_s = jobs, checkpoint_every_s
        self._most_on_a_node: Counter[str] = Counter()
        for node in snapshot.nodes:
            self._count(node)
        self._done: dict[str, float] = {}
        self._advancing: dict[str, _Progress] = {}
        self._over: set[str] = set()
        self._shown: dict[str, tuple[Node, list[float], Node]] = {}
        self.attempts: list[Attempt] = []
        """All runs that are over, in the order they were seen to be."""

    # Observer

    def snapshot(self) -> Snapshot:
        """As the fake's; runs that are over and were observed are forgotten first."""
        for run_id in self._over:
            self._world.runs.pop(run_id, None)
            self._delivered.pop(run_id, None)
        self._over.clear()
        return super().snapshot()

    def _with_free(self, node: Node, held: Mapping[tuple[str, str], float]) -> Node:
        """As the fake's; a node of which as much is held as the last time is the same object."""
        used = [held.get((node.node_id, each.resource), 0.0) for each in node.devices]
        known = self._shown.get(node.node_id)
        if known is None or known[0] is not node or known[1] != used:
            known = self._shown[node.node_id] = node, used, super()._with_free(node, held)
        return known[2]

    def check(self) -> None:
        """As the fake's, which also finds out who it was: it is asked where something is wrong."""
        for (node_id, resource), amount in self._held().items():
            node = self._world.nodes.get(node_id)
            total = sum(each.total for each in node.devices if each.resource == resource) if node is not None else -1
            if amount > total + _ROUNDING:
                super().check()

    # Executor

    def observe(self, run_ids: Collection[str]) -> dict[str, RunObservation]:
        """As the fake's; keeps what became of the runs that are over."""
        found = super().observe(run_ids)
        for run_id, observation in found.items():
            if observation.ended and run_id in self._advancing:
                self._close(run_id, observation)
        return found

    def progress(self, run_id: str) -> Sequence[ProgressRecord]:
        """The fake's records, and of what has checkpoints how much of the work is done."""
        records = list(super().progress(run_id))
        run = self._world.runs.get(run_id)
        if run is None:
            return records
        job_id = run.request.job.workload_id
        if self._jobs[job_id].kind not in RESUMES:
            return records  # nobody knows how far it is
        advancing = self._advancing.get(run_id)
        share = self._share(run_id, self._now()) if advancing is not None else self._done.get(job_id, 0.0)
        step = {"t": self._now(), "kind": "step", "step": int(share * STEPS), "total_steps": STEPS}
        saved = {**step, "kind": "checkpoint"}  # what a stop now would write first
        last = [record for record in records if record["kind"] in ("done", "failed")]
        return [*(record for record in records if record not in last), step, saved, *last]

    def add_node(self, node: Node) -> None:
        """A node joins, or comes back."""
        super().add_node(node)
        self._count(node)

    def _count(self, node: Node) -> None:
        for devices in node.devices:
            self._most_on_a_node[devices.device_type] = max(self._most_on_a_node[devices.device_type], devices.total)

    def held_now(self) -> dict[str, tuple[Span, ...]]:
        """What the jobs hold that still run, by job."""
        return {
            each.job.id: self._spans(run_id, each, self._now(), "running") for run_id, each in self._advancing.items()
        }

    def measured(self, after_s: float) -> Iterator[tuple[TraceJob, Configuration, float]]:
        """Of every run that is not over, or was not yet seen to be: when its speed is known, which is after so many
        seconds of work, or at its end."""
        for run_id, each in self._advancing.items():
            run = self._world.runs[run_id]
            known_s = each.began_s + each.job.startup_s + min(after_s, run.script.run_s)
            if known_s <= run.end_s:
                yield each.job, each.configuration, known_s

    # Jobs

    def _script(self, request: RunRequest) -> Script:
        job = self._jobs[request.job.workload_id]
        configuration = Configuration.of(Counter(shard.device_type for shard in request.job.shards))
        nodes = {(shard.device_type, shard.node_id) for shard in request.job.shards}
        needed = sum(-(-count // max(1, self._most_on_a_node[name])) for name, count in configuration.groups)
        progress = _Progress(job, configuration, len(nodes) > needed, self._done.get(job.id, 0.0), self._now())
        self._advancing[request.job.run_id] = progress
        return Script(run_s=_seconds(progress), startup_s=job.startup_s)

    def _share(self, run_id: str, at_s: float) -> float:
        """Share of a job's work that is done while an attempt runs."""
        progress = self._advancing[run_id]
        return _advanced(progress, max(0.0, at_s - progress.began_s - progress.job.startup_s))

    def _close(self, run_id: str, observation: RunObservation) -> None:
        progress = self._advancing.pop(run_id)
        ended_s = self._now() if observation.ended_s is None else observation.ended_s
        worked_s = max(0.0, ended_s - progress.began_s - progress.job.startup_s)
        ended: Ending = "failed" if observation.state not in ("succeeded", "stopped") else observation.state
        if ended == "succeeded":
            self._done[progress.job.id] = 1.0
        elif progress.job.kind in RESUMES:
            if ended == "failed":
                worked_s -= worked_s % self._checkpoint_every_s
            self._done[progress.job.id] = _advanced(progress, worked_s)
        self.attempts.append(Attempt(progress.job.id, ended, self._spans(run_id, progress, ended_s, ended)))
        self._over.add(run_id)

    def _spans(self, run_id: str, progress: _Progress, ended_s: float, ended: Ending) -> tuple[Span, ...]:
        shards = self._world.runs[run_id].request.job.shards
        held = Counter((shard.node_id, shard.device_type) for shard in shards)
        return tuple(Span(node, name, n, progress.began_s, ended_s, ended) for (node, name), n in sorted(held.items()))


def _phases(progress: _Progress) -> list[tuple[float, float, float]]:
    """(begins, ends, units a second) of what is still to come, in shares of the work."""
    phases = progress.job.phases
    ends = [*(phase.begins for phase in phases[1:]), 1.0]
    return [
        (max(phase.begins, progress.done), end, _rate(phase, progress))
        for phase, end in zip(phases, ends, strict=True)
        if end > progress.done
    ]


def _rate(phase: Phase, progress: _Progress) -> float:
    packed = phase.rates.get(progress.configuration, 0.0)
    return phase.spread_rates.get(progress.configuration, packed) if progress.spread else packed


def _seconds(progress: _Progress) -> float:
    """Seconds of work to the end; endless where a phase makes no progress."""
    work = progress.job.work
    return sum((end - begin) * work / rate if rate > 0 else 1e15 for begin, end, rate in _phases(progress))


def _advanced(progress: _Progress, seconds: float) -> float:
    """Share of the work done after so many seconds of it."""
    done = progress.done
    for begin, end, rate in _phases(progress):
        gained = min(end - begin, seconds * rate / progress.job.work)
        done += gained
        seconds -= gained * progress.job.work / rate if rate > 0 else seconds
        if gained < end - begin:
            break
    return min(1.0, done)
