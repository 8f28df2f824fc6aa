"""What is known of a machine, a home folder, a store, a service and a cluster before it is judged. Plain data; None is
not known, or not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.probe import ClusterProbe


@dataclass(frozen=True)
class DiskFacts:
    """One place on a disk."""

    what: str
    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class MachineFacts:
    """This machine, and what is installed in this Python."""

    python: tuple[int, int, int]
    packages: Mapping[str, str | None]
    """Version by package; None where it is not installed."""
    ray_error: str | None
    """What `import ray` failed with."""
    open_files: int
    """The soft limit of this process."""
    memory_bytes: int
    memory_available_bytes: int
    shm_bytes: int | None
    """Size of /dev/shm."""
    disks: tuple[DiskFacts, ...]
    gpus: tuple[str, ...] = ()
    """NVIDIA GPUs that the driver shows."""
    gpu_error: str | None = None
    """What `nvidia-smi` failed with, where it is installed."""
    is_root: bool = False


@dataclass(frozen=True)
class HomeFacts:
    """The service's folder. Modes are permission bits."""

    path: str
    mode: int | None
    """None where there is no folder yet."""
    owned: bool = True
    """Whether it is this user's."""
    private_modes: Mapping[str, int] | None = None
    """Mode of each file that only its owner may read: tokens, keys, the store."""


@dataclass(frozen=True)
class StoreFacts:
    """The store."""

    place: str
    exists: bool = True
    error: str | None = None
    """Why it could not be opened."""
    write_error: str | None = None
    integrity: str | None = None
    """What SQLite's integrity check said; None where it is no SQLite."""
    version: int | None = None
    expected_version: int | None = None
    older_versions: tuple[int, ...] = ()
    """Versions that a start brings up to date."""
    size_bytes: int | None = None


@dataclass(frozen=True)
class ServiceFacts:
    """The service of the home folder. Without a `url` none runs."""

    url: str | None = None
    configured_port: int | None = None
    """The port that the configuration asks for; None or 0 is any."""
    port_error: str | None = None
    """Why that port cannot be had, where no service of ours has it."""
    health_error: str | None = None
    ready_reasons: tuple[str, ...] | None = None
    """Why it is not ready; None where it could not be asked."""
    last_cycle_age_s: float | None = None
    tls_warnings: tuple[str, ...] = ()
    tls_error: str | None = None


@dataclass(frozen=True)
class PriceFacts:
    """What is out of date, and what the inventory warns of: sentences."""

    stale: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All of it. Without a cluster or a service their parts are None."""

    machine: MachineFacts
    home: HomeFacts
    store: StoreFacts
    service: ServiceFacts
    cluster: ClusterProbe | None = None
    cluster_is_local: bool = False
    """Whether its nodes run on this machine."""
    prices: PriceFacts = PriceFacts()
