"""Asks Ray's control service (GCS) directly, over gRPC with a deadline on every call.

The service is no driver (`ray.init`): Ray ends a driver's whole process when the control service stays away for a
minute (measured: exit code 1 after 61 s), and a scheduler must outlive its cluster.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .inventory import NodeFacts
from .protocols import ClusterUnreachable
from .types import NO_DEADLINE_S, NODE_TYPE_LABEL, SEAT_RESOURCE

DEADLINE_S = 5.0
_MAX_MESSAGE_BYTES = 512 * 2**20
_SUPERVISOR, _SUPERVISORS = "_ray_internal_job_actor_{}", "SUPERVISOR_ACTOR_RAY_NAMESPACE"
"""Name and namespace of the actor that Ray makes for a job."""

_PLACEMENT_GROUP_ID_BYTES, _ACTOR_ID_BYTES, _JOB_ID_BYTES = 18, 16, 4
DRIVER_NAME = "raywise"
"""The name of a driver that never was one: placement groups must have one that made them."""

Reply = TypeVar("Reply")


@dataclass(frozen=True)
class FailedLaunch:
    """So many nodes of a type that Ray's autoscaler could not launch."""

    node_type: str
    count: int
    at_s: float
    why: str


@dataclass(frozen=True)
class Launches:
    """Nodes that are asked for, as Ray's autoscaler last said."""

    pending: Mapping[str, int]
    """By node type."""
    failed: tuple[FailedLaunch, ...]


@dataclass(frozen=True)
class NamedThing:
    """A living actor or placement group."""

    key: bytes
    name: str
    job_id: bytes = b""
    """Ray's id of the driver that made it."""


class ControlService:
    """Ray's control service at `address` (`host:port`). `token_path` holds the cluster's token, if it has one. Its
    connection is opened at the first call; a lost one comes back by itself."""

    def __init__(self, address: str, token_path: Path | None = None, deadline_s: float = DEADLINE_S) -> None:
        self.address = address
        self._token_path = token_path
        self._deadline_s = deadline_s
        self._channel: Any = None
        # Read when gRPC is imported; without it a cluster that goes away is a line on stderr each time.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

    def nodes(self) -> list[NodeFacts]:
        """Living nodes with what they have and what is free. Raises ClusterUnreachable."""
        from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc

        stub = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._connection())
        reply = self._call(stub.GetClusterResourceState, autoscaler_pb2.GetClusterResourceStateRequest())
        return self._living(reply.cluster_resource_state.node_states)

    def nodes_and_launches(self) -> tuple[list[NodeFacts], Launches]:
        """Living nodes, and what Ray's autoscaler last said of those that are not there yet. Raises
        ClusterUnreachable."""
        from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc

        stub = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._connection())
        reply = self._call(stub.GetClusterStatus, autoscaler_pb2.GetClusterStatusRequest())
        state = reply.autoscaling_state
        pending = Counter({each.ray_node_type_name: each.count for each in state.pending_instance_requests})
        pending.update(each.ray_node_type_name for each in state.pending_instances)
        failed = Counter[tuple[str, int, str]]()
        for each in state.failed_instance_requests:
            failed[each.ray_node_type_name, each.failed_ts, each.reason] += each.count
        nodes = self._living(reply.cluster_resource_state.node_states)
        return nodes, Launches(
            pending, tuple(FailedLaunch(name, count, float(at_s), why) for (name, at_s, why), count in failed.items())
        )

    def _driver(self) -> bytes:
        """Ray's id of a driver in whose name things are made. Looked for each time: the control service ends where it
        is given one that it does not know, and a head that was started again knows none. It is registered as one that
        has ended: nothing depends on it."""
        from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.JobInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.GetAllJobInfoRequest(
            skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        for job in self._call(stub.GetAllJobInfo, request).job_info_list:
            if job.config.metadata.get("job_name") == DRIVER_NAME:
                return bytes(job.job_id)
        number = int(self._call(stub.GetNextJobID, gcs_service_pb2.GetNextJobIDRequest()).job_id)
        driver: bytes = number.to_bytes(_JOB_ID_BYTES, "little")
        now_ms = int(time.time() * 1000)
        data = gcs_pb2.JobTableData(
            job_id=driver, is_dead=True, entrypoint=DRIVER_NAME, start_time=now_ms, end_time=now_ms
        )
        # Namespaces that begin so are left out where jobs are listed; each is expected to have an environment.
        data.config.ray_namespace = f"_ray_internal_{DRIVER_NAME}"
        data.config.runtime_env_info.serialized_runtime_env = "{}"
        data.config.metadata["job_name"] = DRIVER_NAME
        self._call(stub.AddJob, gcs_service_pb2.AddJobRequest(data=data))
        return driver

    def _living(self, states: Iterable[Any]) -> list[NodeFacts]:
        from ray.core.generated import autoscaler_pb2

        alive = [node for node in states if node.status != autoscaler_pb2.NodeStatus.DEAD]
        leaving = any(node.status == autoscaler_pb2.NodeStatus.DRAINING for node in alive)
        leaves_s = self._leaving() if leaving else {}
        return [_node_facts(node, leaves_s) for node in alive]

    def _leaving(self) -> dict[str, float]:
        """When each node that is drained will be gone."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.NodeResourceInfoGcsServiceStub(self._connection())
        reply = self._call(stub.GetDrainingNodes, gcs_service_pb2.GetDrainingNodesRequest())
        return {
            each.node_id.hex(): each.draining_deadline_timestamp_ms / 1000 or NO_DEADLINE_S
            for each in reply.draining_nodes
        }

    def drain(self, node_id: str, cause: str, leaves_s: float | None = None) -> bool:
        """Let nothing more begin on a node, and have Ray end on it when nothing runs there. With `leaves_s` (Unix
        seconds) what runs is told that it ends then, which Ray leaves to the caller (`end_node`); without, a node that
        does something, or holds the only copy of something, refuses: False. Raises ClusterUnreachable."""
        from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc

        stub = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._connection())
        reasons = autoscaler_pb2.DrainNodeReason
        reason = (
            reasons.DRAIN_NODE_REASON_IDLE_TERMINATION if leaves_s is None else reasons.DRAIN_NODE_REASON_PREEMPTION
        )
        request = autoscaler_pb2.DrainNodeRequest(
            node_id=bytes.fromhex(node_id),
            reason=reason,
            reason_message=cause,
            deadline_timestamp_ms=round((leaves_s or 0.0) * 1000),
        )
        return bool(self._call(stub.DrainNode, request).is_accepted)

    def end_node(self, node_id: str) -> None:
        """End Ray on a node, whatever runs there. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.DrainNodeRequest()
        request.drain_node_data.add(node_id=bytes.fromhex(node_id))
        self._call(stub.DrainNode, request)

    def ask_for_seat(self, name: str, node_type: str) -> NamedThing:
        """Ask for a seat on a node of this type: a placement group of this name, which stays until it is removed. Ray's
        autoscaler launches a node of that very type where all seats of it are taken. Raises ClusterUnreachable."""
        from ray.core.generated import common_pb2, gcs_service_pb2, gcs_service_pb2_grpc

        driver = self._driver()
        key = secrets.token_bytes(_PLACEMENT_GROUP_ID_BYTES - len(driver)) + driver
        bundle = common_pb2.Bundle(unit_resources={SEAT_RESOURCE: 1.0}, label_selector={NODE_TYPE_LABEL: node_type})
        bundle.bundle_id.placement_group_id, bundle.bundle_id.bundle_index = key, 0
        spec = common_pb2.PlacementGroupSpec(
            placement_group_id=key,
            name=name,
            bundles=[bundle],
            strategy=common_pb2.PlacementStrategy.PACK,
            creator_job_id=driver,
            creator_actor_id=b"\xff" * _ACTOR_ID_BYTES,
            creator_job_dead=True,
            creator_actor_dead=True,
            is_detached=True,
        )
        stub = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(self._connection())
        self._call(stub.CreatePlacementGroup, gcs_service_pb2.CreatePlacementGroupRequest(placement_group_spec=spec))
        return NamedThing(key, name)

    def placement_groups(self) -> list[NamedThing]:
        """Placement groups that are not removed. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(self._connection())
        reply = self._call(stub.GetAllPlacementGroup, gcs_service_pb2.GetAllPlacementGroupRequest())
        removed = gcs_pb2.PlacementGroupTableData.PlacementGroupState.REMOVED
        return [
            NamedThing(each.placement_group_id, each.name, each.creator_job_id)
            for each in reply.placement_group_table_data
            if each.state != removed
        ]

    def actors(self, job_id: bytes) -> list[NamedThing]:
        """Actors that a driver or its actors made, detached ones too, that are not dead. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.GetAllActorInfoRequest()
        request.filters.job_id = job_id
        reply = self._call(stub.GetAllActorInfo, request)
        dead = gcs_pb2.ActorTableData.ActorState.DEAD
        return [
            NamedThing(each.actor_id, each.name, each.job_id) for each in reply.actor_table_data if each.state != dead
        ]

    def job_ids(self, submission_id: str) -> set[bytes]:
        """Ray's ids of the drivers that ran for a submitted job. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.JobInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.GetAllJobInfoRequest(
            job_or_submission_id=submission_id, skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        reply = self._call(stub.GetAllJobInfo, request)
        return {
            job.job_id for job in reply.job_info_list if job.config.metadata.get("job_submission_id") == submission_id
        }

    def remove_placement_group(self, group: NamedThing) -> None:
        """Remove a placement group; what runs in it ends. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.RemovePlacementGroupRequest(placement_group_id=group.key)
        self._call(stub.RemovePlacementGroup, request)

    def kill_actor(self, actor: NamedThing) -> None:
        """End an actor for good. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.KillActorViaGcsRequest(actor_id=actor.key, force_kill=True, no_restart=True)
        self._call(stub.KillActorViaGcs, request)

    def kill_supervisor(self, submission_id: str) -> None:
        """End the actor that runs a submitted job's entrypoint, also where it still waits for its resources; nothing
        where there is none. Raises ClusterUnreachable."""
        from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

        stub = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(self._connection())
        request = gcs_service_pb2.GetNamedActorInfoRequest(
            name=_SUPERVISOR.format(submission_id), ray_namespace=_SUPERVISORS
        )
        found = self._call(stub.GetNamedActorInfo, request).actor_table_data
        if found.actor_id:
            self.kill_actor(NamedThing(found.actor_id, found.name))

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connection(self) -> Any:
        import grpc  # type: ignore[import-untyped]

        if self._channel is None:
            options = [
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.enable_http_proxy", 0),
            ]
            self._channel = grpc.insecure_channel(self.address, options=options)
        return self._channel

    def _call(self, method: Callable[..., Reply], request: Any) -> Reply:
        import grpc

        metadata = (("authorization", f"Bearer {read_token(self._token_path)}"),) if self._token_path else ()
        try:
            return method(request, timeout=self._deadline_s, metadata=metadata)
        except grpc.RpcError as error:
            raise ClusterUnreachable(f"Ray at {self.address} does not answer: {_reason(error)}") from error


def read_token(path: Path) -> str:
    """The token in a file. Raises ClusterUnreachable where it cannot be read: without it nothing answers."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ClusterUnreachable(f"the cluster's token cannot be read: {error}") from error


def _reason(error: Any) -> str:
    code = getattr(error, "code", lambda: None)()
    return f"{getattr(code, 'name', 'error')}: {getattr(error, 'details', lambda: '')()}"


def _node_facts(node: Any, leaves_s: Mapping[str, float]) -> NodeFacts:
    labels = dict(node.labels)
    rented = SEAT_RESOURCE in node.total_resources
    name = (node.instance_id if rented else "") or labels.get(NODE_TYPE_LABEL) or node.node_ip_address
    node_id = node.node_id.hex()
    total, free = dict(node.total_resources), dict(node.available_resources)
    return NodeFacts(node_id, name, labels, total, free, node.instance_id, leaves_s.get(node_id))
