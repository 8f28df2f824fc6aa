"""What Ray is told of each kind of node, whoever rents it: labels, resources, how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..catalog import Catalog
from ..catalog.tables import InstanceType
from ..definition import RAY_MEMORY_SHARE, ClusterDefinition, NodeDefinition
from ..definition_checks import known_instance
from ..offers import rented_labels
from ..provider_checks import is_ray_gpu, pod_size
from ..provider_definition import KubeRayProvider
from ..types import CPU, SEAT_RESOURCE

GIB = 2**30


@dataclass(frozen=True)
class NodeKind:
    """One of Ray's node types: how it was written, its machine where that is named, and what Ray is told of it."""

    node: NodeDefinition
    instance: InstanceType | None
    labels: Mapping[str, str]
    resources: Mapping[str, int]
    least: int
    most: int

    @property
    def name(self) -> str:
        """Ray's name of it."""
        return self.node.name

    @property
    def spot(self) -> bool:
        """Whether it may be taken back."""
        return self.node.market == "spot"


def node_kinds(definition: ClusterDefinition, catalog: Catalog) -> tuple[NodeKind, ...]:
    """Ray's node types of a definition, in its order, without the head."""
    return tuple(_kind(node, definition, catalog) for node in definition.kinds)


def _kind(node: NodeDefinition, definition: ClusterDefinition, catalog: Catalog) -> NodeKind:
    instance = known_instance(node.instance, catalog)
    least, most = (node.there, node.there) if node.rent is None else (node.rent.least, node.rent.most)
    return NodeKind(node, instance, rented_labels(node), _resources(node, instance, definition, catalog), least, most)


def _resources(
    node: NodeDefinition, instance: InstanceType | None, definition: ClusterDefinition, catalog: Catalog
) -> dict[str, int]:
    """Devices by Ray's names, with the cores and the memory of their machine; and a seat."""
    device, provider = catalog.device(node.device), definition.provider
    size = pod_size(node, provider, catalog) if isinstance(provider, KubeRayProvider) else _machine_size(instance)
    cpus, memory_gib = size or (0, 0.0)
    found: dict[str, int] = {}
    if device.name == CPU:
        found["CPU"] = node.count
    else:
        # As on one machine: what emulates a device is no core that other work may have.
        found["CPU"] = 0 if node.emulated_speed is not None else cpus
        found["GPU" if is_ray_gpu(device) and node.emulated_speed is None else device.name] = node.count
    if memory_gib:
        found["memory"] = int(memory_gib * GIB * RAY_MEMORY_SHARE)
    return found | {SEAT_RESOURCE: 1}


def _machine_size(instance: InstanceType | None) -> tuple[int, float]:
    if instance is None:
        return 0, 0.0
    return int(instance.vcpus or 0), (instance.memory_bytes or 0.0) / GIB
