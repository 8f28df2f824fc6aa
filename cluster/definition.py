"""A local cluster as a user writes it down: `cluster.yaml`, a head and nodes with real or emulated devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads.errors import Problem, SpecError

from .catalog import Catalog
from .host import HostRates, host_cores, host_memory_bytes
from .inventory import ACCELERATOR_LABEL, HEAD_RESOURCE, NodeFacts, Offer, build_snapshot, instance_label, rate_labels
from .types import (
    DEVICE_LABEL,
    EMULATED_SPEED_LABEL,
    INSTANCE_LABEL,
    MARKET_LABEL,
    NODE_TYPE_LABEL,
    PRICE_LABEL,
    EnergyRates,
    Market,
    Snapshot,
    Tariff,
)

LOCAL = Path(__file__).parent / "definitions" / "local.yaml"
HEAD = "head"
# What Ray itself sets aside of a machine's memory for tasks and actors.
RAY_MEMORY_SHARE = 0.7

QueueName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$")]
NodeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadDefinition(_Model):
    """The head node: `cpus` cores are schedulable on it, at most those of the machine; all of them where not given."""

    cpus: int | None = Field(default=None, ge=1, le=4096)


class RentDefinition(_Model):
    """Nodes that are rented by the hour: `most` at once, each joins `launch_s` after it was asked for."""

    most: int = Field(ge=1, le=20_000)
    launch_s: float = Field(default=180.0, ge=0, le=86_400)


class NodeDefinition(_Model):
    """`number` nodes of `count` devices each. With `emulated_speed` a host core stands in for each device, at that
    fraction of its speed. `price_usd_h` is that of one device on the node's `market`. With `rent`, nodes like it are
    rented and given back; `number` of them are there from the start."""

    name: NodeName
    device: str
    count: int = Field(default=1, ge=1, le=1024)
    number: int | None = Field(default=None, ge=0, le=20_000)
    emulated_speed: float | None = Field(default=None, gt=0, le=1)
    instance: str | None = None
    price_usd_h: float | None = Field(default=None, ge=0, le=1000)
    market: Market = "on-demand"
    rent: RentDefinition | None = None

    @property
    def there(self) -> int:
        """How many are there from the start."""
        return self.number if self.number is not None else 1 if self.rent is None else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all nodes that are there from the start: the name itself, or with a number behind it; rented ones
        always have one, as more may join."""
        if self.there == 1 and self.rent is None:
            return (self.name,)
        return tuple(f"{self.name}-{index}" for index in range(1, self.there + 1))


class EnergyDefinition(_Model):
    """Price, emissions and overhead of the electricity where the cluster stands; null is not known."""

    usd_per_kwh: float | None = Field(default=EnergyRates.usd_per_kwh, ge=0, le=100)
    gco2e_per_kwh: float | None = Field(default=EnergyRates.gco2e_per_kwh, ge=0, le=10_000)
    overhead: float = Field(default=EnergyRates.overhead, ge=1, le=10)


class TariffDefinition(_Model):
    """What is charged beside devices; null is not known."""

    storage_usd_gb_month: float | None = Field(default=Tariff.storage_usd_gb_month, ge=0, le=100)
    egress_usd_gb: float | None = Field(default=Tariff.egress_usd_gb, ge=0, le=100)


class QueueDefinition(_Model):
    """What the workloads of a queue may hold together. `quota` is by device type; what is not in it is not limited."""

    name: QueueName
    weight: float = Field(default=1.0, gt=0, le=1000)
    quota: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    limit_usd_h: float | None = Field(default=None, ge=0, le=1_000_000)
    limit_usd_month: float | None = Field(default=None, ge=0, le=1_000_000_000)


class ClusterDefinition(_Model):
    """A head and its nodes. `rentable` are the kinds of nodes that may be rented, as they were written among the nodes;
    `gpu_names` are the real NVIDIA GPUs of the head; they are found, not written."""

    head: HeadDefinition = HeadDefinition()
    nodes: tuple[NodeDefinition, ...] = ()
    energy: EnergyDefinition = EnergyDefinition()
    tariff: TariffDefinition = TariffDefinition()
    queues: tuple[QueueDefinition, ...] = ()
    rent_cap_usd_h: float | None = Field(default=None, gt=0, le=1_000_000)
    rentable: tuple[NodeDefinition, ...] = Field(default=(), exclude=True)
    gpu_names: tuple[str, ...] = Field(default=(), exclude=True)

    @classmethod
    def load(cls, path: Path | None = None, catalog: Catalog | None = None) -> ClusterDefinition:
        """Read a `cluster.yaml`; the shipped one where no path is given. Raises SpecError with every problem found."""
        path = path or LOCAL
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpecError(Problem(f"cannot be read: {error}", file=str(path))) from error
        return cls.parse(data, catalog or Catalog.load(), file=str(path))

    @classmethod
    def parse(cls, data: Any, catalog: Catalog, file: str = "") -> ClusterDefinition:
        """Check a definition and put the catalog's own device names in. Raises SpecError."""
        try:
            definition = cls.model_validate(data)
        except ValidationError as error:
            raise SpecError([_problem(dict(each), file) for each in error.errors()]) from error
        problems = [*_check_names(definition, catalog, file), *_check_queues(definition, catalog, file)]
        if problems:
            raise SpecError(problems)
        kinds = [node.model_copy(update={"device": catalog.device(node.device).name}) for node in definition.nodes]
        nodes = tuple(node.model_copy(update={"name": name, "number": 1}) for node in kinds for name in node.names)
        rentable = tuple(node for node in kinds if node.rent is not None)
        queues = tuple(
            queue.model_copy(update={"quota": {catalog.device(name).name: most for name, most in queue.quota.items()}})
            for queue in definition.queues
        )
        return definition.model_copy(update={"nodes": nodes, "rentable": rentable, "queues": queues})

    def with_real_gpus(self, names: tuple[str, ...]) -> ClusterDefinition:
        """The cluster on a machine that has these GPUs: they are used in place of the emulated nodes."""
        if not names:
            return self
        kept = tuple(node for node in self.nodes if node.emulated_speed is None)
        rentable = tuple(node for node in self.rentable if node.emulated_speed is None)
        return self.model_copy(update={"nodes": kept, "rentable": rentable, "gpu_names": names})

    @property
    def cpus(self) -> int:
        """Cores that are schedulable on the head."""
        return min(self.head.cpus or host_cores(), host_cores())

    def head_labels(self, catalog: Catalog) -> dict[str, str]:
        """Labels of the head node, and on it of the whole cluster."""
        rates = rate_labels(EnergyRates(**self.energy.model_dump()), Tariff(**self.tariff.model_dump()))
        labels = {NODE_TYPE_LABEL: HEAD, **rates}
        if self.gpu_names:
            known = catalog.find(self.gpu_names[0])
            if known is not None:
                labels[DEVICE_LABEL] = known.name
        return labels

    def snapshot(self, host: HostRates | None, catalog: Catalog, at_s: float = 0.0) -> Snapshot:
        """The snapshot this cluster would have with nothing running: for planning without one."""
        memory = host_memory_bytes() * RAY_MEMORY_SHARE if host is None else host.memory_bytes * RAY_MEMORY_SHARE
        store = memory / RAY_MEMORY_SHARE - memory
        total = {"CPU": float(self.cpus), "memory": memory, "object_store_memory": store, HEAD_RESOURCE: 1.0}
        labels = self.head_labels(catalog)
        if self.gpu_names:
            total["GPU"] = float(len(self.gpu_names))
            labels.setdefault(ACCELERATOR_LABEL, self.gpu_names[0])
        facts = [NodeFacts("planned-head", HEAD, labels, total, total)]
        for node in self.nodes:
            amounts = {node.device: float(node.count), "memory": memory}
            facts.append(NodeFacts(f"planned-{node.name}", node.name, node_labels(node), amounts, amounts))
        found = build_snapshot(at_s, facts, catalog, host, [_offer(node, memory) for node in self.rentable])
        return replace(found, rent_cap_usd_h=self.rent_cap_usd_h)


def _offer(node: NodeDefinition, memory: float) -> Offer:
    """A kind of node that may be rented, with one of it as it would be."""
    assert node.rent is not None
    amounts = {node.device: float(node.count), "memory": memory}
    labels = {**node_labels(node), NODE_TYPE_LABEL: node.name}
    return Offer(NodeFacts(f"rentable-{node.name}", node.name, labels, amounts), node.rent.most, node.rent.launch_s)


def node_labels(node: NodeDefinition) -> dict[str, str]:
    """Labels of a node that is there, as Ray is given them. Of a rented one the number behind the name is no part of
    its type."""
    node_type = node.name if node.rent is None else node.name.rpartition("-")[0]
    labels = {NODE_TYPE_LABEL: node_type, DEVICE_LABEL: node.device}
    if node.emulated_speed is not None:
        labels[EMULATED_SPEED_LABEL] = f"{node.emulated_speed:g}"
    if node.instance is not None:
        labels[INSTANCE_LABEL] = instance_label(node.instance)
    if node.price_usd_h is not None:
        labels[PRICE_LABEL] = f"{node.price_usd_h:g}"
    if node.market != "on-demand":
        labels[MARKET_LABEL] = node.market
    return labels


def _check_names(definition: ClusterDefinition, catalog: Catalog, file: str) -> list[Problem]:
    problems = []
    kinds = [node.name for node in definition.nodes if node.rent is not None]
    names = Counter([HEAD, *kinds, *(name for node in definition.nodes for name in node.names)])
    for index, node in enumerate(definition.nodes):
        field = f"nodes.{index}"
        twice = [name for name in (node.name, *node.names) if names[name] > 1]
        if twice:
            problems.append(Problem(f"the name {twice[0]!r} is used twice", f"{field}.name", "rename one", file))
        problems += _lookup(lambda node=node: catalog.device(node.device), f"{field}.device", file)
        if node.instance is not None:
            problems += _lookup(lambda node=node: catalog.instance(node.instance), f"{field}.instance", file)
        problems += _check_pair(node, catalog, field, file)
        problems += _check_rent(node, catalog, field, file)
    return problems


def _check_rent(node: NodeDefinition, catalog: Catalog, field: str, file: str) -> list[Problem]:
    """What is rented must have a price, and no more of it can be there than may be."""
    if node.rent is None:
        hint = "give it a `rent` if such nodes are rented later"
        return [Problem("0 nodes are no nodes", f"{field}.number", hint, file)] if node.there == 0 else []
    problems = []
    if node.rent.most < node.there:
        more = f"{node.there} are there from the start, at most {node.rent.most} may be"
        problems.append(Problem(more, f"{field}.rent.most", f"raise it to {node.there}, or lower `number`", file))
    if not _price_usd_h(node, catalog):
        what = "a price of 0" if _price_usd_h(node, catalog) == 0 else "no known price"
        hint = "give `price_usd_h`, the dollars an hour of one device, here or in your own catalog file"
        message = f"{node.device} on {node.market} has {what}: whether renting pays cannot be told"
        problems.append(Problem(message, f"{field}.price_usd_h", hint, file))
    return problems


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


def _check_queues(definition: ClusterDefinition, catalog: Catalog, file: str) -> list[Problem]:
    problems = []
    names = Counter(queue.name for queue in definition.queues)
    for index, queue in enumerate(definition.queues):
        if names[queue.name] > 1:
            message = f"the queue {queue.name!r} is there twice"
            problems.append(Problem(message, f"queues.{index}.name", "write all of its rules in one place", file))
        for device in queue.quota:
            field = f"queues.{index}.quota.{device}"
            problems += _lookup(lambda device=device: catalog.device(device), field, file)
    return problems


def _check_pair(node: NodeDefinition, catalog: Catalog, field: str, file: str) -> list[Problem]:
    """An instance must have the device that is said to be on it."""
    device = catalog.find(node.device)
    instance = next((each for name, each in catalog.instances.items() if name == (node.instance or "").lower()), None)
    if device is None or instance is None or instance.device == device.name:
        return []
    hint = f"{instance.name} has {instance.device}"
    return [Problem(f"{instance.name} has no {device.name}", f"{field}.instance", hint, file)]


def _lookup(find: Any, field: str, file: str) -> list[Problem]:
    try:
        find()
    except SpecError as error:
        return [Problem(each.message, field, each.hint, file) for each in error.problems]
    return []


def _problem(error: dict[str, Any], file: str) -> Problem:
    field = ".".join(str(part) for part in error["loc"])
    hint = _fields_hint(error["loc"]) if error["type"] == "extra_forbidden" else ""
    message = "must be a list" if error["type"] == "tuple_type" else str(error["msg"])
    return Problem(message, field=field, hint=hint, file=file)


def _fields_hint(loc: tuple[str | int, ...]) -> str:
    models: dict[str | int, type[_Model]] = {"nodes": NodeDefinition, HEAD: HeadDefinition}
    models |= {"energy": EnergyDefinition, "tariff": TariffDefinition, "queues": QueueDefinition}
    model = models.get(loc[0], ClusterDefinition) if len(loc) > 1 else ClusterDefinition
    model = RentDefinition if "rent" in loc[:-1] else model
    return f"fields are {', '.join(name for name, each in model.model_fields.items() if not each.exclude)}"
