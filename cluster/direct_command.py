"""A command's own process as the entrypoint of its Ray Job: no driver that connects to Ray, no placement group.

Ray's job supervisor takes the devices on the placed node and runs `workloads.shell` there. The records that a body
would write are made here, from what Ray says of the job, and appended to the run's progress file, where every other
reader finds them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workloads import shell
from workloads.bodies.folders import claim, local_folder
from workloads.commands import NOT_RUNNABLE, environment, why
from workloads.job import Job, ProgressWriter, read_progress

from .jobs_api import JobStatus, Place
from .types import RunRequest

OUTPUT = "command_output"
"""Metadata of a job that is a command's own process: the folder it writes to."""
ENTRYPOINT = "exec python -P -m {package}.shell"
ENTRYPOINT_IN_PLACE = "exec python -I -S {path}"
RAYS_PATIENCE_S = 6
"""What Ray leaves between SIGTERM and SIGKILL: a little more than the command's process does."""
NEVER_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
"""Ray's word for a job whose devices did not become free in time."""
_BODY_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"


def is_direct(request: RunRequest) -> bool:
    """Whether a run is nothing but a shell command on one node. One over many items has workers, and what is published
    is copied by a body."""
    spec, shards = request.job.spec, request.job.shards
    one_node = len({shard.node_id for shard in shards}) == 1
    return spec.get("kind") == "command" and not spec.get("items") and request.job.publish is None and one_node


def place_of(job: Job) -> Place:
    """The devices of all shards together, on their node."""
    total: dict[str, float] = {}
    for shard in job.shards:
        for name, amount in shard.resources.items():
            total[name] = total.get(name, 0.0) + amount
    return Place(job.shards[0].node_id, total)


def variables(job: Job, end_file: Path | None) -> dict[str, str]:
    """What the command finds in its environment, and what its process is told."""
    told = {
        shell.COMMAND: str(job.spec["command"]),
        shell.STOP_FILE: str(Path(job.run_dir) / f"{job.run_id}.stop"),
        "RAY_JOB_STOP_WAIT_TIME_S": str(RAYS_PATIENCE_S),
    }
    return {**environment(job), **told, **({shell.END_FILE: str(end_file)} if end_file is not None else {})}


def prepare(job: Job) -> None:
    """Claim the output folder before anything runs. Raises WorkloadFailed where it holds what is not ours."""
    claim(local_folder(job.output), job.workload_id)


def script_in(folder: Path) -> Path:
    """The script in a folder that every node sees, under a name that says which version it is."""
    source = Path(shell.__file__)
    target = folder / f"shell-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.py"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".partial")
        shutil.copyfile(source, draft)
        draft.replace(target)
    return target


@dataclass
class Recorder:
    """Writes the records of commands that run without a body. Each is written once, also by the service after this
    one: the file itself is what is remembered."""

    _written: dict[str, set[str]] = field(default_factory=dict)

    def record(self, job: JobStatus, path: Path) -> None:
        """Append what the job's state adds to the run's records."""
        run_id = job.submission_id
        if job.status in ("PENDING", "STOPPED"):
            return
        if run_id not in self._written:
            self._written[run_id] = {_name(record) for record in read_progress(path)[0]}
        for kind, values in records_of(job):
            name = _name({"kind": kind, **values})
            if name not in self._written[run_id]:
                path.parent.mkdir(parents=True, exist_ok=True)
                ProgressWriter(path).write(kind, **values)
                self._written[run_id].add(name)
        if job.status != "RUNNING":
            del self._written[run_id]


def records_of(job: JobStatus) -> list[tuple[str, dict[str, object]]]:
    """The records of a command whose job stands so: kind and values."""
    running: tuple[str, dict[str, object]] = ("phase", {"phase": "running"})
    if job.status == "RUNNING":
        return [running]
    if job.status == "SUCCEEDED":
        return [running, ("done", {"outputs": {"output": job.metadata[OUTPUT]}, "metrics": {}})]
    if job.status == "FAILED" and job.error_type in ("", _BODY_FAILED) and job.exit_code is not None:
        retryable = job.exit_code not in NOT_RUNNABLE
        return [running, ("failed", {"message": why(job.exit_code), "retryable": retryable})]
    return []


def _name(record: Mapping[str, object]) -> str:
    return f"{record['kind']} {record.get('phase', '')}"
