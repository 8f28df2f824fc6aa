"""Short commands and task arrays through a real service, beside raw Ray on the same cluster, in the same run.

python -m benchmarks.service_load [--commands N] [--rounds N] [--items N] [--out FILE]

Writes the section "Short commands and task arrays" of docs/reliability.md, and prints it. Rounds alternate, so that
what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
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
from benchmarks.service_load_report import Arrays, Load, Round, write_section
from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.gcs import ControlService
from cluster.local import LocalCluster
from scheduler.client import Client

ROOT = Path(__file__).resolve().parents[1]
RAYWISE = str(Path(sys.executable).with_name("raywise"))
DEFINITION = """
nodes:
  - {name: t4, device: T4, count: 2, number: 2, emulated_speed: 1.0, instance: aws/g4dn.xlarge}
"""
"""A head and two nodes of two devices each: four commands at once."""
DEVICES = 4
LOOK_S = 1.0
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
        for workload in self.client.list(limit=100_000):
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
        cluster = LocalCluster.start(loaded, home / "cluster", catalog=catalog, gpus=())
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


def measure_commands(bench: Bench, commands: int, rounds: int) -> Load:
    """Alternating rounds; and single commands on the idle cluster, for the latency of one."""
    load = Load(commands, [], [], [], [])
    bench.raw(DEVICES)  # the first workers of a node load Ray from disk
    bench.service(DEVICES)
    for number in range(rounds):
        for which in ("raw", "service") if number % 2 == 0 else ("service", "raw"):
            found = getattr(bench, which)(commands)
            getattr(load, which).append(found)
            each_s = "" if found.cpu_s is None else f", {found.cpu_s / commands:.2f} CPU s each"
            print(f"round {number + 1} {which}: {found.per_s:.3f}/s{each_s}", flush=True)
    for _ in range(load.singles):
        load.single_raw.append(bench.raw(1).waits_s[0])
        load.single_service.append(bench.service(1).waits_s[0])
    load.states = bench.states()
    return load


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    options = parser.parse_args()
    with cpu_meter() as meter, bench(meter) as running:
        load = measure_commands(running, options.commands, options.rounds)
        arrays: Arrays | None = None
    print(write_section(options.out, load, arrays))


if __name__ == "__main__":
    main()
