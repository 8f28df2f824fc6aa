"""A cluster as a user writes it down: `cluster.yaml`, a head and nodes with real or emulated devices, on this machine
or rented from a provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from workloads.errors import Problem, SpecError

from .catalog import Catalog
from .definition_checks import check_caps, check_nodes, check_queues
from .host import HostRates, host_cores, host_memory_bytes
from .inventory import ACCELERATOR_LABEL, HEAD_RESOURCE, NodeFacts, Offer, build_snapshot, instance_label, rate_labels
from .provider_checks import check_provider, count_of
from .provider_definition import (
    PROVIDERS,
    LocalProvider,
    Model,
    PodDefinition,
    Provider,
    RedisDefinition,
    ZoneName,
    with_provider,
)
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


class HeadDefinition(Model):
    """The head node: `cpus` cores are schedulable on it, at most those of the machine; all of them where not given."""

    cpus: int | None = Field(default=None, ge=1, le=4096)


class RentDefinition(Model):
    """Nodes that are rented by the hour: `least` and `most` at once, each joins `launch_s` after it was asked for."""

    most: int = Field(ge=1, le=20_000)
    launch_s: float = Field(default=180.0, ge=0, le=86_400)
    least: int = Field(default=0, ge=0, le=20_000)


class NodeDefinition(Model):
    """`number` nodes of `count` devices each. With `emulated_speed` a host core stands in for each device, at that
    fraction of its speed. `price_usd_h` is that of one device on the node's `market`. With `rent`, nodes like it are
    rented and given back; `number` of them are there from the start. With `zones` it stands for a kind of node in each
    of them, of which there are as many."""

    name: NodeName
    device: str
    count: int = Field(default=1, ge=1, le=1024)
    number: int | None = Field(default=None, ge=0, le=20_000)
    emulated_speed: float | None = Field(default=None, gt=0, le=1)
    instance: str | None = None
    price_usd_h: float | None = Field(default=None, ge=0, le=1000)
    market: Market = "on-demand"
    rent: RentDefinition | None = None
    zones: tuple[ZoneName, ...] = ()

    @property
    def zonal(self) -> tuple[NodeDefinition, ...]:
        """The kinds of nodes it stands for: one for each zone, named after it."""
        return tuple(
            self.model_copy(update={"name": f"{self.name}-{zone}", "zones": (zone,)}) for zone in self.zones
        ) or (self,)

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


class EnergyDefinition(Model):
    """Price, emissions and overhead of the electricity where the cluster stands; null is not known."""

    usd_per_kwh: float | None = Field(default=EnergyRates.usd_per_kwh, ge=0, le=100)
    gco2e_per_kwh: float | None = Field(default=EnergyRates.gco2e_per_kwh, ge=0, le=10_000)
    overhead: float = Field(default=EnergyRates.overhead, ge=1, le=10)


class TariffDefinition(Model):
    """What is charged beside devices; null is not known."""

    storage_usd_gb_month: float | None = Field(default=Tariff.storage_usd_gb_month, ge=0, le=100)
    egress_usd_gb: float | None = Field(default=Tariff.egress_usd_gb, ge=0, le=100)


class QueueDefinition(Model):
    """What the workloads of a queue may hold together. `quota` is by device type; what is not in it is not limited."""

    name: QueueName
    weight: float = Field(default=1.0, gt=0, le=1000)
    quota: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(default={})
    limit_usd_h: float | None = Field(default=None, ge=0, le=1_000_000)
    limit_usd_month: float | None = Field(default=None, ge=0, le=1_000_000_000)


class ClusterDefinition(Model):
    """A head and its nodes. `kinds` are the kinds of nodes, as they were written among the nodes, one for each zone;
    `rentable` are those that may be rented; `gpu_names` are the real NVIDIA GPUs of the head; they are found, not
    written."""

    provider: Provider = LocalProvider()
    head: HeadDefinition = HeadDefinition()
    nodes: tuple[NodeDefinition, ...] = ()
    energy: EnergyDefinition = EnergyDefinition()
    tariff: TariffDefinition = TariffDefinition()
    queues: tuple[QueueDefinition, ...] = ()
    rent_cap_usd_h: float | None = Field(default=None, gt=0, le=1_000_000)
    rent_cap_usd_month: float | None = Field(default=None, gt=0, le=1_000_000_000)
    kinds: tuple[NodeDefinition, ...] = Field(default=(), exclude=True)
    rentable: tuple[NodeDefinition, ...] = Field(default=(), exclude=True)
    gpu_names: tuple[str, ...] = Field(default=(), exclude=True)

    @classmethod
    def load(
        cls, path: Path | None = None, catalog: Catalog | None = None, provider: str | None = None
    ) -> ClusterDefinition:
        """Read a `cluster.yaml`; the shipped one where no path is given. With `provider` as if that type of provider
        were written in it. Raises SpecError with every problem found."""
        path = path or LOCAL
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpecError(Problem(f"cannot be read: {error}", file=str(path))) from error
        data = data if provider is None else with_provider(data, provider)
        return cls.parse(data, catalog or Catalog.load(), file=str(path))

    @classmethod
    def parse(cls, data: Any, catalog: Catalog, file: str = "") -> ClusterDefinition:
        """Check a definition and put the catalog's own device names in. Raises SpecError."""
        try:
            definition = cls.model_validate(data)
        except ValidationError as error:
            raise SpecError([_problem(dict(each), file) for each in error.errors()]) from error
        problems = [
            *check_nodes(definition, catalog, file, HEAD),
            *check_caps(definition, catalog, file),
            *check_queues(definition, catalog, file),
            *check_provider(definition, catalog, file),
        ]
        if problems:
            raise SpecError(problems)
        kinds = tuple(
            kind.model_copy(
                update={"device": catalog.device(node.device).name, "count": count_of(node, definition, catalog)}
            )
            for node in definition.nodes
            for kind in node.zonal
        )
        nodes = tuple(node.model_copy(update={"name": name, "number": 1}) for node in kinds for name in node.names)
        rentable = tuple(node for node in kinds if node.rent is not None)
        queues = tuple(
            queue.model_copy(update={"quota": {catalog.device(name).name: most for name, most in queue.quota.items()}})
            for queue in definition.queues
        )
        return definition.model_copy(update={"nodes": nodes, "kinds": kinds, "rentable": rentable, "queues": queues})

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
        return replace(found, rent_cap_usd_h=self.rent_cap_usd_h, rent_cap_usd_month=self.rent_cap_usd_month)


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


def _problem(error: dict[str, Any], file: str) -> Problem:
    loc = error["loc"]
    # pydantic puts the type of a provider into the path: provider.aws.region.
    field = ".".join(str(part) for index, part in enumerate(loc) if index != 1 or loc[0] != "provider")
    hint = _fields_hint(loc) if error["type"] == "extra_forbidden" else ""
    if error["type"].startswith("union_tag"):
        return Problem("has no known type", f"{field}.type", f"types are {', '.join(PROVIDERS)}", file)
    message = "must be a list" if error["type"] == "tuple_type" else str(error["msg"])
    return Problem(message, field=field, hint=hint, file=file)


def _fields_hint(loc: tuple[str | int, ...]) -> str:
    models: dict[str | int, type[Model]] = {"nodes": NodeDefinition, HEAD: HeadDefinition}
    models |= {"energy": EnergyDefinition, "tariff": TariffDefinition, "queues": QueueDefinition}
    model = models.get(loc[0], ClusterDefinition) if len(loc) > 1 else ClusterDefinition
    if loc[0] == "provider" and len(loc) > 2:
        parts: dict[str | int, type[Model]] = {"redis": RedisDefinition, "pods": PodDefinition}
        model = parts.get(loc[2], PROVIDERS[str(loc[1])]) if len(loc) > 3 else PROVIDERS[str(loc[1])]
    model = RentDefinition if "rent" in loc[:-1] else model
    return f"fields are {', '.join(name for name, each in model.model_fields.items() if not each.exclude)}"
