"""One worker of a command over many items: started once, then item after item. Runs as an actor in its bundle."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..commands import NOT_RUNNABLE, why
from .emulation import Pacer
from .processes import Guard, end_group

CUT_S = 2.0
"""A block that takes longer is cut after the item it is at."""
KEPT_BYTES = 16_384
"""Of an item's output: its end."""
_PLACE = re.compile(r"(?<!\$)\{(item|index)\}")

Item = tuple[int, str]
"""Its number in the list of all items, from 0, and its text."""


@dataclass(frozen=True)
class Task:
    """What is done with each item: a shell command, or a function of the user's own."""

    command: str | None
    entrypoint: str | None
    env: Mapping[str, str]
    timeout_s: float | None = None
    numbers: bool = False
    """Whether a function gets its items as integers."""


@dataclass(frozen=True)
class Outcome:
    """What came of one item: the line of its result, or why it failed."""

    line: str = ""
    error: str = ""


class ItemWorker:
    """Does items one after the other on one device."""

    def __init__(self, task: Task, device_type: str, emulated_speed: float | None) -> None:
        self._task, self._device_type = task, device_type
        self._pacer = Pacer(emulated_speed if task.entrypoint else None)
        self._do: Callable[[Item], Any] | None = None

    def prepare(self) -> None:
        """Import the user's function. Raises WorkloadFailed."""
        self._do = _function(self._task) if self._task.entrypoint else Shell(self._task).run

    def run(self, items: Sequence[Item]) -> tuple[list[Outcome], float]:
        """Outcomes of the first items, of all of them unless they take too long; and the seconds that took."""
        outcomes = []
        begun = time.perf_counter()
        for item in items:
            outcomes.append(self._one(item))
            if time.perf_counter() - begun > CUT_S:
                break
        return outcomes, time.perf_counter() - begun

    def _one(self, item: Item) -> Outcome:
        assert self._do is not None
        begun = time.perf_counter()
        try:
            with self._pacer.pace():
                result = self._do(item)
            seconds = round(time.perf_counter() - begun, 6)
            known = {"index": item[0], "item": item[1], "device_type": self._device_type, "seconds": seconds}
            return Outcome(line=_line({**known, "result": result}))
        except Failed as error:
            return Outcome(error=_writable(str(error)))
        except Exception as error:
            return Outcome(error=_writable(f"{type(error).__name__}: {error}"))


def _line(values: dict[str, Any]) -> str:
    """JSON; text that UTF-8 does not have (the name of a file with a stray byte) as escapes."""
    line = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return line if _writable(line) == line else json.dumps(values, allow_nan=False)


def _writable(text: str) -> str:
    """As text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


class Failed(Exception):
    """A shell item ended with an exit code other than 0, or took too long."""


def _function(task: Task) -> Callable[[Item], Any]:
    from .usercode import load_entrypoint

    call = load_entrypoint(task.entrypoint or "")
    os.environ.update(task.env)
    return (lambda item: call(int(item[1]))) if task.numbers else (lambda item: call(item[1]))


class Shell:
    """Runs a shell command for each item, in a process group of its own, and ends what is left of it."""

    def __init__(self, task: Task) -> None:
        self._command, self._timeout_s = task.command or "", task.timeout_s
        self._env = {**os.environ, **task.env}
        self._guard = Guard()

    def run(self, item: Item) -> str:
        """What the command printed (its end). Raises Failed."""
        index, text = item
        env = {**self._env, "RAYWISE_ITEM": text, "RAYWISE_ITEM_INDEX": str(index)}
        process = subprocess.Popen(
            ["bash", "-c", filled(self._command, item)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._guard.tell(process.pid)
        try:
            output, in_time = _follow(process, self._timeout_s)
        finally:
            end_group(process)
            self._guard.tell(0)
            if process.stdout is not None:
                process.stdout.close()
        said = output.decode(errors="replace").strip()
        if not in_time:
            raise Failed(f"took longer than {self._timeout_s:g} s{_ending(said)}")
        if process.returncode != 0:
            raise Failed(f"{why(process.returncode)}{_ending(said)}")
        return said


def filled(command: str, item: Item) -> str:
    """The command with `{item}` and `{index}` in it, quoted for the shell; `${item}` is the shell's own."""
    values = {"index": str(item[0]), "item": shlex.quote(item[1])}
    return _PLACE.sub(lambda match: values[match[1]], command)


def is_final(error: str) -> bool:
    """Whether an item's failure would come again: there is no such program."""
    return any(error.startswith(why(code)) for code in NOT_RUNNABLE)


def _follow(process: subprocess.Popen[bytes], timeout_s: float | None) -> tuple[bytes, bool]:
    """The end of what it prints until it is over (children in the background may hold its output open for longer), and
    whether that was in time."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    os.set_blocking(stream, False)
    ended = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    poll.register(ended, select.POLLIN)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    kept = bytearray()
    try:
        while True:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in poll.poll(left_ms)}
            if stream in ready and not _drain(stream, kept):
                poll.unregister(stream)
            if ended in ready:
                _drain(stream, kept)
                return bytes(kept), True
            if deadline is not None and time.monotonic() >= deadline:
                return bytes(kept), False
    finally:
        os.close(ended)


def _drain(stream: int, kept: bytearray) -> bool:
    """Read what is there, keep the end of it. Returns False at the end of the stream."""
    while True:
        try:
            chunk = os.read(stream, 65536)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        kept += chunk
        del kept[:-KEPT_BYTES]


def _ending(said: str) -> str:
    return f"; it said: ...{said[-500:]}" if len(said) > 500 else f"; it said: {said}" if said else ""
