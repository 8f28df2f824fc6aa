"""On the session's cluster: the service; and the bodies alone, with drivers that start the way a Ray Job's does."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.gcs import ControlService
from cluster.host import HostRates, host_cores, host_memory_bytes
from cluster.local import LocalCluster
from cluster.processes import members
from cluster.types import CPU, DEVICE_LABEL
from scheduler.client import Client
from workloads.job import Job, Shard, read_progress

SOURCE = Path(__file__).parents[2] / "workloads"
RAYWISE = str(Path(sys.executable).with_name("raywise"))


@dataclass
class Service:
    """A home folder and its command line."""

    home: Path

    def run(self, *arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """`raywise` with these arguments, to its end."""
        command = [RAYWISE, *map(str, arguments)]
        return subprocess.run(
            command, env=self.env(**env), cwd=cwd, capture_output=True, text=True, timeout=1100, check=False
        )

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a command."""
        return {**os.environ, "RAYWISE_HOME": str(self.home), "HF_HUB_OFFLINE": "1", **more}

    def json(self, *arguments: object, **env: str) -> Any:
        """What a command that succeeds says with `--json`."""
        done = self.run(*arguments, "--json", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, spec: Path) -> str:
        """The id of the workload."""
        return str(self.json("submit", spec)["id"])

    def client(self) -> Client:
        """For questions that are asked again and again: a command takes a second of a core to start."""
        return Client(home=self.home)

    def show(self, workload_id: str) -> Any:
        """The workload, or all those of a pipeline, as they are now."""
        with self.client() as client:
            return client.show(workload_id)["workloads"]

    def until(self, workload_id: str, condition: Callable[[Any], bool], timeout_s: float = 120) -> Any:
        """The workload once the condition holds."""
        start = time.monotonic()
        with self.client() as client:  # one for all questions: to make one takes 20 ms
            while True:
                workload = client.show(workload_id)["workloads"][0]
                if condition(workload):
                    return workload
                assert time.monotonic() - start < timeout_s, workload
                assert not workload["ended"], workload
                time.sleep(0.2)


@pytest.fixture(scope="session")
def service(local_cluster: LocalCluster) -> Iterator[Service]:
    """The service on the session's cluster, which it finds in its home folder. `raywise down` ends both, and leaves
    nothing behind."""
    service = Service(local_cluster.folder.parent)
    started = service.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield service
    stopped = service.run("down")
    log = (service.home / "service.log").read_text()
    assert stopped.returncode == 0, stopped.stderr
    assert not members(local_cluster.cluster_id), "a process of the cluster is left"
    assert not local_cluster.temp_dir.exists()
    assert "Traceback" not in log, log


@pytest.fixture
def own_service(tmp_path: Path, host_rates: HostRates) -> Iterator[Service]:
    """A home for a service with a cluster of its own, a head alone. It knows its machine: to measure that takes some
    seconds."""
    service = Service(tmp_path / "home")
    here = replace(host_rates, machine=platform.node(), cores=host_cores(), memory_bytes=host_memory_bytes())
    service.home.mkdir()
    (service.home / "host.json").write_text(json.dumps(here.to_json()))
    yield service
    assert service.run("down").returncode == 0


@dataclass
class Nodes:
    """The session's cluster as drivers see it: node ids by device type, and the environment that they need."""

    ids: dict[str, str]
    env: dict[str, str]
    packages: Path
    """The folder from which the bodies are imported, under the name that they have on a cluster."""

    def shard(self, device_type: str, speed: float | None = None) -> Shard:
        resources = {"CPU": 1.0} if device_type == "cpu" else {device_type: 1.0}
        return Shard(device_type, self.ids[device_type], resources, speed, threads=1)

    def processes(self, title: str) -> list[int]:
        """Processes that run these bodies and whose title contains `title`."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                command, environ = (folder / "cmdline").read_text(), (folder / "environ").read_text()
            except (OSError, UnicodeDecodeError):
                continue
            if folder.name.isdigit() and title in command and str(self.packages) in environ:
                found.append(int(folder.name))
        return sorted(found)


@pytest.fixture(scope="session")
def nodes(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Nodes:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "raywise_workloads").symlink_to(SOURCE)
    control = ControlService(local_cluster.address, local_cluster.token_path)
    ids = {node.labels.get(DEVICE_LABEL, CPU): node.node_id for node in control.nodes()}
    control.close()
    env = {**os.environ, **local_cluster.environment(), "RAY_ADDRESS": local_cluster.address}
    return Nodes(ids, {**env, "PYTHONPATH": str(packages), "RAY_DISABLE_IMPORT_WARNING": "1"}, packages)


@dataclass
class Attempt:
    """A finished driver."""

    code: int
    records: list[dict[str, Any]]
    log: str
    output: Path
    run_dir: Path

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]

    @property
    def done(self) -> dict[str, Any]:
        assert self.code == 0, self.log
        return self.kinds("done")[-1]


class Driver:
    """Starts drivers the way a Ray Job does, without the Jobs service."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder

    def start(
        self, name: str, spec: dict[str, Any], shards: list[Shard], *, attempt: int = 1, code: Path | None = None
    ) -> subprocess.Popen[bytes]:
        run_dir = self.folder / name / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        job = Job(
            workload_id=name,
            run_id=name if attempt == 1 else f"{name}-r{attempt}",
            attempt=attempt,
            spec={"name": name, **spec},
            shards=tuple(shards),
            run_dir=str(run_dir),
            output=str(self.folder / name / "output"),
            progress_path=str(self.progress(name)),
        )
        runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(self.nodes.packages)}}
        if code is not None:
            runtime_env["working_dir"] = f"local://{code}"  # in place, as every node sees it
        env = {**self.nodes.env, "RAYWISE_JOB": job.to_json()}
        env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": runtime_env})
        with open(self.folder / name / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "raywise_workloads"],
                env=env, stdout=log, stderr=subprocess.STDOUT, cwd=code or self.folder, start_new_session=True,
            )  # fmt: skip

    def progress(self, name: str) -> Path:
        return self.folder / name / "progress.jsonl"

    def wait_for(self, name: str, matches: Callable[[dict[str, Any]], bool], timeout_s: float = 600) -> dict[str, Any]:
        """The first such record."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for record in read_progress(self.progress(name))[0]:
                if matches(record):
                    return record
            time.sleep(0.1)
        raise AssertionError(f"{name} did not get there: {(self.folder / name / 'log').read_text()[-3000:]}")

    def finish(self, name: str, process: subprocess.Popen[bytes], timeout_s: float = 600) -> Attempt:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        home = self.folder / name
        records = read_progress(self.progress(name))[0]
        return Attempt(code, records, (home / "log").read_text(), home / "output", home / "run")

    def run(self, name: str, spec: dict[str, Any], shards: list[Shard], **options: Any) -> Attempt:
        return self.finish(name, self.start(name, spec, shards, **options))


@pytest.fixture(scope="session")
def driver(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return Driver(nodes, tmp_path_factory.mktemp("runs"))
