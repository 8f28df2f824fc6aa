"""What a cluster costs an hour, by kind of node."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.render import NodeCost, node_costs, usd_h


def costs(data: dict[str, Any], catalog: Catalog) -> dict[str, NodeCost]:
    return {each.name: each for each in node_costs(ClusterDefinition.parse(data, catalog), catalog)}


def test_each_kind_costs_what_its_machine_does_on_its_market(written: dict[str, Any], catalog: Catalog) -> None:
    found = costs(written["aws"], catalog)
    assert {name: (each.machine, each.usd_h, each.least, each.most) for name, each in found.items()} == {
        "head": ("aws/m5.2xlarge", 0.384, 1, 1),
        "cpu": ("aws/m5.4xlarge", 0.768, 1, 4),
        "t4-spot-us-east-1a": ("aws/g4dn.xlarge", 0.215, 0, 8),
        "t4-spot-us-east-1b": ("aws/g4dn.xlarge", 0.215, 0, 8),
        "a10g": ("aws/g5.xlarge", 1.006, 0, 4),
        "a100": ("aws/p4d.24xlarge", 21.9576, 0, 1),
    }
    least, _ = usd_h(found.values(), {each.name: each.least for each in found.values()})
    most, unknown = usd_h(found.values(), {each.name: each.most for each in found.values()})
    assert least == pytest.approx(0.384 + 0.768)
    assert most == pytest.approx(0.384 + 4 * 0.768 + 16 * 0.215 + 4 * 1.006 + 21.9576)
    assert unknown == ()


def test_a_stated_price_wins_and_a_part_of_a_machine_costs_a_part(catalog: Catalog) -> None:
    data = {
        "provider": {"type": "kuberay", "image": "raywise:0.1.0", "pods": {"own": {"cpus": 8, "memory_gib": 32}}},
        "nodes": [
            {"name": "half", "device": "T4", "count": 2, "instance": "aws/g4dn.12xlarge", "rent": {"most": 1}},
            {"name": "own", "device": "cpu", "price_usd_h": 0.05, "rent": {"most": 2}},
        ],
    }
    found = costs(data, catalog)
    assert found["half"].usd_h == pytest.approx(3.912 / 2)
    assert found["own"].usd_h == pytest.approx(8 * 0.05)


def test_what_is_not_known_is_said_and_not_counted(catalog: Catalog) -> None:
    data = {
        "provider": {"type": "aws", "region": "us-east-1"},
        "nodes": [
            {"name": "fpga", "device": "FPGA-VU47P", "instance": "aws/f2.6xlarge", "market": "spot", "number": 2}
        ],
    }
    found = costs(data, catalog)
    assert found["fpga"].usd_h is None
    assert usd_h(found.values(), {"head": 1, "fpga": 2}) == (0.192, ("fpga",))
    assert usd_h(found.values(), {"head": 1}) == (0.192, ())
    kuberay = {"provider": {"type": "kuberay", "image": "x"}}
    assert [each.usd_h for each in costs(kuberay, catalog).values()] == [None]
