"""The service with its local cluster; a cluster of three nodes for the bodies alone, with drivers that start the way a
Ray Job's does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.launch import free_ports
from cluster.local import LocalCluster
from cluster.processes import members
from scheduler.client import Client
from workloads.job import Job, Shard, read_progress

SOURCE = Path(__file__).parents[2] / "workloads"
A100 = "A100-SXM4-40GB"


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
        while True:
            workload = self.show(workload_id)[0]
            if condition(workload):
                return workload
            assert time.monotonic() - start < timeout_s, workload
            assert not workload["ended"], workload
            time.sleep(0.1)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """The service on a local cluster of its own, as `raywise up --detach` starts them. Leaves nothing behind."""
    home = Path(tempfile.mkdtemp(prefix="rw-test-"))
    service = Service(home)
    started = service.run("up", "--detach")
    assert started.returncode == 0, started.stderr
    cluster = LocalCluster.open(home / "cluster")
    assert cluster is not None
    yield service
    stopped = service.run("down")
    log = (home / "service.log").read_text()
    shutil.rmtree(home)
    assert stopped.returncode == 0, stopped.stderr
    assert not members(cluster.cluster_id), "a process of the cluster is left"
    assert not cluster.temp_dir.exists()
    assert "Traceback" not in log, log


@dataclass
class Nodes:
    """A running cluster: its address, node ids by device type, and the environment drivers need."""

    address: str
    ids: dict[str, str]
    env: dict[str, str]
    marker: str

    def shard(self, device_type: str, speed: float | None = None) -> Shard:
        resources = {"CPU": 1.0} if device_type == "cpu" else {device_type: 1.0}
        return Shard(device_type, self.ids[device_type], resources, speed, threads=1)

    def processes(self, title: str) -> list[int]:
        """This cluster's processes whose title contains `title`."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                command, environ = (folder / "cmdline").read_text(), (folder / "environ").read_text()
            except (OSError, UnicodeDecodeError):
                continue
            if folder.name.isdigit() and title in command and self.marker in environ:
                found.append(int(folder.name))
        return sorted(found)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="rwb-", dir="/tmp"))
    path = folder / "path"
    path.mkdir()
    (path / "raywise_workloads").symlink_to(SOURCE)
    env = {**os.environ, "PYTHONPATH": str(path), "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_AUTH_MODE": "disabled"}
    env.pop("RAY_ADDRESS", None)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for attempt in range(3):  # on a busy machine somebody else may have taken a port by now
            address, commands = _commands(folder / f"r{attempt}")
            ids: dict[str, str] = {}
            for number, command in enumerate(commands, start=1):
                with open(folder / f"node-{attempt}-{number}.log", "wb") as log:
                    started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
                ids = _wait_for_nodes(address, number, env)
                if len(ids) < number:
                    break
            if len(ids) == len(commands):
                break
            _end(started)
        logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(folder.glob("node-*.log")))
        assert len(ids) == 3, f"the cluster did not start: {logs}"
        yield Nodes(address, ids, {**env, "RAY_ADDRESS": address}, str(path))
    finally:
        _end(started)
        shutil.rmtree(folder, ignore_errors=True)


def _commands(folder: Path) -> tuple[str, list[list[str]]]:
    """The address of a new cluster, and what starts its nodes."""
    ports = free_ports(6)
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", "--num-gpus=0"]
    ray += ["--object-store-memory=200000000", "--min-worker-port=0", "--max-worker-port=0"]  # one address for all
    address = f"127.0.0.1:{ports[0]}"
    head = ["--head", f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}"]
    head += ["--num-cpus=2", f"--temp-dir={folder}", "--labels=raywise.io/device=cpu"]
    commands = [[*ray, *head, f"--dashboard-agent-listen-port={ports[3]}"]]
    for device_type, count, port in (("T4", 2, ports[4]), (A100, 1, ports[5])):
        resources = json.dumps({device_type: count})
        other = [f"--address={address}", "--num-cpus=0", f"--resources={resources}", "--include-log-monitor=false"]
        commands.append(
            [*ray, *other, f"--labels=raywise.io/device={device_type}", f"--dashboard-agent-listen-port={port}"]
        )
    return address, commands


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    """Stop these nodes, the last one first."""
    for process in reversed(started):
        process.terminate()
    for process in reversed(started):
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    started.clear()


def _wait_for_nodes(address: str, count: int, env: Mapping[str, str]) -> dict[str, str]:
    """Node ids by device type once so many nodes are up; empty if they do not come."""
    code = f"""
import json, time
from ray._raylet import GcsClient
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
deadline = time.time() + 100
while time.time() < deadline:
    try:
        state = GlobalState()
        state._initialize_global_state(GcsClientOptions.create({address!r}, None, True, False))
        nodes = [node for node in state.node_table() if node["Alive"]]
        if len(nodes) == {count}:
            print("IDS" + json.dumps({{n["Labels"]["raywise.io/device"]: n["NodeID"] for n in nodes}}))
            break
    except Exception:
        pass
    time.sleep(0.3)
"""
    out = subprocess.run([sys.executable, "-c", code], env=dict(env), capture_output=True, text=True, check=False)
    return dict(json.loads(out.stdout.split("IDS", 1)[1])) if "IDS" in out.stdout else {}


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
        env = {**self.nodes.env, "RAYWISE_JOB": job.to_json()}
        if code is not None:
            env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"working_dir": str(code)}})
        with open(self.folder / name / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "raywise_workloads"],
                env=env, stdout=log, stderr=subprocess.STDOUT, cwd=code or self.folder, start_new_session=True,
            )  # fmt: skip

    def progress(self, name: str) -> Path:
        return self.folder / name / "progress.jsonl"

    def wait_for(self, name: str, matches: Callable[[dict[str, Any]], bool], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if any(matches(record) for record in read_progress(self.progress(name))[0]):
                return
            time.sleep(0.1)
        raise AssertionError(f"{name} did not get there: {(self.folder / name / 'log').read_text()[-3000:]}")

    def finish(self, name: str, process: subprocess.Popen[bytes], timeout_s: float = 240) -> Attempt:
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


@pytest.fixture(scope="module")
def driver(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return Driver(nodes, tmp_path_factory.mktemp("runs"))
