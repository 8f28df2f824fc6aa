"""`cluster.yaml`, and the snapshot it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from cluster.types import EMULATED_SPEED_LABEL, NODE_TYPE_LABEL, DeviceType, NodeDevices
from workloads.errors import SpecError


def test_the_shipped_cluster_has_two_t4_and_an_a100(
    definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog
) -> None:
    snapshot = definition.snapshot(host_rates, catalog, at_s=5.0)
    assert snapshot.at_s == 5.0
    assert [node.name for node in snapshot.nodes] == ["head", "a100", "t4"]
    assert snapshot.nodes[0].is_head
    assert snapshot.nodes[1].devices == (NodeDevices("A100-SXM4-40GB", "A100-SXM4-40GB", 1, 1),)
    assert snapshot.nodes[2].devices == (NodeDevices("T4", "T4", 2, 2),)
    assert snapshot.nodes[2].labels[NODE_TYPE_LABEL] == "t4"
    assert snapshot.nodes[2].labels[EMULATED_SPEED_LABEL] == "0.5"
    assert snapshot.total("cpu") == definition.cpus
    assert snapshot.warnings == ()


def test_emulated_types_have_the_hosts_rates_and_the_types_price_and_memory(
    definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog
) -> None:
    types = definition.snapshot(host_rates, catalog).device_types
    assert types["T4"].peak_flops == {"fp32": 25e9}
    assert types["T4"].memory_bandwidth_bytes_s == 5e9
    assert types["T4"].memory_bytes == 16e9
    assert types["T4"].price_usd_h == 0.526
    assert types["T4"].label == "T4 (emulated)"
    assert types["A100-SXM4-40GB"].peak_flops == {"fp32": 50e9}
    assert types["A100-SXM4-40GB"].price_usd_h == 3.6734
    assert types["A100-SXM4-40GB"].price_source == "gcp/a2-highgpu-1g"
    assert types["cpu"].peak_flops == {"fp32": 50e9}
    assert not types["cpu"].emulated


def test_without_measured_rates_they_are_unknown(definition: ClusterDefinition, catalog: Catalog) -> None:
    types = definition.snapshot(None, catalog).device_types
    assert types["T4"].peak_flops == {}
    assert types["T4"].memory_bandwidth_bytes_s is None
    assert types["T4"].emulated
    assert types["cpu"].peak_flops == {}


def test_real_gpus_take_the_place_of_emulated_nodes(
    definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog
) -> None:
    snapshot = definition.with_real_gpus(("NVIDIA H200", "NVIDIA H200")).snapshot(host_rates, catalog)
    assert [node.name for node in snapshot.nodes] == ["head"]
    assert snapshot.nodes[0].devices[1] == NodeDevices("H200-SXM5-141GB", "GPU", 2, 2)
    assert snapshot.device_types["H200-SXM5-141GB"].peak_flops["bf16"] == 989.4e12
    assert not snapshot.device_types["H200-SXM5-141GB"].emulated
    assert definition.with_real_gpus(()) == definition


def test_an_unknown_real_gpu_keeps_its_name_and_warns(
    definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog
) -> None:
    snapshot = definition.with_real_gpus(("NVIDIA Nonesuch 9000",)).snapshot(host_rates, catalog)
    device = snapshot.device_types["NVIDIA Nonesuch 9000"]
    assert (device.kind, device.peak_flops, device.price_usd_h) == ("gpu", {}, None)
    assert "NVIDIA Nonesuch 9000, which the catalog does not know" in snapshot.warnings[0]


def test_a_stated_price_wins(host_rates: HostRates, catalog: Catalog) -> None:
    node = {"name": "a", "device": "T4", "emulated_speed": 1, "instance": "aws/g4dn.xlarge", "price_usd_h": 0.1}
    types = ClusterDefinition.parse({"nodes": [node]}, catalog).snapshot(host_rates, catalog).device_types
    assert (types["T4"].price_usd_h, types["T4"].price_source) == (0.1, "node a")


def test_names_are_put_in_the_catalogs_own_form(catalog: Catalog) -> None:
    parsed = ClusterDefinition.parse({"nodes": [{"name": "a", "device": "a100"}]}, catalog)
    assert parsed.nodes[0].device == "A100-SXM4-40GB"


def test_more_cpus_than_the_machine_has_are_not_promised(catalog: Catalog) -> None:
    definition = ClusterDefinition.parse({"head": {"cpus": 4096}}, catalog)
    assert 1 <= definition.cpus < 4096
    assert ClusterDefinition.parse({"head": {"cpus": 1}}, catalog).cpus == 1


@pytest.mark.parametrize(
    ("node", "says"),
    [
        pytest.param({"device": "A1000"}, ["nodes.0.device", "did you mean A100"], id="an unknown device"),
        pytest.param(
            {"device": "T4", "instance": "aws/g4dn.xlrge"},
            ["nodes.0.instance", "did you mean aws/g4dn.xlarge"],
            id="an unknown instance",
        ),
        pytest.param(
            {"device": "T4", "instance": "aws/g5.xlarge"},
            ["aws/g5.xlarge has no T4", "aws/g5.xlarge has A10G"],
            id="an instance with other devices",
        ),
        pytest.param({"device": "T4", "count": 0}, ["nodes.0.count"], id="no devices"),
        pytest.param({"device": "T4", "emulated_speed": 2}, ["nodes.0.emulated_speed"], id="faster than the host"),
        pytest.param(
            {"device": "T4", "speed": 1},
            ["nodes.0.speed", "fields are name, device, count, number, emulated_speed"],
            id="an unknown field",
        ),
        pytest.param({"device": "T4", "name": "Not A Name"}, ["nodes.0.name"], id="a name Ray would refuse"),
        pytest.param({"device": "T4", "name": "head"}, ["'head' is used twice"], id="the head's name"),
    ],
)
def test_a_bad_node_is_refused(catalog: Catalog, node: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        ClusterDefinition.parse({"nodes": [{"name": "a", **node}]}, catalog, file="cluster.yaml")
    assert str(caught.value).startswith("cluster.yaml")
    for part in says:
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["nodes: [", "- 1"], ids=["not YAML", "not a mapping"])
def test_a_broken_file_is_refused(tmp_path: Path, catalog: Catalog, text: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"cluster\.yaml"):
        ClusterDefinition.load(tmp_path / "cluster.yaml", catalog)


def test_a_number_of_nodes_that_are_alike(catalog: Catalog) -> None:
    nodes = [{"name": "t4", "device": "T4", "count": 4, "number": 3}, {"name": "big", "device": "T4"}]
    found = ClusterDefinition.parse({"nodes": nodes}, catalog)
    assert [(node.name, node.count) for node in found.nodes] == [("t4-1", 4), ("t4-2", 4), ("t4-3", 4), ("big", 1)]
    assert found.snapshot(None, catalog).total("T4") == 13
    with pytest.raises(SpecError, match="'t4-2' is used twice"):
        ClusterDefinition.parse({"nodes": [*nodes, {"name": "t4-2", "device": "T4"}]}, catalog)


def test_nodes_to_rent_are_no_nodes_yet_but_types_with_a_price(catalog: Catalog) -> None:
    nodes = [
        {"name": "own", "device": "T4"},
        {
            "name": "g4",
            "device": "t4",
            "count": 4,
            "instance": "aws/g4dn.12xlarge",
            "rent": {"most": 5, "launch_s": 90},
        },
        {"name": "spot", "device": "T4", "price_usd_h": 0.2, "market": "spot", "number": 1, "rent": {"most": 2}},
    ]
    definition = ClusterDefinition.parse({"nodes": nodes, "rent_cap_usd_h": 12.5}, catalog)
    snapshot = definition.snapshot(None, catalog)
    assert [(node.name, node.node_type) for node in snapshot.nodes[1:]] == [("own", "own"), ("spot-1", "spot")]
    assert snapshot.total("T4") == 2
    assert snapshot.with_rentable().total("T4") == 2 + 5 * 4 + 1
    assert snapshot.with_rentable().with_rentable() == snapshot.with_rentable()
    price = catalog.price("T4", "aws/g4dn.12xlarge")
    assert price is not None
    g4, spot = snapshot.node_types
    assert (g4.name, g4.devices, g4.most, g4.launch_s, g4.launching) == ("g4", (("T4", 4),), 5, 90.0, 0)
    assert g4.price_usd_h == pytest.approx(4 * price.usd_h)
    assert (spot.price_usd_h, spot.market, spot.launch_s) == (0.2, "spot", 180.0)
    assert spot.interruptions_per_h == catalog.interruptions_per_h("T4")
    assert snapshot.rent_cap_usd_h == 12.5
    assert [node.node_id for node in snapshot.rented("spot")] == ["planned-spot-1"]
    assert snapshot.rented_usd_h() == pytest.approx(0.2)
    assert ClusterDefinition.parse({"nodes": nodes[:1]}, catalog).snapshot(None, catalog).node_types == ()


def test_a_type_that_may_only_be_rented_is_known(catalog: Catalog) -> None:
    node = {"name": "a", "device": "A100", "rent": {"most": 2}}
    snapshot = ClusterDefinition.parse({"nodes": [node]}, catalog).snapshot(None, catalog)
    assert snapshot.total("A100-SXM4-40GB") == 0
    price = catalog.price("A100-SXM4-40GB")
    assert price is not None
    assert snapshot.device_types["A100-SXM4-40GB"].price_usd_h == price.usd_h == snapshot.node_types[0].price_usd_h


@pytest.mark.parametrize(
    ("node", "says"),
    [
        pytest.param(
            {"number": 3, "rent": {"most": 2}}, ["nodes.0.rent.most", "raise it to 3"], id="fewer than there are"
        ),
        pytest.param({"rent": {}}, ["nodes.0.rent.most", "required"], id="nobody says how many"),
        pytest.param({"rent": {"most": 0}}, ["nodes.0.rent.most"], id="none at all"),
        pytest.param({"rent": {"most": 1, "launch": 9}}, ["fields are most, launch_s"], id="an unknown field"),
        pytest.param({"number": 0}, ["nodes.0.number", "give it a `rent`"], id="no nodes that are not rented either"),
        pytest.param(
            {"rent": {"most": 1}, "price_usd_h": 0}, ["nodes.0.price_usd_h", "a price of 0"], id="nodes for nothing"
        ),
        pytest.param(
            {"device": "Z9", "rent": {"most": 1}}, ["no known price", "give `price_usd_h`"], id="nobody knows the price"
        ),
    ],
)
def test_bad_nodes_to_rent_are_refused(catalog: Catalog, node: dict[str, Any], says: list[str]) -> None:
    extra = DeviceType("Z9", "gpu")
    known = Catalog({**catalog.device_types, "Z9": extra}, catalog.instances)
    with pytest.raises(SpecError) as caught:
        ClusterDefinition.parse({"nodes": [{"name": "a", "device": "T4", **node}]}, known, file="cluster.yaml")
    for part in says:
        assert part in str(caught.value)


def test_no_node_has_the_name_of_a_kind_that_is_rented(catalog: Catalog) -> None:
    nodes = [{"name": "g4", "device": "T4", "rent": {"most": 2}}, {"name": "g4", "device": "T4"}]
    with pytest.raises(SpecError, match="'g4' is used twice"):
        ClusterDefinition.parse({"nodes": nodes}, catalog)


def test_queues_have_rules(catalog: Catalog) -> None:
    rules = {"name": "research", "weight": 2, "quota": {"t4": 3}, "limit_usd_h": 12.5}
    (queue,) = ClusterDefinition.parse({"queues": [rules]}, catalog).queues
    assert (queue.name, queue.weight, queue.quota, queue.limit_usd_h) == ("research", 2.0, {"T4": 3}, 12.5)


@pytest.mark.parametrize(
    ("rules", "field", "said"),
    [
        ([{"name": "a"}, {"name": "a"}], "queues.0.name", "the queue 'a' is there twice"),
        ([{"name": "a", "quota": {"T44": 1}}], "queues.0.quota.T44", "T44"),
        ([{"name": "a", "quota": {"T4": -1}}], "queues.0.quota.T4", "greater than or equal to 0"),
        ([{"name": "a", "weight": 0}], "queues.0.weight", "greater than 0"),
        ([{"name": "a", "share": 2}], "queues.0.share", "Extra inputs"),
        (5, "queues", "must be a list"),
    ],
    ids=["named twice", "an unknown device", "a negative quota", "no weight", "a field that is not there", "no list"],
)
def test_queues_that_make_no_sense(catalog: Catalog, rules: Any, field: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        ClusterDefinition.parse({"queues": rules}, catalog, file="c.yaml")
    assert field in [problem.field for problem in error.value.problems]
    assert any(said in problem.message for problem in error.value.problems)
