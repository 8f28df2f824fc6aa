"""The four doors between the scheduler and a cluster. `fake` and Ray implementations pass the same contract tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from .types import ProgressRecord, RunObservation, RunRequest, Snapshot


class ClusterUnreachable(ConnectionError):
    """The cluster does not answer: nothing is known of what runs on it, and nothing may be concluded."""


@dataclass(frozen=True)
class LogPart:
    """A part of what a run printed."""

    data: bytes
    size: int
    """Bytes of all of it so far."""


class Observer(Protocol):
    """Says what there is."""

    def snapshot(self) -> Snapshot:
        """The cluster now. `NodeDevices.free` counts what Ray itself sees as unused. Raises ClusterUnreachable."""
        ...


class Executor(Protocol):
    """Starts and stops runs. Every call may be repeated: starting a run that exists, or stopping one that ended, does
    nothing; stopping one that is about to stop changes only what is said below."""

    def start(self, request: RunRequest) -> None:
        """Begin a run; returns as soon as the cluster accepted it. Raises ClusterUnreachable."""
        ...

    def observe(self, run_ids: Collection[str]) -> dict[str, RunObservation]:
        """How these runs stand; one the cluster never heard of is `lost`. Raises ClusterUnreachable."""
        ...

    def stop(self, run_id: str, grace_s: float = 0.0) -> None:
        """End a run: its processes, actors and placement groups. With `grace_s` (seconds) it is asked to save and to
        end by itself, and is ended by force when they are over. Of several calls the first deadline holds, for
        executors of later processes too; one without grace ends the run now. Returns at once; `observe` says when it
        is over. Raises ClusterUnreachable."""
        ...

    def progress(self, run_id: str) -> Sequence[ProgressRecord]:
        """Records that came since the last call for this run (all of them on the first call of a process)."""
        ...

    def logs(self, run_id: str) -> str:
        """All the run printed so far; empty where nothing is known."""
        ...

    def log_part(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        """At most so many bytes of it, from one on. It may be what it was a moment ago, unless it is to be `fresh`.
        Raises ClusterUnreachable."""
        ...


class Provider(Protocol):
    """Rents nodes and gives them back. What may be rented, what is on its way and what is not to be had just now says
    the observer (`Snapshot.node_types`). Every call may be repeated, and returns before it has had its effect."""

    def request(self, node_type: str, count: int) -> None:
        """See that so many of this type are there or on their way, in all; those that are more stay. Raises
        ClusterUnreachable."""
        ...

    def release(self, node_id: str) -> bool:
        """Give a node back on which nothing runs; False where that is refused, as something is on it. Nothing where it
        is gone, or was never rented. Raises ClusterUnreachable."""
        ...

    def drain(self, node_id: str, leaves_s: float, cause: str) -> None:
        """Give a node notice: nothing begins there any more, and by `leaves_s` (Unix seconds) it is given back,
        whatever runs there. Raises ClusterUnreachable."""
        ...


class NothingToRent:
    """The provider of a cluster whose nodes stay."""

    def request(self, node_type: str, count: int) -> None:
        """Does nothing."""

    def release(self, node_id: str) -> bool:  # noqa: ARG002
        """Does nothing."""
        return True

    def drain(self, node_id: str, leaves_s: float, cause: str) -> None:
        """Does nothing."""
