"""A local cluster as a user writes it down: `cluster.yaml`, a head and nodes with real or emulated devices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads.errors import Problem, SpecError

from .catalog import Catalog
from .host import HostRates, host_cores, host_memory_bytes
from .inventory import ACCELERATOR_LABEL, HEAD_RESOURCE, NodeFacts, build_snapshot, instance_label, rate_labels
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

NodeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadDefinition(_Model):
    """The head node: `cpus` cores are schedulable on it, at most those of the machine; all of them where not given."""

    cpus: int | None = Field(default=None, ge=1, le=4096)


class NodeDefinition(_Model):
    """`number` nodes of `count` devices each. With `emulated_speed` a host core stands in for each device, at that
    fraction of its speed. `price_usd_h` is that of one device on the node's `market`."""

    name: NodeName
    device: str
    count: int = Field(default=1, ge=1, le=1024)
    number: int = Field(default=1, ge=1, le=20_000)
    emulated_speed: float | None = Field(default=None, gt=0, le=1)
    instance: str | None = None
    price_usd_h: float | None = Field(default=None, ge=0, le=1000)
    market: Market = "on-demand"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all nodes that are meant: the name itself, or with a number behind it."""
        if self.number == 1:
            return (self.name,)
        return tuple(f"{self.name}-{index}" for index in range(1, self.number + 1))


class EnergyDefinition(_Model):
    """Price, emissions and overhead of the electricity where the cluster stands; null is not known."""

    usd_per_kwh: float | None = Field(default=EnergyRates.usd_per_kwh, ge=0, le=100)
    gco2e_per_kwh: float | None = Field(default=EnergyRates.gco2e_per_kwh, ge=0, le=10_000)
    overhead: float = Field(default=EnergyRates.overhead, ge=1, le=10)


class TariffDefinition(_Model):
    """What is charged beside devices; null is not known."""

    storage_usd_gb_month: float | None = Field(default=Tariff.storage_usd_gb_month, ge=0, le=100)
    egress_usd_gb: float | None = Field(default=Tariff.egress_usd_gb, ge=0, le=100)


class ClusterDefinition(_Model):
    """A head and its nodes. `gpu_names` are the real NVIDIA GPUs of the head; they are found, not written."""

    head: HeadDefinition = HeadDefinition()
    nodes: tuple[NodeDefinition, ...] = ()
    energy: EnergyDefinition = EnergyDefinition()
    tariff: TariffDefinition = TariffDefinition()
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
        problems = _check_names(definition, catalog, file)
        if problems:
            raise SpecError(problems)
        nodes = tuple(
            node.model_copy(update={"device": catalog.device(node.device).name, "name": name, "number": 1})
            for node in definition.nodes
            for name in node.names
        )
        return definition.model_copy(update={"nodes": nodes})

    def with_real_gpus(self, names: tuple[str, ...]) -> ClusterDefinition:
        """The cluster on a machine that has these GPUs: they are used in place of the emulated nodes."""
        if not names:
            return self
        kept = tuple(node for node in self.nodes if node.emulated_speed is None)
        return self.model_copy(update={"nodes": kept, "gpu_names": names})

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
        return build_snapshot(at_s, facts, catalog, host)


def node_labels(node: NodeDefinition) -> dict[str, str]:
    """Labels of a node, as Ray is given them."""
    labels = {NODE_TYPE_LABEL: node.name, DEVICE_LABEL: node.device}
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
    names = Counter([HEAD, *(name for node in definition.nodes for name in node.names)])
    for index, node in enumerate(definition.nodes):
        field = f"nodes.{index}"
        twice = [name for name in node.names if names[name] > 1]
        if twice:
            problems.append(Problem(f"the name {twice[0]!r} is used twice", f"{field}.name", "rename one", file))
        problems += _lookup(lambda node=node: catalog.device(node.device), f"{field}.device", file)
        if node.instance is not None:
            problems += _lookup(lambda node=node: catalog.instance(node.instance), f"{field}.instance", file)
        problems += _check_pair(node, catalog, field, file)
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
    return Problem(str(error["msg"]), field=field, hint=hint, file=file)


def _fields_hint(loc: tuple[str | int, ...]) -> str:
    models: dict[str | int, type[_Model]] = {"nodes": NodeDefinition, HEAD: HeadDefinition}
    models |= {"energy": EnergyDefinition, "tariff": TariffDefinition}
    model = models.get(loc[0], ClusterDefinition) if len(loc) > 1 else ClusterDefinition
    return f"fields are {', '.join(name for name, each in model.model_fields.items() if not each.exclude)}"
