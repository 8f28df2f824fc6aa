"""Turns what nodes say of themselves (labels, resources) into a `Snapshot`. Used by the observer on a real cluster and
by a cluster definition that is only planned with, so that both give the same answer."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .catalog import Catalog, Price, on_spot, priced
from .host import HostRates, emulate, host_cpu
from .types import (
    CPU,
    DEVICE_LABEL,
    EGRESS_PRICE_LABEL,
    EMULATED_SPEED_LABEL,
    ENERGY_OVERHEAD_LABEL,
    GCO2E_PER_KWH_LABEL,
    INSTANCE_LABEL,
    MARKET_LABEL,
    NODE_TYPE_LABEL,
    PRICE_LABEL,
    STORAGE_PRICE_LABEL,
    USD_PER_KWH_LABEL,
    DeviceType,
    EnergyRates,
    Launching,
    Market,
    Node,
    NodeDevices,
    NodeType,
    Snapshot,
    Tariff,
)

HEAD_RESOURCE = "node:__internal_head__"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
UNKNOWN = "unknown"
"""Value of a rate's label where it is known not to be known, so that the default does not hold."""


@dataclass(frozen=True)
class NodeFacts:
    """A living node as Ray reports it: amounts are Ray's (devices, bytes for `memory`)."""

    node_id: str
    name: str
    labels: Mapping[str, str]
    total: Mapping[str, float]
    free: Mapping[str, float] = field(default_factory=dict)
    instance_id: str = ""
    """Its cloud's name of it, where Ray's autoscaler knows one."""
    leaves_s: float | None = None
    """Unix seconds when it will be gone, where it was given notice."""

    @property
    def is_head(self) -> bool:
        """Whether the cluster's head runs here."""
        return HEAD_RESOURCE in self.total


@dataclass(frozen=True)
class Offer:
    """A kind of node that may be rented: one of it as Ray would report it, how many at once, and how fast."""

    facts: NodeFacts
    most: int
    launch_s: float
    least: int = 0

    @property
    def node_type(self) -> str:
        """Its name."""
        return self.facts.labels[NODE_TYPE_LABEL]

    @property
    def devices(self) -> dict[str, float]:
        """Ray's resources that a node of it must have."""
        return {name: amount for name, amount in self.facts.total.items() if not name.endswith("memory")}


def host_memory(facts: NodeFacts) -> float | None:
    """Bytes of a node's machine: what Ray gives to processes and to its object store. None where Ray does not say."""
    memory = facts.total.get("memory")
    return memory + facts.total.get("object_store_memory", 0.0) if memory else None


def instance_label(instance: str) -> str:
    """An instance name in the letters that a label value may have."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", instance)


def build_snapshot(
    at_s: float,
    facts: Iterable[NodeFacts],
    catalog: Catalog,
    host: HostRates | None,
    offers: Iterable[Offer] = (),
    launching: Mapping[str, Launching] | None = None,
) -> Snapshot:
    """The snapshot of these nodes, and of what may be rented beside them, with what is on its way of each type. `host`
    gives the rates of `cpu` and of emulated types; without it they are unknown."""
    builder = _Builder(catalog, host)
    ordered = sorted(facts, key=lambda node: (not node.is_head, node.name))
    nodes = tuple(builder.node(node) for node in ordered)
    node_types = tuple(builder.node_type(offer, (launching or {}).get(offer.node_type)) for offer in offers)
    builder.share_host_memory(ordered)
    energy, tariff = builder.rates(ordered[0].labels if ordered and ordered[0].is_head else {})
    return Snapshot(at_s, nodes, builder.types, tuple(builder.warnings), energy, tariff, node_types)


def rate_labels(energy: EnergyRates, tariff: Tariff) -> dict[str, str]:
    """The labels of a head that say what differs from the defaults; `build_snapshot` reads them back."""
    rates = {
        USD_PER_KWH_LABEL: (energy.usd_per_kwh, EnergyRates.usd_per_kwh),
        GCO2E_PER_KWH_LABEL: (energy.gco2e_per_kwh, EnergyRates.gco2e_per_kwh),
        ENERGY_OVERHEAD_LABEL: (energy.overhead, EnergyRates.overhead),
        STORAGE_PRICE_LABEL: (tariff.storage_usd_gb_month, Tariff.storage_usd_gb_month),
        EGRESS_PRICE_LABEL: (tariff.egress_usd_gb, Tariff.egress_usd_gb),
    }
    return {
        label: UNKNOWN if rate is None else f"{rate:.9g}" for label, (rate, default) in rates.items() if rate != default
    }


class _Builder:
    """Collects device types and warnings over the nodes of one snapshot."""

    def __init__(self, catalog: Catalog, host: HostRates | None) -> None:
        self.catalog = catalog
        self.host = host
        self.types: dict[str, DeviceType] = {}
        self.warnings: list[str] = []
        self._price_of = functools.cache(catalog.price)
        self._instances = {instance_label(name): name for name in catalog.instances}

    def node(self, facts: NodeFacts) -> Node:
        devices = []
        for resource in self._device_resources(facts):
            device = self._register(self._type_of(facts, resource), facts)
            total = int(facts.total[resource])
            free = 0 if facts.leaves_s is not None else int(facts.free.get(resource, 0.0) + 1e-9)
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
            market=self._market(facts),
            leaves_s=facts.leaves_s,
        )

    def node_type(self, offer: Offer, launching: Launching | None) -> NodeType:
        """What may be rented, at its own price and on its own market."""
        launching = launching or Launching()
        node = self.node(offer.facts)
        market = self._market(offer.facts)
        paid = _paid_for(node)
        known = {each.device_type: self.types[each.device_type] for each in paid}
        prices = {name: self._rent(kind, offer.facts, market) for name, kind in known.items()}
        usd_h = sum(each.total * price.usd_h for each in paid if (price := prices[each.device_type]) is not None)
        rates = [price.interruptions_per_h for price in prices.values() if price is not None]
        return NodeType(
            name=node.node_type,
            devices=tuple((each.device_type, each.total) for each in node.devices),
            price_usd_h=usd_h,
            most=offer.most,
            least=offer.least,
            launch_s=offer.launch_s if launching.launch_s is None else launching.launch_s,
            market=market,
            interruptions_per_h=max((rate for rate in rates if rate is not None), default=None),
            memory_bytes=node.memory_bytes,
            joins_s=launching.joins_s,
            unavailable_until_s=launching.unavailable_until_s,
            unavailable_why=launching.why,
            on_demand_usd_h=usd_h if market == "on-demand" else self._on_demand_usd_h(node, offer.facts),
        )

    def _on_demand_usd_h(self, node: Node, facts: NodeFacts) -> float | None:
        """What a node on spot would cost on demand, by the catalog."""
        usd_h = 0.0
        for each in _paid_for(node):
            price = self._price_of(self.types[each.device_type].name, self._instance(facts), "on-demand")
            if price is None:
                return None
            usd_h += each.total * price.usd_h
        return usd_h

    def share_host_memory(self, facts: Iterable[NodeFacts]) -> None:
        """What a process on a core may use is what the smallest node with cores has: any may be taken."""
        known = [size for node in facts if CPU in self.types and node.total.get("CPU") and (size := host_memory(node))]
        if known:
            self.types[CPU] = replace(self.types[CPU], memory_bytes=min(known))

    def rates(self, labels: Mapping[str, str]) -> tuple[EnergyRates, Tariff]:
        """What the head's labels say of electricity, storage and traffic."""
        return EnergyRates(
            self._rate(labels, USD_PER_KWH_LABEL, EnergyRates.usd_per_kwh),
            self._rate(labels, GCO2E_PER_KWH_LABEL, EnergyRates.gco2e_per_kwh),
            self._rate(labels, ENERGY_OVERHEAD_LABEL, EnergyRates.overhead, least=1.0) or EnergyRates.overhead,
        ), Tariff(
            self._rate(labels, STORAGE_PRICE_LABEL, Tariff.storage_usd_gb_month),
            self._rate(labels, EGRESS_PRICE_LABEL, Tariff.egress_usd_gb),
        )

    def _rate(self, labels: Mapping[str, str], label: str, default: float | None, least: float = 0.0) -> float | None:
        text = labels.get(label)
        if text is None or text == UNKNOWN:
            return default if text is None else None
        rate = _number(text)
        if rate is None or rate < least:
            self._warn(f"the head's label {label}={text} is not a number of {least:g} or more, it is not used")
            return default
        return rate

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
        speed = _number(text)
        if speed is None or speed <= 0:
            self._warn(f"node {facts.name}: {EMULATED_SPEED_LABEL}={text} is not a positive number, taken as 1")
            return 1.0
        return speed

    def _emulated(self, known: DeviceType, speed: float) -> DeviceType:
        if self.host is None:
            return replace(
                known,
                memory_bandwidth_bytes_s=None,
                peak_flops={},
                interconnect_bytes_s=None,
                power_watts=None,
                emulated_speed=speed,
            )
        return emulate(known, self.host, speed)

    def _register(self, device: DeviceType, facts: NodeFacts) -> DeviceType:
        """Keep one entry per device type: the real one over the emulated, the one on demand over the one on spot, the
        cheaper price over the dearer."""
        device = self._priced(device, facts)
        seen = self.types.get(device.name)
        if seen is None or seen == device:
            self.types[device.name] = device
        elif seen.emulated != device.emulated:
            self._warn(f"{device.name} is both emulated and real: the real one's figures are used for both")
            self.types[device.name] = seen if device.emulated else device
        elif seen.emulated_speed != device.emulated_speed:
            self._warn(f"{device.name} is emulated at different speeds: the slower one's figures are used for both")
            self.types[device.name] = min(seen, device, key=lambda each: each.emulated_speed or 0.0)
        elif seen.market != device.market:
            self._warn(f"{device.name} is both on demand and on spot: the figures of on demand are used for both")
            self.types[device.name] = seen if device.market == "spot" else device
        elif device.price_usd_h != seen.price_usd_h:
            self._warn(f"nodes with {device.name} have different prices: the lowest is used for all")
            known = [each for each in (seen, device) if each.price_usd_h is not None]
            self.types[device.name] = min(known, key=lambda each: each.price_usd_h or 0.0)
        return device

    def _priced(self, device: DeviceType, facts: NodeFacts) -> DeviceType:
        """The device at the price of its node's market: what the node states, then its instance's, then the catalog's
        cheapest."""
        if self._market(facts) == "spot":
            price = self._price(device, facts, "spot")
            if price is None:
                self._warn(f"node {facts.name} is on spot, and no spot price of {device.name} is known: it is unpriced")
            return on_spot(device, price)
        price = self._price(device, facts, "on-demand")
        instance = self._instance(facts)
        spot = None if instance is None else self._price_of(device.name, instance, "spot")
        for known in filter(None, (price, spot)):
            device = priced(device, known)
        return device

    def _market(self, facts: NodeFacts) -> Market:
        text = facts.labels.get(MARKET_LABEL, "on-demand")
        if text == "spot":
            return "spot"
        if text != "on-demand":
            self._warn(f"node {facts.name}: {MARKET_LABEL}={text} is neither spot nor on-demand, taken as on-demand")
        return "on-demand"

    def _rent(self, device: DeviceType, facts: NodeFacts, market: Market) -> Price | None:
        """What one device of a node that is rented costs: also a core then costs what its machine does."""
        if device.name == CPU and facts.labels.get(DEVICE_LABEL) != CPU:
            return self._price_of(CPU, None, market)
        return self._price_here(device, facts, market)

    def _price(self, device: DeviceType, facts: NodeFacts, market: Market) -> Price | None:
        """What one device of this node costs; that of a core does not depend on the node, but for its market."""
        return self._price_of(CPU, None, market) if device.name == CPU else self._price_here(device, facts, market)

    def _price_here(self, device: DeviceType, facts: NodeFacts, market: Market) -> Price | None:
        stated, instance = facts.labels.get(PRICE_LABEL), self._instance(facts)
        if stated is not None:
            usd_h = _number(stated)
            if usd_h is not None and usd_h >= 0:
                source = f"node {facts.labels.get(NODE_TYPE_LABEL) or facts.name}"
                return Price(usd_h, source, "", market, self.catalog.interruptions_per_h(device.name, instance))
            self._warn(f"node {facts.name}: {PRICE_LABEL}={stated} is not a number of zero or more")
        return self._price_of(device.name, instance, market)

    def _instance(self, facts: NodeFacts) -> str | None:
        return self._instances.get(facts.labels.get(INSTANCE_LABEL, ""))

    def _network_bytes_s(self, facts: NodeFacts) -> float | None:
        """The network of a real instance; unknown for emulated nodes, which share the host's memory."""
        instance = None if EMULATED_SPEED_LABEL in facts.labels else self._instance(facts)
        return None if instance is None else self.catalog.instances[instance].network_bytes_s

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _paid_for(node: Node) -> tuple[NodeDevices, ...]:
    """Devices whose prices make up the node's: its cores come with its accelerators."""
    others = tuple(each for each in node.devices if each.device_type != CPU)
    return others or node.devices


def _number(text: str) -> float | None:
    """A finite number; None where the text is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
