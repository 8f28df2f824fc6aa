"""The three doors between the scheduler and a cluster. `fake` and Ray implementations pass the same contract tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from .types import ProgressRecord, RunObservation, RunRequest, Snapshot


class ClusterUnreachable(ConnectionError):
    """The cluster does not answer: nothing is known of what runs on it, and nothing may be concluded."""


class Observer(Protocol):
    """Says what there is."""

    def snapshot(self) -> Snapshot:
        """The cluster now. `NodeDevices.free` counts what Ray itself sees as unused. Raises ClusterUnreachable."""
        ...


class Executor(Protocol):
    """Starts and stops runs. Every call may be repeated: starting a run that exists, or stopping one that ended, does
    nothing."""

    def start(self, request: RunRequest) -> None:
        """Begin a run; returns as soon as the cluster accepted it. Raises ClusterUnreachable."""
        ...

    def observe(self, run_ids: Collection[str]) -> dict[str, RunObservation]:
        """How these runs stand; one the cluster never heard of is `lost`. Raises ClusterUnreachable."""
        ...

    def stop(self, run_id: str) -> None:
        """End a run: its processes, actors and placement groups. Returns at once; `observe` says when it is over."""
        ...

    def progress(self, run_id: str) -> Sequence[ProgressRecord]:
        """Records that came since the last call for this run (all of them on the first call of a process)."""
        ...

    def logs(self, run_id: str) -> str:
        """All the run printed so far; empty where nothing is known."""
        ...
