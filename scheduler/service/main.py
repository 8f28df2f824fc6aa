"""The service's process: takes the home folder's lock, finds or starts the cluster, runs the engine and the API, and
leaves cleanly."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from workloads.errors import RaywiseError

from ..queues import rules_of
from ..store import Store
from .app import create_app
from .home import Home, ServiceInfo
from .runtime import ClusterAccess, Runtime, local_cluster

log = logging.getLogger(__name__)


class PortError(RaywiseError):
    """The API's port is taken or not allowed."""


@dataclass(frozen=True)
class ServiceOptions:
    """What `raywise up` was asked for."""

    home: Home
    definition: Path | None = None
    """A cluster definition to start locally; None is the one that ships."""
    address: str | None = None
    """A running Ray cluster's dashboard address instead: `host:port`."""
    dashboard_url: str | None = None
    catalog: Path | None = None
    """The user's own catalog file, on top of the one that ships."""
    port: int = 0
    policy: str = "market"
    stop_cluster: bool = False
    """Stop the local cluster when the service ends."""


def serve(options: ServiceOptions, on_ready: Callable[[ServiceInfo], None] = lambda _: None) -> None:
    """Run the service until SIGTERM or SIGINT. What can be wrong here is found before a cluster is started. Raises
    ServiceRunning, PortError, StoreError, SpecError or ClusterStartError before it runs."""
    home = options.home
    home.prepare()
    home.lock()
    with bind(options.port) as listener:
        home.protect_database()
        Store(home.database).close()
        catalog = Catalog.load(options.catalog)
        definition = ClusterDefinition.load(options.definition, catalog)
        access = _access(options, catalog, definition)
        try:
            runtime = Runtime(home, access, catalog, options.policy, rules_of(definition))
            runtime.start()
            try:
                _serve_http(listener, home, runtime, on_ready)
            finally:
                home.withdraw()
                runtime.stop()
        finally:
            if options.stop_cluster and access.local is not None:
                access.local.stop()


def bind(port: int) -> socket.socket:
    """A socket that holds the API's port on loopback (0: a free one). Raises PortError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)  # two may bind a port, one can listen
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "not between 0 and 65535"
        hint = "choose another with --port, or leave it out for a free one"
        raise PortError(f"the API cannot have port {port}: {reason}\n  hint: {hint}") from None
    return listener


def _access(options: ServiceOptions, catalog: Catalog, definition: ClusterDefinition) -> ClusterAccess:
    if options.address is None:
        return local_cluster(options.home, definition, catalog)
    token = os.environ.get("RAY_AUTH_TOKEN_PATH")
    host = options.address.rpartition(":")[0]
    dashboard_url = options.dashboard_url or f"http://{host}:8265"
    return ClusterAccess(options.address, dashboard_url, Path(token) if token else None)


def _serve_http(listener: socket.socket, home: Home, runtime: Runtime, on_ready: Callable[[ServiceInfo], None]) -> None:
    info = ServiceInfo(
        url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        pid=os.getpid(),
        process_started_s=psutil.Process().create_time(),
        ray_address=runtime.access.address,
        ray_dashboard_url=runtime.access.dashboard_url,
        owns_cluster=runtime.access.local is not None,
    )
    config = uvicorn.Config(create_app(runtime), log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    home.announce(info)
    on_ready(info)
    log.info("service at %s, cluster at %s", info.url, info.ray_address)
    server.run(sockets=[listener])
