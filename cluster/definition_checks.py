"""What no single field of a cluster definition can say of itself: names, devices, instances, zones and limits that must
fit one another. Each problem comes with its field and a hint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workloads.errors import Problem, SpecError

from .catalog import Catalog
from .catalog.tables import InstanceType
from .types import CPU

if TYPE_CHECKING:
    from .definition import ClusterDefinition, NodeDefinition

LONGEST_MONTH_H = 31 * 24.0


def check_nodes(definition: ClusterDefinition, catalog: Catalog, file: str, head: str) -> Iterator[Problem]:
    """Problems of each node type by itself, and of their names."""
    kinds = [(node, kind) for node in definition.nodes for kind in node.zonal]
    # Of a rented type the name itself is taken as well as those of the nodes.
    taken = Counter([head, *(name for _, kind in kinds for name in _names(kind))])
    for index, node in enumerate(definition.nodes):
        field = f"nodes.{index}"
        twice = [name for kind in node.zonal for name in _names(kind) if taken[name] > 1]
        if twice:
            yield Problem(f"the name {twice[0]!r} is used twice", f"{field}.name", "rename one", file)
        yield from lookup(lambda node=node: catalog.device(node.device), f"{field}.device", file)
        if node.instance is not None:
            yield from lookup(lambda node=node: catalog.instance(node.instance), f"{field}.instance", file)
        yield from _check_pair(node, catalog, field, file)
        yield from _check_rent(node, catalog, field, file)


def check_caps(definition: ClusterDefinition, catalog: Catalog, file: str) -> Iterator[Problem]:
    """Nodes that are always there must be within what all may cost."""
    kinds = [kind for node in definition.nodes for kind in node.zonal if kind.rent is not None]
    usd_h = sum(
        kind.rent.least * kind.count * (_price_usd_h(kind, catalog) or 0.0) for kind in kinds if kind.rent is not None
    )
    caps = {
        "rent_cap_usd_h": (definition.rent_cap_usd_h, 1.0, "an hour"),
        "rent_cap_usd_month": (definition.rent_cap_usd_month, LONGEST_MONTH_H, "in a month"),
    }
    for field, (cap, hours, said) in caps.items():
        if cap is not None and usd_h * hours > cap:
            message = f"the nodes that are always there (`rent.least`) cost ${usd_h * hours:.2f} {said}"
            yield Problem(message, field, "raise it, or lower `least`", file)


def _names(kind: NodeDefinition) -> tuple[str, ...]:
    return kind.names if kind.rent is None else (kind.name, *kind.names)


def _check_rent(node: NodeDefinition, catalog: Catalog, field: str, file: str) -> Iterator[Problem]:
    """What is rented must have a price, and no more of it can be there than may be."""
    if node.rent is None:
        if node.there == 0:
            hint = "give it a `rent` if such nodes are rented later"
            yield Problem("0 nodes are no nodes", f"{field}.number", hint, file)
        return
    if node.rent.most < node.there:
        more = f"{node.there} are there from the start, at most {node.rent.most} may be"
        yield Problem(more, f"{field}.rent.most", f"raise it to {node.there}, or lower `number`", file)
    if node.rent.most < node.rent.least:
        more = f"{node.rent.least} are wanted at least, at most {node.rent.most} may be"
        yield Problem(more, f"{field}.rent.least", f"lower it to {node.rent.most}, or raise `most`", file)
    if not _price_usd_h(node, catalog):
        what = "a price of 0" if _price_usd_h(node, catalog) == 0 else "no known price"
        hint = "give `price_usd_h`, the dollars an hour of one device, here or in your own catalog file"
        message = f"{node.device} on {node.market} has {what}: whether renting pays cannot be told"
        yield Problem(message, f"{field}.price_usd_h", hint, file)


def _price_usd_h(node: NodeDefinition, catalog: Catalog) -> float | None:
    """Dollars an hour of one device of a node; None where nothing is known."""
    if node.price_usd_h is not None:
        return node.price_usd_h
    try:
        price = catalog.price(node.device, node.instance, node.market)
    except SpecError:
        return 1.0  # an instance that is not known is a problem of its own
    if catalog.find(node.device) is None:
        return 1.0  # so is a device
    return None if price is None else price.usd_h


def check_queues(definition: ClusterDefinition, catalog: Catalog, file: str) -> Iterator[Problem]:
    """Problems of queues: names, and device types of quotas."""
    names = Counter(queue.name for queue in definition.queues)
    for index, queue in enumerate(definition.queues):
        if names[queue.name] > 1:
            message = f"the queue {queue.name!r} is there twice"
            yield Problem(message, f"queues.{index}.name", "write all of its rules in one place", file)
        for device in queue.quota:
            field = f"queues.{index}.quota.{device}"
            yield from lookup(lambda device=device: catalog.device(device), field, file)


def _check_pair(node: NodeDefinition, catalog: Catalog, field: str, file: str) -> Iterator[Problem]:
    """An instance must have the device that is said to be on it."""
    device = catalog.find(node.device)
    instance = known_instance(node.instance, catalog)
    if device is None or instance is None or instance.device == device.name:
        return
    if device.name == CPU and instance.device_count == 0:
        return
    hint = f"{instance.name} has {instance.device}"
    yield Problem(f"{instance.name} has no {device.name}", f"{field}.instance", hint, file)


def lookup(find: Any, field: str, file: str) -> list[Problem]:
    """The problems that `find` raises, said of a field."""
    try:
        find()
    except SpecError as error:
        return [Problem(each.message, field, each.hint, file) for each in error.problems]
    return []


def known_instance(name: str | None, catalog: Catalog) -> InstanceType | None:
    """The instance type of this name; None where none is given, or known."""
    try:
        return None if name is None else catalog.instance(name)
    except SpecError:
        return None
