"""The catalog: units, names, prices, and what it says of a bad file."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import pytest

from cluster.catalog import Catalog
from cluster.catalog.aliases import ALIASES
from cluster.catalog.catalog import SHIPPED
from workloads.errors import SpecError


def test_rates_are_in_si_units(catalog: Catalog) -> None:
    device = catalog.device("A100-SXM4-40GB")
    assert device.memory_bytes == 40e9
    assert device.memory_bandwidth_bytes_s == 1555e9
    assert device.peak_flops == {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12, "bf16": 312e12, "int8": 624e12}
    assert device.interconnect_bytes_s == 600e9
    assert device.power_watts == 400
    instance = catalog.instance("aws/g4dn.xlarge")
    assert instance.memory_bytes == 16 * 2**30
    assert instance.network_bytes_s == 5e9 / 8


def test_what_is_not_known_is_none_and_never_zero(catalog: Catalog) -> None:
    inferentia = catalog.device("Inferentia1")
    assert "fp32" not in inferentia.peak_flops
    assert inferentia.interconnect_bytes_s is None
    assert catalog.device("RTX-2080Ti").price_usd_h is None
    for device in catalog.device_types.values():
        numbers = [
            device.memory_bytes,
            device.memory_bandwidth_bytes_s,
            device.price_usd_h,
            *device.peak_flops.values(),
        ]
        assert all(number is None or number > 0 for number in numbers), device


def test_every_shipped_row_names_its_source() -> None:
    for table in ("devices.csv", "instances.csv"):
        with open(SHIPPED / table, newline="", encoding="utf-8") as file:
            assert all(row["source"] for row in csv.DictReader(file))


def test_every_instance_names_a_known_device(catalog: Catalog) -> None:
    assert {instance.device for instance in catalog.instances.values()} <= set(catalog.device_types)


def test_every_alias_leads_to_a_device_type(catalog: Catalog) -> None:
    assert {name for name in ALIASES.values() if name not in catalog.device_types} == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("t4", "T4", id="any case"),
        pytest.param("A100", "A100-SXM4-40GB", id="short name"),
        pytest.param("V100", "V100-SXM2-16GB", id="short name with variants"),
        pytest.param("P100", "P100-PCIE-16GB", id="P100"),
        pytest.param("H100", "H100-SXM5-80GB", id="H100"),
        pytest.param("A100-40G", "A100-SXM4-40GB", id="Ray's A100-40G"),
        pytest.param("NVIDIA-A100-80G", "A100-SXM4-80GB", id="Ray's NVIDIA-A100-80G"),
        pytest.param("TPU-V5LITEPOD", "TPU-v5e", id="Ray's TPU-V5LITEPOD"),
        pytest.param("TPU-V6E", "TPU-v6e", id="Ray's TPU-V6E"),
        pytest.param("Tesla T4", "T4", id="nvidia-smi's Tesla T4"),
        pytest.param("Tesla V100-SXM2-16GB", "V100-SXM2-16GB", id="nvidia-smi's V100"),
        pytest.param("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB", id="nvidia-smi's A100 SXM 80GB"),
        pytest.param("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB", id="nvidia-smi's A100 PCIe 80GB"),
        pytest.param("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB", id="nvidia-smi's H100 SXM"),
        pytest.param("NVIDIA H100 PCIe", "H100-PCIE-80GB", id="nvidia-smi's H100 PCIe"),
        pytest.param("NVIDIA H200", "H200-SXM5-141GB", id="nvidia-smi's H200"),
        pytest.param("NVIDIA GeForce RTX 2080 Ti", "RTX-2080Ti", id="nvidia-smi's 2080 Ti"),
        pytest.param("CPU", "cpu", id="a core"),
    ],
)
def test_names_are_found(catalog: Catalog, name: str, expected: str) -> None:
    assert catalog.device(name).name == expected


def test_an_unknown_name_gets_the_nearest_as_hint(catalog: Catalog) -> None:
    assert catalog.find("A1000") is None
    with pytest.raises(SpecError, match="did you mean A100-SXM4-40GB"):
        catalog.device("A1000")
    with pytest.raises(SpecError, match=r"did you mean aws/g4dn\.xlarge"):
        catalog.instance("aws/g4dn.xlrge")
    assert catalog.nearest("zzzzzz") is None


def test_the_price_of_a_device_is_the_cheapest_on_demand(catalog: Catalog) -> None:
    price = catalog.price("T4")
    assert price is not None
    offers = [each for each in catalog.instances.values() if each.device == "T4"]
    cheapest = min(each.price_on_demand_usd_h / each.device_count for each in offers if each.price_on_demand_usd_h)
    assert price.usd_h == cheapest == 0.526
    assert price.source == "aws/g4dn.xlarge"
    assert price.as_of == "2026-07-20"
    assert catalog.device("T4").price_usd_h == 0.526


def test_the_price_on_a_named_instance_is_its_share(catalog: Catalog) -> None:
    price = catalog.price("A100", "aws/p4d.24xlarge")
    instance = catalog.instance("aws/p4d.24xlarge")
    assert price is not None
    assert instance.price_on_demand_usd_h is not None
    assert price.usd_h == instance.price_on_demand_usd_h / 8
    assert catalog.price("T4", "aws/p4d.24xlarge") is None
    assert catalog.price("RTX-2080Ti") is None
    assert catalog.price("no such thing") is None


def test_a_core_costs_the_cheapest_vcpu_of_a_machine_without_accelerators(catalog: Catalog) -> None:
    price = catalog.price("cpu")
    assert price is not None
    machine = catalog.instance(price.source)
    assert machine.device_count == 0
    assert machine.price_on_demand_usd_h is not None
    assert machine.vcpus is not None
    assert price.usd_h == machine.price_on_demand_usd_h / machine.vcpus
    assert 0.005 < price.usd_h < 0.1


@pytest.mark.parametrize(
    ("today", "is_stale"),
    [
        pytest.param(datetime.date(2026, 7, 20), False, id="on the day"),
        pytest.param(datetime.date(2027, 1, 16), False, id="180 days later"),
        pytest.param(datetime.date(2027, 1, 17), True, id="181 days later"),
    ],
)
def test_an_old_price_gives_a_warning(catalog: Catalog, today: datetime.date, is_stale: bool) -> None:
    warning = catalog.stale(catalog.device("T4"), today)
    assert (warning is not None) == is_stale
    assert warning is None or "2026-07-20" in warning


def test_an_unpriced_device_has_no_stale_price(catalog: Catalog) -> None:
    assert catalog.stale(catalog.device("RTX-2080Ti"), datetime.date(2100, 1, 1)) is None


def test_a_year_alone_means_its_last_day(catalog: Catalog) -> None:
    device = catalog.device("L40S")
    assert device.price_as_of == "2025"
    assert catalog.stale(device, datetime.date(2026, 3, 1)) is None
    assert catalog.stale(device, datetime.date(2026, 11, 20)) is not None


class TestUsersFile:
    def test_a_csv_of_instances_changes_a_price_and_adds_a_machine(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.csv"
        path.write_text(
            "cloud,instance_type,vcpus,device,device_count,price_on_demand_usd_h,source,as_of\n"
            "aws,g4dn.xlarge,,,,0.4,contract,2026-11-01\n"
            "lab,box,64,T4,4,0.8,our bill,2026-10\n"
        )
        catalog = Catalog.load(path)
        assert catalog.instance("aws/g4dn.xlarge").price_on_demand_usd_h == 0.4
        assert catalog.instance("aws/g4dn.xlarge").vcpus == 4
        price = catalog.price("T4")
        assert price is not None
        assert (price.usd_h, price.source, price.as_of) == (0.2, "lab/box", "2026-10")

    def test_a_yaml_file_adds_a_device_of_ones_own_with_its_price(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(
            "devices:\n"
            "  - name: NPU-X\n"
            "    kind: asic\n"
            "    memory_gb: 64\n"
            "    bf16_tflops: 100\n"
            "    fp32_tflops: null\n"
            "    price_usd_h: 1.5\n"
            "    source: data sheet\n"
            "    as_of: 2026-11-01\n"
            "  - name: t4\n"
            "    memory_gb: 15\n"
        )
        catalog = Catalog.load(path)
        device = catalog.device("npu-x")
        assert (device.memory_bytes, device.peak_flops, device.price_usd_h) == (64e9, {"bf16": 100e12}, 1.5)
        assert catalog.device("T4").memory_bytes == 15e9
        assert catalog.device("T4").peak_flops["fp16"] == 65e12

    def test_a_folder_of_files_is_read_whole(self, tmp_path: Path) -> None:
        (tmp_path / "devices.csv").write_text("name,kind\nNPU-X,asic\n")
        (tmp_path / "prices.yaml").write_text(
            "instances: [{cloud: lab, instance_type: x, device: NPU-X, device_count: 2, price_on_demand_usd_h: 3}]\n"
        )
        assert Catalog.load(tmp_path).device("NPU-X").price_usd_h == 1.5

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            pytest.param(
                "a.csv",
                "name,kind,memory_gb\nX,gpu,a lot\n",
                ["a.csv: line 2, column memory_gb", "'a lot'", "leave unknown"],
                id="a number that is none",
            ),
            pytest.param(
                "a.csv",
                "name,kind,memory_gb\nX,gpu,-3\n",
                ["line 2, column memory_gb", "zero or more"],
                id="a negative number",
            ),
            pytest.param(
                "a.csv",
                "name,kind,memory_bandwidth_gbps\nX,gpu,3\n",
                ["column memory_bandwidth_gbps", "did you mean memory_bandwidth_gb_s?"],
                id="a column with another name",
            ),
            pytest.param(
                "a.csv", "name,kind\nX,quantum\n", ["line 2, column kind", "one of cpu, gpu"], id="a new kind"
            ),
            pytest.param("a.csv", "name,vendor\nX,me\n", ["line 2, column kind: is empty"], id="no kind"),
            pytest.param("a.csv", "foo,bar\n1,2\n", ["neither a device nor an instance table"], id="another table"),
            pytest.param("a.csv", "name,kind\nX,gpu,3,4\n", ["more cells than columns"], id="too many cells"),
            pytest.param(
                "a.yaml",
                "devices:\n  - name: X\n    kind: gpu\n    memory_gb: big\n",
                ["a.yaml: line 2, column memory_gb"],
                id="a number that is none in YAML",
            ),
            pytest.param("a.yaml", "machines: []\n", ["line 1", "unknown entry 'machines'"], id="another list"),
            pytest.param("a.yaml", "[1, 2]\n", ["holds no devices"], id="a YAML list"),
            pytest.param("a.yaml", "a: [\n", ["is not YAML"], id="broken YAML"),
            pytest.param(
                "a.csv",
                "cloud,instance_type,device,device_count,as_of\nlab,x,T4,1,yesterday\n",
                ["line 2, column as_of", "write 2026-07-16"],
                id="a date that is none",
            ),
        ],
    )
    def test_a_bad_file_is_refused_with_its_place(self, tmp_path: Path, name: str, text: str, says: list[str]) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(SpecError) as caught:
            Catalog.load(tmp_path / name)
        for part in says:
            assert part in str(caught.value)

    def test_every_bad_cell_is_reported_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("name,kind,memory_gb,power_watts\nX,gpu,a,b\nY,gpu,c,1\n")
        with pytest.raises(SpecError) as caught:
            Catalog.load(tmp_path / "a.csv")
        assert [problem.field for problem in caught.value.problems] == [
            "line 2, column memory_gb",
            "line 2, column power_watts",
            "line 3, column memory_gb",
        ]

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="cannot be read"):
            Catalog.load(tmp_path / "none.csv")
