"""A world whose service is killed at one chosen call to its store, its cluster or its provider, before the call or after
it, and a watch over the cluster that outlives every such kill.

The kill is a BaseException: nothing in the engine may catch it. What the engine had in memory is gone with it; what the
store had committed and what the cluster had begun stays. Calls by a user (submit, cancel) go past the injector.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.fake import FakeCluster, Script
from cluster.types import RunRequest
from scheduler.states import ENDED, HOLDS_DEVICES, TRANSITIONS
from scheduler.store import Store
from world import World

STORE_CALLS = (
    "put", "put_all", "append", "save_calibration", "save_policy_memory", "save_last_look", "select", "get",
)  # fmt: skip
CLUSTER_CALLS = ("snapshot", "start", "observe", "stop", "progress")
PROVIDER_CALLS = ("request", "release")
ADOPTED_WITHIN = 2
"""Cycles after the return."""
STATE_OF = {
    "submitted": "pending", "queued": "queued", "retry": "queued", "starting": "starting", "running": "running",
    "stopping": "stopping", "succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip
"""What an event of a kind says of the state after it; other kinds change none."""


class Killed(BaseException):
    """The process is gone."""


class Injector:
    """Counts calls; point 2n is before call n, point 2n+1 after it. Raises Killed at the points it is told."""

    def __init__(self, points: Sequence[int] = ()) -> None:
        self.points = list(points)
        self.count = 0
        self.at = ""

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call, unless the process dies before it, or after it."""
        self._point(f"before {name}")
        found = method(*args, **kwargs)
        self._point(f"after {name}")
        return found

    def _point(self, at: str) -> None:
        self.count += 1
        if self.points and self.count > self.points[0]:
            self.points.pop(0)
            self.count, self.at = 0, at
            raise Killed(at)


class Through:
    """Another object, whose named methods go through the injector."""

    def __init__(self, target: Any, names: Sequence[str], injector: Injector) -> None:
        self._target, self._names, self._injector = target, names, injector

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._names:
            return found
        return lambda *args, **kwargs: self._injector.call(name, found, *args, **kwargs)


class Watch:
    """Every run that ever began on the cluster, with what must hold when it began."""

    def __init__(self) -> None:
        self.began: Counter[str] = Counter()
        self.completed: dict[str, set[str]] = defaultdict(set)

    def on(self, cluster: FakeCluster, request: RunRequest, needs: Sequence[str]) -> None:
        """A run begins: it has not been here before, no other of its workload lives, what it needs is complete."""
        job = request.job
        self.note(cluster)
        self.began[job.run_id] += 1
        alive = [each.run_id for each in cluster.active_runs() if each.workload_id == job.workload_id]
        assert not alive, f"{job.run_id} begins while {alive} is alive"
        assert not self.completed[job.workload_id], f"{job.run_id} begins, and {job.workload_id} was complete"
        missing = [need for need in needs if not self.completed[need]]
        assert not missing, f"{job.run_id} begins without {missing}"

    def note(self, cluster: FakeCluster) -> None:
        """Remember which runs have come to a good end by now."""
        for run_id, run in cluster._world.runs.items():
            if run.state_at(cluster._now())[0] == "succeeded":
                self.completed[run.request.job.workload_id].add(run_id)


class CrashingWorld(World):
    """A `World` on a file, whose service dies where the injector says and comes back in the next second."""

    def __init__(self, path: Path, injector: Injector, policy: str = "market", **fields: Any) -> None:
        self.path, self.injector, self.watch = path, injector, Watch()
        self.needs: dict[str, tuple[str, ...]] = {}
        self.crashes: list[str] = []
        super().__init__(path, policy=policy, **fields)

    def _engine(self) -> Any:
        self._watch_starts()
        through = self.injector
        plain = self.store, self.cluster, self.provider
        self.store = Through(self.store, STORE_CALLS, through)  # type: ignore[assignment]
        self.cluster = Through(self.cluster, CLUSTER_CALLS, through)  # type: ignore[assignment]
        self.provider = Through(self.provider, PROVIDER_CALLS, through)  # type: ignore[assignment]
        try:
            return super()._engine()
        finally:
            self.store, self.cluster, self.provider = plain

    def _watch_starts(self) -> None:
        cluster, start = self.cluster, self.cluster.start
        if "start" in vars(cluster):
            return

        def watched(request: RunRequest) -> None:
            if request.job.run_id not in cluster._world.runs:
                self.watch.on(cluster, request, self.needs.get(request.job.workload_id, ()))
            start(request)

        cluster.start = watched  # type: ignore[method-assign]

    def submit(self, name: str, *needs: str, **fields: Any) -> str:
        """As in a World."""
        self.needs[name] = needs
        return super().submit(name, *needs, **fields)

    def restart(self) -> None:
        """A new process: the store is opened from its file, the cluster is as it is."""
        self.store.close()
        self.store = Store(self.path)
        super().restart()

    def cycle(self, advance_s: float = 1.0) -> Any:
        """A cycle, or the death of the service in it and its return."""
        self.now_s += advance_s
        alive = [job.run_id for job in self.cluster.active_runs()]
        try:
            report = self.engine.run_cycle()
        except Killed as killed:
            self.crashes.append(str(killed))
            alive += [job.run_id for job in self.cluster.active_runs() if job.run_id not in alive]
            self._come_back(alive)
            return None
        self.watch.note(self.cluster)
        return report

    def _come_back(self, alive: Sequence[str]) -> None:
        """The next process: within two cycles, every run that lived and lives is known and every one that is on record
        is on the cluster. May die as well."""
        while True:
            self.restart_until_there()
            try:
                for _ in range(ADOPTED_WITHIN):
                    self.now_s += 0.25
                    self.engine.run_cycle()
                break
            except Killed as killed:
                self.crashes.append(str(killed))
        self.check_adopted(alive)

    def restart_until_there(self) -> None:
        """Start again as often as a start dies."""
        while True:
            try:
                self.restart()
                return
            except Killed as killed:
                self.crashes.append(str(killed))

    def check_adopted(self, alive: Sequence[str]) -> None:
        """What lives is on record under its run id, and what is on record is on the cluster."""
        self.watch.note(self.cluster)
        holding = {r.run_id: r for r in self.store.select(states=HOLDS_DEVICES)}
        living = {job.run_id for job in self.cluster.active_runs()}
        assert living <= set(holding), f"nobody watches {living - set(holding)}"
        assert set(holding) <= set(self.cluster._world.runs), "on record, and not on the cluster"
        assert living.issuperset({run for run in alive if run in holding and holding[run].state == "running"} & living)

    def check(self) -> None:
        """What must hold at the end."""
        super().check()
        assert all(count == 1 for count in self.watch.began.values()), f"begun twice: {self.watch.began}"
        for record in self.store.select():
            self._check_log(record.id)
            done = self.watch.completed[record.id]
            if record.state == "succeeded":
                assert done == {record.run_id}, f"{record.id} was completed by {done}, recorded is {record.run_id}"
            else:
                assert not done, f"{record.id} is {record.state}, and {done} completed it"

    def _check_log(self, name: str) -> None:
        """A workload's events tell of an unbroken way through the table of states, to one end."""
        states = [state for kind in self.kinds(name) if (state := STATE_OF.get(kind)) is not None]
        assert states[0] == "pending", states
        for before, after in pairwise(states):
            assert before == after == "pending" or (before, after) in TRANSITIONS, f"{name}: {before} to {after}"
        ends = [state for state in states if state in ENDED]
        assert len(ends) == 1 and states[-1] in ENDED, f"{name}: {states}"
        assert states[-1] == self.get(name).state


def plays(scenario: Callable[[CrashingWorld], None], path: Path, points: Sequence[int] = ()) -> CrashingWorld:
    """A scenario on a file of its own, with kills at these points: each counts from the one before it."""
    world = CrashingWorld(path, Injector(points))
    scenario(world)
    world.run_until_ended()
    world.check()
    return world


LONG = Script(run_s=30.0)
