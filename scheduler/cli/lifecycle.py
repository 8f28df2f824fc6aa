"""`raywise up` and `raywise down`: the service's process and the local cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.local import LocalCluster
from cluster.local_autoscaling import AUTOSCALE
from cluster.scenario import Scenario
from scheduler.policy import names
from scheduler.service.home import Home, ServiceInfo, ServiceRunning
from scheduler.service.logs import LogOptions, configure
from scheduler.service.runtime import clean_environment
from workloads.errors import RaywiseError

from .common import BAD_INPUT, CatalogOption, HomeOption, console, doing, fail, friendly, home_of

START_PATIENCE_S = 180.0
STOP_PATIENCE_S = 40.0


class ServiceStartError(RaywiseError):
    """The detached service ended before it answered; the message ends with what it printed."""


def up(
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, HOST:PORT, instead of a local one.")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="Cluster definition to start on this machine; with --address, what may be rented there."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the service answers.")] = False,
    dashboard_url: Annotated[str | None, typer.Option(help="Ray's dashboard, with --address.")] = None,
    catalog: CatalogOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The API's port on loopback; 0 picks a free one.")] = 0,
    policy: Annotated[str, typer.Option(help=f"One of: {', '.join(names())}.")] = "market",
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="A local cluster that begins empty and rents emulated nodes.")
    ] = False,
    scenario: Annotated[
        Path | None, typer.Option(help="How the nodes that it rents behave: refused, late, taken back.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Start the service, and a local cluster with emulated devices unless --address names one."""
    folder = home_of(home)
    if policy not in names():
        fail(f"unknown policy {policy!r}\n  hint: one of {', '.join(names())}", BAD_INPUT)
    if address is not None and (autoscale or scenario is not None):
        fail("--autoscale and --scenario are for a cluster on this machine, not with --address", BAD_INPUT)
    if autoscale and cluster is None:
        cluster = AUTOSCALE
    with friendly():
        running = folder.service()
        if running is not None:
            console.print(f"already up: {running.url}, Ray dashboard {running.ray_dashboard_url}")
            return
        known = Catalog.load(catalog)  # what is wrong with these files is said here, also with --detach
        if address is None or cluster is not None:
            definition = ClusterDefinition.load(cluster, known)
            if autoscale and not definition.rentable:
                fail(f"{cluster} has no nodes with `rent`: there is nothing to autoscale", BAD_INPUT)
            if scenario is not None:
                Scenario.load(scenario).check([node.name for node in definition.rentable], scenario)
        if detach:
            what = (
                f"the service for the cluster at {address}"
                if address
                else "a Ray cluster on this machine, and the service"
            )
            with doing(f"starting {what} (usually under a minute; {folder.log} tells more)"):
                info = start_detached(folder, address, cluster, dashboard_url, catalog, port, policy, scenario)
            greet(info, folder)
        else:
            _foreground(folder, address, cluster, dashboard_url, catalog, port, policy, scenario)


def _foreground(
    folder: Home,
    address: str | None,
    cluster: Path | None,
    dashboard_url: str | None,
    catalog: Path | None,
    port: int,
    policy: str,
    scenario: Path | None,
) -> None:
    from scheduler.service.main import ServiceOptions, serve

    configure(LogOptions())
    stop_cluster = os.environ.get("RAYWISE_KEEP_CLUSTER") != "1"
    options = ServiceOptions(
        folder, cluster, address, dashboard_url, catalog, port, policy, scenario=scenario, stop_cluster=stop_cluster
    )
    signal.signal(signal.SIGTERM, end)
    with suppress(KeyboardInterrupt):
        serve(options, on_ready=lambda info: greet(info, folder))


def end(*_: object) -> NoReturn:
    """SIGTERM unwinds the stack, so that whatever was started is stopped again."""
    raise SystemExit(0)


def greet(info: ServiceInfo, folder: Home) -> None:
    """Say where the service is."""
    console.print(f"service {info.url} (token in {folder.path / 'token'}), Ray dashboard {info.ray_dashboard_url}")


def start_detached(
    folder: Home,
    address: str | None = None,
    cluster: Path | None = None,
    dashboard_url: str | None = None,
    catalog: Path | None = None,
    port: int = 0,
    policy: str = "market",
    scenario: Path | None = None,
) -> ServiceInfo:
    """Start the service as a process of its own and wait until it answers. Raises ServiceStartError."""
    folder.prepare()
    before = LocalCluster.open(folder.cluster)
    command = [sys.executable, "-P", "-m", "raywise", "up", "--home", str(folder.path), "--policy", policy]
    command += ["--port", str(port)]
    options = {
        "--address": address,
        "--cluster": None if cluster is None else cluster.resolve(),
        "--dashboard-url": dashboard_url,
        "--catalog": None if catalog is None else catalog.resolve(),
        "--scenario": None if scenario is None else scenario.resolve(),
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
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_PATIENCE_S)
        process.kill()
    process.wait()
    _stop_started(folder, before)
    reason = last_error(folder.log.read_bytes()[start:].decode(errors="replace"))
    raise ServiceStartError(f"the service did not start: {reason or 'it ended without a word'}\n  log: {folder.log}")


def last_error(printed: str) -> str:
    """The last `error:` that a service printed, with its hint; the last line where there is none. No traceback."""
    lines = printed.rstrip().splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    if places:
        return "\n".join(lines[places[-1] :]).removeprefix("error: ")
    return lines[-1].strip() if lines else ""


def _stop_started(folder: Home, before: LocalCluster | None) -> None:
    """Stop a cluster that a service which failed to start left; not one that was there, nor another service's."""
    try:
        lock = folder.lock()
    except ServiceRunning:
        return
    try:
        cluster = LocalCluster.open(folder.cluster)
        if cluster is not None and (before is None or cluster.cluster_id != before.cluster_id):
            cluster.stop()
    finally:
        os.close(lock)


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
