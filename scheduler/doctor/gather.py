"""Gathers the facts that the doctor judges. Changes nothing: a probe of the store is an empty transaction."""

from __future__ import annotations

import datetime
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from cluster.catalog import Catalog
from cluster.inventory import build_snapshot
from cluster.local import LocalCluster
from cluster.probe import ClusterProbe, probe
from workloads.errors import SpecError

from ..service.home import Home, ServiceInfo
from ..service.main import LOOPBACK, PortError, bind
from ..service.opening import store_path
from ..service.tls import TlsFiles, check_tls
from ..store import SCHEMA_VERSION
from .ask import ask_service
from .database import database
from .facts import DiskFacts, Facts, HomeFacts, MachineFacts, PriceFacts, ServiceFacts, StoreFacts

OLDER_VERSIONS = tuple(range(1, SCHEMA_VERSION))
PACKAGES = ("ray", "torch", "transformers")


@dataclass(frozen=True)
class Target:
    """What is looked at: a home folder, and what a configuration says of it."""

    home: Home
    store: str | None = None
    host: str = LOOPBACK
    port: int = 0
    tls: TlsFiles | None = None
    address: str | None = None
    dashboard_url: str | None = None
    token_file: Path | None = None
    catalog: Path | None = None


def gather(target: Target) -> Facts:
    """Everything, in some seconds; each question has a deadline. Raises SpecError where the catalog is bad."""
    info = target.home.service()
    cluster, local = _cluster(target, info)
    return Facts(
        machine=machine(_places(target, local)),
        home=home(target),
        store=store(target),
        service=service(target, info),
        cluster=cluster,
        cluster_is_local=local is not None,
        prices=PriceFacts() if cluster is None else prices(cluster, target.catalog),
    )


def machine(places: Iterable[tuple[str, Path]]) -> MachineFacts:
    """This machine now; `places` are the disks that matter, by what is there."""
    memory = psutil.virtual_memory()
    gpus, gpu_error = _gpus()
    return MachineFacts(
        python=sys.version_info[:3],
        packages={name: _version(name) for name in PACKAGES},
        ray_error=_import_error("ray"),
        open_files=_open_files(),
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        shm_bytes=shutil.disk_usage("/dev/shm").total if os.path.isdir("/dev/shm") else None,  # noqa: S108
        disks=tuple(_disk(what, path) for what, path in places),
        gpus=gpus,
        gpu_error=gpu_error,
        is_root=os.geteuid() == 0,
    )


def _places(target: Target, local: LocalCluster | None) -> list[tuple[str, Path]]:
    places = [("home", target.home.path), ("runs", target.home.runs)]
    if local is not None or target.address is None:
        places.append(("spill", Path(tempfile.gettempdir()) if local is None else local.temp_dir))
    file = store_path(target.home, target.store)
    return places if file is None or file == target.home.database else [*places, ("store", file.parent)]


def _disk(what: str, path: Path) -> DiskFacts:
    there = path
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return DiskFacts(what, str(there), usage.free, usage.total)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _import_error(module: str) -> str | None:
    """In a process of its own: what is broken may end it."""
    run = subprocess.run([sys.executable, "-P", "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    return (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]


def _open_files() -> int:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _gpus() -> tuple[tuple[str, ...], str | None]:
    if shutil.which("nvidia-smi") is None:
        return (), None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if run.returncode:
        return (), (run.stdout + run.stderr).strip().splitlines()[0] if run.stdout + run.stderr else "no word"
    return tuple(line.strip() for line in run.stdout.splitlines() if line.strip()), None


def home(target: Target) -> HomeFacts:
    """The folder and the modes of what is private in it, or belongs to it."""
    path = target.home.path
    try:
        status = path.stat()
    except OSError:
        return HomeFacts(str(path), None)
    cluster_token = target.token_file or target.home.cluster / "ray-token"
    private = [path / "token", target.home.database, path / "service.json", cluster_token]
    if target.tls is not None:
        private.append(target.tls.key)
    modes = {str(each): mode for each in private if (mode := _mode(each)) is not None}
    return HomeFacts(str(path), stat.S_IMODE(status.st_mode), status.st_uid == os.geteuid(), modes)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def store(target: Target) -> StoreFacts:
    """The store, opened for reading: nothing is brought up to date."""
    path = store_path(target.home, target.store)
    if path is None:
        return database(str(target.store), OLDER_VERSIONS)
    if not path.is_file():
        return StoreFacts(str(path), exists=False)
    try:
        with _closing(path, "ro") as db:
            integrity = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        return StoreFacts(str(path), error=str(error))
    return StoreFacts(
        str(path),
        write_error=_write_error(path),
        integrity=integrity,
        version=version,
        expected_version=SCHEMA_VERSION,
        older_versions=OLDER_VERSIONS,
        size_bytes=path.stat().st_size,
    )


class _closing:  # noqa: N801
    """A connection that is closed behind the block, which SQLite's own context manager does not do."""

    def __init__(self, path: Path, mode: str) -> None:
        self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()


def _write_error(path: Path) -> str | None:
    try:
        with _closing(path, "rw") as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return None if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "permission denied"


def service(target: Target, info: ServiceInfo | None) -> ServiceFacts:
    """The service, asked for its health; its port, where none runs; its certificate."""
    warnings: list[str] = []
    tls_error = None
    if target.tls is not None:
        try:
            warnings = check_tls(target.tls, datetime.datetime.now(datetime.UTC))
        except SpecError as error:
            tls_error = error.problems[0].message
    if info is None:
        return ServiceFacts(
            configured_port=target.port or None,
            port_error=_port_error(target),
            tls_warnings=tuple(warnings),
            tls_error=tls_error,
        )
    answer = ask_service(info.url, target.home.read_token(), time.time)
    return ServiceFacts(
        url=info.url,
        configured_port=target.port or None,
        health_error=answer.health_error,
        ready_reasons=answer.ready_reasons,
        last_cycle_age_s=answer.last_cycle_age_s,
        tls_warnings=tuple(warnings),
        tls_error=tls_error,
    )


def _port_error(target: Target) -> str | None:
    if not target.port:
        return None
    try:
        bind(target.port, target.host).close()
    except PortError as error:
        holder = _holder(target.port)
        return str(error).splitlines()[0].rpartition(": ")[2] + (f" by {holder}" if holder else "")
    return None


def _holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port and each.pid:
                return f"{psutil.Process(each.pid).name()} (pid {each.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


def _cluster(target: Target, info: ServiceInfo | None) -> tuple[ClusterProbe | None, LocalCluster | None]:
    """What the cluster answers, and the local one of this home, where it is that."""
    if target.address is not None:
        host = target.address.rpartition(":")[0]
        url = target.dashboard_url or f"http://{host}:8265"
        return probe(target.address, url, target.token_file or _token_from_environment()), None
    local = LocalCluster.open(target.home.cluster)
    if local is not None:
        return probe(local.address, local.dashboard_url, local.token_path), local
    if info is not None:
        return probe(info.ray_address, info.ray_dashboard_url, _token_from_environment()), None
    return None, None


def _token_from_environment() -> Path | None:
    token = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(token) if token else None


def prices(cluster: ClusterProbe, catalog_path: Path | None) -> PriceFacts:
    """What is old or odd in the inventory of a cluster. Raises SpecError."""
    catalog = Catalog.load(catalog_path)
    snapshot = build_snapshot(time.time(), cluster.nodes, catalog, None)
    today = datetime.datetime.now(datetime.UTC).date()
    stale = (catalog.stale(kind, today) for kind in snapshot.device_types.values())
    return PriceFacts(tuple(each for each in stale if each is not None), snapshot.warnings)
