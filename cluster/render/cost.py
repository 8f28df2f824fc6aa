"""What a definition costs an hour, by kind of node: at the least of them, and at the most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..catalog import Catalog
from ..definition import HEAD, ClusterDefinition
from ..provider_checks import head_instance
from ..provider_definition import RentingProvider
from ..types import CPU, Market
from .nodes import NodeKind, node_kinds


@dataclass(frozen=True)
class NodeCost:
    """Of one kind: how many there may be, and dollars an hour of one on its market. None is not known."""

    name: str
    machine: str
    market: Market
    least: int
    most: int
    usd_h: float | None


def node_costs(definition: ClusterDefinition, catalog: Catalog) -> tuple[NodeCost, ...]:
    """The head, then every kind of node."""
    provider = definition.provider
    instance = head_instance(provider, catalog) if isinstance(provider, RentingProvider) else None
    price = None if instance is None else instance.price_on_demand_usd_h
    head = NodeCost(HEAD, "" if instance is None else instance.name, "on-demand", 1, 1, price)
    return head, *(_cost(kind, catalog) for kind in node_kinds(definition, catalog))


def usd_h(costs: Iterable[NodeCost], counts: Mapping[str, int]) -> tuple[float, tuple[str, ...]]:
    """Dollars an hour of so many nodes by kind, and the kinds among them whose price is not known."""
    prices = {each.name: each.usd_h for each in costs}
    known = {name: price for name, price in prices.items() if price is not None}
    total = sum(count * known[name] for name, count in counts.items() if name in known)
    return total, tuple(name for name, count in counts.items() if count and name not in known)


def _cost(kind: NodeKind, catalog: Catalog) -> NodeCost:
    machine = kind.name if kind.instance is None else kind.instance.name
    return NodeCost(kind.name, machine, kind.node.market, kind.least, kind.most, _node_usd_h(kind, catalog))


def _node_usd_h(kind: NodeKind, catalog: Catalog) -> float | None:
    """Dollars an hour of one node: what is written, else its machine's, else that of its devices."""
    node, instance = kind.node, kind.instance
    if node.price_usd_h is not None:
        return node.price_usd_h * node.count
    if instance is not None and (node.device == CPU or node.count == instance.device_count):
        return instance.price_spot_usd_h if kind.spot else instance.price_on_demand_usd_h
    price = catalog.price(node.device, node.instance, node.market)
    return None if price is None else price.usd_h * node.count
