"""What a cluster on a cloud lets the scheduler rent: its node types as Ray is told of them."""

from __future__ import annotations

from ..catalog import Catalog
from ..definition import ClusterDefinition
from ..inventory import NodeFacts, Offer
from .nodes import node_kinds


def cloud_offers(definition: ClusterDefinition, catalog: Catalog) -> list[Offer]:
    """One offer for each kind of node that is rented, with what its machine or pod has."""
    return [
        Offer(
            NodeFacts(
                f"rentable-{kind.name}",
                kind.name,
                kind.labels,
                {name: float(amount) for name, amount in kind.resources.items() if amount},
            ),
            kind.node.rent.most,
            kind.node.rent.launch_s,
            kind.node.rent.least,
        )
        for kind in node_kinds(definition, catalog)
        if kind.node.rent is not None
    ]
