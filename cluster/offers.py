"""The kinds of nodes that a definition lets the scheduler rent, as Ray and the observer are told of them."""

from __future__ import annotations

from collections.abc import Iterable

from .definition import RAY_MEMORY_SHARE, ClusterDefinition, NodeDefinition, node_labels
from .host import HostRates, host_memory_bytes
from .inventory import NodeFacts, Offer
from .types import CPU, NODE_TYPE_LABEL


def device_amounts(node: NodeDefinition) -> dict[str, float]:
    """Ray's resources of the devices on one node."""
    return {"CPU" if node.device == CPU else node.device: float(node.count)}


def rented_labels(node: NodeDefinition) -> dict[str, str]:
    """Labels of every rented node of this kind."""
    return {**node_labels(node), NODE_TYPE_LABEL: node.name}


def offers_of(nodes: Iterable[NodeDefinition], memory: float) -> list[Offer]:
    """What may be rented; each node has so many bytes of memory for tasks."""
    return [
        Offer(
            NodeFacts(
                f"rentable-{node.name}", node.name, rented_labels(node), {**device_amounts(node), "memory": memory}
            ),
            node.rent.most,
            node.rent.launch_s,
            node.rent.least,
        )
        for node in nodes
        if node.rent is not None
    ]


def local_offers(definition: ClusterDefinition, host: HostRates | None) -> list[Offer]:
    """What a local cluster may rent: all its nodes share this machine's memory."""
    memory = (host_memory_bytes() if host is None else host.memory_bytes) * RAY_MEMORY_SHARE
    return offers_of(definition.rentable, memory)
