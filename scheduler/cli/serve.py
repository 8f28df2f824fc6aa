"""`raywise serve`: the service in the foreground, as `service.yaml` says: for systemd, containers and other
supervisors."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import yaml

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from scheduler.service.config import ServiceConfig
from scheduler.service.home import Home
from scheduler.service.logs import SECRETS, LogOptions, configure
from scheduler.service.tls import TlsFiles, check_tls

from .common import console, errors, friendly
from .lifecycle import end, greet

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="RAYWISE_CONFIG", help="The service's configuration, a YAML file."),
]


def serve(
    config: ConfigOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look at the file and what it names, and start nothing.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration with every default, and start nothing.")
    ] = False,
) -> None:
    """Run the service in the foreground until SIGTERM, as a configuration file says. See docs/service.md."""
    with friendly():
        known = ServiceConfig() if config is None else ServiceConfig.load(config)
        if print_config:
            sys.stdout.write(yaml.safe_dump(known.model_dump(mode="json"), sort_keys=False, width=120))
            return
        warnings = check_files(known, "" if config is None else str(config))
        if check:
            for sentence in warnings:
                errors.print(f"warning: {sentence}", style="yellow", markup=False)
            console.print("the configuration is good", markup=False)
            return
        _run(known, "" if config is None else str(config))


def check_files(config: ServiceConfig, file: str) -> list[str]:
    """Look at what a configuration names; a sentence for each thing that should be seen to. Raises SpecError."""
    catalog = Catalog.load(None if config.catalog is None else Path(config.catalog))
    if config.cluster.definition is not None:
        ClusterDefinition.load(Path(config.cluster.definition), catalog)
    config.read_store(file=file)
    if config.tls is None:
        return []
    return check_tls(TlsFiles(Path(config.tls.cert), Path(config.tls.key)), datetime.datetime.now(datetime.UTC), file)


def _run(config: ServiceConfig, file: str) -> None:
    from scheduler.service.main import serve as run_service
    from scheduler.service.options import options_of

    store = config.read_store(file=file)
    SECRETS.add_url(store)
    if config.store_env is not None:
        os.environ.pop(config.store_env)  # a local cluster, and all that runs on it, would inherit it
    configure(
        LogOptions(config.log.level, config.log.format, None if config.log.file is None else Path(config.log.file))
    )
    options = options_of(config, store, Home.default())
    signal.signal(signal.SIGTERM, end)
    with suppress(KeyboardInterrupt):
        run_service(options, on_ready=lambda info: greet(info, options.home))
