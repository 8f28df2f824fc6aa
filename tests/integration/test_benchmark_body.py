"""The benchmark body on the real local cluster: every device type has its rates, at its emulated speed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.host import HostRates
from cluster.local import LocalCluster
from cluster.ray_executor import RayExecutor
from cluster.ray_observer import RayObserver
from cluster.types import RunRequest, Snapshot
from workloads.job import Job, Shard

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

A100 = "A100-SXM4-40GB"
DEVICES = ("cpu", "T4", "T4", A100)
RUN_ID = "benchmark-1"


def _shards(snapshot: Snapshot) -> tuple[Shard, ...]:
    shards = []
    for device_type in DEVICES:
        node = next(node for node in snapshot.nodes if node.devices_of(device_type))
        devices = node.devices_of(device_type)
        assert devices is not None
        speed = snapshot.device_types[device_type].emulated_speed
        shards.append(Shard(device_type, node.node_id, {devices.resource: 1.0}, speed))
    return tuple(shards)


@pytest.fixture(scope="module")
def records(
    local_cluster: LocalCluster, catalog: Catalog, host_rates: HostRates, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The progress of one benchmark of all device types."""
    folder = tmp_path_factory.mktemp("benchmark")
    observer = RayObserver(local_cluster.address, catalog, host_rates, local_cluster.token_path)
    executor = RayExecutor(
        local_cluster.dashboard_url,
        local_cluster.address,
        lambda run_id: folder / f"{run_id}.progress",
        token_path=local_cluster.token_path,
        staging=folder / "stage",
    )
    job = Job(
        workload_id=RUN_ID,
        run_id=RUN_ID,
        attempt=1,
        spec={"kind": "benchmark", "name": "benchmark"},
        shards=_shards(observer.snapshot()),
        run_dir=str(folder / "run"),
        output=str(folder / "output"),
        progress_path=str(folder / f"{RUN_ID}.progress"),
    )
    try:
        executor.start(RunRequest(job, "benchmark"))
        deadline = time.monotonic() + 200
        while not (run := executor.observe([RUN_ID])[RUN_ID]).ended:
            assert time.monotonic() < deadline, executor.logs(RUN_ID)
            time.sleep(0.5)
        assert run.state == "succeeded", f"{run.message}\n{executor.logs(RUN_ID)}"
        return [dict(record) for record in executor.progress(RUN_ID)]
    finally:
        executor.close()
        observer.close()


@pytest.fixture(scope="module")
def rates(records: list[dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    """The `rates` record of each device type."""
    return {record["device_type"]: record for record in records if record["kind"] == "rates"}


@pytest.mark.parametrize(("device_type", "shards"), [("cpu", 1), ("T4", 2), (A100, 1)])
def test_each_type_has_all_its_rates(rates: Mapping[str, dict[str, Any]], device_type: str, shards: int) -> None:
    found = rates[device_type]
    assert found["shards"] == shards
    assert set(found["flops"]) == {"fp32", "bf16"}
    numbers = [*found["flops"].values(), found["bandwidth_bytes_s"], found["elementwise_bytes_s"], found["launch_s"]]
    numbers += [found["reduce_bytes_s"]] if shards > 1 else []
    assert all(math.isfinite(number) and number > 0 for number in numbers), found
    assert (found["reduce_bytes_s"] is None) == (shards == 1)


def test_the_rates_are_also_a_file(records: list[dict[str, Any]], rates: Mapping[str, dict[str, Any]]) -> None:
    assert [record["phase"] for record in records if record["kind"] == "phase"] == ["starting", "running"]
    done = next(record for record in records if record["kind"] == "done")
    written = json.loads((Path(done["outputs"]["output"]) / "rates.json").read_text())
    assert {record["device_type"]: record for record in written} == {
        name: {key: value for key, value in record.items() if key not in ("t", "kind")}
        for name, record in rates.items()
    }
