"""From the service's configuration to the options that it runs with."""

from __future__ import annotations

from pathlib import Path

from .config import ServiceConfig
from .guard import Limits
from .home import Home
from .main import ServiceOptions
from .tls import TlsFiles


def home_of(config: ServiceConfig, default: Home) -> Home:
    """The home folder a configuration names, or the default one."""
    path = default.path if config.home is None else Path(config.home)
    return Home(path, None if config.runs is None else Path(config.runs))


def options_of(config: ServiceConfig, store: str | None, default: Home) -> ServiceOptions:
    """What `serve` is given; `store` is what `config.read_store` said."""
    cluster, listen, limit = config.cluster, config.listen, config.rate_limit
    return ServiceOptions(
        home=home_of(config, default),
        definition=_path(cluster.definition),
        address=cluster.address,
        dashboard_url=config.dashboard_url,
        catalog=_path(config.catalog),
        port=listen.port,
        policy=config.policy,
        stop_cluster=cluster.stop_with_service,
        host=listen.host,
        url=listen.url,
        tls=None if config.tls is None else TlsFiles(Path(config.tls.cert), Path(config.tls.key)),
        token_file=_path(cluster.token_file),
        store=store,
        queues=config.queues,
        cycle_s=config.cycle_s,
        limits=Limits() if limit is None else Limits(requests_per_s=limit.requests_per_s, burst=limit.burst),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
