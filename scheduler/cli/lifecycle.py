"""`raywise up` and `raywise down`: the service's process and the local cluster."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cluster.local import LocalCluster
from scheduler.policy import names
from scheduler.service.home import Home, ServiceInfo
from scheduler.service.runtime import clean_environment
from workloads.errors import RaywiseError

from .common import BAD_INPUT, CatalogOption, HomeOption, console, fail, friendly, home_of

START_PATIENCE_S = 180.0
STOP_PATIENCE_S = 40.0


class ServiceStartError(RaywiseError):
    """The detached service ended before it answered; the message ends with what it printed."""


def up(
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, HOST:PORT, instead of a local one.")
    ] = None,
    cluster: Annotated[Path | None, typer.Option(help="Cluster definition to start on this machine.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the service answers.")] = False,
    dashboard_url: Annotated[str | None, typer.Option(help="Ray's dashboard, with --address.")] = None,
    catalog: CatalogOption = None,
    port: Annotated[int, typer.Option(help="The API's port on loopback; 0 picks a free one.")] = 0,
    policy: Annotated[str, typer.Option(help=f"One of: {', '.join(names())}.")] = "market",
    home: HomeOption = None,
) -> None:
    """Start the service, and a local cluster with emulated devices unless --address names one."""
    folder = home_of(home)
    if policy not in names():
        fail(f"unknown policy {policy!r}\n  hint: one of {', '.join(names())}", BAD_INPUT)
    if address is not None and cluster is not None:
        fail("--address and --cluster exclude each other", BAD_INPUT)
    with friendly():
        running = folder.service()
        if running is not None:
            console.print(f"already up: {running.url}, Ray dashboard {running.ray_dashboard_url}")
            return
        if detach:
            info = start_detached(folder, address, cluster, dashboard_url, catalog, port, policy)
            _greet(info, folder)
        else:
            _foreground(folder, address, cluster, dashboard_url, catalog, port, policy)


def _foreground(
    folder: Home,
    address: str | None,
    cluster: Path | None,
    dashboard_url: str | None,
    catalog: Path | None,
    port: int,
    policy: str,
) -> None:
    from scheduler.service.main import ServiceOptions, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop_cluster = os.environ.get("RAYWISE_KEEP_CLUSTER") != "1"
    options = ServiceOptions(folder, cluster, address, dashboard_url, catalog, port, policy, stop_cluster)
    signal.signal(signal.SIGTERM, _end)
    with suppress(KeyboardInterrupt):
        serve(options, on_ready=lambda info: _greet(info, folder))


def _end(*_: object) -> NoReturn:
    """SIGTERM unwinds the stack, so that whatever was started is stopped again."""
    raise SystemExit(0)


def _greet(info: ServiceInfo, folder: Home) -> None:
    console.print(f"service {info.url} (token in {folder.path / 'token'}), Ray dashboard {info.ray_dashboard_url}")


def start_detached(
    folder: Home,
    address: str | None = None,
    cluster: Path | None = None,
    dashboard_url: str | None = None,
    catalog: Path | None = None,
    port: int = 0,
    policy: str = "market",
) -> ServiceInfo:
    """Start the service as a process of its own and wait until it answers. Raises ServiceStartError."""
    folder.prepare()
    command = [sys.executable, "-P", "-m", "raywise", "up", "--home", str(folder.path), "--policy", policy]
    command += ["--port", str(port)]
    options = {
        "--address": address,
        "--cluster": None if cluster is None else cluster.resolve(),
        "--dashboard-url": dashboard_url,
        "--catalog": None if catalog is None else catalog.resolve(),
    }
    for flag, value in options.items():
        command += [flag, str(value)] if value is not None else []
    with open(folder.log, "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=clean_environment() | {"RAYWISE_KEEP_CLUSTER": "1"},
        )
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        info = folder.service()
        if info is not None:
            return info
        if process.poll() is not None:
            break
        time.sleep(0.1)
    else:
        process.terminate()
    tail = folder.log.read_bytes()[start:].decode(errors="replace")[-3000:]
    raise ServiceStartError(f"the service did not start (log: {folder.log}):\n{tail}")


def down(
    keep_cluster: Annotated[bool, typer.Option("--keep-cluster", help="Leave the local cluster running.")] = False,
    home: HomeOption = None,
) -> None:
    """Stop the service and the local cluster it started. Workloads that run are resumed at the next start."""
    folder = home_of(home)
    with friendly():
        stopped = stop(folder, keep_cluster=keep_cluster)
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def stop(folder: Home, *, keep_cluster: bool = False) -> list[str]:
    """End the service of a home folder, then its cluster; says what was stopped. Raises RaywiseError."""
    stopped = []
    info = folder.service()
    if info is not None:
        os.kill(info.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE_S
        while info.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        if info.is_alive():
            os.kill(info.pid, signal.SIGKILL)
        folder.withdraw()
        stopped.append("service")
    cluster = None if keep_cluster else LocalCluster.open(folder.cluster)
    if cluster is not None:
        cluster.stop()
        stopped.append("local cluster")
    return stopped
