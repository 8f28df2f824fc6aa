"""Carries progress from processes on other nodes to the progress file, which is on the driver's node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from ..job import Job, ProgressWriter
from ..stopping import stop_deadline_s
from .placement import beside_driver


class Relay:
    """An actor beside the driver that appends records for others, and says whether the run is to end; they do not wait
    for it."""

    def __init__(self, path: str, stop_path: str) -> None:
        self._writer, self._stop_path = ProgressWriter(Path(path)), Path(stop_path)

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append one record."""
        self._writer.write(kind, **values)

    def stop_deadline_s(self) -> float | None:
        """By when the run is to have saved and ended (Unix seconds); None where nobody wants that."""
        return stop_deadline_s(self._stop_path)

    def flush(self) -> None:
        """Return when every record sent before has been written (calls of one caller keep their order)."""


def start_relay(job: Job) -> Any:
    """The handle of a relay to the job's progress file."""
    actor = ray.remote(Relay).options(num_cpus=0, scheduling_strategy=beside_driver())
    return actor.remote(job.progress_path, str(job.stop_path))
