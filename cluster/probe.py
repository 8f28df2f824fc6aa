"""Looks at a Ray cluster from outside, for whoever wants to know whether it is well: its control service, its
dashboard, its Jobs API, and what its nodes report of themselves. Decides nothing."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .gcs import ControlService, read_token
from .inventory import NodeFacts
from .protocols import ClusterUnreachable

DEADLINE_S = 5.0
OLD_REPORT_S = 20.0
LOOKS_AGAIN, LOOK_AGAIN_S = 3, 4.0


@dataclass(frozen=True)
class NodeHealth:
    """A node as its own agent reports it."""

    node_id: str
    hostname: str
    alive: bool
    ahead_s: float | None = None
    """Seconds that its clock is ahead of this machine's; a report is some seconds old, so below zero is no sign yet."""
    memory_used: float | None = None
    """Share of its machine's memory that is in use, 0 to 1."""
    disk_used: Mapping[str, float] | None = None
    """The same of its disks, by mount point."""
    gpus: int = 0
    """GPUs that its driver shows."""


@dataclass(frozen=True)
class ClusterProbe:
    """What a cluster answered. An error is a sentence; None is none."""

    address: str
    dashboard_url: str
    control_error: str | None = None
    dashboard_error: str | None = None
    jobs_error: str | None = None
    nodes: tuple[NodeFacts, ...] = ()
    health: tuple[NodeHealth, ...] = ()
    ray_version: str | None = None
    head_ahead_s: float | None = None
    """Seconds that the head's clock is ahead of this machine's, to half a second."""
    open_to_all: bool | None = None
    """Whether the dashboard answers without a token; None is not known."""


def probe(address: str, dashboard_url: str, token_path: Path | None) -> ClusterProbe:
    """Ask everything once, each with a deadline. Never raises for a cluster that is not well."""
    nodes, control_error = _nodes(address, token_path)
    try:
        headers = {"Authorization": f"Bearer {read_token(token_path)}"} if token_path is not None else {}
    except ClusterUnreachable as error:
        return ClusterProbe(address, dashboard_url, control_error or str(error), str(error), str(error), nodes)
    with httpx.Client(base_url=dashboard_url, timeout=DEADLINE_S, trust_env=False) as client:
        version, dashboard_error, head_ahead_s = _version(client, headers)
        jobs_error = _error_of(client, "/api/jobs/", headers)
        health = () if dashboard_error else _fresh_health(client, headers)
        return ClusterProbe(
            address=address,
            dashboard_url=dashboard_url,
            control_error=control_error,
            dashboard_error=dashboard_error,
            jobs_error=jobs_error,
            nodes=nodes,
            health=health,
            ray_version=version,
            head_ahead_s=head_ahead_s,
            open_to_all=None if dashboard_error else _error_of(client, "/api/version", {}) is None,
        )


def _nodes(address: str, token_path: Path | None) -> tuple[tuple[NodeFacts, ...], str | None]:
    service = ControlService(address, token_path, deadline_s=DEADLINE_S)
    try:
        return tuple(service.nodes()), None
    except ClusterUnreachable as error:
        return (), str(error)
    finally:
        service.close()


def _version(client: httpx.Client, headers: Mapping[str, str]) -> tuple[str | None, str | None, float | None]:
    """Ray's version, what is wrong, and how far the head's clock is ahead."""
    before_s = time.time()
    try:
        reply = client.get("/api/version", headers=dict(headers))
        reply.raise_for_status()
        version = str(reply.json()["ray_version"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return None, _words(error), None
    return version, None, ahead_s(reply.headers.get("date"), (before_s + time.time()) / 2)


def ahead_s(date: str | None, here_s: float) -> float | None:
    """Seconds that the clock behind an HTTP `Date` is ahead of `here_s`; None where there is none. It was cut to the
    second: on average half of one is missing."""
    if date is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - here_s
    except ValueError:
        return None


def _error_of(client: httpx.Client, path: str, headers: Mapping[str, str]) -> str | None:
    try:
        client.get(path, headers=dict(headers)).raise_for_status()
    except httpx.HTTPError as error:
        return _words(error)
    return None


def _words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        refused = ": it refuses the token" if error.response.status_code in (401, 403) else ""
        return f"status {error.response.status_code}{refused}"
    return str(error) or type(error).__name__


def _fresh_health(client: httpx.Client, headers: Mapping[str, str]) -> tuple[NodeHealth, ...]:
    """Reports are made when somebody looks: the first answer may be minutes old, as if the clock were behind."""
    health = _health(client, headers)
    for _ in range(LOOKS_AGAIN):
        if all(node.ahead_s is None or node.ahead_s > -OLD_REPORT_S for node in health if node.alive):
            break
        time.sleep(LOOK_AGAIN_S)
        health = _health(client, headers)
    return health


def _health(client: httpx.Client, headers: Mapping[str, str]) -> tuple[NodeHealth, ...]:
    try:
        reply = client.get("/nodes?view=summary", headers=dict(headers))
        reply.raise_for_status()
        return health_of(reply.json(), time.time())
    except (httpx.HTTPError, ValueError):
        return ()


def health_of(answer: Any, now_s: float) -> tuple[NodeHealth, ...]:
    """The nodes of the dashboard's summary. What an agent has not reported yet is None."""
    found = answer.get("data", {}).get("summary", []) if isinstance(answer, dict) else []
    return tuple(_node_health(each, now_s) for each in found)


def _node_health(node: Mapping[str, Any], now_s: float) -> NodeHealth:
    raylet, memory = node.get("raylet") or {}, node.get("mem")
    disks = {mount: _share(disk, "percent") for mount, disk in (node.get("disk") or {}).items()}
    return NodeHealth(
        node_id=str(raylet.get("nodeId", "")),
        hostname=str(node.get("hostname", "")),
        alive=raylet.get("state") == "ALIVE",
        ahead_s=_when(node.get("now"), lambda now: float(now) - now_s),
        memory_used=_when(memory, lambda parts: float(parts[2]) / 100),
        disk_used={mount: used for mount, used in disks.items() if used is not None},
        gpus=len(node.get("gpus") or []),
    )


def _share(mapping: Mapping[str, Any], key: str) -> float | None:
    return _when(mapping.get(key), lambda percent: float(percent) / 100)


def _when(value: Any, convert: Callable[[Any], float]) -> float | None:
    try:
        return None if value is None else convert(value)
    except (TypeError, ValueError, IndexError):
        return None
