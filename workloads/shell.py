"""A command's own process, as the entrypoint of a Ray Job: `python -I -S shell.py` on the node that Ray placed it on.

Ray's job supervisor holds the devices, starts this in a session of its own with the log as its output, and ends that
session with SIGKILL when the supervisor is gone. This runs the command in the same session and process group, passes
the wish to stop on to all of it, and ends what the command left behind before it says how the command ended.

Imports nothing but what Python has loaded or loads in a few milliseconds: this is what a short command pays.
"""

from __future__ import annotations

import os
import signal
import sys
import time

COMMAND = "RAYWISE_COMMAND"
STOP_FILE = "RAYWISE_STOP_FILE"
"""A file that asks the command to stop by being there: SIGTERM, and nothing more. Who wrote it uses force later."""
END_FILE = "RAYWISE_END_FILE"
"""A file that is touched when the command is over, for who waits for it."""
GRACE_S = 5.0
"""From SIGTERM to SIGKILL, where Ray stops the job or the command left processes behind."""
EXIT_STOPPED = 143
EXIT_NOT_FOUND = 127
_POLL_S = 0.5
_STOPPING = {signal.SIGTERM, signal.SIGINT}


def main() -> int:
    """Run the command to its end. Returns its exit code, or 143 where it was stopped; ends by the signal that ended
    the command."""
    command, stop_file, end_file = (os.environ.pop(name, "") for name in (COMMAND, STOP_FILE, END_FILE))
    # Waited for below, one after the other: a handler could run between any two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPPING, signal.SIGCHLD})
    _make(os.environ.get("RAYWISE_OUTPUT", ""))
    try:
        child = _start(command)
    except OSError as error:
        print(f"bash cannot be started: {error}", file=sys.stderr, flush=True)
        return EXIT_NOT_FOUND
    status, stopped = _follow(child, stop_file)
    _end_others()
    _touch(end_file)
    if stopped:
        return EXIT_STOPPED
    if os.WIFSIGNALED(status):
        _end_by(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _start(command: str) -> int:
    return os.posix_spawnp(
        "bash",
        ["bash", "-c", command],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsigmask=(),
        setsigdef=[*_STOPPING, signal.SIGPIPE],  # Python ignores SIGPIPE, and the command would inherit that
    )


def _follow(child: int, stop_file: str) -> tuple[int, bool]:
    """The wait status of the command, and whether it was asked to stop."""
    asked, kill_at_s = False, float("inf")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, asked
        came = signal.sigtimedwait({*_STOPPING, signal.SIGCHLD}, _POLL_S)
        if came is not None and came.si_signo in _STOPPING:
            asked = True  # who stops the job signals the command and its children too: twice would be once too often
            kill_at_s = min(kill_at_s, time.monotonic() + GRACE_S)
        elif not asked and stop_file and os.path.exists(stop_file):
            asked = True
            _signal({child, *_others()}, signal.SIGTERM)
        if time.monotonic() >= kill_at_s:
            _signal([child, *_others()], signal.SIGKILL)


def _end_others() -> None:
    """End what the command left running: SIGTERM, then SIGKILL after a grace period."""
    deadline = time.monotonic() + GRACE_S
    _signal(_others(), signal.SIGTERM)
    while others := _others():
        if time.monotonic() >= deadline:
            _signal(others, signal.SIGKILL)
            return
        time.sleep(0.02)


def _others() -> list[int]:
    """The other living processes of this session. None where this does not lead one: they were somebody else's."""
    me = os.getpid()
    if os.getsid(0) != me or not os.path.isdir("/proc/self"):
        return []
    return [pid for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()) if pid != me and _is_mine(pid)]


def _is_mine(pid: int) -> bool:
    try:
        if os.getsid(pid) != os.getsid(0):
            return False
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def _signal(pids: list[int] | set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _make(output: str) -> None:
    """The output folder, on a node whose files are not those of the service."""
    if output and "://" not in output:
        try:
            os.makedirs(output, exist_ok=True)
        except OSError as error:
            print(f"the output folder cannot be made: {error}", file=sys.stderr, flush=True)


def _touch(path: str) -> None:
    if path:
        try:
            os.utime(path)
        except OSError:
            return


def _end_by(number: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main())
