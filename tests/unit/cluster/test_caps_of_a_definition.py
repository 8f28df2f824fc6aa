"""What is always there must be within what all rented nodes may cost."""

from __future__ import annotations

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from workloads.errors import SpecError

NODES = [{"name": "t4", "device": "T4", "price_usd_h": 0.5, "rent": {"least": 2, "most": 4}}]


@pytest.mark.parametrize(("cap", "least"), [("rent_cap_usd_h", 1.0), ("rent_cap_usd_month", 744.0)])
def test_the_least_is_within_the_caps(cap: str, least: float) -> None:
    catalog = Catalog.load()
    ClusterDefinition.parse({"nodes": NODES, cap: least}, catalog)
    with pytest.raises(SpecError) as raised:
        ClusterDefinition.parse({"nodes": NODES, cap: least - 0.5}, catalog, "c.yaml")
    (problem,) = raised.value.problems
    assert (problem.field, problem.file, problem.hint) == (cap, "c.yaml", "raise it, or lower `least`")
    assert f"cost ${least:.2f}" in problem.message
