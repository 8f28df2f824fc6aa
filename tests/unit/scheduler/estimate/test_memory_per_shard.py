"""Host memory that a shard asks for, against what the nodes have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.types import DeviceType, Node, NodeDevices, Snapshot
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import estimate_table
from scheduler.estimate.work import Work
from scheduler.types import Reason
from workloads.spec import Resources

NODE = Node("a", "a", devices=(NodeDevices("T4", "T4", 2, 2),), memory_bytes=16e9)
CLUSTER = Snapshot(0.0, (NODE, replace(NODE, node_id="b", name="b")), {"T4": DeviceType("T4", "gpu", price_usd_h=0.5)})


@pytest.mark.parametrize(
    ("memory", "room"),
    [
        pytest.param("4GB", 4, id="all fit"),
        pytest.param("10GB", 2, id="one shard a node"),
        pytest.param("17GB", 0, id="none fits"),
    ],
)
def test_shards_fit_node_by_node(memory: str, room: int) -> None:
    resources = Resources.model_validate({"devices": ["T4"], "count": "1..4", "memory_per_shard": memory})
    table = estimate_table(Work("train", "mine", declared_s=10.0), resources, CLUSTER, Calibration())
    assert [estimate.infeasible is None for estimate in table] == [count <= room for count in (1, 2, 3, 4)]
    if room < 4:
        wanted = f"{float(memory[:-2]):.1f} GB of host memory a shard"
        message = f"{wanted}: the nodes with T4 have room for {room} of 4 shards"
        assert table[-1].infeasible == Reason("memory", message)
