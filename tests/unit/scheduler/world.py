"""The whole engine on a fake cluster and a virtual clock, and the invariants that every test's end is checked by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.fake import FakeCluster, Script
from cluster.fake_provider import FakeProvider
from cluster.types import NodeType, RunRequest, Snapshot
from making import standard
from scheduler.engine import Engine, Upstream
from scheduler.engine.report import CycleReport
from scheduler.estimate.work import Work
from scheduler.policy import Policy, create
from scheduler.states import ENDED, HOLDS_DEVICES
from scheduler.store import Event, Record, Store
from workloads.spec import WorkloadSpec


class FakeProfiler:
    """Says what a test told it to say; the default is a command declared to take 10 s."""

    def __init__(self) -> None:
        self.works: dict[str, Work | Exception] = {}
        self.upstream: dict[str, Mapping[str, Upstream]] = {}

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        self.upstream[spec.name] = upstream
        found = self.works.get(spec.name, Work("command", spec.name, declared_s=10.0))
        if isinstance(found, Exception):
            raise found
        return found


class World:
    """One store, one cluster, one engine; `now_s` is the clock."""

    def __init__(self, path: Path | str = ":memory:", where: Snapshot | None = None, policy: str = "market") -> None:
        self.now_s = 1000.0
        self.scripts: dict[str, Script | list[Script]] = {}
        """By workload; a list has one script an attempt."""
        self.profiler = FakeProfiler()
        self.policy: Policy = create(policy)
        self.store = Store(path)
        self.cluster = FakeCluster(where or standard(), lambda: self.now_s, self._script)
        self.launches_fail: Callable[[NodeType], bool] = lambda _: False
        self.provider = FakeProvider(self.cluster, lambda: self.now_s, self._launch_fails)
        self.engine = self._engine()
        self.submitted: list[str] = []

    def _engine(self) -> Engine:
        now = lambda: self.now_s  # noqa: E731
        provider = self.provider
        return Engine(self.store, self.cluster, self.cluster, self.policy, self.profiler, now, provider=provider)

    def _launch_fails(self, kind: NodeType) -> bool:
        return self.launches_fail(kind)

    def _script(self, request: RunRequest) -> Script:
        script = self.scripts.get(request.job.workload_id, Script())
        return script if isinstance(script, Script) else script[min(request.job.attempt, len(script)) - 1]

    def restart(self) -> None:
        """Another process takes over: it knows what is stored and what runs, nothing else."""
        self.cluster = self.cluster.reopened()
        self.engine = self._engine()

    def submit(
        self,
        name: str,
        *needs: str,
        script: Script | list[Script] | None = None,
        work: Work | Exception | None = None,
        gang: bool = False,
        **fields: Any,
    ) -> str:
        """Store a command, or a training gang, which may be spread over nodes; `fields` are those of its spec, or of
        its record (`deadline_s`, `budget_usd`)."""
        stored = {key: fields.pop(key) for key in ("deadline_s", "budget_usd", "pipeline_id") if key in fields}
        if script is not None:
            self.scripts[name] = script
        if work is not None:
            self.profiler.works[name] = work
        kind = "batch-infer" if gang else "command"
        if gang and work is None:
            self.profiler.works[name] = Work("batch-infer", name, declared_s=10.0)
        what = {"input": "/data", "entrypoint": "mine:Predictor"} if gang else {"command": "true"}
        spec = {"kind": kind, "name": name, "resources": {"devices": "cpu"}, **what, **fields}
        record = Record(
            name, name, kind, spec, "pending", self.now_s, f"/out/{name}", f"/run/{name}", needs=needs, **stored
        )
        self.store.add([record], [Event("submitted", "a user submitted it", name, at_s=self.now_s)])
        self.submitted.append(name)
        return name

    def cancel(self, name: str) -> None:
        """What the API does."""
        self.store.request_cancel(name, Event("cancel-requested", "the user asked for it", name, at_s=self.now_s))

    def cycle(self, advance_s: float = 1.0) -> CycleReport | None:
        """Let time pass, then run one cycle."""
        self.now_s += advance_s
        return self.engine.run_cycle()

    def run_until_ended(self, cycles: int = 500, advance_s: float = 1.0) -> None:
        """Cycles until every workload has ended."""
        for _ in range(cycles):
            if all(record.state in ENDED for record in self.store.select()):
                return
            self.cycle(advance_s)
        raise AssertionError(f"still going: {self.states()}")

    def get(self, name: str) -> Record:
        record = self.store.get(name)
        assert record is not None
        return record

    def said(self, name: str) -> str | None:
        """Why a workload runs where it does, or why it waits, in words."""
        assert self.engine.last_report is not None
        explanation = self.engine.last_report.explanation_of(self.get(name))
        return None if explanation is None else explanation.summary

    def states(self) -> dict[str, str]:
        """State of every workload."""
        return {record.id: record.state for record in self.store.select()}

    def kinds(self, name: str) -> list[str]:
        """What happened to a workload, in order."""
        return [event.kind for event in self.store.events(workload_id=name)]

    def event(self, name: str, kind: str) -> Event:
        """The last event of a kind."""
        return [event for event in self.store.events(workload_id=name) if event.kind == kind][-1]

    def check(self) -> None:
        """What must hold at any moment."""
        self.cluster.check()
        records = {record.id: record for record in self.store.select()}
        assert list(records) == self.submitted, "a workload was lost"
        events = self.store.events(limit=1_000_000)
        about_all = {
            "calibration-reset",
            "node-requested",
            "node-joined",
            "node-not-launched",
            "node-notice",
            "node-unasked",
        }
        about_all |= {"node-released", "node-left"}
        assert all(event.cause for event in events), "an event without a cause"
        assert all(event.workload_id in records or event.kind in about_all for event in events), "of no workload"
        assert not [event for event in events if "held twice" in event.cause or "gang" in event.cause]
        starts = Counter((event.workload_id, event.data["attempt"]) for event in events if event.kind == "starting")
        assert all(count == 1 for count in starts.values()), f"an attempt was started twice: {starts}"
        holding = {record.id for record in records.values() if record.state in HOLDS_DEVICES}
        running = {job.workload_id for job in self.cluster.active_runs()}
        assert running <= holding, f"runs that nobody watches: {running - holding}"
        for record in records.values():
            assert (record.placement is not None) == (record.state in HOLDS_DEVICES), record
            assert (record.ended_s is not None) == (record.state in ENDED), record

    def paid_usd(self) -> float:
        """What the cluster says was held, by its own clock, at the prices of the device types."""
        types = self.cluster.snapshot().device_types
        total = 0.0
        for run_id, run in self.cluster._world.runs.items():
            seconds = min(run.end_s, self.now_s) - run.started_s
            price = sum(types[shard.device_type].price_usd_h or 0.0 for shard in run.request.job.shards)
            assert run_id == run.request.job.run_id
            total += seconds / 3600 * price
        return total
