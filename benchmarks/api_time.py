"""How long the API takes with many workloads stored, beside the same requests with a hundred stored, in the same run.

    python -m benchmarks.api_time [--workloads 11000] [--requests 200]

The service is the real one on a real socket, on a fake cluster. Workloads that ended are
stored with what a run leaves in its record. Milliseconds of the wall clock, median and 99th percentile, and of the
processor, for client and service together; the ratio is of the processor's, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "scheduler"), str(ROOT)]

from asking import COMMAND  # noqa: E402
from cluster.fake import Script  # noqa: E402
from fake_service import FakeRuntime  # noqa: E402
from scheduler.store import Charge, Event, Record  # noqa: E402
from serving import serving  # noqa: E402

Ask = Callable[[httpx.Client, int], httpx.Response]
W = "/api/v1/workloads"
FEW = 100
WARM = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workloads", type=int, default=11_000)
    parser.add_argument("--requests", type=int, default=200)
    given = parser.parse_args()
    few, many = measured(FEW, given.requests), measured(given.workloads, given.requests)
    print(f"{given.requests} requests each; {given.workloads:,} workloads stored, against {FEW}")
    print(f"{'request':30} {'few: p50':>9} {'p99':>8} {'cpu':>6} {'many: p50':>10} {'p99':>8} {'cpu':>6} {'ratio':>6}")
    for name, found in many.items():
        before = few[name]
        ratio = found.cpu_ms / before.cpu_ms
        print(f"{name:30} {before} {found} {ratio:6.2f}")


@dataclass(frozen=True)
class Times:
    """Of one kind of request."""

    wall_ms: list[float]
    cpu_ms: float

    def __str__(self) -> str:
        return f"{statistics.median(self.wall_ms):9.1f} {p99(self.wall_ms):8.1f} {self.cpu_ms:6.1f}"


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


def measured(stored: int, requests: int) -> dict[str, Times]:
    """By request."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = FakeRuntime(Path(folder) / "home")
        name = fill(runtime, stored)
        found: dict[str, Times] = {}
        with (
            serving(runtime) as served,
            httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {served.token}"}, timeout=60) as http,
        ):
            for title, ask in asked(name).items():
                for number in range(-WARM, 0):
                    ask(http, number)
                begin = time.process_time()
                wall_ms = [timed(http, ask, number) for number in range(requests)]
                found[title] = Times(wall_ms, (time.process_time() - begin) / requests * 1e3)
        runtime.store.close()
    return found


def asked(name: str) -> dict[str, Ask]:
    """What is asked, by its title."""
    body = {"text": COMMAND, "base": "/"}
    return {
        "list of 100": lambda http, _: http.get(W, params={"limit": 100}),
        "list of 100, 2nd page": lambda http, _: http.get(W, params={"limit": 100, "cursor": "8000"}),
        "list by state": lambda http, _: http.get(W, params={"limit": 100, "state": "failed"}),
        "list by a name that none has": lambda http, _: http.get(W, params={"name": "nobody"}),
        "show": lambda http, _: http.get(f"{W}/{name}"),
        "show by a start": lambda http, _: http.get(f"{W}/{name[:-1]}"),
        "show, not there": lambda http, _: http.get(f"{W}/no-such-id"),
        "events of one": lambda http, _: http.get(f"{W}/{name}/events"),
        "queues": lambda http, _: http.get("/api/v1/queues"),
        "usage by owner and day": lambda http, _: http.get("/api/v1/usage", params={"by": "owner,day"}),
        "metrics": lambda http, _: http.get("/metrics"),
        "submit": lambda http, n: http.post(W, json=body, headers={"Idempotency-Key": f"k{n}"}),
        "change": lambda http, n: http.patch(f"{W}/{name}", json={"priority": n % 7}),
    }


def timed(http: httpx.Client, ask: Ask, number: int) -> float:
    """Milliseconds of one request."""
    start = time.perf_counter()
    answer = ask(http, number)
    assert answer.status_code < 500, answer.text
    return (time.perf_counter() - start) * 1e3


def fill(runtime: FakeRuntime, stored: int) -> str:
    """Ended workloads as the service itself leaves them, and one that runs; returns the id of that one."""
    runtime.script = Script(run_s=2.0)
    model = finished(runtime)
    for begin in range(0, stored, 1000):
        records = [copied(model, number) for number in range(begin, min(begin + 1000, stored))]
        runtime.store.add(records, [Event("submitted", "x", record.id) for record in records])
    runtime.script = Script(run_s=1e9)
    running = submitted(runtime)
    for _ in range(3):
        runtime.cycle()
    charges = [
        Charge(f"old-{number:06}", 1, "2026-11-27", "T4", "eve", "default", 60.0, 0.01) for number in range(stored)
    ]
    record = runtime.store.get(running)
    assert record is not None
    runtime.store.put(record, Event("note", "x", running), charges=charges)
    return running


def finished(runtime: FakeRuntime) -> Record:
    """A workload that was run to its end."""
    name = submitted(runtime)
    for _ in range(6):
        runtime.cycle()
    record = runtime.store.get(name)
    assert record is not None and record.state == "succeeded"
    return record


def submitted(runtime: FakeRuntime) -> str:
    """The id of a new workload."""
    from workloads.loading import load_text

    return runtime.submit(load_text(COMMAND, base=Path("/")))[0].id


def copied(model: Record, number: int) -> Record:
    """Another like it; one in fifty failed."""
    state = "failed" if number % 50 == 0 else "succeeded"
    return replace(model, id=f"old-{number:06}", name="old", state=state, submitted_s=float(number), owner="eve")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
