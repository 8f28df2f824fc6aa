"""The kinds of nodes that a definition lets the scheduler rent, as Ray and the observer are told of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .catalog import Catalog
from .definition import RAY_MEMORY_SHARE, ClusterDefinition, NodeDefinition, node_labels
from .host import HostRates, host_memory_bytes
from .inventory import NodeFacts, Offer
from .types import CPU, NODE_TYPE_LABEL, DeviceType


def device_amounts(node: NodeDefinition) -> dict[str, float]:
    """Ray's resources of the devices on one node."""
    return {"CPU" if node.device == CPU else node.device: float(node.count)}


def rented_labels(node: NodeDefinition) -> dict[str, str]:
    """Labels of every rented node of this kind."""
    return {**node_labels(node), NODE_TYPE_LABEL: node.name}


def cloud_offers(definition: ClusterDefinition, catalog: Catalog) -> list[Offer]:
    """What a cluster on a cloud may rent: a node has the memory of its instance."""
    found = []
    for node in definition.rentable:
        instance = None if node.instance is None else catalog.instance(node.instance)
        memory = 0.0 if instance is None else (instance.memory_bytes or 0.0) * RAY_MEMORY_SHARE
        for offer in offers_of([node], memory):
            total = dict(offer.facts.total)
            if node.emulated_speed is None and _is_ray_gpu(catalog.device(node.device)):
                total["GPU"] = total.pop(node.device)
            found.append(replace(offer, facts=replace(offer.facts, total=total)))
    return found


def _is_ray_gpu(device: DeviceType) -> bool:
    """Whether Ray calls it `GPU`."""
    return device.kind == "gpu" and device.vendor.lower() == "nvidia"


def offers_of(nodes: Iterable[NodeDefinition], memory: float) -> list[Offer]:
    """What may be rented; each node has so many bytes of memory for tasks."""
    return [
        Offer(
            NodeFacts(
                f"rentable-{node.name}", node.name, rented_labels(node), {**device_amounts(node), "memory": memory}
            ),
            node.rent.most,
            node.rent.launch_s,
        )
        for node in nodes
        if node.rent is not None
    ]


def local_offers(definition: ClusterDefinition, host: HostRates | None) -> list[Offer]:
    """What a local cluster may rent: all its nodes share this machine's memory."""
    memory = (host_memory_bytes() if host is None else host.memory_bytes) * RAY_MEMORY_SHARE
    return offers_of(definition.rentable, memory)
