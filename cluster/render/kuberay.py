"""The RayCluster that KubeRay's operator turns into pods, as `cluster/deploy/kubernetes` has one by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalog import Catalog
from ..catalog.tables import InstanceType
from ..definition import RAY_MEMORY_SHARE, ClusterDefinition
from ..provider_checks import head_instance, kubernetes_resource, pod_size, pods_key, size_for_pods
from ..provider_definition import KubeRayProvider, PodDefinition
from .clouds import gcp_accelerator
from .nodes import GIB, NodeKind, node_kinds

HEAD_SIZE = (4, 16.0)
"""Cores and GiB of memory of the head's pod, where no machine is named for it."""
METRICS_PORT = 8080
HEAD_PORTS = {
    "gcs-server": 6379,
    "dashboard": 8265,
    "client": 10001,
    "metrics": METRICS_PORT,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
TOKEN_FOLDER = "/etc/ray-auth"  # noqa: S105
SHARED_FOLDER = "/var/lib/raywise-shared"
KUBERNETES_CLOUDS = ("aws", "gcp", "azure")
"""Their managed Kubernetes labels nodes with the names of instances that the catalog has."""
AUTOSCALER_SIZE = {"cpu": "500m", "memory": "1Gi"}


def ray_cluster(definition: ClusterDefinition, catalog: Catalog) -> dict[str, Any]:
    """A RayCluster with Ray's autoscaler v2. No secret is in it: token and password are Kubernetes secrets. Raises
    TypeError where the provider is another one."""
    provider = _kuberay(definition)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": provider.name, "namespace": provider.namespace},
        "spec": {
            "rayVersion": provider.ray_version,
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": _autoscaler(provider),
            **_fault_tolerance(provider),
            "headGroupSpec": _head(definition, provider, catalog),
            "workerGroupSpecs": [_group(kind, provider, catalog) for kind in node_kinds(definition, catalog)],
        },
    }


def pod_monitor(definition: ClusterDefinition) -> dict[str, Any]:
    """What tells Prometheus' operator to scrape all pods of the cluster. Raises TypeError where the provider is another
    one."""
    provider = _kuberay(definition)
    relabel = [{"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}]
    ports = [name for name in HEAD_PORTS if name.endswith("metrics")]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": provider.name, "namespace": provider.namespace},
        "spec": {
            "selector": {"matchLabels": {"ray.io/cluster": provider.name}},
            "podMetricsEndpoints": [{"port": port, "relabelings": relabel} for port in ports],
        },
    }


def with_replicas(told: dict[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """A RayCluster with as many pods as there are: how many is the autoscaler's, and applying it again would end those
    above the least. `live` is what Kubernetes has of it, or None."""
    spec = {} if live is None else live.get("spec", {})
    now = {group["groupName"]: group.get("replicas") for group in spec.get("workerGroupSpecs", [])}
    groups = [
        group | {"replicas": max(group["minReplicas"], min(group["maxReplicas"], now.get(group["groupName"]) or 0))}
        for group in told["spec"]["workerGroupSpecs"]
    ]
    return told | {"spec": told["spec"] | {"workerGroupSpecs": groups}}


def _kuberay(definition: ClusterDefinition) -> KubeRayProvider:
    if not isinstance(definition.provider, KubeRayProvider):
        raise TypeError(f"KubeRay does not know the provider {definition.provider.type}")
    return definition.provider


def _autoscaler(provider: KubeRayProvider) -> dict[str, Any]:
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": int(provider.idle_timeout_minutes * 60),
        "env": _environment(),
        "volumeMounts": [_token_mount()],
        "resources": {"requests": dict(AUTOSCALER_SIZE), "limits": dict(AUTOSCALER_SIZE)},
        "securityContext": _container_security(),
    }


def _fault_tolerance(provider: KubeRayProvider) -> dict[str, Any]:
    if provider.redis is None:
        return {}
    address = provider.redis.address
    options: dict[str, Any] = {
        "redisAddress": address if "://" in address else f"redis://{address}",
        "externalStorageNamespace": provider.name,
    }
    if provider.redis.password_secret is not None:
        name, _, key = provider.redis.password_secret.partition("/")
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
    return {"gcsFaultToleranceOptions": options}


def _head(definition: ClusterDefinition, provider: KubeRayProvider, catalog: Catalog) -> dict[str, Any]:
    """The head, for work on cores alone."""
    instance = head_instance(provider, catalog)
    cpus, memory_gib = size_for_pods(instance) or HEAD_SIZE
    if definition.head.cpus is not None:
        cpus = definition.head.cpus
    ports = [{"name": name, "containerPort": port} for name, port in HEAD_PORTS.items()]
    container = _container("ray-head", provider.image, cpus, memory_gib, provider) | {"ports": ports}
    account = {"serviceAccountName": provider.service_account} if provider.service_account else {}
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",  # noqa: S104 - of a pod, behind a token
            "disable-usage-stats": "true",
            "metrics-export-port": str(METRICS_PORT),
        },
        "labels": definition.head_labels(catalog),
        "resources": {"CPU": str(cpus), "memory": _ray_memory(memory_gib)},
        # The autoscaler beside it asks Kubernetes for pods: its account's token is mounted.
        "template": _template(container, provider, {**account, **_selector(_machine_labels(instance))}),
    }


def _group(kind: NodeKind, provider: KubeRayProvider, catalog: Catalog) -> dict[str, Any]:
    pod = provider.pods.get(pods_key(kind.node), PodDefinition())
    size = pod_size(kind.node, provider, catalog)
    assert size is not None  # the definition was checked
    resource = kubernetes_resource(kind.node, provider, catalog)
    devices = {resource: str(kind.node.count)} if resource else {}
    container = _container("ray-worker", pod.image or provider.image, *size, provider, devices)
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}]
    zone = {"topology.kubernetes.io/zone": kind.node.zones[0]} if kind.node.zones else {}
    tolerations = [dict(each) for each in pod.tolerations]
    if resource:
        tolerations.insert(0, {"key": resource, "operator": "Exists", "effect": "NoSchedule"})
    machine = {} if kind.node.emulated_speed is not None else _machine_labels(kind.instance)
    more = {
        "automountServiceAccountToken": False,
        **_selector({**machine, **zone, **pod.node_selector}),
        **({"tolerations": tolerations} if tolerations else {}),
    }
    return {
        "groupName": kind.name,
        "replicas": kind.least,
        "minReplicas": kind.least,
        "maxReplicas": kind.most,
        "idleTimeoutSeconds": int(provider.idle_timeout_minutes * 60),
        "rayStartParams": {"metrics-export-port": str(METRICS_PORT)},
        "labels": dict(kind.labels),
        "resources": {name: str(amount) for name, amount in kind.resources.items()},
        "template": _template(container, provider, more),
    }


def _template(container: dict[str, Any], provider: KubeRayProvider, more: dict[str, Any]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "ray-token", "secret": {"secretName": provider.token_secret, "defaultMode": 0o440}}
    ]
    if provider.shared_claim is not None:
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": provider.shared_claim}})
    return {
        "metadata": {
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(METRICS_PORT),
                "prometheus.io/path": "/metrics",
            }
        },
        "spec": {
            **more,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 100,
                "fsGroup": 100,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
        },
    }


def _container(
    name: str,
    image: str,
    cpus: int,
    memory_gib: float,
    provider: KubeRayProvider,
    devices: dict[str, str] | None = None,
) -> dict[str, Any]:
    amounts = {"cpu": str(cpus), "memory": f"{int(memory_gib * 1024)}Mi", **(devices or {})}
    mounts = [_token_mount()]
    if provider.shared_claim is not None:
        mounts.append({"name": "shared", "mountPath": SHARED_FOLDER})
    return {
        "name": name,
        "image": image,
        "env": _environment(),
        "securityContext": _container_security(),
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": mounts,
    }


def _environment() -> list[dict[str, str]]:
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN_PATH", "value": f"{TOKEN_FOLDER}/token"},
    ]


def _token_mount() -> dict[str, Any]:
    return {"name": "ray-token", "mountPath": TOKEN_FOLDER, "readOnly": True}


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _selector(labels: dict[str, str]) -> dict[str, Any]:
    return {"nodeSelector": labels} if labels else {}


def _machine_labels(instance: InstanceType | None) -> dict[str, str]:
    """Labels that a node on this machine has in managed Kubernetes; none where the cloud has no such thing."""
    if instance is None or instance.cloud not in KUBERNETES_CLOUDS:
        return {}
    machine, _, attached = instance.instance_type.partition("+")
    labels = {"node.kubernetes.io/instance-type": machine}
    if attached:
        labels["cloud.google.com/gke-accelerator"] = str(gcp_accelerator(attached)["acceleratorType"])
    return labels


def _ray_memory(memory_gib: float) -> str:
    return str(int(memory_gib * GIB * RAY_MEMORY_SHARE))
