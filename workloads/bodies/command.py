"""`command`: a shell command on the placed node, its output in the workload's log, its process group ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import ray

from ..commands import NOT_RUNNABLE, environment, why
from ..errors import WorkloadFailed
from ..job import Job, ProgressWriter
from ..spec import Command
from .command_items import ItemRun
from .folders import claim, local_folder
from .placement import gang, in_bundle, merged, remote_options
from .processes import GRACE_S, Guard, end_group


class CommandRunner:
    """Runs the command in a process group of its own on the node where Ray placed this actor."""

    def __init__(self, command: str, env: Mapping[str, str]) -> None:
        self._command, self._env = command, dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Iterator[bytes | int]:
        """Yield what the command prints as it comes, then its exit code."""
        process = subprocess.Popen(
            ["bash", "-c", self._command],
            env={**os.environ, **self._env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        guard = Guard()
        guard.tell(process.pid)
        try:
            while chunk := os.read(process.stdout.fileno(), 65536):
                yield chunk
            yield process.wait()
        finally:
            self.stop()
            guard.close()

    def stop(self) -> None:
        """End the whole process group: SIGTERM, then SIGKILL after a grace period."""
        if self._process is not None:
            end_group(self._process)


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Run the command and pass its output on. Raises WorkloadFailed with the exit code when it is not 0."""
    spec = Command.model_validate(job.spec)
    if spec.items is not None:
        return ItemRun(job, progress).run()
    nodes = {shard.node_id for shard in job.shards}
    if len(nodes) > 1:
        raise WorkloadFailed(f"a command runs on one node; its devices are on {len(nodes)}: ask for fewer")
    claim(local_folder(job.output), job.workload_id)
    resources = merged(job.shards)
    with gang(job.run_id, [resources], [job.shards[0].node_id]) as group:
        runner = (
            ray.remote(CommandRunner)
            .options(**remote_options(resources), scheduling_strategy=in_bundle(group, 0), max_concurrency=2)
            .remote(spec.command or "", environment(job))
        )
        progress.write("phase", phase="running")
        try:
            code = _follow(runner)
        except BaseException:
            # Stopped, or the stream broke: the group must be gone before the placement group is given back.
            ray.wait([runner.stop.remote()], timeout=GRACE_S + 2)
            raise
    if code != 0:
        raise WorkloadFailed(why(code), retryable=code not in NOT_RUNNABLE)
    return {"outputs": {"output": job.output}, "metrics": {}}


def _follow(runner: Any) -> int:
    code = 0
    try:
        for reference in runner.run.options(num_returns="streaming").remote():
            item = ray.get(reference)
            if isinstance(item, int):
                code = item
            else:
                sys.stdout.buffer.write(item)
                sys.stdout.flush()
    except ray.exceptions.RayActorError as error:
        raise WorkloadFailed(f"the process that ran the command died: {error}", retryable=True) from error
    return code
