"""What Ray's autoscaler is told of a local cluster whose nodes are rented (`local_provider` launches them)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .definition import HEAD
from .types import SEAT_RESOURCE

AUTOSCALE = Path(__file__).parent / "definitions" / "autoscale.yaml"
"""The cluster that ships with nodes to rent."""
PROVIDER_CLASS = "cluster.local_provider.LocalNodeProvider"
AUTOSCALING_FILE = "autoscaling.yaml"
SCENARIO_FILE = "scenario.yaml"
INSTANCES = "instances"
"""In the cluster's folder: what was launched."""
HEAD_INSTANCE = "local-head"
"""The head's name as an instance: it is not launched."""
IDLE_S = 3900.0
"""Ray itself gives back what was idle for so long: a safety net, as who asked for a node gives it back, and keeps none
idle for longer than an hour."""
HEAD_ENVIRONMENT = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_INSTANCE,
    "RAY_NODE_TYPE_NAME": HEAD,
    # Launches take seconds here, not minutes.
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # A machine that never joins, and that nobody asks for any more, is ended.
    "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "10",
}


def autoscaling_config(
    types: Mapping[str, Mapping[str, Any]], provider: Mapping[str, Any], idle_s: float = IDLE_S
) -> dict[str, Any]:
    """What Ray's autoscaler is told of a local cluster. `types`: by name `resources`, `labels`, `min_workers`,
    `max_workers` and `launch_s` (seconds). Ray itself gives back what was idle for `idle_s`."""
    return {
        "cluster_name": "raywise",
        "provider": {
            "type": "external",
            "module": PROVIDER_CLASS,
            "disable_node_updaters": True,
            **provider,
        },
        "auth": {},
        "max_workers": sum(int(each["max_workers"]) for each in types.values()),
        "idle_timeout_minutes": idle_s / 60,
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"node_config": {}, "resources": {}, "min_workers": 0, "max_workers": 0},
            **{
                name: {
                    "node_config": {"launch_s": each["launch_s"]},
                    "resources": {**{k: int(v) for k, v in each["resources"].items()}, SEAT_RESOURCE: 1},
                    "labels": dict(each["labels"]),
                    "min_workers": each["min_workers"],
                    "max_workers": each["max_workers"],
                }
                for name, each in types.items()
            },
        },
        **{name: [] for name in ("initialization_commands", "setup_commands", "head_setup_commands")},
        **{name: [] for name in ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")},
        "cluster_synced_files": [],
        "file_mounts": {},
    }
