"""The code that runs on the cluster: one module a kind, each `run(job, progress) -> done record`.

Started by `python -P -m raywise_workloads` (see `__main__`), on the head node, as the driver of a Ray Job.
"""

from __future__ import annotations

from typing import Any

from ..errors import WorkloadFailed
from ..job import Job, ProgressWriter
from .stop_watch import StopWatch


def run_body(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Carry out one attempt and return the fields of its `done` record. Raises WorkloadFailed, and WorkloadStopped
    where it was asked to end and has saved."""
    kind = job.spec["kind"]
    if kind == "preprocess":
        from .preprocess import run
    elif kind == "train":
        from .train import run
    elif kind == "batch-infer":
        from .infer import run
    elif kind == "command":
        from .command import run
    elif kind == "benchmark":
        from .benchmark import run
    else:
        raise WorkloadFailed(f"workloads of kind {kind} cannot run yet")
    if kind in ("preprocess", "benchmark"):  # these would begin again: nothing to save
        with StopWatch(job.stop_path):
            return run(job, progress)
    return run(job, progress)
