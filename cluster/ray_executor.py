"""Starts and stops runs as Ray Jobs: one job per run, its driver on the head node, `submission_id` = run id."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import workloads
from workloads import shell
from workloads.errors import WorkloadFailed
from workloads.job import JOB_VARIABLE, read_progress
from workloads.stopping import EXIT_STOPPED, request_stop, stop_deadline_s, stop_path

from . import direct_command
from .gcs import ControlService
from .job_logs import JobLogs
from .jobs_api import JobExists, JobsApi, JobStatus
from .own_code import own_package, unpacked
from .protocols import LogPart
from .types import ProgressRecord, RunObservation, RunRequest, RunState

log = logging.getLogger(__name__)

PACKAGE = "raywise_workloads"
"""The name under which `workloads` is shipped: a user's own `workloads` is then never in its way."""
ENTRYPOINT = f"python -P -m {PACKAGE}"
RAY_FAILED = "Ray: "
"""What the message of a run begins with that failed for a reason of Ray's own (set-up, lost supervisor)."""
QUIET = {"RAY_COLOR_PREFIX": "0"}
"""What Ray is told of its output: no colours in what is read from a file."""
PASSED_ON = ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables of the service that its runs get too, where they are set."""
SETUP_TIMEOUT_S = 300
FORGOTTEN_AFTER = 1000
"""So many runs that have ended are remembered before they are let go."""
_BODY_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"
_STATES: Mapping[str, RunState] = {
    "PENDING": "starting",
    "RUNNING": "starting",
    "STOPPED": "stopped",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
}


class RayExecutor:
    """An `Executor` on the cluster with its Jobs API at `dashboard_url` and its control service at `address`.

    `progress_path_of` gives the progress file of a run (`Job.progress_path`), also of runs that another process
    started; each run has a file of its own. `workloads_dir` is the package that is shipped to the cluster, `staging`
    the folder for its copy (a temporary one where not given). `shared_files` says that every node sees the runs'
    folders by the same paths: a user's own code is then unpacked there and used in place; else Ray brings it to each
    node. `end_file` is touched by each command that is over, where it can be. `logs_dir` is where Ray writes what runs
    print, where this process can read it.
    """

    def __init__(
        self,
        dashboard_url: str,
        address: str,
        progress_path_of: Callable[[str], Path],
        token_path: Path | None = None,
        workloads_dir: Path | None = None,
        staging: Path | None = None,
        *,
        shared_files: bool = False,
        end_file: Path | None = None,
        logs_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = JobsApi(dashboard_url, token_path)
        self._service = ControlService(address, token_path)
        self._progress_path_of = progress_path_of
        self._workloads_dir = workloads_dir or Path(workloads.__file__).parent
        self._staging = staging
        self._shared_files = shared_files
        self._end_file = end_file
        self._logs = JobLogs(self._jobs.logs, logs_dir)
        self._commands = direct_command.Recorder()
        self._staged: Path | None = None
        self._offsets: dict[str, int] = {}
        self._phase_offsets: dict[str, int] = {}
        self._running: set[str] = set()
        self._swept: set[str] = set()
        self._clock = clock
        self._deadlines_s: dict[str, float | None] = {}
        """Of the runs that are looked at: by when they are to have ended, None where nobody asks for it."""

    def start(self, request: RunRequest) -> None:
        """Submit the run; one that the cluster knows already is left as it is. Raises ClusterUnreachable, and
        WorkloadFailed where its code cannot be unpacked or Ray refuses the job (code that is too large, a bad
        environment)."""
        job = request.job
        metadata = {"name": request.name, "workload_id": job.workload_id}
        try:
            if direct_command.is_direct(request):
                direct_command.prepare(job)
                metadata[direct_command.OUTPUT] = job.output
                entrypoint, place = self._command_entrypoint(), direct_command.place_of(job)
                self._jobs.submit(job.run_id, entrypoint, self._command_env(request), metadata, place)
            else:
                self._jobs.submit(job.run_id, ENTRYPOINT, self._runtime_env(request), metadata)
        except JobExists:
            return
        except (ValueError, TypeError) as error:
            raise WorkloadFailed(f"{RAY_FAILED}the job was refused: {error}") from error

    def observe(self, run_ids: Collection[str]) -> dict[str, RunObservation]:
        """How these runs stand. Raises ClusterUnreachable."""
        self._forget(run_ids)
        jobs = self._jobs.statuses(run_ids)
        observed = {run_id: self._observation(run_id, jobs.get(run_id)) for run_id in run_ids}
        for run_id, run in observed.items():
            if run.ended:
                self._deadlines_s.pop(run_id, None)
            if run.ended and run_id in jobs and run_id not in self._swept:
                self._sweep(run_id)
            elif not run.ended and self._grace_is_over(run_id):
                self._end(run_id)
        return observed

    def _forget(self, run_ids: Collection[str]) -> None:
        """Of runs that nobody looks at any more only so many are remembered."""
        if len(self._offsets) <= len(run_ids) + FORGOTTEN_AFTER:
            return
        kept = set(run_ids)
        for run_id in [each for each in self._offsets if each not in kept]:
            for known in (self._offsets, self._phase_offsets, self._deadlines_s):
                known.pop(run_id, None)
            self._running.discard(run_id)
            self._swept.discard(run_id)

    def stop(self, run_id: str, grace_s: float = 0.0) -> None:
        """Ask the run to end, or end it: SIGTERM to its driver and children, SIGKILL after 3 s; its actors end with it.
        What a body left behind (a detached actor, a placement group) is removed once `observe` sees that the run is
        over. Raises ClusterUnreachable."""
        if grace_s <= 0 or self._grace_is_over(run_id):
            self._end(run_id)
        elif self._deadlines_s.get(run_id) is None:
            self._ask_to_end(run_id, grace_s)

    def _ask_to_end(self, run_id: str, grace_s: float) -> None:
        """Leave a request for the body. A run whose work has not begun has nothing to save."""
        job = self._jobs.statuses([run_id]).get(run_id)
        if job is None or job.status not in ("PENDING", "RUNNING"):
            return
        try:
            if job.status == "PENDING" or not self._has_begun(run_id):
                self._end(run_id)
            else:
                self._deadlines_s[run_id] = request_stop(self._stop_path(run_id), self._clock() + grace_s)
        except OSError as error:
            log.warning("%s cannot be asked to end, and is ended: %s", run_id, error)
            self._end(run_id)

    def _end(self, run_id: str) -> None:
        self._swept.discard(run_id)
        self._jobs.stop(run_id)
        job = self._jobs.statuses([run_id]).get(run_id)
        if job is not None and job.status == "PENDING" and direct_command.OUTPUT in job.metadata:
            # Ray would let it wait for its devices, take them, and only then stop.
            self._service.kill_supervisor(run_id)

    def _grace_is_over(self, run_id: str) -> bool:
        """Whether the run was asked to end, by this process or one before it, and has had its time."""
        if run_id not in self._deadlines_s:
            self._deadlines_s[run_id] = stop_deadline_s(self._stop_path(run_id))
        deadline_s = self._deadlines_s[run_id]
        return deadline_s is not None and self._clock() >= deadline_s

    def _stop_path(self, run_id: str) -> Path:
        return stop_path(self._progress_path_of(run_id), run_id)

    def progress(self, run_id: str) -> Sequence[ProgressRecord]:
        """Records that came since the last call."""
        records, self._offsets[run_id] = read_progress(self._progress_path_of(run_id), self._offsets.get(run_id, 0))
        return records

    def logs(self, run_id: str) -> str:
        """All the run printed so far. Raises ClusterUnreachable."""
        return self._logs.read(run_id, 0, sys.maxsize, fresh=True).data.decode(errors="replace")

    def log_part(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        """A part of it, from a byte on; not older than a second, unless it takes long to come. Raises
        ClusterUnreachable."""
        return self._logs.read(run_id, offset, most, fresh=fresh)

    def close(self) -> None:
        """Close connections and remove the staged copy of the package."""
        self._service.close()
        self._jobs.close()
        if self._staged is not None:
            shutil.rmtree(self._staged.parent, ignore_errors=True)
            self._staged = None

    def _runtime_env(self, request: RunRequest) -> dict[str, Any]:
        environment = self._common_env(request, {JOB_VARIABLE: request.job.to_json()})
        return {**environment, "py_modules": [str(self._stage())]}

    def _command_env(self, request: RunRequest) -> dict[str, Any]:
        """Without the package, where the nodes can read its one script in place."""
        environment = self._common_env(request, direct_command.variables(request.job, self._end_file))
        return environment if self._shared_files else {**environment, "py_modules": [str(self._stage())]}

    def _command_entrypoint(self) -> str:
        if not self._shared_files:
            return direct_command.ENTRYPOINT.format(package=PACKAGE)
        script = Path(shell.__file__) if self._staging is None else direct_command.script_in(self._staging)
        return direct_command.ENTRYPOINT_IN_PLACE.format(path=shlex.quote(str(script)))

    def _common_env(self, request: RunRequest, variables: Mapping[str, str]) -> dict[str, Any]:
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment: dict[str, Any] = {
            "env_vars": {**QUIET, **passed_on, **request.env, **variables},
            "config": {"setup_timeout_seconds": SETUP_TIMEOUT_S},
        }
        if request.code_path is not None:
            environment["working_dir"] = self._working_dir(request, Path(request.code_path))
        return environment

    def _working_dir(self, request: RunRequest, code: Path) -> str:
        """Where Ray finds the user's code: a folder to use in place, or a package to bring to the nodes. Raises
        WorkloadFailed."""
        run_dir, run_id = Path(request.job.run_dir), request.job.run_id
        try:
            if self._shared_files:
                return f"local://{unpacked(code, run_dir, run_id)}"
            return str(own_package(code, run_dir, run_id))
        except (OSError, zipfile.BadZipFile) as error:
            raise WorkloadFailed(f"its code cannot be unpacked: {error}", retryable=True) from error

    def _stage(self) -> Path:
        """A copy of the package under the name it is imported by on the cluster; made once."""
        if self._staged is None or not (self._staged / "__main__.py").is_file():  # e.g. a cleaner of /tmp went by
            if self._staging is not None:
                self._staging.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix="raywise-stage-", dir=self._staging)) / PACKAGE
            weakref.finalize(self, shutil.rmtree, staged.parent, ignore_errors=True)
            shutil.copytree(self._workloads_dir, staged, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            self._staged = staged
        return self._staged

    def _observation(self, run_id: str, job: JobStatus | None) -> RunObservation:
        if job is None:
            return RunObservation(run_id, "lost", "the cluster does not know this run")
        state = _STATES[job.status]
        if direct_command.OUTPUT in job.metadata:
            self._commands.record(job, self._progress_path_of(run_id))
            if job.error_type == direct_command.NEVER_STARTED:
                self._service.kill_supervisor(run_id)  # else it takes the devices when they are free, and keeps them
            elif job.ended_s is not None and not job.has_driver:  # it left nothing in Ray
                self._swept.add(run_id)
        if state == "failed" and job.exit_code == EXIT_STOPPED and self._stop_path(run_id).exists():
            return RunObservation(run_id, "stopped", "", job.started_s, job.ended_s)
        if job.status == "RUNNING" and self._has_begun(run_id):
            state = "running"
        return RunObservation(run_id, state, _message(job), job.started_s, job.ended_s)

    def _has_begun(self, run_id: str) -> bool:
        """Whether the body says that its first step or row began. Reads on where the last look ended."""
        if run_id not in self._running:
            offset = self._phase_offsets.get(run_id, 0)
            records, self._phase_offsets[run_id] = read_progress(self._progress_path_of(run_id), offset)
            if any(record["kind"] == "phase" and record.get("phase") == "running" for record in records):
                self._running.add(run_id)
        return run_id in self._running

    def _sweep(self, run_id: str) -> None:
        """Remove what an ended run left: actors and placement groups of its drivers, and groups named after it. Done
        again at each look until nothing is found."""
        drivers = self._service.job_ids(run_id)
        groups = [each for each in self._service.placement_groups() if each.job_id in drivers or each.name == run_id]
        actors = [actor for driver in drivers for actor in self._service.actors(driver)]
        for group in groups:
            self._service.remove_placement_group(group)
        for actor in actors:
            self._service.kill_actor(actor)
        if not groups and not actors:
            self._swept.add(run_id)


def _message(job: JobStatus) -> str:
    """Why a run ended: the body's last words, or what Ray failed at."""
    if job.status != "FAILED":
        return ""
    if job.error_type in ("", _BODY_FAILED):
        return job.message
    return f"{RAY_FAILED}{job.message} ({job.error_type})"
