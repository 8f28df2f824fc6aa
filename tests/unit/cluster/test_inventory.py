"""From what nodes say of themselves to a snapshot."""

from __future__ import annotations

import pytest

from cluster.catalog import Catalog
from cluster.host import HostRates
from cluster.inventory import HEAD_RESOURCE, NodeFacts, build_snapshot
from cluster.types import DEVICE_LABEL, EMULATED_SPEED_LABEL, INSTANCE_LABEL, PRICE_LABEL, NodeDevices

GPU_LABEL = "ray.io/accelerator-type"


def _node(name: str, labels: dict[str, str], total: dict[str, float], **free: float) -> NodeFacts:
    return NodeFacts(name * 8, name, labels, total, {**total, **free})


def _emulated(name: str, speed: str = "0.5", **labels: str) -> NodeFacts:
    return _node(name, {DEVICE_LABEL: "T4", EMULATED_SPEED_LABEL: speed, **labels}, {"T4": 2.0})


def test_a_gpu_is_known_by_rays_own_label(catalog: Catalog, host_rates: HostRates) -> None:
    node = _node("a", {GPU_LABEL: "H100"}, {"GPU": 8.0, "CPU": 96.0, "memory": 5e11}, GPU=3.0, CPU=95.5)
    snapshot = build_snapshot(1.0, [node], catalog, host_rates)
    assert snapshot.nodes[0].devices == (NodeDevices("cpu", "CPU", 96, 95), NodeDevices("H100-SXM5-80GB", "GPU", 8, 3))
    assert snapshot.nodes[0].memory_bytes == 5e11
    assert snapshot.free("H100-SXM5-80GB") == 3


def test_a_process_on_a_core_has_the_memory_of_the_smallest_node_and_not_of_the_service(
    catalog: Catalog, host_rates: HostRates
) -> None:
    nodes = [
        _node(name, {}, {"CPU": 4.0, "memory": 0.7 * size, "object_store_memory": 0.3 * size})
        for name, size in (("a", 512e9), ("b", 8e9), ("c", 64e9))
    ]
    snapshot = build_snapshot(0, [*nodes, _emulated("d")], catalog, host_rates)
    assert snapshot.device_types["cpu"].memory_bytes == pytest.approx(8e9)
    assert snapshot.device_types["T4"].host_memory_bytes == host_rates.memory_bytes
    silent = build_snapshot(0, [_node("a", {}, {"CPU": 4.0})], catalog, host_rates)
    assert silent.device_types["cpu"].memory_bytes == host_rates.memory_bytes


def test_our_own_label_is_more_exact_than_rays(catalog: Catalog) -> None:
    node = _node("a", {GPU_LABEL: "A100", DEVICE_LABEL: "A100-SXM4-80GB"}, {"GPU": 1.0})
    assert build_snapshot(0, [node], catalog, None).nodes[0].devices[0].device_type == "A100-SXM4-80GB"


def test_an_unknown_gpu_has_its_own_name_and_no_rates_and_no_price(catalog: Catalog) -> None:
    snapshot = build_snapshot(0, [_node("a", {GPU_LABEL: "Z9"}, {"GPU": 1.0})], catalog, None)
    device = snapshot.device_types["Z9"]
    assert (device.peak_flops, device.price_usd_h, device.memory_bytes) == ({}, None, None)
    assert "Z9" in snapshot.warnings[0]


def test_a_gpu_without_any_label_is_still_counted(catalog: Catalog) -> None:
    snapshot = build_snapshot(0, [_node("a", {}, {"GPU": 2.0})], catalog, None)
    assert snapshot.nodes[0].devices == (NodeDevices("GPU", "GPU", 2, 2),)
    assert len(snapshot.warnings) == 1


def test_a_type_that_is_emulated_and_real_is_taken_as_real(catalog: Catalog, host_rates: HostRates) -> None:
    real = _node("b", {GPU_LABEL: "T4"}, {"GPU": 1.0})
    for nodes in ([_emulated("a"), real], [real, _emulated("c")]):
        snapshot = build_snapshot(0, nodes, catalog, host_rates)
        assert not snapshot.device_types["T4"].emulated
        assert snapshot.device_types["T4"].peak_flops["fp16"] == 65e12
        assert snapshot.total("T4") == 3
        assert snapshot.warnings == ("T4 is both emulated and real: the real one's figures are used for both",)


def test_two_speeds_of_one_type_warn(catalog: Catalog, host_rates: HostRates) -> None:
    snapshot = build_snapshot(0, [_emulated("a", "0.5"), _emulated("b", "0.25")], catalog, host_rates)
    assert snapshot.device_types["T4"].emulated_speed == 0.25
    assert len(snapshot.warnings) == 1


def test_two_prices_of_one_type_warn_and_the_lowest_counts(catalog: Catalog, host_rates: HostRates) -> None:
    nodes = [_emulated("a", **{PRICE_LABEL: "0.9"}), _emulated("b", **{INSTANCE_LABEL: "aws_g4dn.xlarge"})]
    snapshot = build_snapshot(0, nodes, catalog, host_rates)
    assert snapshot.device_types["T4"].price_usd_h == 0.526
    assert len(snapshot.warnings) == 1


def test_bad_labels_warn(catalog: Catalog, host_rates: HostRates) -> None:
    nodes = [
        _emulated("a", "fast", **{PRICE_LABEL: "cheap"}),
        _node("b", {DEVICE_LABEL: "A10G"}, {"CPU": 1.0}),
    ]
    snapshot = build_snapshot(0, nodes, catalog, host_rates)
    assert len(snapshot.warnings) == 3
    assert snapshot.device_types["T4"].emulated_speed == 1.0


def test_the_head_comes_first_and_the_rest_by_name(catalog: Catalog) -> None:
    nodes = [_emulated("b"), _emulated("a"), _node("z", {}, {"CPU": 1.0, HEAD_RESOURCE: 1.0})]
    assert [node.name for node in build_snapshot(0, nodes, catalog, None).nodes] == ["z", "a", "b"]


def test_a_real_node_has_its_instances_network(catalog: Catalog) -> None:
    label = {INSTANCE_LABEL: "aws_g4dn.xlarge", GPU_LABEL: "T4"}
    snapshot = build_snapshot(0, [_node("a", label, {"GPU": 1.0}), _emulated("b", **label)], catalog, None)
    assert [node.network_bytes_s for node in snapshot.nodes] == [5e9 / 8, None]


def test_a_custom_accelerator_needs_no_emulation(catalog: Catalog) -> None:
    snapshot = build_snapshot(0, [_node("a", {DEVICE_LABEL: "FPGA-VU9P"}, {"FPGA-VU9P": 2.0})], catalog, None)
    assert snapshot.nodes[0].devices == (NodeDevices("FPGA-VU9P", "FPGA-VU9P", 2, 2),)
    assert snapshot.device_types["FPGA-VU9P"].kind == "fpga"
    assert not snapshot.device_types["FPGA-VU9P"].emulated
