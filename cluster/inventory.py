"""Turns what nodes say of themselves (labels, resources) into a `Snapshot`. Used by the observer on a real cluster and
by a cluster definition that is only planned with, so that both give the same answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .catalog import Catalog, Price, priced
from .host import HostRates, emulate, host_cpu
from .types import (
    CPU,
    DEVICE_LABEL,
    EMULATED_SPEED_LABEL,
    INSTANCE_LABEL,
    NODE_TYPE_LABEL,
    PRICE_LABEL,
    DeviceType,
    Node,
    NodeDevices,
    Snapshot,
)

HEAD_RESOURCE = "node:__internal_head__"
ACCELERATOR_LABEL = "ray.io/accelerator-type"


@dataclass(frozen=True)
class NodeFacts:
    """A living node as Ray reports it: amounts are Ray's (devices, bytes for `memory`)."""

    node_id: str
    name: str
    labels: Mapping[str, str]
    total: Mapping[str, float]
    free: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_head(self) -> bool:
        """Whether the cluster's head runs here."""
        return HEAD_RESOURCE in self.total


def instance_label(instance: str) -> str:
    """An instance name in the letters that a label value may have."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", instance)


def build_snapshot(at_s: float, facts: Iterable[NodeFacts], catalog: Catalog, host: HostRates | None) -> Snapshot:
    """The snapshot of these nodes. `host` gives the rates of `cpu` and of emulated types; without it they are
    unknown."""
    builder = _Builder(catalog, host)
    nodes = tuple(builder.node(node) for node in sorted(facts, key=lambda node: (not node.is_head, node.name)))
    return Snapshot(at_s, nodes, builder.types, tuple(builder.warnings))


class _Builder:
    """Collects device types and warnings over the nodes of one snapshot."""

    def __init__(self, catalog: Catalog, host: HostRates | None) -> None:
        self.catalog = catalog
        self.host = host
        self.types: dict[str, DeviceType] = {}
        self.warnings: list[str] = []

    def node(self, facts: NodeFacts) -> Node:
        devices = []
        for resource in self._device_resources(facts):
            device = self._register(self._type_of(facts, resource), facts)
            total = int(facts.total[resource])
            free = int(facts.free.get(resource, 0.0) + 1e-9)
            devices.append(NodeDevices(device.name, resource, total, free))
        return Node(
            node_id=facts.node_id,
            name=facts.name,
            node_type=facts.labels.get(NODE_TYPE_LABEL, ""),
            is_head=facts.is_head,
            devices=tuple(devices),
            memory_bytes=facts.total.get("memory", 0.0),
            network_bytes_s=self._network_bytes_s(facts),
            labels=dict(facts.labels),
        )

    def _device_resources(self, facts: NodeFacts) -> list[str]:
        """Ray resources of a node that are devices: CPU, GPU, and the custom resource its device label names."""
        label = facts.labels.get(DEVICE_LABEL)
        names = ["CPU", "GPU"] if label is None or label in ("CPU", "GPU") else ["CPU", "GPU", label]
        names += [name for name in facts.total if name == "TPU" and name not in names]
        if label is not None and label not in facts.total and "GPU" not in facts.total and label != CPU:
            self._warn(f"node {facts.name} is labelled {DEVICE_LABEL}={label} but has no resource of that name")
        return [name for name in names if facts.total.get(name, 0.0) >= 1]

    def _type_of(self, facts: NodeFacts, resource: str) -> DeviceType:
        if resource == "CPU":
            return host_cpu(self.catalog.device_types[CPU], self.host)
        name = facts.labels.get(DEVICE_LABEL) or facts.labels.get(ACCELERATOR_LABEL) or resource
        known = self.catalog.find(name)
        if known is None:
            self._warn(
                f"node {facts.name} has {name}, which the catalog does not know: its speed and price are unknown until "
                "it is added to your own catalog file"
            )
            return DeviceType(name=name, kind="gpu" if resource == "GPU" else "asic", source="unknown to the catalog")
        speed = self._emulated_speed(facts)
        if speed is None or resource in ("GPU", "TPU"):
            return known
        return self._emulated(known, speed)

    def _emulated_speed(self, facts: NodeFacts) -> float | None:
        text = facts.labels.get(EMULATED_SPEED_LABEL)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError:
            self._warn(f"node {facts.name}: {EMULATED_SPEED_LABEL}={text} is not a number, taken as 1")
            return 1.0

    def _emulated(self, known: DeviceType, speed: float) -> DeviceType:
        if self.host is None:
            return replace(
                known, memory_bandwidth_bytes_s=None, peak_flops={}, interconnect_bytes_s=None, emulated_speed=speed
            )
        return emulate(known, self.host, speed)

    def _register(self, device: DeviceType, facts: NodeFacts) -> DeviceType:
        """Keep one entry per device type: the real one over the emulated, the cheaper price over the dearer."""
        price = self._price(device, facts)
        device = priced(device, price) if price is not None else device
        seen = self.types.get(device.name)
        if seen is None or seen == device:
            self.types[device.name] = device
        elif seen.emulated != device.emulated:
            self._warn(f"{device.name} is both emulated and real: the real one's figures are used for both")
            self.types[device.name] = seen if device.emulated else device
        elif seen.emulated_speed != device.emulated_speed:
            self._warn(f"{device.name} is emulated at different speeds: the slower one's figures are used for both")
            self.types[device.name] = min(seen, device, key=lambda each: each.emulated_speed or 0.0)
        elif device.price_usd_h != seen.price_usd_h:
            self._warn(f"nodes with {device.name} have different prices: the lowest is used for all")
            known = [each for each in (seen, device) if each.price_usd_h is not None]
            self.types[device.name] = min(known, key=lambda each: each.price_usd_h or 0.0)
        return device

    def _price(self, device: DeviceType, facts: NodeFacts) -> Price | None:
        """The price the node itself states, for its accelerators only."""
        if device.name == CPU:
            return None
        stated = facts.labels.get(PRICE_LABEL)
        if stated is not None:
            try:
                return Price(float(stated), f"node {facts.labels.get(NODE_TYPE_LABEL) or facts.name}")
            except ValueError:
                self._warn(f"node {facts.name}: {PRICE_LABEL}={stated} is not a number")
        instance = self._instance(facts)
        return None if instance is None else self.catalog.price(device.name, instance)

    def _instance(self, facts: NodeFacts) -> str | None:
        label = facts.labels.get(INSTANCE_LABEL)
        if label is None:
            return None
        return next((name for name in self.catalog.instances if instance_label(name) == label), None)

    def _network_bytes_s(self, facts: NodeFacts) -> float | None:
        """The network of a real instance; unknown for emulated nodes, which share the host's memory."""
        instance = None if EMULATED_SPEED_LABEL in facts.labels else self._instance(facts)
        return None if instance is None else self.catalog.instances[instance].network_bytes_s

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
