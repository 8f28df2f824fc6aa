"""Turns a cluster definition into what rents it: Ray's cluster launcher file, or a RayCluster for KubeRay. Pure."""

from .cost import NodeCost, node_costs, usd_h
from .kuberay import pod_monitor, ray_cluster, with_replicas
from .launcher import RAY_VERSION, ray_launcher
from .nodes import NodeKind, node_kinds

__all__ = [
    "RAY_VERSION",
    "NodeCost",
    "NodeKind",
    "node_costs",
    "node_kinds",
    "pod_monitor",
    "ray_cluster",
    "ray_launcher",
    "usd_h",
    "with_replicas",
]
