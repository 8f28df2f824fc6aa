"""Where the nodes of a cluster come from: the `provider` section of `cluster.yaml`, a model for each provider."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LAUNCHED = ("aws", "gcp", "azure")
"""Providers whose machines Ray's cluster launcher rents."""

ClusterName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
ZoneName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$")]
SubnetId = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]
Command = Annotated[str, Field(min_length=1, max_length=10_000)]


class Model(BaseModel):
    """What all parts of a cluster definition share: no unknown fields, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RedisDefinition(Model):
    """An external Redis in which Ray keeps what a new head needs. The password is a file on this machine, or a
    Kubernetes secret, never the text itself."""

    address: str = Field(pattern=r"^(rediss?://)?[^\s@/]+:\d{1,5}$")
    password_file: str | None = None
    password_secret: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.-]*/[A-Za-z0-9._-]+$")


class LocalProvider(Model):
    """This machine."""

    type: Literal["local"] = "local"


class ExistingProvider(Model):
    """A Ray cluster that somebody else runs."""

    type: Literal["existing"]
    address: str = Field(pattern=r"^[^\s/]+:\d{1,5}$")


class RentingProvider(Model):
    """What all providers that rent machines share."""

    name: ClusterName = "raywise"
    head_instance: str | None = None
    redis: RedisDefinition | None = None
    idle_timeout_minutes: float = Field(default=30.0, ge=1, le=100_000)


class LaunchedProvider(RentingProvider):
    """Machines that Ray's cluster launcher rents and sets up over SSH."""

    ssh_user: str = Field(default="ubuntu", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    disk_gb: int = Field(default=200, ge=10, le=16_384)
    setup_commands: tuple[Command, ...] | None = None
    token_file: str = "~/.ray/auth_token"  # noqa: S105 - where it is, not what it is


class AwsProvider(LaunchedProvider):
    """Amazon EC2."""

    type: Literal["aws"]
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d+$")
    zones: tuple[ZoneName, ...] = ()
    image: str | None = Field(default=None, pattern=r"^ami-[0-9a-f]{8,17}$")
    instance_profile: str | None = Field(default=None, pattern=r"^arn:[a-z-]+:iam::\d{12}:instance-profile/.+$")
    worker_instance_profile: str | None = Field(default=None, pattern=r"^arn:[a-z-]+:iam::\d{12}:instance-profile/.+$")
    subnet_ids: dict[ZoneName, SubnetId] | tuple[SubnetId, ...] = ()
    security_group_ids: tuple[Annotated[str, Field(pattern=r"^sg-[0-9a-f]+$")], ...] = ()


class GcpProvider(LaunchedProvider):
    """Google Compute Engine."""

    type: Literal["gcp"]
    project: str = Field(pattern=r"^[a-z0-9.:-]{4,60}$")
    zone: str = Field(pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$")
    image: str | None = Field(default=None, pattern=r"^projects/\S+/images/\S+$")
    service_account: str | None = Field(default=None, pattern=r"^[^\s@]+@[^\s@]+$")


class AzureProvider(LaunchedProvider):
    """Azure virtual machines."""

    type: Literal["azure"]
    location: str = Field(pattern=r"^[a-z0-9]+$")
    resource_group: str = Field(pattern=r"^[\w().-]{1,90}$")
    subscription: str | None = Field(default=None, pattern=r"^[0-9a-fA-F-]{36}$")
    image: str | None = Field(default=None, pattern=r"^(/subscriptions/\S+|[^\s:]+:[^\s:]+:[^\s:]+:[^\s:]+)$")


class PodDefinition(Model):
    """The pods of one node type, where they differ from the others."""

    cpus: int | None = Field(default=None, ge=1, le=4096)
    memory_gib: float | None = Field(default=None, gt=0, le=100_000)
    image: str | None = None
    resource: str | None = Field(default=None, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


class KubeRayProvider(RentingProvider):
    """Pods of a Kubernetes cluster, made by the KubeRay operator."""

    type: Literal["kuberay"]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "raywise"
    image: str
    ray_version: str = Field(default="2.60.0", pattern=r"^\d+\.\d+\.\d+$")
    service_account: KubernetesName | None = None
    token_secret: KubernetesName = "raywise-ray-token"  # noqa: S105 - its name
    shared_claim: KubernetesName | None = None
    pod_monitor: bool = False
    pods: dict[str, PodDefinition] = {}


Provider = Annotated[
    LocalProvider | ExistingProvider | AwsProvider | GcpProvider | AzureProvider | KubeRayProvider,
    Field(discriminator="type"),
]
PROVIDERS: dict[str, type[Model]] = {
    "local": LocalProvider,
    "existing": ExistingProvider,
    "aws": AwsProvider,
    "gcp": GcpProvider,
    "azure": AzureProvider,
    "kuberay": KubeRayProvider,
}


def with_provider(data: Any, provider: str) -> Any:
    """A definition as it was written, with another type of provider, which keeps the fields that it knows too."""
    written = data.get("provider") if isinstance(data, dict) else None
    fields = written if isinstance(written, dict) else {}
    kept = {name: value for name, value in fields.items() if name in PROVIDERS[provider].model_fields}
    return {**data, "provider": {**kept, "type": provider}} if isinstance(data, dict) else data
