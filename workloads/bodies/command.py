"""`command`: a shell command on the placed node, its output in the workload's log, its process group ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from ..errors import WorkloadFailed
from ..job import Job, ProgressWriter
from ..spec import Command
from .folders import claim, local_folder
from .placement import gang, in_bundle, merged, remote_options

GRACE_S = 5.0
NOT_RUNNABLE = (126, 127)
ENDED_WELL = "ended-well"
"""A file in the workload's folder: the command has ended with 0, whatever became of the attempt after that."""
# Ends the command's process group when its standard input closes without a word: the worker that holds the other end
# is gone. It runs in the background of a shell that exits, because Ray ends its workers' children with them, though
# not their grandchildren: those are what is left of the command.
_WATCHDOG = """
{ trap "" TERM INT; read -r word; if [ "$word" != done ]; then kill -TERM -- -$1; sleep 5; kill -KILL -- -$1; fi; } \
  <&0 >/dev/null 2>&1 &
"""


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
        watchdog = subprocess.Popen(
            ["bash", "-c", _WATCHDOG, "watchdog", str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            while chunk := os.read(process.stdout.fileno(), 65536):
                yield chunk
            yield process.wait()
        finally:
            self.stop()
            assert watchdog.stdin is not None
            watchdog.stdin.write(b"done\n")
            watchdog.stdin.close()
            watchdog.wait()

    def stop(self) -> None:
        """End the whole process group: SIGTERM, then SIGKILL after a grace period."""
        if self._process is None:
            return
        _signal_group(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and _group_alive(self._process):
            time.sleep(0.05)
        _signal_group(self._process.pid, signal.SIGKILL)


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Run the command and pass its output on; not again where an earlier attempt was killed after it had ended well.
    Raises WorkloadFailed with the exit code when it is not 0."""
    spec = Command.model_validate(job.spec)
    nodes = {shard.node_id for shard in job.shards}
    if len(nodes) > 1:
        raise WorkloadFailed(f"a command runs on one node; its devices are on {len(nodes)}: ask for fewer")
    claim(local_folder(job.output), job.workload_id)
    done = {"outputs": {"output": job.output}, "metrics": {}}
    ended_well = Path(job.run_dir, ENDED_WELL)
    if ended_well.exists():
        progress.write("note", message="the command had ended well when the attempt before was killed")
        return done
    resources = merged(job.shards)
    with gang(job.run_id, [resources], [job.shards[0].node_id]) as group:
        runner = (
            ray.remote(CommandRunner)
            .options(**remote_options(resources), scheduling_strategy=in_bundle(group, 0), max_concurrency=2)
            .remote(spec.command, _environment(job, spec))
        )
        progress.write("phase", phase="running")
        try:
            code = _follow(runner)
            if code == 0:
                ended_well.touch()
        except BaseException:
            # Stopped, or the stream broke: the group must be gone before the placement group is given back.
            ray.wait([runner.stop.remote()], timeout=GRACE_S + 2)
            raise
    if code != 0:
        raise WorkloadFailed(_why(code), retryable=code not in NOT_RUNNABLE)
    return done


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


def _environment(job: Job, spec: Command) -> dict[str, str]:
    inputs = {"input": spec.input} if isinstance(spec.input, str) else dict(spec.input or {})
    named = {
        f"RAYWISE_INPUT_{name.upper().replace('-', '_')}": path for name, path in inputs.items() if name != "input"
    }
    if isinstance(spec.input, str):
        named["RAYWISE_INPUT"] = spec.input
    return {
        **named,
        "RAYWISE_OUTPUT": job.output,
        "RAYWISE_DEVICE_TYPE": job.shards[0].device_type,
        "RAYWISE_WORKLOAD_ID": job.workload_id,
    }


def _why(code: int) -> str:
    if code < 0:
        return f"the command was ended by signal {signal.Signals(-code).name}"
    if code in NOT_RUNNABLE:
        return f"the command cannot be run (exit code {code}: not found or not executable)"
    return f"the command ended with exit code {code}"


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _group_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
