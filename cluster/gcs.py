"""Asks Ray's control service (GCS) directly, over gRPC with a deadline on every call.

The service is no driver (`ray.init`): Ray ends a driver's whole process when the control service stays away for a
minute (measured: exit code 1 after 61 s), and a scheduler must outlive its cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .inventory import NodeFacts
from .protocols import ClusterUnreachable
from .types import NODE_TYPE_LABEL

DEADLINE_S = 5.0
_MAX_MESSAGE_BYTES = 512 * 2**20
_SUPERVISOR, _SUPERVISORS = "_ray_internal_job_actor_{}", "SUPERVISOR_ACTOR_RAY_NAMESPACE"
"""Name and namespace of the actor that Ray makes for a job."""

Reply = TypeVar("Reply")


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
        dead = autoscaler_pb2.NodeStatus.DEAD
        return [_node_facts(node) for node in reply.cluster_resource_state.node_states if node.status != dead]

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


def _node_facts(node: Any) -> NodeFacts:
    labels = dict(node.labels)
    name = labels.get(NODE_TYPE_LABEL) or node.node_ip_address
    return NodeFacts(node.node_id.hex(), name, labels, dict(node.total_resources), dict(node.available_resources))
