"""From a placed workload to what the executor is told to run. Pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.types import RunRequest, Snapshot
from workloads.job import Job, Shard

from ..store import Record


def progress_path(run_dir: str, run_id: str) -> Path:
    """Where the body of a run writes its progress: one file an attempt."""
    return Path(run_dir) / f"{run_id}.progress.jsonl"


def run_request(record: Record, snapshot: Snapshot) -> RunRequest:
    """The run of a workload's present attempt, every shard pinned to its device type and node."""
    assert record.placement is not None
    spec = record.workload_spec()
    speeds = _speeds(record)
    shards = tuple(
        replace(
            _shard(device_type, node_id, snapshot, spec.resources.cpus_per_shard), speed=speeds.get(device_type, 1.0)
        )
        for device_type, node_id in record.placement.devices
    )
    job = Job(
        workload_id=record.id,
        run_id=record.run_id,
        attempt=record.attempt,
        spec=record.spec,
        shards=shards,
        run_dir=record.run_dir,
        output=record.output,
        progress_path=str(progress_path(record.run_dir, record.run_id)),
        publish=record.publish,
    )
    return RunRequest(job, record.name, record.code_path, dict(spec.env))


def _speeds(record: Record) -> dict[str, float]:
    """What is predicted of one device of each type, beside the others of its gang; nothing where they are alike."""
    assert record.placement is not None
    chosen = record.placement.configuration
    estimate = next((each for each in record.estimates if each.configuration == chosen), record.predicted)
    return dict(estimate.speeds) if estimate is not None and estimate.configuration == chosen else {}


def _shard(device_type: str, node_id: str, snapshot: Snapshot, cpus: float | None) -> Shard:
    kind = snapshot.device_types[device_type]
    node = next(node for node in snapshot.nodes if node.node_id == node_id)
    devices = node.devices_of(device_type)
    assert devices is not None
    threads = max(1, int(cpus)) if cpus else 1
    resources = {devices.resource: 1.0}
    if cpus and devices.resource != "CPU" and not kind.emulated:
        resources["CPU"] = cpus  # emulated devices have none beside them: there it only sets threads
    return Shard(device_type, node_id, resources, kind.emulated_speed, threads)
