"""What is run to start one Ray node of a local cluster: its command line, ports and environment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .processes import MARKER

OBJECT_STORE_BYTES = 256 * 2**20
TEMP_FOLDER = "tmp"
"""Within a cluster's folder: what its processes take for temporary files."""
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True)
class NodePlan:
    """One node to start: what Ray is told of it."""

    name: str
    cpus: int
    gpus: int
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    is_head: bool = False


PORTS = range(20_000, 32_000)
"""Above Ray's worker ports (10002-19999), below Linux's own choice (32768 on)."""


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different. From a range that neither the kernel nor Ray's workers take ports from by
    themselves: one of those would be taken again before the process that it is for has started."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def head_command(
    plan: NodePlan, port: int, dashboard_port: int, temp_dir: Path, autoscaling: Path | None = None
) -> list[str]:
    """The command that starts the head in the foreground; `autoscaling` is what Ray's autoscaler is told."""
    agent_port, client_port = free_ports(2)
    more = [] if autoscaling is None else [f"--autoscaling-config={autoscaling}"]
    return [
        *_ray_start(plan, agent_port),
        "--head",
        f"--port={port}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={client_port}",
        f"--temp-dir={temp_dir}",
        "--disable-usage-stats",
        *more,
    ]


def node_command(plan: NodePlan, address: str) -> list[str]:
    """The command that starts a further node in the foreground."""
    (agent_port,) = free_ports(1)
    # All nodes share this machine's log folder: one monitor tails it, or every line would come once for each node.
    return [*_ray_start(plan, agent_port), f"--address={address}", "--include-log-monitor=false"]


def _ray_start(plan: NodePlan, agent_port: int) -> list[str]:
    labels = ",".join(f"{key}={value}" for key, value in plan.labels.items())
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--log-color=false"]
    command += ["--node-ip-address=127.0.0.1", f"--num-cpus={plan.cpus}", f"--num-gpus={plan.gpus}"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--dashboard-agent-listen-port={agent_port}"]
    # All nodes share one address: workers take whatever port is free instead of counting up from 10002 in each node.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--labels={labels}"] if labels else []
    return command + ([f"--resources={json.dumps(dict(plan.resources))}"] if plan.resources else [])


def node_environment(
    cluster_id: str, token_path: Path, temp_dir: Path, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a node: the user's, without what would leak another Python or another Ray into it."""
    source = os.environ if base is None else base
    kept = {k: v for k, v in source.items() if k not in _FOREIGN and not k.startswith(("RAY_", "RAYWISE_"))}
    autoscaler_port, dashboard_port = free_ports(2)
    scripts = str(Path(sys.executable).parent)
    return {
        **kept,
        **client_environment(token_path),
        MARKER: cluster_id,
        "PATH": os.pathsep.join([scripts, kept.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(temp_dir / TEMP_FOLDER),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # A node that was killed is noticed after 5 s, not 15 s.
        "RAY_health_check_period_ms": "1000",
        # Fixed otherwise (44217 and 44227): a second cluster on this machine would have no metrics.
        "AUTOSCALER_METRIC_PORT": str(autoscaler_port),
        "DASHBOARD_METRIC_PORT": str(dashboard_port),
    }


def client_environment(token_path: Path) -> dict[str, str]:
    """What a client of the cluster needs in its environment."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path)}


def nvidia_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that may be used here, as `nvidia-smi` prints them; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    names = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(names)
    chosen = [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1", "NoDevFiles")]
    by_index = [names[int(part)] for part in chosen if part.isdigit() and int(part) < len(names)]
    return tuple(by_index if by_index else names[: len(chosen)])
