"""Carries progress from processes on other nodes to the progress file, which is on the driver's node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from ..job import ProgressWriter
from .placement import beside_driver


class Relay:
    """An actor beside the driver that appends records for others; they do not wait for it."""

    def __init__(self, path: str) -> None:
        self._writer = ProgressWriter(Path(path))

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append one record."""
        self._writer.write(kind, **values)

    def flush(self) -> None:
        """Return when every record sent before has been written (calls of one caller keep their order)."""


def start_relay(progress: ProgressWriter) -> Any:
    """The handle of a relay to this progress file."""
    actor = ray.remote(Relay).options(num_cpus=0, scheduling_strategy=beside_driver())
    return actor.remote(str(progress.path))
