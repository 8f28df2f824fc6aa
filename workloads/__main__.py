"""Runs one attempt of a workload: `python -P -m raywise_workloads`, with the Job in the environment.

Exit codes: 0 done, 1 an error nobody foresaw, 3 failed and would fail again, 4 failed but worth another attempt,
143 stopped by SIGTERM, or as it was asked to, with what it had done saved.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType

from .errors import SpecError, WorkloadFailed, WorkloadStopped
from .job import Job, ProgressWriter
from .remote import fetch, is_remote, publish
from .stopping import EXIT_STOPPED

EXIT_UNFORESEEN, EXIT_FAILED, EXIT_RETRYABLE = 1, 3, 4
_stop_requested: list[bool] = []


def main() -> int:
    """The whole attempt; returns the exit code."""
    job = Job.from_environment()
    Path(job.progress_path).parent.mkdir(parents=True, exist_ok=True)
    Path(job.run_dir).mkdir(parents=True, exist_ok=True)
    progress = ProgressWriter(Path(job.progress_path))
    progress.write("phase", phase="starting")
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _attempt(job, progress)
    except WorkloadFailed as error:
        return _failed(progress, str(error), error.retryable, EXIT_RETRYABLE if error.retryable else EXIT_FAILED)
    except SpecError as error:
        return _failed(progress, str(error), False, EXIT_FAILED)
    except SystemExit as stop:
        if _stop_requested:  # whatever its code says: ray.get makes a 1 of it
            return EXIT_STOPPED
        return _failed(progress, f"the code called sys.exit({stop.code})", False, EXIT_FAILED)
    except Exception as error:
        traceback.print_exc()
        return _failed(progress, f"{type(error).__name__}: {error}", True, EXIT_UNFORESEEN)


def _attempt(job: Job, progress: ProgressWriter) -> int:
    import ray

    # Set before ray.init, because the workers inherit them: train restarts fast, and user code keeps its folder.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    ray.init(namespace="raywise", logging_level=logging.WARNING, log_to_driver=True)
    signal.signal(signal.SIGTERM, _stop)  # ray.init puts its own handler there
    from .bodies import run_body

    try:
        done = run_body(_with_fetched(job), progress)
    except WorkloadStopped as stopped:
        print(f"stopped: {stopped}", flush=True)
        return EXIT_STOPPED
    finally:
        ray.shutdown()
    if job.publish is not None:
        publish(Path(job.output), job.publish)
        done["outputs"] = {**done["outputs"], "published": job.publish}
    progress.write("done", **done)
    return 0


def _with_fetched(job: Job) -> Job:
    """The job with what its body needs as local files (a model, a tokenised data set) fetched from other storage."""
    fields = {"model"} | ({"input"} if job.spec["kind"] == "train" else set())
    urls = {field: str(job.spec.get(field) or "") for field in fields}
    local = {
        field: str(fetch(url, Path(job.run_dir) / "fetched" / field)) for field, url in urls.items() if is_remote(url)
    }
    return replace(job, spec={**job.spec, **local}) if local else job


def _failed(progress: ProgressWriter, message: str, retryable: bool, code: int) -> int:
    print(f"failed: {message}", file=sys.stderr, flush=True)
    progress.write("failed", message=message, retryable=retryable)
    return code


def _stop(signum: int, frame: FrameType | None) -> None:
    """Leave through every `finally`, so that devices are given back and commands ended."""
    del signum, frame
    _stop_requested.append(True)
    sys.exit(EXIT_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
