"""Process groups on a node: ended as a whole, also when the worker that made them is gone without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time

GRACE_S = 5.0
"""From SIGTERM to SIGKILL."""
# Ends the process group that its file names when its standard input closes: the worker that holds the other end is
# gone. It runs in the background of a shell that exits, because Ray ends its workers' children with them, though not
# their grandchildren: those are what is left of a command.
_WATCHDOG = """
{ trap "" TERM INT; read -r word; read -r group < "$1"; rm -f "$1"
  if [ "$group" -gt 0 ]; then kill -TERM -- -$group; sleep 5; kill -KILL -- -$group; fi; } <&0 >/dev/null 2>&1 &
"""
_WIDTH = 12


class Guard:
    """A process that ends the group it was told last when this process ends. To tell it costs one write to a file, and
    wakes nobody."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp(prefix="raywise-group-")
        self.tell(0)
        self._watchdog = subprocess.Popen(
            ["bash", "-c", _WATCHDOG, "watchdog", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, group: int) -> None:
        """The process group that is not to outlive this process; 0 is none."""
        os.pwrite(self._file, f"{group:<{_WIDTH}}\n".encode(), 0)

    def close(self) -> None:
        """Nothing is to be guarded any more."""
        self.tell(0)
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()
        os.close(self._file)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the group that a process leads: SIGTERM, then SIGKILL after a grace period. Returns at once where nothing of
    it is left."""
    process.poll()
    if not signal_group(process.pid, signal.SIGTERM):
        return
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and group_alive(process):
        time.sleep(0.02)
    if group_alive(process):
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def signal_group(group: int, number: signal.Signals) -> bool:
    """Whether there was anything to signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def group_alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the group is left; reaps its leader."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
