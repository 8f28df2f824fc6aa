"""A cluster without Ray and without time: an `Observer` and `Executor` whose runs follow a script on a virtual clock.
Supported code: unit tests and the simulator run on it. It proves as it goes that no device is held twice and no gang is
split; `check` proves it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from workloads.job import Job

from .protocols import ClusterUnreachable, LogPart
from .types import Node, NodeType, ProgressRecord, RunObservation, RunRequest, RunState, Snapshot

_EPSILON = 1e-9


@dataclass(frozen=True)
class Script:
    """What a run does. Seconds count from the start of the run; records are delivered at their time."""

    run_s: float = 10.0
    """Seconds of work after the start-up; then it succeeds."""
    startup_s: float = 0.0
    """Seconds in state `starting`."""
    fail_at_s: float | None = None
    """When it fails, where it does."""
    message: str = "failed as scripted"
    records: Sequence[tuple[float, ProgressRecord]] = ()
    """Progress records with the second at which each is written; phase `running` and `done` are added."""
    stop_s: float = 0.0
    """Seconds it takes to save and end once it is asked to, where it has begun to work."""
    saves: Sequence[ProgressRecord] = ()
    """What it writes as it ends, where it was given the time."""
    logs: str = ""

    @property
    def end_s(self) -> float:
        """When the run is over."""
        finish = self.startup_s + self.run_s
        return finish if self.fail_at_s is None else min(finish, self.fail_at_s)

    @property
    def fails(self) -> bool:
        """Whether it ends by failing."""
        return self.fail_at_s is not None and self.fail_at_s <= self.startup_s + self.run_s


@dataclass
class _Run:
    request: RunRequest
    script: Script
    started_s: float
    ended_early_s: float | None = None
    early_state: RunState = "stopped"
    early_message: str = ""
    saved: bool = False

    @property
    def end_s(self) -> float:
        scripted = self.started_s + self.script.end_s
        return scripted if self.ended_early_s is None else min(scripted, self.ended_early_s)

    def state_at(self, now_s: float) -> tuple[RunState, str]:
        early_s = self.ended_early_s
        if early_s is not None and early_s < self.started_s + self.script.end_s and now_s >= early_s:
            return self.early_state, self.early_message
        if now_s >= self.end_s:
            return ("failed", self.script.message) if self.script.fails else ("succeeded", "")
        return ("running" if now_s >= self.started_s + self.script.startup_s else "starting"), ""

    def records(self) -> list[tuple[float, ProgressRecord]]:
        script, begin_s = self.script, self.started_s
        records = [(begin_s + script.startup_s, _record("phase", begin_s + script.startup_s, phase="running"))]
        records += [(begin_s + at_s, {"t": begin_s + at_s, **record}) for at_s, record in script.records]
        if script.fails:
            records.append((self.end_s, _record("failed", self.end_s, message=script.message, retryable=True)))
        else:
            end_s = begin_s + script.end_s
            records.append((end_s, _record("done", end_s, outputs={}, metrics={})))
        last_s = self.end_s if self.ended_early_s is None else self.ended_early_s
        if self.saved:
            records += [(last_s, {"t": last_s, **record}) for record in self.script.saves]
        return sorted((each for each in records if each[0] <= last_s), key=lambda each: each[0])


def _record(kind: str, at_s: float, **values: object) -> ProgressRecord:
    return {"t": at_s, "kind": kind, **values}


@dataclass
class _World:
    """What is there, whoever looks at it."""

    nodes: dict[str, Node]
    runs: dict[str, _Run] = field(default_factory=dict)
    reachable: bool = True
    offers: Callable[[], tuple[NodeType, ...]] | None = None


class FakeCluster:
    """An `Observer` and an `Executor` over the nodes of `snapshot`.

    `now` is the clock, in seconds; it never goes back. `script_of` says what a run does; by default each works for 10 s
    and succeeds. A device that is given to two runs at once, or a shard on a node without such a device, raises
    AssertionError at `start`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        now: Callable[[], float],
        script_of: Callable[[RunRequest], Script] = lambda _: Script(),
    ) -> None:
        self._base = snapshot
        self._now = now
        self._script_of = script_of
        self._world = _World({node.node_id: node for node in snapshot.nodes})
        self._delivered: dict[str, int] = defaultdict(int)

    def reopened(self) -> FakeCluster:
        """The same cluster as another process would see it: progress is delivered from the beginning again."""
        other = FakeCluster(self._base, self._now, self._script_of)
        other._world = self._world
        return other

    # Observer

    def snapshot(self) -> Snapshot:
        """The living nodes, with what the active runs leave free. Raises ClusterUnreachable."""
        self._require_reachable()
        offers = self._world.offers() if self._world.offers is not None else self._base.node_types
        held = self._held()
        nodes = tuple(self._with_free(node, held) for node in self._world.nodes.values())
        return replace(self._base, at_s=self._now(), nodes=nodes, node_types=offers)

    # Executor

    def start(self, request: RunRequest) -> None:
        """Begin a run; nothing where it exists. Its devices are held from now until it ends."""
        self._require_reachable()
        run_id = request.job.run_id
        if run_id in self._world.runs:
            return
        run = _Run(request, self._script_of(request), self._now())
        self._world.runs[run_id] = run
        if any(shard.node_id not in self._world.nodes for shard in request.job.shards):
            self._end(run, "failed", "Ray: a node of the run is gone")
        try:
            self.check()
        except AssertionError:
            del self._world.runs[run_id]
            raise

    def observe(self, run_ids: Collection[str]) -> dict[str, RunObservation]:
        """How these runs stand now. Raises ClusterUnreachable."""
        self._require_reachable()
        return {run_id: self._observation(run_id) for run_id in run_ids}

    def stop(self, run_id: str, grace_s: float = 0.0) -> None:
        """End a run now, or as its script says once it is asked to; nothing where it has ended or is not known."""
        self._require_reachable()
        run = self._world.runs.get(run_id)
        if run is None or not self._is_active(run):
            return
        if grace_s <= 0:
            self._end(run, "stopped", "")
        elif run.ended_early_s is None:
            begun = self._now() >= run.started_s + run.script.startup_s
            wants_s = run.script.stop_s if begun else 0.0
            self._end(run, "stopped", "", after_s=min(wants_s, grace_s), saved=begun and wants_s <= grace_s)

    def progress(self, run_id: str) -> Sequence[ProgressRecord]:
        """Records that came due since the last call of this view."""
        run = self._world.runs.get(run_id)
        if run is None:
            return []
        due = [record for at_s, record in run.records() if at_s <= self._now()]
        fresh = due[self._delivered[run_id] :]
        self._delivered[run_id] = len(due)
        return fresh

    def logs(self, run_id: str) -> str:
        """The script's logs."""
        run = self._world.runs.get(run_id)
        return "" if run is None else run.script.logs

    def log_part(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        """A part of them. Raises ClusterUnreachable."""
        del fresh
        self._require_reachable()
        text = self.logs(run_id).encode(errors="replace")
        return LogPart(text[offset : offset + most], len(text))

    # What happens to it

    def lose_node(self, node_id: str) -> None:
        """A node is gone: it leaves the snapshot, and every run with a shard on it fails as a whole."""
        self._world.nodes.pop(node_id, None)
        for run in self._world.runs.values():
            if self._is_active(run) and any(shard.node_id == node_id for shard in run.request.job.shards):
                self._end(run, "failed", f"Ray: node {node_id} died")

    def give_notice(self, node_id: str, leaves_s: float) -> None:
        """It is said that a node will be gone at that time; whoever says it sees to that."""
        node = self._world.nodes.get(node_id)
        if node is not None:
            self._world.nodes[node_id] = replace(node, leaves_s=leaves_s)

    def add_node(self, node: Node) -> None:
        """A node joins, or comes back."""
        self._world.nodes[node.node_id] = node

    def offers_from(self, offers: Callable[[], tuple[NodeType, ...]]) -> None:
        """What may be rented is said by this from now on, before the nodes are looked at."""
        self._world.offers = offers

    def forget(self, run_id: str) -> None:
        """The cluster was restarted and knows nothing of this run: it is `lost`."""
        self._world.runs.pop(run_id, None)

    def set_reachable(self, reachable: bool) -> None:
        """Whether the cluster answers; runs go on either way."""
        self._world.reachable = reachable

    def active_runs(self) -> list[Job]:
        """Jobs of the runs that hold devices now."""
        return [run.request.job for run in self._world.runs.values() if self._is_active(run)]

    def next_end_s(self) -> float | None:
        """When the next active run ends; None where none is active. A simulator moves its clock by it."""
        ends = [run.end_s for run in self._world.runs.values() if self._is_active(run)]
        return min(ends, default=None)

    def check(self) -> None:
        """Raises AssertionError where a device is held twice, or an active run has a shard that holds nothing."""
        for (node_id, resource), amount in self._held().items():
            node = self._world.nodes.get(node_id)
            devices = None if node is None else next((each for each in node.devices if each.resource == resource), None)
            holders = sorted(job.run_id for job in self.active_runs() if any(s.node_id == node_id for s in job.shards))
            assert devices is not None, f"{holders}: a gang is split: node {node_id} has no {resource}"
            assert amount <= devices.total + _EPSILON, (
                f"{resource} on node {node_id} is held twice: {amount:g} of {devices.total} by {holders}"
            )

    def _end(self, run: _Run, state: RunState, message: str, after_s: float = 0.0, saved: bool = False) -> None:
        run.ended_early_s, run.early_state, run.early_message = self._now() + after_s, state, message
        run.saved = saved

    def _is_active(self, run: _Run) -> bool:
        return self._now() < run.end_s

    def _held(self) -> dict[tuple[str, str], float]:
        held: dict[tuple[str, str], float] = defaultdict(float)
        for job in self.active_runs():
            for shard in job.shards:
                for resource, amount in shard.resources.items():
                    held[shard.node_id, resource] += amount
        return held

    def _with_free(self, node: Node, held: Mapping[tuple[str, str], float]) -> Node:
        devices = tuple(
            replace(each, free=int(each.total - held.get((node.node_id, each.resource), 0.0) + _EPSILON))
            for each in node.devices
        )
        return replace(node, devices=devices)

    def _observation(self, run_id: str) -> RunObservation:
        run = self._world.runs.get(run_id)
        if run is None:
            return RunObservation(run_id, "lost", "the cluster does not know this run")
        state, message = run.state_at(self._now())
        ended_s = None if self._is_active(run) else run.end_s
        return RunObservation(run_id, state, message, run.started_s, ended_s)

    def _require_reachable(self) -> None:
        if not self._world.reachable:
            raise ClusterUnreachable("the fake cluster was made unreachable")
