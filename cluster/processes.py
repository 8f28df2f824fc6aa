"""Finds and ends the processes of one local cluster, and only those.

Every process of a cluster carries its id in the environment (`RAYWISE_CLUSTER_ID`), whatever started it and wherever it
was re-parented to; a process is known by pid and start time together, so a pid that was given out again is left alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

MARKER = "RAYWISE_CLUSTER_ID"
LAUNCH_MARKER = "RAYWISE_NODE_LAUNCH"
"""In the environment of every process of one start of one node."""
_POLL_S = 0.05
# psutil and the kernel round start times to clock ticks of 10 ms.
_START_TIME_TOLERANCE_S = 0.05


@dataclass(frozen=True)
class ProcessId:
    """One process for good: its pid, and when it was started (Unix seconds)."""

    pid: int
    started_s: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this pid now. Raises ProcessLookupError."""
        psutil = _psutil()
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error as error:
            raise ProcessLookupError(pid) from error

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self._process() is not None

    def _process(self) -> Any:
        psutil = _psutil()
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) <= _START_TIME_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def signal(self, number: signal.Signals) -> None:
        """Signal this process; nothing where it has ended."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def members(mark: str, roots: Iterable[ProcessId] = (), variable: str = MARKER) -> set[ProcessId]:
    """All living processes of a cluster: those that carry its id, and the descendants of `roots`; with another
    `variable`, those that carry that mark."""
    psutil = _psutil()
    found = {process for root in roots for process in _tree(root)}
    me = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != me and process.environ().get(variable) == mark:
                found.add(ProcessId(process.pid, process.create_time()))
    return {process for process in found if process.is_alive()}


def wait_ended(processes: Iterable[ProcessId], timeout_s: float) -> set[ProcessId]:
    """Wait for these to end; those that still live after `timeout_s`."""
    alive = set(processes)
    deadline = time.monotonic() + timeout_s
    while True:
        alive = {process for process in alive if process.is_alive()}
        if not alive or time.monotonic() >= deadline:
            return alive
        time.sleep(_POLL_S)


def end_members(
    mark: str, roots: Iterable[ProcessId], patience_s: float = 10.0, variable: str = MARKER
) -> set[ProcessId]:
    """SIGKILL every process that `members` finds until none is left; what could not be ended in `patience_s` is
    returned."""
    roots = tuple(roots)
    deadline = time.monotonic() + patience_s
    looks_without_any = 0
    # Two looks: the environment of a process cannot be read in the instant of its exec.
    while looks_without_any < 2 and time.monotonic() < deadline:
        alive = members(mark, roots, variable)
        for process in alive:
            process.signal(signal.SIGKILL)
        wait_ended(alive, 1.0)
        looks_without_any = 0 if alive else looks_without_any + 1
        time.sleep(_POLL_S)
    return members(mark, roots, variable)


def _tree(root: ProcessId) -> Iterable[ProcessId]:
    psutil = _psutil()
    with contextlib.suppress(psutil.Error):
        process = root._process()
        if process is not None:
            yield root
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    yield ProcessId(child.pid, child.create_time())


def _psutil() -> ModuleType:
    """psutil, or the copy that Ray brings along and puts on the path when it is imported."""
    try:
        return importlib.import_module("psutil")
    except ModuleNotFoundError:
        importlib.import_module("ray")
        return importlib.import_module("psutil")
