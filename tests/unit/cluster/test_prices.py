"""What devices cost on each market, how often they are taken back, and what the cluster pays for electricity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from cluster.inventory import HEAD_RESOURCE, NodeFacts, build_snapshot, rate_labels
from cluster.types import (
    DEVICE_LABEL,
    EGRESS_PRICE_LABEL,
    EMULATED_SPEED_LABEL,
    ENERGY_OVERHEAD_LABEL,
    GCO2E_PER_KWH_LABEL,
    INSTANCE_LABEL,
    MARKET_LABEL,
    PRICE_LABEL,
    USD_PER_KWH_LABEL,
    EnergyRates,
    Snapshot,
    Tariff,
)
from workloads.errors import SpecError

GPU_LABEL = "ray.io/accelerator-type"
G4 = {GPU_LABEL: "T4", INSTANCE_LABEL: "aws_g4dn.xlarge"}


def snapshot(catalog: Catalog, *labels: dict[str, str], head: dict[str, str] | None = None) -> Snapshot:
    """A head, and a node of one GPU for each set of labels."""
    facts = [NodeFacts("h", "head", head or {}, {"CPU": 1.0, HEAD_RESOURCE: 1.0})]
    facts += [NodeFacts(f"n{i}", f"n{i}", each, {"GPU": 1.0}) for i, each in enumerate(labels)]
    return build_snapshot(0.0, facts, catalog, None)


def own(tmp_path: Path, text: str) -> Catalog:
    """The catalog with these rows over it."""
    (tmp_path / "own.csv").write_text(text)
    return Catalog.load(tmp_path / "own.csv")


class TestCatalog:
    def test_a_device_has_the_cheapest_price_of_each_market(self, catalog: Catalog) -> None:
        offers = [each for each in catalog.instances.values() if each.device == "T4"]
        cheapest = min(each.price_spot_usd_h / each.device_count for each in offers if each.price_spot_usd_h)
        price = catalog.price("T4", market="spot")
        assert price is not None
        assert (price.usd_h, price.market, price.interruptions_per_h) == (cheapest, "spot", None)
        device = catalog.device("T4")
        assert (device.price_usd_h, device.spot_price_usd_h, device.market) == (0.526, cheapest, "on-demand")

    def test_the_spot_price_of_an_instance_is_shared_by_its_devices(self, catalog: Catalog) -> None:
        total = catalog.instance("aws/g4dn.12xlarge").price_spot_usd_h
        price = catalog.price("T4", "aws/g4dn.12xlarge", "spot")
        assert total is not None
        assert price is not None
        assert price.usd_h == total / 4

    def test_a_spot_price_is_never_made_up_from_the_other(self, tmp_path: Path) -> None:
        header = "cloud,instance_type,device,device_count,price_on_demand_usd_h,source\n"
        catalog = own(tmp_path, header + "lab,box,RTX-2080Ti,1,0.5,ours\n")
        assert catalog.price("RTX-2080Ti", market="spot") is None
        assert catalog.device("RTX-2080Ti").spot_price_usd_h is None
        assert catalog.device("RTX-2080Ti").price_usd_h == 0.5

    def test_ones_own_file_gives_interruptions_and_prices(self, tmp_path: Path) -> None:
        header = "cloud,instance_type,interruptions_per_h,price_spot_usd_h\n"
        catalog = own(tmp_path, header + "aws,g4dn.xlarge,0.05,0.01\n")
        assert catalog.device("T4").interruptions_per_h == 0.05
        assert catalog.device("T4").spot_price_usd_h == 0.01
        assert catalog.device("A10G").interruptions_per_h is None

    def test_a_devices_own_row_wins_over_any_instance(self, tmp_path: Path) -> None:
        catalog = own(tmp_path, "name,kind,price_usd_h,spot_price_usd_h,interruptions_per_h\nT4,gpu,0.3,0.02,0.1\n")
        device = catalog.device("T4")
        assert (device.price_usd_h, device.spot_price_usd_h, device.interruptions_per_h) == (0.3, 0.02, 0.1)
        on_instance = catalog.price("T4", "aws/g4dn.xlarge", "spot")
        assert on_instance is not None
        assert on_instance.usd_h == catalog.instance("aws/g4dn.xlarge").price_spot_usd_h
        assert on_instance.interruptions_per_h == 0.1

    @pytest.mark.parametrize(
        ("column", "cell", "says"),
        [
            pytest.param("price_usd_h", "-1", "zero or more", id="a negative price"),
            pytest.param("price_usd_h", "1e9", "price_usd_h is from 0 to 1000", id="a price in cents of cents"),
            pytest.param("spot_price_usd_h", "nan", "zero or more", id="a price that is no number"),
            pytest.param("interruptions_per_h", "3600", "is from 0 to 60", id="a rate in seconds"),
            pytest.param("interruptions_per_h", "-0.1", "zero or more", id="a negative rate"),
            pytest.param("fp16_tflops", "65e12", "fp16_tflops is from", id="FLOP/s for TFLOP/s"),
            pytest.param("fp16_tflops", "0", "fp16_tflops is from", id="zero for not known"),
            pytest.param("memory_gb", "16e9", "memory_gb is from", id="bytes for GB"),
            pytest.param("memory_bandwidth_gb_s", "320e9", "memory_bandwidth_gb_s is from", id="bytes/s for GB/s"),
            pytest.param("power_watts", "0", "power_watts is from", id="no power"),
            pytest.param("year", "2018.5", "whole number", id="half a year"),
        ],
    )
    def test_a_number_that_cannot_be_is_refused(self, tmp_path: Path, column: str, cell: str, says: str) -> None:
        with pytest.raises(SpecError) as caught:
            own(tmp_path, f"name,kind,{column}\nT4,gpu,{cell}\n")
        (problem,) = caught.value.problems
        assert problem.file.endswith("own.csv")
        assert problem.field == f"line 2, column {column}"
        assert says in problem.message
        assert problem.hint == "leave unknown values empty"

    @pytest.mark.parametrize(
        ("column", "cell"),
        [
            ("price_on_demand_usd_h", "1e6"),
            ("price_spot_usd_h", "-2"),
            ("interruptions_per_h", "61"),
            ("device_count", "1.5"),
            ("vcpus", "0"),
        ],
    )
    def test_so_is_an_instances(self, tmp_path: Path, column: str, cell: str) -> None:
        with pytest.raises(SpecError, match=f"line 2, column {column}"):
            own(tmp_path, f"cloud,instance_type,{column}\naws,g4dn.xlarge,{cell}\n")


class TestMarkets:
    def test_a_spot_node_has_spot_prices(self, catalog: Catalog) -> None:
        seen = snapshot(catalog, {**G4, MARKET_LABEL: "spot"})
        device = seen.device_types["T4"]
        assert device.price_usd_h == catalog.instance("aws/g4dn.xlarge").price_spot_usd_h == device.spot_price_usd_h
        assert (device.market, device.price_source) == ("spot", "aws/g4dn.xlarge spot")
        assert [node.market for node in seen.nodes] == ["on-demand", "spot"]
        assert seen.warnings == ()
        assert seen.device_types["cpu"].market == "on-demand"

    def test_a_node_on_demand_knows_its_instances_spot_price(self, catalog: Catalog) -> None:
        device = snapshot(catalog, {**G4, INSTANCE_LABEL: "aws_g4dn.12xlarge"}).device_types["T4"]
        total = catalog.instance("aws/g4dn.12xlarge").price_spot_usd_h
        assert total is not None
        assert (device.market, device.spot_price_usd_h) == ("on-demand", total / 4)

    def test_a_price_the_node_states_is_that_of_its_market(self, catalog: Catalog) -> None:
        device = snapshot(catalog, {**G4, MARKET_LABEL: "spot", PRICE_LABEL: "0.07"}).device_types["T4"]
        assert (device.price_usd_h, device.spot_price_usd_h, device.market) == (0.07, 0.07, "spot")

    def test_interruptions_come_with_the_price(self, tmp_path: Path) -> None:
        catalog = own(tmp_path, "cloud,instance_type,interruptions_per_h\naws,g4dn.xlarge,0.05\n")
        for stated in ({}, {PRICE_LABEL: "0.07"}):
            device = snapshot(catalog, {**G4, MARKET_LABEL: "spot", **stated}).device_types["T4"]
            assert device.interruptions_per_h == 0.05

    def test_without_a_spot_price_it_is_unpriced_and_warns(self, catalog: Catalog) -> None:
        seen = snapshot(catalog, {GPU_LABEL: "RTX-2080Ti", MARKET_LABEL: "spot"})
        device = seen.device_types["RTX-2080Ti"]
        assert (device.price_usd_h, device.spot_price_usd_h, device.market) == (None, None, "spot")
        assert seen.warnings == ("node n0 is on spot, and no spot price of RTX-2080Ti is known: it is unpriced",)

    @pytest.mark.parametrize(
        "order", [[0, 1], [1, 0], [1, 0, 1]], ids=["spot last", "spot first", "spot on both sides"]
    )
    def test_a_type_on_both_markets_has_the_figures_of_on_demand(self, catalog: Catalog, order: list[int]) -> None:
        kinds = [G4, {**G4, MARKET_LABEL: "spot"}]
        seen = snapshot(catalog, *(kinds[each] for each in order))
        device = seen.device_types["T4"]
        assert (device.price_usd_h, device.market) == (0.526, "on-demand")
        assert seen.warnings == ("T4 is both on demand and on spot: the figures of on demand are used for both",)

    def test_another_word_for_a_market_warns(self, catalog: Catalog) -> None:
        seen = snapshot(catalog, {**G4, MARKET_LABEL: "preemptible"})
        assert seen.device_types["T4"].market == "on-demand"
        assert seen.warnings == (
            "node n0: raywise.io/market=preemptible is neither spot nor on-demand, taken as on-demand",
        )

    @pytest.mark.parametrize("text", ["-1", "nan", "inf", "cheap"])
    def test_a_price_that_cannot_be_warns_and_is_not_used(self, catalog: Catalog, text: str) -> None:
        seen = snapshot(catalog, {**G4, PRICE_LABEL: text})
        assert seen.device_types["T4"].price_usd_h == 0.526
        assert seen.warnings == (f"node n0: raywise.io/price-usd-h={text} is not a number of zero or more",)

    @pytest.mark.parametrize("host", [True, False], ids=["host measured", "host unknown"])
    def test_the_energy_of_an_emulated_device_is_unknown(
        self, catalog: Catalog, host_rates: HostRates, host: bool
    ) -> None:
        labels = {DEVICE_LABEL: "T4", EMULATED_SPEED_LABEL: "0.5"}
        facts = [NodeFacts("a", "a", labels, {"T4": 1.0})]
        seen = build_snapshot(0.0, facts, catalog, host_rates if host else None)
        assert seen.device_types["T4"].power_watts is None
        assert catalog.device("T4").power_watts == 70


class TestRates:
    def test_nothing_is_known_of_electricity_unless_it_is_told(
        self, definition: ClusterDefinition, catalog: Catalog
    ) -> None:
        seen = definition.snapshot(None, catalog)
        assert seen.energy == EnergyRates(None, None, 1.0)
        assert seen.tariff == Tariff(0.023, 0.0)
        assert "usd" not in " ".join(definition.head_labels(catalog))

    @pytest.mark.parametrize(
        ("energy", "tariff"),
        [
            pytest.param(EnergyRates(0.21, 385.5, 1.12), Tariff(0.02, 0.01), id="all of them"),
            pytest.param(EnergyRates(0.0, None, 1.0), Tariff(0.0, 0.09), id="free of charge is not unknown"),
            pytest.param(EnergyRates(), Tariff(None, None), id="known not to be known"),
            pytest.param(EnergyRates(1e-7, 1234.56789, 1.0), Tariff(), id="many digits"),
        ],
    )
    def test_a_definition_and_the_labels_of_its_head_say_the_same(
        self, catalog: Catalog, energy: EnergyRates, tariff: Tariff
    ) -> None:
        data = {"energy": vars(energy), "tariff": vars(tariff)}
        definition = ClusterDefinition.parse(data, catalog)
        planned = definition.snapshot(None, catalog)
        observed = snapshot(catalog, head=definition.head_labels(catalog))
        assert (planned.energy, planned.tariff) == (energy, tariff)
        assert (observed.energy, observed.tariff) == (energy, tariff)

    def test_labels_are_written_only_for_what_differs(self) -> None:
        assert rate_labels(EnergyRates(), Tariff()) == {}
        labels = rate_labels(replace(EnergyRates(), usd_per_kwh=0.3), Tariff(egress_usd_gb=None))
        assert labels == {USD_PER_KWH_LABEL: "0.3", EGRESS_PRICE_LABEL: "unknown"}

    def test_labels_that_cannot_be_warn_and_are_not_used(self, catalog: Catalog) -> None:
        labels = {USD_PER_KWH_LABEL: "-0.1", GCO2E_PER_KWH_LABEL: "much", ENERGY_OVERHEAD_LABEL: "0.5"}
        seen = snapshot(catalog, head=labels)
        assert seen.energy == EnergyRates()
        assert len(seen.warnings) == 3
        assert "raywise.io/energy-overhead=0.5 is not a number of 1 or more" in seen.warnings[2]

    def test_only_the_head_speaks_for_the_cluster(self, catalog: Catalog) -> None:
        assert snapshot(catalog, {**G4, USD_PER_KWH_LABEL: "0.3"}).energy == EnergyRates()
        assert build_snapshot(0.0, [], catalog, None).energy == EnergyRates()

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            pytest.param({"energy": {"usd_per_kwh": -1}}, ["energy.usd_per_kwh"], id="a negative price"),
            pytest.param({"energy": {"overhead": 0.9}}, ["energy.overhead"], id="less than its machines"),
            pytest.param({"energy": {"gco2e_per_kwh": 1e9}}, ["energy.gco2e_per_kwh"], id="tonnes"),
            pytest.param(
                {"energy": {"price": 1}},
                ["energy.price", "fields are usd_per_kwh, gco2e_per_kwh, overhead"],
                id="a field",
            ),
            pytest.param({"tariff": {"egress_usd_gb": -1}}, ["tariff.egress_usd_gb"], id="paid to move data"),
            pytest.param(
                {"nodes": [{"name": "a", "device": "T4", "market": "cheap"}]}, ["nodes.0.market"], id="no market"
            ),
            pytest.param(
                {"nodes": [{"name": "a", "device": "T4", "price_usd_h": 1e6}]}, ["nodes.0.price_usd_h"], id="too dear"
            ),
        ],
    )
    def test_a_bad_definition_is_refused(self, catalog: Catalog, data: dict[str, Any], says: list[str]) -> None:
        with pytest.raises(SpecError) as caught:
            ClusterDefinition.parse(data, catalog, file="cluster.yaml")
        for part in ["cluster.yaml", *says]:
            assert part in str(caught.value)

    def test_a_spot_node_of_a_definition(self, catalog: Catalog, host_rates: HostRates) -> None:
        node = {"name": "a", "device": "T4", "emulated_speed": 0.5, "instance": "aws/g4dn.xlarge", "market": "spot"}
        seen = ClusterDefinition.parse({"nodes": [node]}, catalog).snapshot(host_rates, catalog)
        device = seen.device_types["T4"]
        assert device.price_usd_h == catalog.instance("aws/g4dn.xlarge").price_spot_usd_h
        assert (device.market, device.emulated, seen.nodes[1].market) == ("spot", True, "spot")
