"""What a command finds in its environment, and what its exit code means."""

from __future__ import annotations

import signal

from .job import Job

ENDED_WELL = "ended-well"
"""A file in the workload's folder: the command has ended with 0, whatever became of the attempt after that."""
NOT_RUNNABLE = (126, 127)
"""Exit codes of a command that is not executable or not found: the same again would fail again."""


def environment(job: Job) -> dict[str, str]:
    """What a command finds in its environment beside the user's own variables."""
    given = job.spec.get("input")
    inputs = {} if isinstance(given, str) else dict(given or {})
    named = {f"RAYWISE_INPUT_{name.upper().replace('-', '_')}": str(path) for name, path in inputs.items()}
    if isinstance(given, str):
        named["RAYWISE_INPUT"] = given
    return {
        **named,
        "RAYWISE_OUTPUT": job.output,
        "RAYWISE_DEVICE_TYPE": job.shards[0].device_type,
        "RAYWISE_WORKLOAD_ID": job.workload_id,
        "RAYWISE_ATTEMPT": str(job.attempt),
    }


def why(code: int) -> str:
    """Why an attempt failed whose command ended with this exit code, or by a signal (negative)."""
    if code < 0:
        return f"the command was ended by signal {signal.Signals(-code).name}"
    if code in NOT_RUNNABLE:
        return f"the command cannot be run (exit code {code}: not found or not executable)"
    return f"the command ended with exit code {code}"
