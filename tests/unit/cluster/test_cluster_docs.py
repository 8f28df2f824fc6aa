"""`docs/cluster.md` documents every field, label and column that a cluster may be described with, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from cluster import types
from cluster.catalog.tables import DEVICE_COLUMNS, INSTANCE_COLUMNS, LIMITS
from cluster.definition import (
    ClusterDefinition,
    EnergyDefinition,
    HeadDefinition,
    NodeDefinition,
    QueueDefinition,
    RentDefinition,
    TariffDefinition,
)
from cluster.provider_definition import (
    AwsProvider,
    AzureProvider,
    ExistingProvider,
    GcpProvider,
    KubeRayProvider,
    LaunchedProvider,
    PodDefinition,
    RedisDefinition,
    RentingProvider,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "cluster.md"
MODELS = {
    "Cluster definition": ClusterDefinition,
    "Cluster definition: head": HeadDefinition,
    "Cluster definition: nodes": NodeDefinition,
    "Cluster definition: rent": RentDefinition,
    "Cluster definition: queues": QueueDefinition,
    "Cluster definition: energy": EnergyDefinition,
    "Cluster definition: tariff": TariffDefinition,
    "Cluster definition: redis": RedisDefinition,
    "Cluster definition: pods": PodDefinition,
}
PROVIDERS = {
    "Cluster definition: launched machines": LaunchedProvider,
    "Cluster definition: provider existing": ExistingProvider,
    "Cluster definition: provider aws": AwsProvider,
    "Cluster definition: provider gcp": GcpProvider,
    "Cluster definition: provider azure": AzureProvider,
    "Cluster definition: provider kuberay": KubeRayProvider,
}
"""What each has beside what it inherits."""
COLUMNS = {"Catalog: devices": DEVICE_COLUMNS, "Catalog: instances": INSTANCE_COLUMNS}
NAMES = {
    **{
        section: {name for name, field in model.model_fields.items() if not field.exclude}
        for section, model in MODELS.items()
    },
    "Cluster definition: provider": {"type", *RentingProvider.model_fields},
    **{section: set(model.__annotations__) - {"type"} for section, model in PROVIDERS.items()},
    **{section: set(columns) for section, columns in COLUMNS.items()},
    "Labels of nodes": {value for name, value in vars(types).items() if name.endswith("_LABEL")},
}


def table(section: str) -> list[list[str]]:
    """Cells of the rows of a section's table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    body = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("section", NAMES)
def test_every_name_is_documented_once_and_no_other(section: str) -> None:
    documented = [row[0].strip("`") for row in table(section)]
    assert len(documented) == len(set(documented))
    assert set(documented) == NAMES[section]
    assert {len(row) for row in table(section)} == {4}


@pytest.mark.parametrize(
    "section",
    [name for name in MODELS | PROVIDERS if name not in ("Cluster definition", "Cluster definition: nodes")],
)
def test_defaults_are_those_of_the_code(section: str) -> None:
    documented = {row[0].strip("`"): row[2] for row in table(section)}
    fields = (MODELS | PROVIDERS)[section].model_fields
    assert documented == {name: default_text(fields[name]) for name in documented}


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return {"None": "null", "()": "none"}.get(str(field.default), str(field.default))


@pytest.mark.parametrize("section", COLUMNS)
def test_ranges_are_those_of_the_code(section: str) -> None:
    ranges = {row[0].strip("`"): row[2] for row in table(section)}
    numbers = {column for column, unit in COLUMNS[section].items() if unit is not None}
    expected = {
        column: "{:g}..{:g}".format(*LIMITS[column]) if column in numbers else "" for column in COLUMNS[section]
    }
    assert ranges == expected
