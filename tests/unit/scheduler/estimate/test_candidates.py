"""Which configurations a workload may have, and what the cluster lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import EnergyRates, Snapshot, Tariff
from making import inference, node, snapshot, standard, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import (
    MAX_CONFIGURATIONS,
    allowed_types,
    estimate_table,
    estimate_tables,
    facts_of,
)
from scheduler.estimate.cost_model import DEFAULT_NETWORK_BYTES_S, Facts
from scheduler.estimate.work import Work
from workloads.spec import Resources


def names(where: Snapshot | None = None, work: Work | None = None, **fields: Any) -> list[str]:
    resources = Resources.model_validate(fields)
    table = estimate_table(work or inference(), resources, where or standard(), Calibration())
    return [str(row.configuration) for row in table]


TABLES = [
    ("nothing said: one device of any type", {}, ["A100 x1", "T4 x1", "cpu x1"]),
    ("any type", {"devices": "any", "count": 2}, ["A100 x2", "T4 x2", "cpu x2"]),
    ("accelerators", {"devices": "accelerator"}, ["A100 x1", "T4 x1"]),
    ("cores", {"devices": "cpu", "count": "1..2"}, ["cpu x1", "cpu x2"]),
    ("a list is alternatives, in its order", {"devices": ["T4", "A100"]}, ["T4 x1", "A100 x1"]),
    ("a type named twice is one", {"devices": ["T4", "T4"]}, ["T4 x1"]),
    ("a range, up to what there is", {"devices": ["T4"], "count": "2..9"}, ["T4 x2", "T4 x3", "T4 x4"]),
    ("more than there is stays in the table", {"devices": ["T4"], "count": "6..9"}, ["T4 x6"]),
    ("a mapping is together", {"devices": {"T4": "1..2", "A100": 1}}, ["A100 x1 + T4 x1", "A100 x1 + T4 x2"]),
    (
        "mixed",
        {"devices": ["T4", "A100"], "count": "1..2", "mix": True},
        ["T4 x1", "T4 x2", "A100 x1", "A100 x1 + T4 x1"],
    ),
    (
        "mixed, at least three",
        {"devices": ["T4", "A100"], "count": 3, "mix": True},
        ["T4 x3", "A100 x3", "A100 x1 + T4 x2"],
    ),
    ("a type the cluster lacks stays in the table", {"devices": ["H100", "T4"]}, ["H100 x1", "T4 x1"]),
]


@pytest.mark.parametrize(("fields", "expected"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_configurations(fields: dict[str, Any], expected: list[str]) -> None:
    assert names(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": ["H100"]}, "the cluster has no H100"),
        ({"devices": ["T4"], "count": 5}, "5 T4 wanted, the cluster has 4"),
        ({"devices": {"T4": 1, "H100": 1}}, "the cluster has no H100"),
        ({"devices": {"T4": 2, "A100": 2}}, "2 A100 wanted, the cluster has 1"),
    ],
    ids=["no such type", "too many", "half of a pair", "too many of one"],
)
def test_what_the_cluster_lacks_has_a_reason(fields: dict[str, Any], message: str) -> None:
    row = estimate_table(inference(), Resources.model_validate(fields), standard(), Calibration())[0]
    assert row.infeasible is not None
    assert (row.infeasible.code, row.infeasible.message, row.seconds, row.money) == ("count", message, None, None)


def test_a_range_beyond_sixteen_goes_by_powers_of_two() -> None:
    large = snapshot(*(node(f"n{i}", ("T4", 8)) for i in range(13)))
    assert names(large, devices=["T4"], count="15..100") == ["T4 x15", "T4 x16", "T4 x32", "T4 x64", "T4 x100"]
    assert names(large, devices=["T4"], count=50) == ["T4 x50"]


def test_a_product_of_ranges_is_bounded() -> None:
    large = snapshot(node("a", ("T4", 64)), node("b", ("A100", 64)), node("c", ("cpu", 64)))
    wanted = {"T4": "1..64", "A100": "1..64", "cpu": "1..64"}
    assert len(names(large, devices=wanted)) == MAX_CONFIGURATIONS
    assert len(names(large, devices=list(wanted), count="1..64", mix=True)) <= MAX_CONFIGURATIONS + 3 * 19


def test_every_configuration_is_there_once_and_in_the_same_order() -> None:
    fields: dict[str, Any] = {"devices": "any", "count": "1..4", "mix": True}
    once = names(**fields)
    assert len(once) == len(set(once))
    assert once == names(**fields)


def test_an_impossible_gang_is_in_the_table_with_its_reason() -> None:
    table = estimate_table(training(), Resources(devices="accelerator", mix=True, count="2"), standard(), Calibration())  # type: ignore[arg-type]
    assert [(str(row.configuration), row.infeasible.code if row.infeasible else None) for row in table] == [
        ("A100 x2", "count"),
        ("T4 x2", None),
        ("A100 x1 + T4 x1", None),
    ]


def test_a_type_that_is_known_but_gone_is_not_there() -> None:
    gone = Snapshot(0.0, (), standard().device_types)
    assert [row.infeasible.message for row in estimate_table(inference(), Resources(), gone, Calibration()) if row.infeasible] == [
        "the cluster has no A100",
        "the cluster has no T4",
        "the cluster has no cpu",
    ]  # fmt: skip
    assert allowed_types(Resources(devices="accelerator"), Snapshot(0.0, (), {})) == []


def test_an_uneven_gang_is_in_the_table_with_its_seconds() -> None:
    where = snapshot(node("t4", ("T4", 2)), node("a100", ("A100", 2)))
    resources = Resources.model_validate({"devices": "accelerator", "mix": True, "count": 2})
    table = {str(row.configuration): row for row in estimate_table(training(), resources, where, Calibration())}
    uneven = table["A100 x1 + T4 x1"]
    assert uneven.infeasible is None
    assert uneven.seconds is not None and uneven.money is not None
    assert [name for name, _ in uneven.speeds] == ["A100", "T4"]


def test_tables_of_many_are_those_of_each() -> None:
    requests = [
        (inference(), Resources()),
        (training(), Resources.model_validate({"devices": ["T4", "H100"], "count": "1..6"})),
        (Work("command", "mine", declared_s=5.0), Resources.model_validate({"devices": "cpu", "count": "1..2"})),
        (training(samples=5e4), Resources.model_validate({"devices": ["T4", "H100"], "count": "1..6"})),
    ]
    together = estimate_tables(requests, standard(), Calibration())
    assert together == [estimate_table(*request, standard(), Calibration()) for request in requests]
    assert estimate_tables([], standard(), Calibration()) == []


def test_facts_are_the_slowest_network_the_fullest_node_and_all_there_is() -> None:
    where = snapshot(node("a", ("T4", 2), network=5e9), node("b", ("T4", 4), network=1e9), node("c", ("A100", 1)))
    energy, tariff = EnergyRates(0.2, 300.0, 1.2), Tariff(0.1, 0.2)
    found = facts_of(replace(where, energy=energy, tariff=tariff))
    assert found == Facts(where.device_types, 1e9, {"T4": 4, "A100": 1}, {"T4": 6, "A100": 1}, energy, tariff)
    usual = facts_of(standard())
    assert (usual.network_bytes_s, usual.devices_per_node) == (DEFAULT_NETWORK_BYTES_S, {"cpu": 4, "T4": 2, "A100": 1})
