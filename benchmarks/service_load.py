"""Short commands and task arrays through a real service, beside raw Ray on the same cluster, in the same run.

python -m benchmarks.service_load [--commands N] [--rounds N] [--items N] [--minutes N] [--out FILE]

Writes the section "Short commands and task arrays" of docs/reliability.md, and prints it. Rounds alternate, so that
what else the machine does falls on both; CPU seconds are those of the cluster, the service and this program alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.cpu_meter import CpuMeter, cpu_meter
from benchmarks.service_load_report import Arrays, Load, Round, steady_rate, write_section
from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.gcs import ControlService
from cluster.local import LocalCluster
from scheduler.client import Client
from workloads.job import read_progress

ROOT = Path(__file__).resolve().parents[1]
RAYWISE = str(Path(sys.executable).with_name("raywise"))
DEFINITION = """
nodes:
  - {name: t4, device: T4, count: 2, number: 2, emulated_speed: 1.0, instance: aws/g4dn.xlarge}
"""
"""A head and two nodes of two devices each: four commands at once."""
DEVICES = 4
LOOK_S = 1.0
ARRAY_ROUNDS = 2
PATIENCE_S = 1800.0


@dataclass
class Bench:
    """A cluster, the service on it, and a client of each."""

    cluster: LocalCluster
    client: Client
    jobs: httpx.Client
    folder: Path
    meter: CpuMeter
    count: int = 0

    def raw(self, commands: int) -> Round:
        """So many raw Ray Jobs at once; Ray itself holds them back until a device is free."""
        return self._round(commands, self.submit_raw)

    def service(self, commands: int) -> Round:
        """The same commands as workloads."""
        return self._round(commands, self.submit_workload)

    def submit_raw(self, name: str, command: str) -> None:
        reply = self.jobs.post(
            "/api/jobs/",
            json={"submission_id": name, "entrypoint": command, "entrypoint_resources": {"T4": 1}, "runtime_env": {}},
        )
        reply.raise_for_status()

    def submit_workload(self, name: str, command: str) -> None:
        self.client.submit({"kind": "command", "name": name, "command": command, "resources": {"devices": ["T4"]}})

    def _round(self, commands: int, submit: Any) -> Round:
        self.count += 1
        folder = self.folder / f"round-{self.count}"
        folder.mkdir()
        submitted: dict[str, float] = {}
        before_s = self.meter.seconds()
        begun_s = time.time()
        for number in range(commands):
            name = f"c{self.count}-{number}"
            submitted[name] = time.time()
            submit(name, f"date +%s.%N > {folder}/.{name} && mv {folder}/.{name} {folder}/{name}")
        taken_s = time.time() - begun_s
        deadline = time.monotonic() + PATIENCE_S
        while len(list(folder.glob("[!.]*"))) < commands and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        started = {path.name: float(path.read_text()) for path in folder.glob("[!.]*")}
        self.rest()
        after_s = self.meter.seconds()
        cpu_s = None if before_s is None or after_s is None else after_s - before_s
        waits = [started[name] - submitted[name] for name in started]
        return Round(commands, commands - len(started), max(started.values()) - begun_s, taken_s, waits, cpu_s)

    def rest(self) -> None:
        """Until every device is free and nothing waits."""
        service = ControlService(self.cluster.address, self.cluster.token_path)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            busy = any(node.free.get("T4", 0) < node.total.get("T4", 0) for node in service.nodes())
            if not busy and not [w for w in self.client.list(limit=1000) if not w["ended"]]:
                break
            time.sleep(LOOK_S)
        service.close()
        time.sleep(2 * LOOK_S)

    def states(self) -> dict[str, int]:
        """How all workloads of the service ended."""
        found: dict[str, int] = {}
        for workload in self.client.workloads():
            found[workload["state"]] = found.get(workload["state"], 0) + 1
        return found


@contextlib.contextmanager
def bench(meter: CpuMeter) -> Iterator[Bench]:
    """A cluster with a service of its own, in a temporary folder; nothing of them is left."""
    with tempfile.TemporaryDirectory(prefix="raywise-load-") as name:
        folder = Path(name)
        definition = folder / "cluster.yaml"
        definition.write_text(DEFINITION)
        catalog = Catalog.load()
        home = folder / "home"
        loaded = ClusterDefinition.load(definition, catalog=catalog)
        cluster = LocalCluster.start(loaded, home / "cluster", catalog=catalog, gpus=(), timeout_s=PATIENCE_S)
        environment = {**os.environ, "RAYWISE_HOME": str(home)}
        try:
            subprocess.run([RAYWISE, "up", "--detach"], env=environment, check=True)
            token = cluster.token_path.read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            with (
                httpx.Client(base_url=cluster.dashboard_url, headers=headers, trust_env=False, timeout=60) as jobs,
                Client(home=home) as client,
            ):
                yield Bench(cluster, client, jobs, folder, meter)
        finally:
            log = home / "service.log"
            if log.exists() and "Traceback" in log.read_text():
                print(log.read_text()[-5000:], file=sys.stderr)
            subprocess.run([RAYWISE, "down"], env=environment, check=False)


def measure_commands(bench: Bench, commands: int, rounds: int, until_s: float) -> Load:
    """Alternating rounds while there is time; and single commands on the idle cluster, for the latency of one."""
    load = Load(commands, [], [], [], [])
    bench.raw(DEVICES)  # the first workers of a node load Ray from disk
    bench.service(DEVICES)
    for number in range(rounds):
        for which in ("raw", "service") if number % 2 == 0 else ("service", "raw"):
            found = getattr(bench, which)(commands)
            getattr(load, which).append(found)
            each_s = "" if found.cpu_s is None else f", {found.cpu_s / commands:.2f} CPU s each"
            print(f"round {number + 1} {which}: {found.per_s:.3f}/s{each_s}", flush=True)
        if time.monotonic() > until_s:
            break
    for _ in range(load.singles):
        load.single_raw.append(bench.raw(1).waits_s[0])
        load.single_service.append(bench.service(1).waits_s[0])
    load.states = bench.states()
    return load


def raw_rate(bench: Bench, kind: str, items: int) -> float:
    """Items a second of raw Ray tasks."""
    environment = {**os.environ, **bench.cluster.environment(), "RAY_ADDRESS": bench.cluster.address}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.raw_tasks", kind, str(items)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def array_rate(bench: Bench, kind: str, items: int) -> tuple[float, float]:
    """Items a second of one workload while its workers run; and seconds from its submission to its end."""
    code = bench.folder / "code"
    code.mkdir(exist_ok=True)
    (code / "work.py").write_text("def double(item):\n    return item * 2\n")
    what = {"entrypoint": "work:double", "code": str(code)} if kind == "python" else {"command": "true"}
    resources = {"devices": ["T4"], "count": DEVICES}
    begun_s = time.time()
    spec = {"kind": "command", "name": f"array-{kind}", "items": f"1..{items}", "resources": resources, **what}
    workload_id = bench.client.submit(spec)["id"]
    bench.rest()
    (workload,) = bench.client.show(workload_id)["workloads"]
    if workload["state"] != "succeeded":
        raise RuntimeError(f"{workload_id} {workload['state']}: {workload['message']}")
    records, _ = read_progress(bench.folder / "home" / "runs" / workload_id / f"{workload_id}.progress.jsonl")
    return steady_rate(records, items), records[-1]["t"] - begun_s


def measure_arrays(bench: Bench, items: dict[str, int], rounds: int) -> Arrays:
    """Alternating rounds of each kind of item."""
    arrays = Arrays(items)
    for number in range(rounds):
        for kind, count in items.items():
            arrays.raw.setdefault(kind, []).append(raw_rate(bench, kind, count))
            rate, whole_s = array_rate(bench, kind, count)
            arrays.service.setdefault(kind, []).append(rate)
            arrays.whole_s.setdefault(kind, []).append(whole_s)
            print(f"round {number + 1} {kind}: raw {arrays.raw[kind][-1]:.0f}/s, array {rate:.0f}/s", flush=True)
    return arrays


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--items", type=int, default=20_000, help="tiny ones; a twentieth as many shell commands")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no further round begins")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through `finally`: the cluster goes too
    with cpu_meter() as meter, bench(meter) as running:
        until_s = time.monotonic() + 60 * options.minutes
        arrays = measure_arrays(running, {"python": options.items, "shell": options.items // 20}, ARRAY_ROUNDS)
        load = measure_commands(running, options.commands, options.rounds, until_s)
    print(write_section(options.out, load, arrays, datetime.datetime.now(datetime.UTC).date()))


if __name__ == "__main__":
    main()
