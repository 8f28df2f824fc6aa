"""Counts of nodes, from what Ray's own formatter and Kubernetes say."""

from __future__ import annotations

from typing import Any

from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest, NodeInfo
from ray.autoscaler.v2.utils import ClusterStatusFormatter

from cluster.cloud_status import NodeCounts, counts_of_kuberay, counts_of_ray_status


def node(kind: str, name: str, details: str | None = None) -> NodeInfo:
    return NodeInfo("", kind, name, "10.0.0.1", details=details)


def launch(kind: str, count: int, **more: Any) -> LaunchRequest:
    return LaunchRequest("", kind, count, LaunchRequest.Status.PENDING, 0, **more)


def test_what_ray_prints_is_counted() -> None:
    status = ClusterStatus(
        active_nodes=[node("head", "i-0"), node("t4-spot-us-east-1a", "i-1")],
        idle_nodes=[node("t4-spot-us-east-1a", "i-2"), node("cpu", "i-3")],
        pending_launches=[launch("a100", 2)],
        pending_nodes=[node("a100", "i-4", "RAY_INSTALLING"), node("cpu", "i-5", "ALLOCATED")],
        failed_launches=[launch("a10g", 1, details="no capacity")],
    )
    text = ClusterStatusFormatter.format(status)
    found = counts_of_ray_status(f"Warning: some noise\r\n{text}\r\nShared connection closed.\r\n")
    assert found is not None
    assert found.there == {"head": 1, "t4-spot-us-east-1a": 2, "cpu": 1}
    assert found.coming == {"a100": 2, "cpu": 1}  # Ray tells the two as one
    assert found.all() == {"head": 1, "t4-spot-us-east-1a": 2, "cpu": 2, "a100": 2}
    (failure,) = found.remarks
    assert failure.startswith("a10g: LaunchFailed")


def test_an_empty_cluster_has_no_nodes_and_other_text_is_none() -> None:
    assert counts_of_ray_status(ClusterStatusFormatter.format(ClusterStatus())) == NodeCounts()
    assert counts_of_ray_status("No cluster status.") is None


def pod(group: str, phase: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"ray.io/group": group}}, "status": {"phase": phase}}


def test_pods_are_counted_by_group_and_phase() -> None:
    pods = [pod("headgroup", "Running"), pod("t4", "Running"), pod("t4", "Pending"), pod("t4", "Failed")]
    assert counts_of_kuberay({"status": {"state": "ready"}}, {"items": pods}) == NodeCounts(
        {"head": 1, "t4": 1}, {"t4": 1}
    )
    failed = counts_of_kuberay({"status": {"state": "failed", "reason": "no such image"}}, {})
    assert failed.remarks == ("RayCluster is failed", "no such image")
    assert counts_of_kuberay({}, {}) == NodeCounts()
