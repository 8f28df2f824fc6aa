"""Commands as the entrypoints of their Ray Jobs, on a real cluster: what they see, how they end, what they hold."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.gcs import ControlService
from cluster.local import LocalCluster
from cluster.ray_executor import RayExecutor
from cluster.types import RunObservation, RunRequest
from workloads.job import Job, Shard

if TYPE_CHECKING:
    from .conftest import Nodes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


class Commands:
    """Starts commands with one executor and waits for them."""

    def __init__(self, cluster: LocalCluster, nodes: Nodes, folder: Path, shared: bool) -> None:
        self.nodes, self.folder = nodes, folder
        self.executor = RayExecutor(
            cluster.dashboard_url,
            cluster.address,
            lambda run_id: folder / f"{run_id}.progress",
            cluster.token_path,
            staging=folder / "stage",
            shared_files=shared,
            end_file=folder / "ended",
        )

    def start(self, command: str, *shards: Shard, env: dict[str, str] | None = None, code: Path | None = None) -> str:
        run_id = f"direct-{time.time_ns()}"
        spec = {"kind": "command", "name": "w", "command": command}
        places = str(self.folder), str(self.folder / run_id), str(self.folder / f"{run_id}.progress")
        job = Job(run_id, run_id, 1, spec, shards or (self.nodes.shard("T4", 0.5),), *places)
        self.executor.start(RunRequest(job, "w", None if code is None else str(code), env or {}))
        return run_id

    def ended(self, run_id: str) -> RunObservation:
        return self.until(run_id, lambda run: run.ended)

    def until(self, run_id: str, condition: Any) -> RunObservation:
        deadline = time.monotonic() + 90
        while True:
            run = self.executor.observe([run_id])[run_id]
            if condition(run):
                return run
            assert time.monotonic() < deadline, self.executor.logs(run_id)
            time.sleep(0.1)

    def child(self, path: Path) -> Path:
        """The process whose id a command wrote."""
        deadline = time.monotonic() + 90
        while not path.exists() or not path.read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return Path("/proc", path.read_text().strip())


@pytest.fixture(params=[True, False], ids=["shared files", "own files"])
def commands(
    request: pytest.FixtureRequest, local_cluster: LocalCluster, nodes: Nodes, tmp_path: Path
) -> Iterator[Commands]:
    made = Commands(local_cluster, nodes, tmp_path, request.param)
    yield made
    made.executor.close()


def gone(process: Path, patience_s: float = 30.0) -> bool:
    deadline = time.monotonic() + patience_s
    while process.exists() and (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_command_sees_its_environment_its_code_and_its_devices(
    commands: Commands, local_cluster: LocalCluster, nodes: Nodes
) -> None:
    (commands.folder / "ended").touch()
    os.utime(commands.folder / "ended", (1, 1))
    code = commands.folder / "code"
    code.mkdir()
    (code / "mine.sh").write_text('echo "$MINE $RAYWISE_DEVICE_TYPE"; echo more >&2; touch "$RAYWISE_OUTPUT/made"\n')
    (code / "mine.py").write_text("print('imported')\n")
    archive = Path(shutil.make_archive(str(code), "zip", code))
    go = commands.folder / "go"
    command = f"bash mine.sh && python -c 'import mine'; while [ ! -e {go} ]; do sleep 0.05; done"
    run_id = commands.start(command, nodes.shard("T4"), nodes.shard("T4"), env={"MINE": "my value"}, code=archive)
    commands.until(run_id, lambda run: run.state == "running")
    service = ControlService(local_cluster.address, local_cluster.token_path)
    held = {node.node_id: node.free.get("T4", 0) for node in service.nodes()}
    service.close()
    assert held[nodes.ids["T4"]] == 0
    go.touch()
    run = commands.ended(run_id)
    assert (run.state, run.message) == ("succeeded", "")
    log = commands.executor.logs(run_id)
    assert "my value T4\nmore\nimported\n" in log
    assert "failed" not in log
    assert (commands.folder / run_id / "made").is_file()
    assert (commands.folder / "ended").stat().st_mtime > 1
    records = commands.executor.progress(run_id)
    assert [record["kind"] for record in records] == ["phase", "done"]
    assert records[-1]["outputs"] == {"output": str(commands.folder / run_id)}


def test_exit_codes_are_told(commands: Commands) -> None:
    runs = {command: commands.start(command) for command in ("exit 7", "no-such-program")}
    failed = {}
    for command, run_id in runs.items():
        assert commands.ended(run_id).state == "failed"
        failed[command] = commands.executor.progress(run_id)[-1]
    assert failed["exit 7"]["message"] == "the command ended with exit code 7"
    assert (failed["exit 7"]["retryable"], failed["no-such-program"]["retryable"]) == (True, False)


def test_stop_ends_all_of_it_before_the_devices_are_free(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "child"
    run_id = commands.start(f"(trap '' TERM; sleep 300 & echo $! > {path}; wait); sleep 300")
    child = commands.child(path)
    commands.executor.stop(run_id)
    assert commands.ended(run_id).state == "stopped"
    assert gone(child, 0)


def test_a_stop_file_lets_it_save_first(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "child"
    run_id = commands.start(f"trap 'sleep 1; echo saved; exit 0' TERM; echo $$ > {path}; while :; do sleep 0.1; done")
    commands.child(path)
    (commands.folder / f"{run_id}.stop").touch()
    assert commands.ended(run_id).state == "failed"
    assert "saved" in commands.executor.logs(run_id)
    assert commands.executor.progress(run_id)[-1]["retryable"]


def test_it_ends_with_its_supervisor(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "child"
    run_id = commands.start(f"echo $PPID > {tmp_path}/wrapper; sleep 300 & echo $! > {path}; wait")
    child, wrapper = commands.child(path), commands.child(tmp_path / "wrapper")
    supervisor = int((wrapper / "stat").read_text().rpartition(")")[2].split()[1])
    assert "Supervisor" in Path(f"/proc/{supervisor}/cmdline").read_text()
    os.kill(supervisor, signal.SIGKILL)
    run = commands.ended(run_id)
    assert run.state == "failed"
    assert run.message.startswith("Ray: ")
    assert gone(child)
    assert [record["kind"] for record in commands.executor.progress(run_id)] in ([], ["phase"])


def test_one_that_waits_for_its_devices_is_stopped_without_them(commands: Commands, nodes: Nodes) -> None:
    go = commands.folder / "go"
    holder = commands.start(f"while [ ! -e {go} ]; do sleep 0.05; done", nodes.shard("T4"), nodes.shard("T4"))
    commands.until(holder, lambda run: run.state == "running")
    waits = commands.start(f"touch {commands.folder}/ran")
    assert commands.executor.observe([waits])[waits].state == "starting"
    commands.executor.stop(waits)
    assert commands.ended(waits).state in ("failed", "stopped")
    go.touch()
    assert commands.ended(holder).state == "succeeded"
    assert commands.ended(commands.start("true")).state == "succeeded", "nothing holds the devices"
    assert not (commands.folder / "ran").exists()
