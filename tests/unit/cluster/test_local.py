"""Starting and stopping a local cluster, without Ray: commands, environment, failures, and whose processes are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import local
from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.launch import NodePlan, free_ports, head_command, node_command, node_environment
from cluster.local import STATE_FILE, ClusterStartError, LocalCluster
from cluster.processes import MARKER, ProcessId, end_members, members, wait_ended
from workloads.errors import RaywiseError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the cluster `mine`, re-parented as far as the cluster can know."""
    child = subprocess.Popen(SLEEP, env={**os.environ, MARKER: "mine"}, start_new_session=True)
    while not members("mine"):
        time.sleep(0.01)
    yield child
    child.kill()
    child.wait()


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_commands_name_every_port_that_could_collide(tmp_path: Path) -> None:
    head = head_command(NodePlan("head", 2, 0, {}, {"a": "b"}, is_head=True), 4000, 4001, tmp_path)
    assert {"--head", "--port=4000", "--dashboard-port=4001", "--num-cpus=2", "--num-gpus=0", "--labels=a=b"} <= set(
        head
    )
    assert f"--temp-dir={tmp_path}" in head
    node = node_command(NodePlan("t4", 0, 0, {"T4": 2.0}, {}), "127.0.0.1:4000")
    assert {"--address=127.0.0.1:4000", '--resources={"T4": 2.0}', "--num-cpus=0"} <= set(node)
    for command in (head, node):
        assert any(word.startswith("--dashboard-agent-listen-port=") for word in command)


def test_the_users_python_and_ray_variables_do_not_leak(tmp_path: Path) -> None:
    base = {"PYTHONPATH": "/mine", "RAY_ADDRESS": "elsewhere:1", "HOME": "/home/me", "PATH": "/usr/bin"}
    environment = node_environment("id", tmp_path / "token", tmp_path, base)
    assert "PYTHONPATH" not in environment
    assert "RAY_ADDRESS" not in environment
    assert environment["HOME"] == "/home/me"
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert environment[MARKER] == "id"


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, definition: ClusterDefinition, catalog: Catalog
) -> None:
    tried = []

    def broken(*_: object) -> list[str]:
        tried.append(1)
        return ["sh", "-c", "echo the disk is full; exit 1"]

    folders: list[Path] = []
    prepare = LocalCluster._prepare.__func__

    def remember(cls: type[LocalCluster], folder: Path) -> LocalCluster:
        cluster = prepare(cls, folder)
        folders.append(cluster.temp_dir)
        return cluster

    monkeypatch.setattr(local, "head_command", broken)
    monkeypatch.setattr(LocalCluster, "_prepare", classmethod(remember))
    with pytest.raises(ClusterStartError, match=r"(?s)node head did not start: its process ended.*the disk is full"):
        LocalCluster.start(definition, tmp_path, catalog=catalog, gpus=())
    assert len(tried) == 2
    assert list(tmp_path.iterdir()) == []
    assert not folders[0].exists()


def test_a_process_is_found_by_its_mark_and_ended(marked: subprocess.Popen[bytes]) -> None:
    process = ProcessId.of(marked.pid)
    assert process in members("mine")
    assert members("not mine") == set()
    assert end_members("mine", []) == set()
    assert not process.is_alive()


def test_a_pid_that_was_given_out_again_is_left_alone(marked: subprocess.Popen[bytes]) -> None:
    stranger = ProcessId(marked.pid, started_s=12345.0)
    assert not stranger.is_alive()
    stranger.signal(signal.SIGKILL)
    assert wait_ended([stranger], 1.0) == set()
    assert ProcessId.of(marked.pid).is_alive()


def test_no_process_is_known_for_a_pid_that_is_not_there(marked: subprocess.Popen[bytes]) -> None:
    marked.kill()
    marked.wait()
    with pytest.raises(ProcessLookupError):
        ProcessId.of(marked.pid)


def test_there_is_no_cluster_in_an_empty_folder(tmp_path: Path) -> None:
    assert LocalCluster.open(tmp_path) is None


def test_a_damaged_state_file_is_an_error_and_not_no_cluster(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text('{"cluster_id": ')
    with pytest.raises(RaywiseError, match="damaged"):
        LocalCluster.open(tmp_path)


def test_a_cluster_whose_processes_are_long_gone_is_dead_and_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    state = {
        "cluster_id": "old",
        "address": "127.0.0.1:1",
        "dashboard_url": "http://127.0.0.1:2",
        "token_path": str(tmp_path / "token"),
        "temp_dir": str(tmp_path / "temp"),
        "nodes": [{"name": "head", "process": {"pid": os.getpid(), "started_s": 1.0}}],
    }
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    cluster = LocalCluster.open(tmp_path)
    assert cluster is not None
    assert not cluster.is_alive()
    cluster.stop()
    cluster.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_asks_for_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cluster = LocalCluster._prepare(tmp_path)
    finally:
        os.umask(old)
    assert cluster.token_path.stat().st_mode & 0o777 == 0o600
    token = cluster.token_path.read_text()
    assert len(token) == 64
    leaky = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "of another cluster", "PATH": "/usr/bin"}
    environment = node_environment(cluster.cluster_id, cluster.token_path, cluster.temp_dir, leaky)
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", str(cluster.token_path))
    assert "RAY_AUTH_TOKEN" not in environment
    plan = NodePlan("head", 1, 0, {}, {}, is_head=True)
    words = [*head_command(plan, 1, 2, tmp_path), *node_command(plan, "127.0.0.1:1"), *environment.values()]
    assert not [word for word in words if token in word]
    cluster.stop()
