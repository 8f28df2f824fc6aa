"""The clusters that `docs/cluster.md` shows, as they are written there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "cluster.md"


@pytest.fixture(scope="session")
def written() -> dict[str, dict[str, Any]]:
    """The examples by the type of their provider; `gcp` and `azure` are made here in the same way."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## On a cloud\n")[2].partition("\n## ")[0]
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]
    nodes = {
        "gcp": ("gcp/n2-standard-8", "gcp/n1-standard-4+1xT4", "gcp/a2-highgpu-1g"),
        "azure": ("azure/Standard_D8s_v5", "azure/Standard_NC4as_T4_v3", "azure/Standard_NC24ads_A100_v4"),
    }
    places: dict[str, dict[str, Any]] = {
        "gcp": {"project": "team-1234", "zone": "us-central1-a"},
        "azure": {"location": "westus2", "resource_group": "team"},
    }
    devices = {"gcp": "A100-SXM4-40GB", "azure": "A100-PCIE-80GB"}
    for cloud, (cpu, t4, a100) in nodes.items():
        zones = [places[cloud].get("zone", "2")]
        found.append(
            {
                "provider": {"type": cloud, **places[cloud]},
                "nodes": [
                    {"name": "cpu", "device": "cpu", "instance": cpu, "rent": {"most": 3, "least": 1}},
                    {
                        "name": "t4-spot",
                        "device": "T4",
                        "instance": t4,
                        "market": "spot",
                        "zones": zones,
                        "rent": {"most": 4},
                    },
                    {"name": "a100", "device": devices[cloud], "instance": a100, "number": 2},
                ],
            }
        )
    return {each["provider"]["type"]: each for each in found}


@pytest.fixture(scope="session")
def clouds(written: dict[str, dict[str, Any]], catalog: Catalog) -> dict[str, ClusterDefinition]:
    """The same, checked."""
    return {name: ClusterDefinition.parse(data, catalog) for name, data in written.items()}
