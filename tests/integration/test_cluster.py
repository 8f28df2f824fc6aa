"""A real local cluster: what the observer sees of it, what happens when parts of it die, and that it leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates, host_memory_bytes
from cluster.local import LocalCluster
from cluster.processes import members
from cluster.protocols import ClusterUnreachable
from cluster.ray_executor import RayExecutor
from cluster.ray_observer import RayObserver
from cluster.types import RunRequest, Snapshot
from workloads.job import Job

pytestmark = pytest.mark.ray
STUB = Path(__file__).parents[1] / "stub_workloads"


@pytest.fixture
def observer(local_cluster: LocalCluster, catalog: Catalog, host_rates: HostRates) -> Iterator[RayObserver]:
    found = RayObserver(local_cluster.address, catalog, host_rates, local_cluster.token_path)
    yield found
    found.close()


def _until(condition: Callable[[], bool], timeout_s: float = 60) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s
        time.sleep(0.1)
    return time.monotonic() - start


class TestObserver:
    def test_sees_what_the_definition_promised(
        self,
        observer: RayObserver,
        definition: ClusterDefinition,
        catalog: Catalog,
        host_rates: HostRates,
    ) -> None:
        promised = definition.snapshot(host_rates, catalog)
        # What earlier tests of the session held comes back within a second of their end.
        _until(lambda: observer.snapshot().free("T4") == 2, 20)
        seen = observer.snapshot()
        # A process on a core has what Ray gives of the node's memory; before there is a node, all of the host's.
        there = seen.device_types["cpu"].memory_bytes
        assert there is not None and 1e9 < there <= host_memory_bytes()
        same = replace(seen.device_types["cpu"], memory_bytes=promised.device_types["cpu"].memory_bytes)
        assert {**seen.device_types, "cpu": same} == promised.device_types
        assert [(node.name, node.node_type, node.is_head) for node in seen.nodes] == [
            (node.name, node.node_type, node.is_head) for node in promised.nodes
        ]
        assert [node.devices for node in seen.nodes] == [node.devices for node in promised.nodes]
        assert seen.warnings == promised.warnings == ()
        assert all(node.memory_bytes > 1e8 for node in seen.nodes)
        assert abs(seen.at_s - time.time()) < 60

    def test_node_ids_are_rays(self, observer: RayObserver) -> None:
        for node in observer.snapshot().nodes:
            assert node.labels["ray.io/node-id"] == node.node_id

    def test_sees_what_is_free(self, observer: RayObserver, local_cluster: LocalCluster) -> None:
        holder = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)\n"
        holder += "group = ray.util.placement_group([{'T4': 1}]); ray.get(group.ready()); print('held', flush=True)\n"
        holder += "sys.stdin.read()"
        child = subprocess.Popen(
            [sys.executable, "-c", holder, local_cluster.address],
            env={**os.environ, **local_cluster.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        try:
            assert child.stdout is not None
            while b"held" not in (line := child.stdout.readline()):
                assert line
            _until(lambda: observer.snapshot().free("T4") == 1, 10)
            assert observer.snapshot().total("T4") == 2
        finally:
            child.communicate(timeout=30)
        _until(lambda: observer.snapshot().free("T4") == 2, 20)

    def test_is_refused_without_the_token(self, local_cluster: LocalCluster, catalog: Catalog, tmp_path: Path) -> None:
        with pytest.raises(ClusterUnreachable, match="UNAUTHENTICATED"):
            RayObserver(local_cluster.address, catalog).snapshot()
        with pytest.raises(ClusterUnreachable, match="token cannot be read"):
            RayObserver(local_cluster.address, catalog, token_path=tmp_path / "none").snapshot()
        assert httpx.get(f"{local_cluster.dashboard_url}/api/jobs/", trust_env=False).status_code == 401

    def test_says_so_within_bounded_time_where_nothing_is(self, catalog: Catalog) -> None:
        _bounded(lambda: RayObserver("127.0.0.1:1", catalog).snapshot())


class TestLocalCluster:
    def test_is_found_again_by_another_process(self, local_cluster: LocalCluster) -> None:
        code = "import sys; from pathlib import Path; from cluster.local import LocalCluster\n"
        code += "cluster = LocalCluster.open(Path(sys.argv[1])); print(cluster.address, cluster.is_alive())"
        repository = Path(__file__).parents[2]
        command = [sys.executable, "-c", code, str(local_cluster.folder)]
        result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, timeout=60)
        assert result.stdout.split() == [local_cluster.address, "True"]

    def test_its_secrets_are_its_owners(self, local_cluster: LocalCluster) -> None:
        assert local_cluster.token_path.stat().st_mode & 0o777 == 0o600
        assert local_cluster.temp_dir.stat().st_mode & 0o777 == 0o700

    def test_socket_paths_are_short_enough(self, local_cluster: LocalCluster) -> None:
        sockets = [path for path in local_cluster.temp_dir.rglob("*") if path.is_socket()]
        assert sockets
        assert all(len(str(path)) < 107 for path in sockets)


class TestLosses:
    """Each on a cluster of its own: what is broken here stays broken."""

    @pytest.fixture
    def cluster(self, definition: ClusterDefinition, tmp_path: Path, catalog: Catalog) -> Iterator[LocalCluster]:
        small = definition.model_copy(update={"nodes": definition.nodes[:1]})
        cluster = LocalCluster.start(small, tmp_path / "state", catalog=catalog, gpus=())
        yield cluster
        cluster.stop()
        assert members(cluster.cluster_id) == set()

    def test_a_killed_node_disappears_and_a_killed_head_is_unreachable_until_it_is_back(
        self, cluster: LocalCluster, catalog: Catalog, host_rates: HostRates
    ) -> None:
        observer = RayObserver(cluster.address, catalog, host_rates, cluster.token_path)
        executor = RayExecutor(
            cluster.dashboard_url, cluster.address, lambda _: Path("/none"), cluster.token_path, workloads_dir=STUB
        )
        assert observer.snapshot().total("T4") == 2
        for process in cluster.node_processes("t4"):
            process.signal(signal.SIGKILL)
        assert _until(lambda: len(observer.snapshot().nodes) == 1, 40) < 30
        assert "T4" not in observer.snapshot().device_types
        assert cluster.is_alive()

        frozen = cluster.node_processes("head")
        for process in frozen:
            process.signal(signal.SIGSTOP)
        _bounded(observer.snapshot)
        for process in frozen:
            process.signal(signal.SIGCONT)
        _until(lambda: _answers(observer.snapshot), 60)

        for process in frozen:
            process.signal(signal.SIGKILL)
        _until(lambda: not cluster.is_alive(), 10)
        _bounded(observer.snapshot)
        _bounded(lambda: executor.observe(["a"]))
        _bounded(lambda: executor.start(_request(cluster.folder)))
        observer.close()
        executor.close()


def _bounded(call: Callable[[], object]) -> None:
    """The call says that the cluster is unreachable; without a limit of its own, Ray would try for minutes."""
    start = time.monotonic()
    with pytest.raises(ClusterUnreachable):
        call()
    assert time.monotonic() - start < 60


def _answers(call: Callable[[], Snapshot]) -> bool:
    try:
        return bool(call().nodes)
    except ClusterUnreachable:
        return False


def _request(folder: Path) -> RunRequest:
    job = Job("a", "a", 1, {"command": "succeed"}, (), str(folder), str(folder), str(folder / "progress"))
    return RunRequest(job, "a")
