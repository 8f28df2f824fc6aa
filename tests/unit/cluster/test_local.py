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
from typing import Any

import pytest

from cluster import local
from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.launch import NodePlan, free_ports, head_command, node_command, node_environment
from cluster.local import STATE_FILE, ClusterStartError, LocalCluster
from cluster.processes import LAUNCH_MARKER, MARKER, ProcessId, end_members, members, wait_ended
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

    def remember(cls: type[LocalCluster], folder: Path, plans: list[NodePlan], *more: Any) -> LocalCluster:
        cluster = prepare(cls, folder, plans, *more)
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


class FakeNodes:
    """In place of Ray: a node is a process that sleeps, with a child that another process could be left with; the
    control service knows those that live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = True
        monkeypatch.setattr(local, "head_command", lambda plan, *_: self._command(plan))
        monkeypatch.setattr(local, "node_command", lambda plan, *_: self._command(plan))
        monkeypatch.setattr(LocalCluster, "_launched", lambda cluster: self._launched(cluster))  # noqa: PLW0108  (a bound method would not be given the cluster)
        monkeypatch.setattr(LocalCluster, "_dashboard_answers", lambda _: True)

    @staticmethod
    def _command(plan: NodePlan) -> list[str]:
        return ["sh", "-c", f"sleep 600 & exec {' '.join(map(str, SLEEP[:1]))} -c 'import time; time.sleep(600)'"]

    def _launched(self, cluster: LocalCluster) -> set[str | None]:
        return {node.launch for node in cluster.nodes if self.answers and node.process.is_alive()}


@pytest.fixture
def whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, definition: ClusterDefinition, catalog: Catalog
) -> Iterator[LocalCluster]:
    fakes = FakeNodes(monkeypatch)
    cluster = LocalCluster.start(definition, tmp_path, catalog=catalog, gpus=())
    cluster.fakes = fakes  # type: ignore[attr-defined]
    yield cluster
    cluster.stop(0.0)
    assert members(cluster.cluster_id) == set()


def _kill(cluster: LocalCluster, name: str) -> None:
    """Only the process that runs the node: what it left lives on."""
    root = next(node.process for node in cluster.nodes if node.name == name)
    root.signal(signal.SIGKILL)
    wait_ended([root], 5.0)


def test_nothing_is_missing_of_a_whole_cluster_and_another_process_knows_its_plans(whole: LocalCluster) -> None:
    assert whole.missing() == []
    again = LocalCluster.open(whole.folder)
    assert again is not None
    assert again.plans == whole.plans
    assert [plan.name for plan in again.plans] == ["head", "t4", "a100"]
    assert again.missing() == []


def test_a_node_that_is_mended_is_the_only_one_that_changes_and_nothing_of_the_old_one_is_left(
    whole: LocalCluster,
) -> None:
    before = {node.name: node for node in whole.nodes}
    left = members(before["t4"].launch, variable=LAUNCH_MARKER)
    assert len(left) == 2
    _kill(whole, "t4")
    assert whole.missing() == ["t4"]
    whole.mend("t4")
    after = {node.name: node for node in whole.nodes}
    assert not [process for process in left if process.is_alive()]
    assert (after["head"], after["a100"]) == (before["head"], before["a100"])
    assert after["t4"] != before["t4"] and after["t4"].process.is_alive()
    assert whole.nodes[0].name == "head"


def test_with_the_head_all_is_new_but_the_address_and_the_token(whole: LocalCluster) -> None:
    before, token, address = members(whole.cluster_id), whole.token_path.read_text(), whole.address
    _kill(whole, "head")
    assert not whole.is_alive()
    assert whole.missing() == ["head"]
    whole.mend("head")
    assert not [process for process in before if process.is_alive()]
    assert (whole.missing(), whole.token_path.read_text(), whole.address) == ([], token, address)
    again = LocalCluster.open(whole.folder)
    assert again is not None and again.nodes == whole.nodes


def test_a_service_that_died_over_the_mending_leaves_what_the_next_one_can_mend(
    whole: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = LocalCluster._start_node

    def dies_at_the_second(cluster: LocalCluster, plan: NodePlan, timeout_s: float, **options: bool) -> None:
        if plan.name == "t4":
            raise KeyboardInterrupt
        start(cluster, plan, timeout_s, **options)

    monkeypatch.setattr(LocalCluster, "_start_node", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        whole.mend("head")
    monkeypatch.undo()
    FakeNodes(monkeypatch)
    again = LocalCluster.open(whole.folder)
    assert again is not None
    assert again.is_alive()
    assert again.missing() == ["t4", "a100"]
    for name in again.missing():
        again.mend(name)
    assert again.missing() == []


def test_a_node_whose_head_has_ended_is_given_up_at_once_so_that_the_head_can_be_mended(whole: LocalCluster) -> None:
    _kill(whole, "t4")
    _kill(whole, "head")
    with pytest.raises(ClusterStartError, match="the head has ended"):
        whole.mend("t4")
    assert whole.missing() == ["head", "t4"]
    whole.mend("head")
    assert whole.missing() == []


def test_a_start_that_is_abandoned_gives_up_at_once_and_leaves_the_others(whole: LocalCluster) -> None:
    _kill(whole, "t4")
    whole.fakes.answers = False  # type: ignore[attr-defined]
    whole.abandoned.set()
    with pytest.raises(ClusterStartError, match="not wanted any more"):
        whole.mend("t4")
    assert whole.missing() == ["t4"]
    assert len([node for node in whole.nodes if node.process.is_alive()]) == 2


def test_a_busy_head_has_time_to_answer(whole: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([set(), set(), {"there"}])
    monkeypatch.setattr(LocalCluster, "_launched", lambda _: next(looks))
    assert whole.is_alive(patience_s=60.0)


def test_a_cluster_asks_for_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cluster = LocalCluster._prepare(tmp_path, [], {}, None)
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
