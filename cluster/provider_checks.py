"""What must hold of a cluster definition so that its provider can rent the nodes: instances of that cloud with those
devices, zones that are there, pods with a size. Each problem comes with its field and a hint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workloads.errors import Problem

from .catalog import Catalog
from .catalog.tables import InstanceType
from .definition_checks import known_instance, lookup
from .provider_definition import (
    AwsProvider,
    AzureProvider,
    GcpProvider,
    KubeRayProvider,
    LaunchedProvider,
    RentingProvider,
)
from .types import CPU, DeviceType

if TYPE_CHECKING:
    from .definition import ClusterDefinition, NodeDefinition

HEAD_INSTANCES = {"aws": "aws/m5.xlarge", "gcp": "gcp/n2-standard-4", "azure": "azure/Standard_D4s_v5"}
"""The head's machine where none is given: 4 cores and 16 GiB."""
RAY_HEAD_GROUP = "headgroup"
"""Ray's own name of the head's group of pods."""
POD_MEMORY_SHARE = 0.85
"""What a pod may have of a machine's memory: the rest is Kubernetes' own, beside a GiB."""
KUBERNETES_RESOURCES = {("gpu", "nvidia"): "nvidia.com/gpu", ("gpu", "amd"): "amd.com/gpu"}
KUBERNETES_RESOURCES |= {("asic", "aws"): "aws.amazon.com/neuron"}
"""What Kubernetes calls the devices of a kind and vendor, by their device plugins."""
AZURE_ZONES = ("1", "2", "3")


def check_provider(definition: ClusterDefinition, catalog: Catalog, file: str) -> Iterator[Problem]:
    """Problems that the nodes have with the provider."""
    provider = definition.provider
    for index, node in enumerate(definition.nodes):
        yield from _check_zones(node, definition, f"nodes.{index}", file)
    if isinstance(provider, RentingProvider):
        yield from _check_renting(definition, provider, catalog, file)
    if isinstance(provider, LaunchedProvider):
        yield from _check_head(definition, provider, catalog, file)
        for index, node in enumerate(definition.nodes):
            yield from _check_launched(node, provider, catalog, f"nodes.{index}", file)
    elif isinstance(provider, KubeRayProvider):
        yield from _check_pods(definition, provider, catalog, file)


def count_of(node: NodeDefinition, definition: ClusterDefinition, catalog: Catalog) -> int:
    """Devices on a node. Cores that are not counted are all of the machine that is rented."""
    provider = definition.provider
    if "count" in node.model_fields_set or _device_name(node, catalog) != CPU:
        return node.count
    if isinstance(provider, KubeRayProvider):
        size = pod_size(node, provider, catalog)
        return node.count if size is None else size[0]
    instance = known_instance(node.instance, catalog) if isinstance(provider, LaunchedProvider) else None
    return node.count if instance is None or not instance.vcpus else int(instance.vcpus)


def pod_size(node: NodeDefinition, provider: KubeRayProvider, catalog: Catalog) -> tuple[int, float] | None:
    """Cores and GiB of memory of a node's pod: what is said, else what its machine leaves; None where nothing says."""
    pod, instance = provider.pods.get(pods_key(node)), known_instance(node.instance, catalog)
    cpus, memory = (None, None) if pod is None else (pod.cpus, pod.memory_gib)
    left = size_for_pods(instance)
    if left is not None:
        cpus, memory = cpus or left[0], memory or left[1]
    return None if cpus is None or memory is None else (cpus, memory)


def size_for_pods(instance: InstanceType | None) -> tuple[int, float] | None:
    """Cores and GiB of memory that a machine leaves to one pod beside what Kubernetes itself takes; None where it is
    not known."""
    if instance is None or not instance.vcpus or not instance.memory_bytes:
        return None
    return max(1, int(instance.vcpus) - 1), float(max(1, int(instance.memory_bytes / 2**30 * POD_MEMORY_SHARE - 1)))


def pods_key(node: NodeDefinition) -> str:
    """The name under which `provider.pods` describes a kind: as it was written, without its zone."""
    return node.name.removesuffix(f"-{node.zones[0]}") if len(node.zones) == 1 else node.name


def kubernetes_resource(node: NodeDefinition, provider: KubeRayProvider, catalog: Catalog) -> str | None:
    """What Kubernetes calls the real devices of a node; None where it has none, or nothing says."""
    device = catalog.find(node.device)
    if device is None or device.kind == "cpu" or node.emulated_speed is not None:
        return None
    pod = provider.pods.get(pods_key(node))
    said = None if pod is None else pod.resource
    return said or KUBERNETES_RESOURCES.get((device.kind, device.vendor.lower()))


def is_ray_gpu(device: DeviceType) -> bool:
    """Whether real devices of this type are Ray's `GPU`."""
    return device.kind == "gpu" and device.vendor.lower() == "nvidia"


def _device_name(node: NodeDefinition, catalog: Catalog) -> str:
    device = catalog.find(node.device)
    return node.device if device is None else device.name


def _check_zones(node: NodeDefinition, definition: ClusterDefinition, field: str, file: str) -> Iterator[Problem]:
    provider = definition.provider
    for zone in node.zones:
        if node.zones.count(zone) > 1:
            yield Problem(f"{zone} is there twice", f"{field}.zones", "name each zone once", file)
            return
        if isinstance(provider, AwsProvider):
            if provider.zones and zone not in provider.zones:
                hint = f"add it to provider.zones, which are {', '.join(provider.zones)}"
                yield Problem(f"{zone} is none of the provider's zones", f"{field}.zones", hint, file)
            elif not zone.startswith(provider.region):
                hint = f"zones are named like {provider.region}a"
                yield Problem(f"{zone} is not in {provider.region}", f"{field}.zones", hint, file)
            elif isinstance(provider.subnet_ids, dict) and zone not in provider.subnet_ids:
                hint = "add one under provider.subnet_ids, which has a subnet for each zone"
                yield Problem(f"there is no subnet in {zone}", f"{field}.zones", hint, file)
        elif isinstance(provider, GcpProvider) and zone != provider.zone:
            hint = f"Ray's launcher has all nodes of a cluster on gcp in one zone, {provider.zone}"
            yield Problem(f"{zone} is not the provider's zone", f"{field}.zones", hint, file)
        elif isinstance(provider, AzureProvider) and zone not in AZURE_ZONES:
            hint = f"zones are named {', '.join(AZURE_ZONES)}"
            yield Problem(f"{zone} is no zone of azure", f"{field}.zones", hint, file)


def _check_renting(
    definition: ClusterDefinition, provider: RentingProvider, catalog: Catalog, file: str
) -> Iterator[Problem]:
    """What holds wherever machines are rented."""
    names = Counter([RAY_HEAD_GROUP, *(kind.name for node in definition.nodes for kind in node.zonal)])
    for index, node in enumerate(definition.nodes):
        if any(names[kind.name] > 1 for kind in node.zonal):
            yield Problem(f"the name {node.name!r} is used twice", f"nodes.{index}.name", "rename one", file)
        if node.rent is not None and node.there > node.rent.least:
            hint = f"write `rent: {{least: {node.there}, ...}}`: so many are kept"
            yield Problem("a rented node is not there from the start", f"nodes.{index}.number", hint, file)
    if provider.head_instance is not None:
        yield from lookup(lambda: catalog.instance(str(provider.head_instance)), "provider.head_instance", file)
    if provider.redis is not None:
        wrong = "password_secret" if isinstance(provider, LaunchedProvider) else "password_file"
        if getattr(provider.redis, wrong) is not None:
            right = "password_file" if wrong == "password_secret" else "password_secret"
            yield Problem(f"is not for {provider_type(provider)}", f"provider.redis.{wrong}", f"use {right}", file)


def provider_type(provider: RentingProvider) -> str:
    """The provider's type, as it is written."""
    return str(getattr(provider, "type", ""))


def _check_head(
    definition: ClusterDefinition, provider: LaunchedProvider, catalog: Catalog, file: str
) -> Iterator[Problem]:
    instance = head_instance(provider, catalog)
    if instance is None:
        return
    if instance.cloud != provider_type(provider):
        hint = f"take an instance of {provider_type(provider)}"
        yield Problem(f"{instance.name} is not of this cloud", "provider.head_instance", hint, file)
    elif definition.head.cpus is not None and instance.vcpus and definition.head.cpus > instance.vcpus:
        hint = f"{instance.name} has {instance.vcpus:g}"
        yield Problem(f"{definition.head.cpus} cores are more than there are", "head.cpus", hint, file)


def head_instance(provider: RentingProvider, catalog: Catalog) -> InstanceType | None:
    """The head's machine; None where it is not known."""
    return known_instance(provider.head_instance or HEAD_INSTANCES.get(provider_type(provider)), catalog)


def _check_launched(
    node: NodeDefinition, provider: LaunchedProvider, catalog: Catalog, field: str, file: str
) -> Iterator[Problem]:
    """A machine of this cloud, with these devices and no others."""
    cloud, device = provider_type(provider), catalog.find(node.device)
    if node.emulated_speed is not None:
        hint = "emulated devices are for a cluster on this machine, or for pods"
        yield Problem(f"devices on {cloud} are real", f"{field}.emulated_speed", hint, file)
    if device is not None and device.kind == "tpu":
        hint = "rent them with provider type `existing`, or take a GPU"
        yield Problem(f"{device.name}: TPUs are not launched yet", f"{field}.device", hint, file)
    if node.instance is None:
        hint = f"name the machine to rent, e.g. {HEAD_INSTANCES[cloud]}"
        yield Problem(f"a node on {cloud} needs an instance", f"{field}.instance", hint, file)
        return
    instance = known_instance(node.instance, catalog)
    if instance is None or device is None:
        return
    if instance.cloud != cloud:
        hint = f"take an instance of {cloud}"
        yield Problem(f"{instance.name} is not of this cloud", f"{field}.instance", hint, file)
        return
    yield from _check_count(node, device, instance, field, file)


def _check_count(
    node: NodeDefinition, device: DeviceType, instance: InstanceType, field: str, file: str
) -> Iterator[Problem]:
    if device.kind == "cpu" and device.name != CPU:
        hint = "write `device: cpu`, and count no cores: all are used"
        yield Problem(f"{device.name} is the processor of {instance.name}", f"{field}.device", hint, file)
        return
    there = instance.vcpus if device.name == CPU else float(instance.device_count)
    counted = device.name != CPU or "count" in node.model_fields_set
    if there and counted and node.count != there:
        what = "cores" if device.name == CPU else device.name
        message = f"{instance.name} has {there:g} {what}, not {node.count}"
        yield Problem(message, f"{field}.count", f"write `count: {there:g}`", file)


def _check_pods(
    definition: ClusterDefinition, provider: KubeRayProvider, catalog: Catalog, file: str
) -> Iterator[Problem]:
    written = [node.name for node in definition.nodes]
    for name in provider.pods:
        if name not in written:
            hint = f"nodes are {', '.join(written) or 'none'}"
            yield Problem("there are no such nodes", f"provider.pods.{name}", hint, file)
    for index, node in enumerate(definition.nodes):
        yield from _check_pod(node, provider, catalog, f"nodes.{index}", file)


def _check_pod(
    node: NodeDefinition, provider: KubeRayProvider, catalog: Catalog, field: str, file: str
) -> Iterator[Problem]:
    device, instance = catalog.find(node.device), known_instance(node.instance, catalog)
    where = f"provider.pods.{node.name}"
    size = pod_size(node, provider, catalog)
    if size is None:
        hint = f"give `cpus` and `memory_gib`, or {field}.instance"
        yield Problem("how large its pods are is not known", where, hint, file)
    elif device is not None and device.name == CPU and "count" in node.model_fields_set and node.count > size[0]:
        yield Problem(f"its pods have {size[0]} cores, not {node.count}", f"{field}.count", "leave it out", file)
    if device is not None and device.kind == "tpu":
        yield Problem(f"{device.name}: TPUs are not rendered yet", f"{field}.device", "take a GPU", file)
    elif device is not None and node.emulated_speed is None and device.kind != "cpu":
        if kubernetes_resource(node, provider, catalog) is None:
            hint = "give what its device plugin calls it, e.g. nvidia.com/gpu"
            yield Problem(f"what Kubernetes calls {device.name} is not known", f"{where}.resource", hint, file)
        if instance is not None and node.count > instance.device_count > 0:
            message = f"{instance.name} has {instance.device_count} {device.name}, not {node.count}"
            yield Problem(message, f"{field}.count", f"write `count: {instance.device_count}` or less", file)
    pod = provider.pods.get(node.name)
    if node.market == "spot" and (pod is None or not pod.node_selector):
        hint = "give the labels of your spot nodes, e.g. {karpenter.sh/capacity-type: spot}"
        yield Problem("nothing sends its pods to spot nodes", f"{where}.node_selector", hint, file)
