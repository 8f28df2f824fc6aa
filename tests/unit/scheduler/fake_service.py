"""The service without a cluster and without a thread: the real API, store, engine and admission on a fake cluster."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.fake import FakeCluster, Script
from cluster.host import HostRates
from cluster.types import RunRequest
from scheduler.admission import FileProfiler
from scheduler.engine import Engine
from scheduler.policy import create
from scheduler.service import auth
from scheduler.service.home import Home
from scheduler.service.pulse import Pulse
from scheduler.service.run_logs import RunLogs
from scheduler.service.runtime import Runtime
from scheduler.store import Store

HOST = HostRates(core_flops=50e9, core_bandwidth_bytes_s=10e9, cores=2, memory_bytes=16e9)


class FakeRuntime(Runtime):
    """`Runtime` with other parts put together; a test runs the cycles itself."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.catalog = Catalog.load()
        self.policy = create("market")
        self.start_s, self.passed_s = time.time(), 0.0
        self.script = Script()
        where = ClusterDefinition.load(catalog=self.catalog).snapshot(HOST, self.catalog)
        self.cluster = FakeCluster(where, self.clock, self._script)
        self.observer = self.executor = self.cluster  # type: ignore[assignment]
        self.store = Store(self.home.database)
        self.token = self.home.ensure_token()
        auth.remember(self.store, self.token)
        self.logs = RunLogs(self.cluster, folder / "logs-to-keep")
        self.engine = Engine(self.store, self.cluster, self.cluster, self.policy, FileProfiler(), self.clock)
        self.woken_at_all = threading.Event()
        self.pulse = Pulse(1.0, self.clock)

    def clock(self) -> float:
        """Seconds now: those of the start, and what a test let pass."""
        return self.start_s + self.passed_s

    def _script(self, _: RunRequest) -> Script:
        return self.script

    def cycle(self, advance_s: float = 1.0) -> None:
        """Let time pass and run one cycle."""
        self.passed_s += advance_s
        self.engine.run_cycle()

    @property
    def woken(self) -> bool:
        """Whether somebody asked for a cycle since this was last asked."""
        woken = self.woken_at_all.is_set()
        self.woken_at_all.clear()
        return woken

    def wake(self) -> None:
        """Remember that a cycle was asked for."""
        self.woken_at_all.set()
