"""Waiting for what was submitted: the lines that stay, and in a terminal one that moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dashboards import terminal
from scheduler.client import Client

from .common import console, fail

INTERRUPTED = 130

TICK_S = 30.0
"""On a stream that cannot be redrawn, what runs is told of this often though nothing changed."""


def wait_for(client: Client, workload_id: str, *, quiet: bool = False, first: str = "") -> Any:
    """What `show` returns once everything has ended. Ctrl-C ends the command, not the workloads. `first` is a line with
    markup to begin with."""
    try:
        if first and not quiet:
            console.print(first)
        return client.wait(workload_id) if quiet else follow(client, workload_id, interval_s=1.0)
    except KeyboardInterrupt:
        fail(
            f"stopped waiting; {workload_id} goes on. `raywise show {workload_id}` follows it, "
            f"`raywise cancel {workload_id}` ends it",
            INTERRUPTED,
        )


class Milestones:
    """Says when a workload is worth a line that stays."""

    def __init__(self, ticks: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`ticks`: also now and then while nothing changes."""
        self._ticks, self._clock = ticks, clock
        self._last: dict[str, tuple[object, ...]] = {}
        self._printed_s: dict[str, float] = {}

    def due(self, workload: Any) -> bool:
        """Whether its state or attempt is another than when this last said yes, or it is time for a sign of life."""
        state = workload["state"]
        waits = state == "queued" and bool(workload["explanation"] or workload["attempt"])
        if state in ("pending", "queued") and not waits:
            return False
        key = (state, workload["attempt"])
        quiet_s = self._clock() - self._printed_s.get(workload["id"], 0.0)
        if self._last.get(workload["id"]) == key and not (self._ticks and state == "running" and quiet_s >= TICK_S):
            return False
        self._last[workload["id"]], self._printed_s[workload["id"]] = key, self._clock()
        return True


def follow(
    client: Client, workload_id: str, before: Callable[[Console, Any], None] = lambda *_: None, interval_s: float = 0.5
) -> Any:
    """Print what becomes of each workload until all have ended; returns the last view. `before` is called with each
    workload before its line is printed."""
    milestones = Milestones(ticks=not console.is_interactive)
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def update(view: Any) -> None:
            for workload in view["workloads"]:
                before(live.console, workload)
                if milestones.due(workload):
                    live.console.print(terminal.live_line(workload), markup=False, soft_wrap=True)
            live.update(_running(view))

        return client.wait(workload_id, on_update=update, interval_s=interval_s)


def _running(view: Any) -> Table:
    table = Table.grid(padding=(0, 1))
    for workload in view["workloads"]:
        if workload["state"] in ("queued", "starting", "running", "stopping"):
            table.add_row(Text(terminal.live_line(workload)))
    return table
