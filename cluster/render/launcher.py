"""The file that `ray up` takes: Ray's cluster launcher on AWS, Google Cloud or Azure."""

from __future__ import annotations

import sys
from typing import Any

from ..catalog import Catalog
from ..catalog.tables import InstanceType
from ..definition import HEAD, ClusterDefinition
from ..provider_checks import head_instance
from ..provider_definition import AwsProvider, AzureProvider, GcpProvider, LaunchedProvider
from .clouds import aws_node, azure_node, gcp_node
from .nodes import NodeKind, node_kinds

RAY_VERSION = "2.60.0"
"""Of the nodes: the same as the service's."""
NODE_REQUIREMENTS = (
    "torch>=2.6",
    "transformers>=5.0",
    "numpy>=2.0",
    "pandas>=2.2",
    "pyarrow>=18",
    "pyyaml>=6.0",
    "pydantic>=2.9",
    "psutil>=6",
)
"""What runs on nodes needs these beside Ray. Raywise's own code is sent along with each workload."""
METRICS_PORT = 8090
DISCOVERY_FILE = "/tmp/ray/prom_metrics_service_discovery.json"  # noqa: S108 - Ray writes it there, on the head
UPSCALING_SPEED = 1000.0
"""How many nodes at once is decided by who asks for them: Ray's own limit is not to slow that down."""
TOKEN_FILE = "~/.ray/auth_token"  # noqa: S105
"""On a node: where Ray itself looks for its token."""
REDIS_PASSWORD_FILE = "~/.ray/redis_password"  # noqa: S105
"""On a node."""


def ray_launcher(definition: ClusterDefinition, catalog: Catalog) -> dict[str, Any]:
    """What `ray up` is told. No secret is in it: the token and Redis' password go by file. Raises TypeError where the
    provider is none of the launcher's."""
    provider = definition.provider
    if not isinstance(provider, AwsProvider | GcpProvider | AzureProvider):
        raise TypeError(f"Ray's launcher does not know the provider {provider.type}")
    kinds = node_kinds(definition, catalog)
    return {
        "cluster_name": provider.name,
        "max_workers": sum(kind.most for kind in kinds),
        "upscaling_speed": UPSCALING_SPEED,
        "idle_timeout_minutes": provider.idle_timeout_minutes,
        "provider": _provider(provider),
        "auth": {"ssh_user": provider.ssh_user},
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: _head(definition, provider, catalog),
            **{kind.name: _worker(kind, provider) for kind in kinds},
        },
        "file_mounts": _file_mounts(provider),
        "cluster_synced_files": [],
        "setup_commands": list(provider.setup_commands) if provider.setup_commands is not None else setup_commands(),
        "head_start_ray_commands": ["ray stop", _head_start(provider)],
        "worker_start_ray_commands": ["ray stop", _worker_start()],
        "metadata": {"prometheus": {"file_sd_configs": [{"files": [DISCOVERY_FILE]}], "metrics_port": METRICS_PORT}},
    }


def setup_commands() -> list[str]:
    """Install the service's Python and Ray, and what workloads need, into an environment that every shell enters."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    needed = (f"ray[default,data,train,serve]=={RAY_VERSION}", *NODE_REQUIREMENTS)
    quoted = " ".join(f"'{each}'" for each in needed)
    return [
        "test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh",
        f"test -x ~/raywise/bin/python || ~/.local/bin/uv venv --seed --python {python} ~/raywise",
        "grep -q raywise/bin ~/.bashrc || echo 'export PATH=\"$HOME/raywise/bin:$PATH\"' >> ~/.bashrc",
        f"~/.local/bin/uv pip install --python ~/raywise/bin/python {quoted}",
    ]


def _provider(provider: AwsProvider | GcpProvider | AzureProvider) -> dict[str, Any]:
    # A node that was stopped, not ended, would go on costing its disk.
    found: dict[str, Any] = {"type": provider.type, "cache_stopped_nodes": False}
    match provider:
        case AwsProvider():
            zones = {"availability_zone": ",".join(provider.zones)} if provider.zones else {}
            return {**found, "region": provider.region, **zones}
        case GcpProvider():
            region = provider.zone.rpartition("-")[0]
            return {
                **found,
                "region": region,
                "availability_zone": provider.zone,
                "project_id": provider.project,
            }
        case AzureProvider():
            more = {"subscription_id": provider.subscription} if provider.subscription else {}
            return {
                **found,
                "location": provider.location,
                "resource_group": provider.resource_group,
                "availability_zone": "auto",
                **more,
            }


def _head(
    definition: ClusterDefinition, provider: AwsProvider | GcpProvider | AzureProvider, catalog: Catalog
) -> dict[str, Any]:
    """The head, for work on cores alone."""
    instance = head_instance(provider, catalog)
    assert instance is not None  # the definition was checked
    resources = {"CPU": definition.head.cpus or int(instance.vcpus or 1)}
    if instance.device_count:
        resources["GPU"] = 0
    return {
        "node_config": _node_config(provider, instance, spot=False, zone=None, is_head=True),
        "resources": resources,
        "labels": definition.head_labels(catalog),
        "min_workers": 0,
        "max_workers": 0,
    }


def _worker(kind: NodeKind, provider: AwsProvider | GcpProvider | AzureProvider) -> dict[str, Any]:
    assert kind.instance is not None  # the definition was checked
    zone = kind.node.zones[0] if kind.node.zones else None
    return {
        "node_config": _node_config(provider, kind.instance, kind.spot, zone, is_head=False),
        "resources": dict(kind.resources),
        "labels": dict(kind.labels),
        "min_workers": kind.least,
        "max_workers": kind.most,
        "idle_timeout_s": provider.idle_timeout_minutes * 60,
    }


def _node_config(
    provider: AwsProvider | GcpProvider | AzureProvider,
    instance: InstanceType,
    spot: bool,
    zone: str | None,
    is_head: bool,
) -> dict[str, Any]:
    match provider:
        case AwsProvider():
            return aws_node(provider, instance.instance_type, spot, zone, is_head)
        case GcpProvider():
            return gcp_node(provider, instance.instance_type, spot, has_devices=instance.device_count > 0)
        case AzureProvider():
            return azure_node(provider, instance.instance_type, spot, zone)


def _file_mounts(provider: LaunchedProvider) -> dict[str, str]:
    mounts = {TOKEN_FILE: provider.token_file}
    if provider.redis is not None and provider.redis.password_file is not None:
        mounts[REDIS_PASSWORD_FILE] = provider.redis.password_file
    return mounts


def _head_start(provider: LaunchedProvider) -> str:
    environment = {"RAY_AUTH_MODE": "token", "RAY_enable_autoscaler_v2": "1"}
    options = [
        "--head",
        "--port=6379",
        "--object-manager-port=8076",
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
        "--dashboard-host=0.0.0.0",
        f"--metrics-export-port={METRICS_PORT}",
        "--disable-usage-stats",
    ]
    if provider.redis is not None:
        environment |= {"RAY_REDIS_ADDRESS": provider.redis.address, "RAY_external_storage_namespace": provider.name}
        if provider.redis.password_file is not None:
            options.append(f'--redis-password="$(cat {REDIS_PASSWORD_FILE})"')
    return _start(environment, options)


def _worker_start() -> str:
    options = ["--address=$RAY_HEAD_IP:6379", "--object-manager-port=8076", f"--metrics-export-port={METRICS_PORT}"]
    return _start({"RAY_AUTH_MODE": "token"}, options)


def _start(environment: dict[str, str], options: list[str]) -> str:
    exports = " ".join(f"{name}={value}" for name, value in environment.items())
    return f"export {exports}; ulimit -n 65536; ray start {' '.join(options)}"
