"""The service's process: takes the home folder's lock, finds or starts the cluster, runs the engine and the API, and
leaves cleanly."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import uvicorn

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition, QueueDefinition
from cluster.ray_observer import Renting
from cluster.render.offers import cloud_offers
from workloads.errors import Problem, RaywiseError, SpecError

from ..queues import rules_of
from .access_log import AccessLog, App
from .app import create_app
from .guard import Limits
from .home import Home, ServiceInfo
from .logs import SECRETS
from .notify import Supervisor
from .opening import open_store
from .runtime import CYCLE_S, ClusterAccess, Runtime, local_cluster
from .tls import TlsFiles, check_tls

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
DRAIN_S = 5
"""Requests that are being answered when the service is told to end have so long."""

SWITCH_S = 0.0005
"""So long the thread that plans goes on while another waits for its turn: a request changes threads a dozen times. With
Python's own 5 ms a hundredth of all requests took 100 ms beside the cycles of 11,000 workloads, with this a third."""


class PortError(RaywiseError):
    """The API's port is taken or not allowed."""


@dataclass(frozen=True)
class ServiceOptions:
    """What `raywise up` was asked for, or `raywise serve` was configured with."""

    home: Home
    definition: Path | None = None
    """A cluster definition to start locally; None is the one that ships. With an `address`, what may be rented
    there."""
    address: str | None = None
    """A running Ray cluster's dashboard address instead: `host:port`."""
    dashboard_url: str | None = None
    catalog: Path | None = None
    """The user's own catalog file, on top of the one that ships."""
    port: int = 0
    policy: str = "market"
    scenario: Path | None = None
    """How nodes behave that a local cluster rents."""
    stop_cluster: bool = False
    """Stop the local cluster when the service ends."""
    host: str = LOOPBACK
    """The address of this machine that the API listens on."""
    url: str | None = None
    """What clients are told; None is made of host and port."""
    tls: TlsFiles | None = None
    token_file: Path | None = None
    """The running Ray cluster's token; None is what `RAY_AUTH_TOKEN_PATH` names."""
    store: str | None = None
    """Path or URL of the store; None is the home's own file."""
    queues: tuple[QueueDefinition, ...] = ()
    """Rules of queues, in place of those of a cluster definition."""
    cycle_s: float = CYCLE_S
    limits: Limits = field(default_factory=Limits)
    """What the API bears; the names it goes by are added."""


def serve(options: ServiceOptions, on_ready: Callable[[ServiceInfo], None] = lambda _: None) -> None:
    """Run the service until SIGTERM or SIGINT. What can be wrong here is found before a cluster is started. Raises
    ServiceRunning, PortError, StoreError, SpecError or ClusterStartError before it runs."""
    home, supervisor = options.home, Supervisor()
    home.prepare()
    home.lock()
    SECRETS.add_url(options.store)
    sys.setswitchinterval(SWITCH_S)
    _check_tls(options)
    with bind(options.port, options.host) as listener:
        open_store(home, options.store).close()
        catalog = Catalog.load(options.catalog)
        definition = _definition(options, catalog)
        access = _access(options, catalog, definition)
        try:
            runtime = Runtime(
                home,
                access,
                catalog,
                options.policy,
                rules_of(definition),
                store=options.store,
                cycle_s=options.cycle_s,
                supervisor=supervisor,
            )
            runtime.start()
            try:
                _serve_http(listener, options, runtime, supervisor, on_ready)
            finally:
                supervisor.stopping()
                home.withdraw()
                runtime.stop()
                log.info("the service has ended")
        finally:
            if options.stop_cluster and access.local is not None:
                access.local.stop()


def bind(port: int, host: str = LOOPBACK) -> socket.socket:
    """A socket that holds the API's port (0: a free one) on an address of this machine. Raises PortError."""
    address = LOOPBACK if host == "localhost" else host
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)  # two may bind a port, one can listen
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "not between 0 and 65535"
        hint = "choose another with --port, or leave it out for a free one"
        raise PortError(f"the API cannot have port {port}: {reason}\n  hint: {hint}") from None
    return listener


def url_of(options: ServiceOptions, port: int) -> str:
    """Where clients on this machine find the API: an address that means all of them is reached by loopback."""
    if options.url is not None:
        return options.url
    host = LOOPBACK if options.host == "localhost" else options.host
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "::1" if address.version == 6 else LOOPBACK
    scheme = "http" if options.tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def hosts_of(options: ServiceOptions) -> tuple[str, ...]:
    """Names that requests may have in `Host` beside loopback's: that of the URL clients are told, and the address the
    API listens on, unless it means all of them."""
    named = None if options.url is None else urlsplit(options.url).hostname
    address = LOOPBACK if options.host == "localhost" else options.host
    known = ipaddress.ip_address(address)
    listen = None if known.is_loopback or known.is_unspecified else address.lower()
    return tuple(dict.fromkeys([*options.limits.hosts, *(name for name in (named, listen) if name is not None)]))


def _check_tls(options: ServiceOptions) -> None:
    if options.tls is not None:
        for sentence in check_tls(options.tls, datetime.datetime.now(datetime.UTC)):
            log.warning("%s", sentence)


def _definition(options: ServiceOptions, catalog: Catalog) -> ClusterDefinition:
    """The cluster to start, with the rules of queues wherever they stand. Raises SpecError."""
    definition = ClusterDefinition.load(options.definition, catalog)
    if not options.queues:
        return definition
    if definition.queues and (options.address is None or options.definition is not None):
        where = str(options.definition or "the cluster definition")
        message = f"{where} has queues as well"
        raise SpecError(Problem(message, "queues", "write all of their rules in one of the files"))
    return definition.model_copy(update={"queues": options.queues})


def _access(options: ServiceOptions, catalog: Catalog, definition: ClusterDefinition) -> ClusterAccess:
    if options.address is None:
        return local_cluster(options.home, definition, catalog, options.scenario)
    token = options.token_file or os.environ.get("RAY_AUTH_TOKEN_PATH")
    host = options.address.rpartition(":")[0]
    dashboard_url = options.dashboard_url or f"http://{host}:8265"
    offers = tuple(cloud_offers(definition, catalog)) if options.definition is not None else ()
    renting = Renting(offers, definition.rent_cap_usd_h, definition.rent_cap_usd_month) if offers else None
    return ClusterAccess(options.address, dashboard_url, Path(token) if token else None, renting=renting)


class _Server(uvicorn.Server):
    """A server that says when it answers, and when it is about to end."""

    def __init__(self, config: uvicorn.Config, supervisor: Supervisor, status: str) -> None:
        super().__init__(config)
        self._supervisor, self._status = supervisor, status

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(None if sockets is None else list(sockets))
        if not self.should_exit:
            self._supervisor.ready(self._status)

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Take no more requests, and finish those that are being answered."""
        self._supervisor.stopping()
        await super().shutdown(None if sockets is None else list(sockets))


def _application(options: ServiceOptions, runtime: Runtime) -> App:
    """The API, with what is common to every request around it."""
    return AccessLog(create_app(runtime, replace(options.limits, hosts=hosts_of(options))))


def _serve_http(
    listener: socket.socket,
    options: ServiceOptions,
    runtime: Runtime,
    supervisor: Supervisor,
    on_ready: Callable[[ServiceInfo], None],
) -> None:
    info = ServiceInfo(
        url=url_of(options, listener.getsockname()[1]),
        pid=os.getpid(),
        process_started_s=psutil.Process().create_time(),
        ray_address=runtime.access.address,
        ray_dashboard_url=runtime.access.dashboard_url,
        owns_cluster=runtime.access.local is not None,
    )
    config = uvicorn.Config(
        _application(options, runtime),
        log_config=None,  # its loggers write where ours do
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is limited and logged is who is connected, not who he says he is
        timeout_graceful_shutdown=DRAIN_S,
        ssl_certfile=None if options.tls is None else str(options.tls.cert),
        ssl_keyfile=None if options.tls is None else str(options.tls.key),
    )
    options.home.announce(info)
    on_ready(info)
    log.info("service at %s, cluster at %s", info.url, info.ray_address)
    _Server(config, supervisor, f"at {info.url}").run(sockets=[listener])
