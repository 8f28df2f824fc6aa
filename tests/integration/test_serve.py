"""`raywise serve` as an operator runs it: from a file, beside a cluster that runs already, watched by a supervisor."""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from certificates import make
from cluster.host import HostRates, host_cores, host_memory_bytes
from cluster.local import LocalCluster
from scheduler.client import Client

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
RAYWISE = str(Path(sys.executable).with_name("raywise"))
PATIENCE_S = 180.0


@dataclass
class Served:
    """A served home: its configuration, its process, and what it tells its supervisor."""

    folder: Path
    supervisor: socket.socket
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.folder / "service.yaml"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def env(self) -> dict[str, str]:
        return {**os.environ, "RAYWISE_CA": str(self.folder / "tls.crt"), "RAYWISE_HOME": str(self.home)}

    def told(self, message: bytes) -> list[bytes]:
        """What the supervisor hears until it hears this."""
        heard: list[bytes] = []
        while not heard or message not in heard[-1]:
            assert self.process.poll() is None or message == b"STOPPING=1", self.log()
            heard.append(self.supervisor.recv(1000))
        return heard

    def log(self) -> str:
        return (self.folder / "service.log").read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [RAYWISE, *arguments, "--config", str(self.config)]
        return subprocess.run(command, env=self.env(), capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def served(local_cluster: LocalCluster, tmp_path: Path, host_rates: HostRates) -> Iterator[Served]:
    """A service with TLS, for the session's cluster by its address; its log is JSON lines."""
    make(tmp_path, now=datetime.datetime.now(datetime.UTC))
    here = replace(host_rates, machine=platform.node(), cores=host_cores(), memory_bytes=host_memory_bytes())
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "host.json").write_text(json.dumps(here.to_json()))
    (tmp_path / "service.yaml").write_text(
        textwrap.dedent(
            f"""
            home: home
            tls: {{cert: tls.crt, key: tls.key}}
            store_env: STORE
            cluster:
              address: {local_cluster.address}
              dashboard_url: {local_cluster.dashboard_url}
              token_file: {local_cluster.token_path}
            queues: [{{name: research, weight: 2}}]
            cycle_s: 0.5
            log: {{format: json, file: service.log}}
            """
        )
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_S)
        store = str(tmp_path / "data" / "raywise.db")
        os.environ["STORE"] = store
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([RAYWISE, "serve", "--config", str(tmp_path / "service.yaml")], env=env)
        try:
            yield Served(tmp_path, supervisor, process)
        finally:
            del os.environ["STORE"]
            process.kill()
            process.wait()


def until_ended(client: Client, workload_id: str) -> Any:
    start = time.monotonic()
    while not (workload := client.show(workload_id)["workloads"][0])["ended"]:
        assert time.monotonic() - start < PATIENCE_S, workload
        time.sleep(0.2)
    return workload


def test_a_served_service_from_start_to_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.told(b"READY=1")
    served.told(b"WATCHDOG=1")
    info = json.loads((served.home / "service.json").read_text())
    assert info["url"].startswith("https://127.0.0.1:")
    monkeypatch.setenv("RAYWISE_CA", str(served.folder / "tls.crt"))
    with Client(home=served.home) as client:
        spec = {"kind": "command", "name": "hello", "command": "true", "queue": "research", "env": {"KEY": "s3cr3t-v"}}
        workload_id = client.submit(spec)["id"]
        assert until_ended(client, workload_id)["state"] == "succeeded"

    report = served.run("doctor", "--json")
    found = {each["subject"]: each for each in json.loads(report.stdout)["findings"]}
    for subject in (
        "cluster",
        "dashboard",
        "jobs api",
        "ray versions",
        "nodes",
        "ray token",
        "service",
        "store",
        "clocks",
    ):
        assert found[subject]["level"] == "ok", found[subject]
    copy = served.run("backup", str(served.folder / "copy.db"))
    assert copy.returncode == 0, copy.stderr
    assert "1 workloads" in copy.stdout

    served.process.send_signal(signal.SIGTERM)
    assert b"STOPPING=1" in served.told(b"STOPPING=1")[-1]
    assert served.process.wait(90) == 0
    assert not (served.home / "service.json").exists()
    lines = [json.loads(line) for line in served.log().splitlines()]
    of_it = [line for line in lines if line.get("workload_id") == workload_id]
    kinds = [line["message"].partition(":")[0] for line in of_it if line["logger"] == "raywise.events"]
    assert kinds == ["queued", "planned", "starting", "running", "succeeded"]
    assert all(line["cycle"] > 0 for line in of_it)
    requests = [line for line in lines if line["logger"] == "raywise.access"]
    assert ("POST", "/api/v1/workloads", 201) in {(each["method"], each["path"], each["status"]) for each in requests}
    token = (served.home / "token").read_text()
    assert not [secret for secret in (token, "s3cr3t-v") if secret in served.log()]
    assert not [line for line in lines if line["level"] == "error"]
