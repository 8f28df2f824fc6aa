"""The service at its high water: ten thousand workloads wait, a thousand run, and users go on asking. Writes its
section of docs/reliability.md.

python -m benchmarks.high_water [--queued N] [--running N] [--cycles N] [--requests N] [--hours N] [--out FILE]

The real store (SQLite on this disk), engine, policy `market`, API and HTTP server, with a fake cluster as executor. The
engine runs its cycles in a thread while a client in another process submits and lists, as a service does.
memory: simulated hours of arrivals and endings at a smaller depth, with the resident memory at the end of each.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvicorn

from benchmarks.decision_time import KINDS
from benchmarks.sections import write_section
from cluster.catalog import Catalog
from cluster.fake import FakeCluster, Script
from cluster.types import DeviceType, Node, NodeDevices, RunRequest, Snapshot
from scheduler.admission import FileProfiler
from scheduler.collecting import Collector
from scheduler.engine import Engine
from scheduler.policy import create
from scheduler.service import auth
from scheduler.service.app import create_app
from scheduler.service.home import Home
from scheduler.service.main import SWITCH_S, bind
from scheduler.service.pulse import Pulse
from scheduler.service.runtime import END_FILE, Runtime
from scheduler.service.waiting import Waiting
from scheduler.store import Event, Record, Store

ROOT = Path(__file__).resolve().parents[1]
TYPES = ("T4", "V100", "A100", "L4")
PER_NODE = 8
ASKING = """
import json, sys, time, httpx
url, token, requests, spec = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
took = {"submit": [], "list": []}
with httpx.Client(base_url=url, headers={"authorization": "Bearer " + token}, timeout=60) as client:
    for number in range(requests):
        body = {"text": spec.replace("NAME", f"asked-{number}"), "base": "/tmp", "file": "", "overrides": []}
        for what, ask in (
            ("submit", lambda: client.post("/api/v1/workloads", json=body)),
            ("list", lambda: client.get("/api/v1/workloads", params={"limit": "100"})),
        ):
            begin = time.perf_counter()
            answer = ask()
            took[what].append(time.perf_counter() - begin)
            answer.raise_for_status()
        time.sleep(0.02)
print(json.dumps(took))
"""


class Unchecked(FakeCluster):
    """Does not prove at each start what unit tests are there for: that takes the square of the runs."""

    def check(self) -> None:
        """Nothing."""


class HighWater(Runtime):
    """`Runtime` on a fake cluster."""

    def __init__(self, folder: Path, devices: int, seed: int = 0) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.catalog = Catalog.load()
        self.policy = create("market")
        self.passed_s, self._rng = 0.0, random.Random(seed)
        self.cluster = Unchecked(cluster(devices), self.clock, self._script)
        self.observer = self.executor = self.cluster  # type: ignore[assignment]
        self.store = Store(self.home.database)
        auth.remember(self.store, self.home.ensure_token())
        self.engine = Engine(self.store, self.cluster, self.cluster, self.policy, FileProfiler(), self.clock)
        self._waiting, self._stop = Waiting(self.home.path / END_FILE, 1.0), threading.Event()
        self.pulse = Pulse(1.0, self.clock)

    def clock(self) -> float:
        """Seconds now: the machine's, and what was let pass."""
        return time.time() + self.passed_s

    def _script(self, _: RunRequest) -> Script:
        return Script(run_s=self._rng.uniform(600.0, 7200.0))

    def fill(self, number: int, prefix: str) -> None:
        """Workloads of declared run times, stored as a submission does."""
        records, events, now_s = list[Record](), list[Event](), self.clock()
        for index in range(number):
            name = f"{prefix}-{index}"
            spec = {
                "kind": "command",
                "name": name,
                "command": "true",
                "expected_runtime": self._rng.uniform(600.0, 7200.0),
                "resources": {"devices": ["T4", "V100", "A100", "L4"]},
            }
            record = Record(
                name, name, "command", spec, "pending", now_s + index * 1e-3, f"/out/{name}", f"/run/{name}"
            )
            records.append(record)
            events.append(Event("submitted", "a user submitted it", name, at_s=now_s))
        for begin in range(0, number, 500):
            self.store.add(records[begin : begin + 500], events[begin : begin + 500])


def cluster(devices: int) -> Snapshot:
    """Nodes of eight devices of four types."""
    nodes = []
    for number in range(-(-devices // PER_NODE)):
        name, node_id = TYPES[number % len(TYPES)], f"n{number}"
        nodes.append(Node(node_id, node_id, devices=(NodeDevices(name, name, PER_NODE, PER_NODE),)))
    kinds = {name: DeviceType(name, "gpu", price_usd_h=KINDS[name][0]) for name in TYPES}
    return Snapshot(0.0, tuple(nodes), kinds)


@contextmanager
def served(runtime: HighWater) -> Iterator[str]:
    """The API on a free port of loopback; its URL."""
    with bind(0) as listener:
        app = create_app(runtime)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Measured:
    """Seconds of each request and cycle, and what there was."""

    queued: int = 0
    running: int = 0
    cycles_s: list[float] = field(default_factory=list)
    cycles_cpu_s: list[float] = field(default_factory=list)
    first_cycle_s: float = 0.0
    requests_s: dict[str, list[float]] = field(default_factory=dict)


def measure(queued: int, running: int, requests: int) -> Measured:
    """Fill the queue, run cycles in a thread, and ask from another process meanwhile."""
    found = Measured()
    with tempfile.TemporaryDirectory(prefix="raywise-high-water-") as folder:
        runtime = HighWater(Path(folder), running)
        runtime.fill(queued + running, "w")
        began = time.perf_counter()
        runtime.engine.run_cycle()
        found.first_cycle_s = time.perf_counter() - began
        runtime.engine.run_cycle()
        over = threading.Event()

        def cycles() -> None:
            collector = Collector(time.monotonic)
            while not over.is_set():
                wall, cpu = time.perf_counter(), time.thread_time()
                runtime.engine.run_cycle()
                found.cycles_s.append(time.perf_counter() - wall)
                found.cycles_cpu_s.append(time.thread_time() - cpu)
                collector.between_cycles()
                over.wait(1.0)

        with served(runtime) as url:
            thread = threading.Thread(target=cycles)
            thread.start()
            spec = json.dumps({"kind": "command", "name": "NAME", "command": "true", "expected_runtime": "1h"})
            command = [sys.executable, "-c", ASKING, url, runtime.home.ensure_token(), str(requests), spec]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            over.set()
            thread.join()
        found.requests_s = json.loads(answer.stdout)
        found.queued = len(runtime.store.select(states=["queued"]))
        found.running = len(runtime.store.select(states=["starting", "running"]))
        runtime.store.close()
    return found


PER_HOUR = 160
"""Arrivals: seven of eight of the devices are busy with them, so that the queue grows no longer."""


def memory(hours: int, per_hour: int = PER_HOUR, cycle_s: float = 30.0) -> list[float]:
    """Resident memory in bytes after each simulated hour of arrivals and endings."""
    process, found = psutil.Process(), list[float]()
    with tempfile.TemporaryDirectory(prefix="raywise-high-water-") as folder:
        runtime = HighWater(Path(folder), 200)
        cycles = round(3600 / cycle_s)
        for hour in range(hours):
            for number in range(cycles):
                arrivals = per_hour * (number + 1) // cycles - per_hour * number // cycles
                runtime.fill(arrivals, f"h{hour}-{number}")
                runtime.passed_s += cycle_s
                runtime.engine.run_cycle()
            gc.collect()
            found.append(process.memory_info().rss)
        runtime.store.close()
    return found


def section(found: Measured, resident: Sequence[float]) -> str:
    """The words of docs/reliability.md."""
    rows = [(f"{what} ({len(each)} requests)", each) for what, each in found.requests_s.items()]
    rows.append((f"cycle ({len(found.cycles_s)} cycles)", found.cycles_s))
    rows.append(("cycle, CPU", found.cycles_cpu_s))
    lines = [f"| {name} | {_ms(each, 0.5)} | {_ms(each, 0.99)} | {1000 * max(each):.0f} |" for name, each in rows]
    table = "\n".join(["| | median, ms | 99th percentile, ms | most, ms |", "| --- | ---: | ---: | ---: |", *lines])
    day, load = f"{datetime.now(UTC):%Y-%m-%d}", os.getloadavg()[0]
    where = f"{day}, {os.cpu_count()} cores ({platform.machine()}), load {load:.1f}, Python {platform.python_version()}"
    text = f"""## High water

`python -m benchmarks.high_water` ({where}):
{found.queued:,} workloads wait and {found.running:,} run on a fake cluster, with the real store, engine, policy
`market`, API and HTTP server in one process. The engine plans every second while a client in another process submits,
and asks for a page of 100. The first cycle, which looks at all of them anew, takes {found.first_cycle_s:.1f} s.

{table}
"""
    if resident:
        mebibytes = [f"{each / 2**20:.0f}" for each in resident]
        text += f"""
Memory after each of {len(resident)} simulated hours of {PER_HOUR} arrivals an hour, MiB: {", ".join(mebibytes)}.
"""
    return text


def _ms(seconds: Sequence[float], share: float) -> str:
    ordered = sorted(seconds)
    value = statistics.median(ordered) if share == 0.5 else ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return f"{1000 * value:.0f}"


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_S)  # as the service does
    resident = memory(options.hours) if options.hours else []
    text = section(measure(options.queued, options.running, options.requests), resident)
    print(text)
    write_section(options.out, text)


if __name__ == "__main__":
    main()
