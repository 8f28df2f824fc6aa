"""How a body learns that it is to save and end: a thread of the driver looks for the request, and shards on other nodes
ask the relay, which is beside the driver: a file that is new to a shared folder may be seen there much later."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..job import read_progress
from ..stopping import stop_deadline_s

LOOK_EVERY_S = 0.5
ASK_EVERY_S = 1.0
LONGEST_WAIT_S = 0.1


def end_driver() -> None:
    """End this process as SIGTERM from outside would: through every `finally`."""
    os.kill(os.getpid(), signal.SIGTERM)


class StopWatch:
    """While its body works, looks for the request to end a run; a context manager.

    `when_asked` is called once, in a thread of its own; left out, there is nothing to save and the driver ends. When
    the time that it was given is over it ends in any case.
    """

    def __init__(
        self,
        path: Path,
        when_asked: Callable[[StopWatch], None] | None = None,
        end: Callable[[], None] = end_driver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._when_asked, self._end, self._clock = path, when_asked, end, clock
        self._asked, self._closed = threading.Event(), threading.Event()
        self._deadline_s = 0.0
        self._thread = threading.Thread(target=self._look, name="stop-watch", daemon=True)

    @property
    def asked(self) -> bool:
        """Whether somebody wants the run to end."""
        return self._asked.is_set()

    @property
    def left_s(self) -> float:
        """Seconds that it may still take, once it was asked."""
        return max(0.0, self._deadline_s - self._clock())

    def body_ends_within(self, seconds: float) -> bool:
        """Wait for the body for so long; whether it has ended."""
        return self._closed.wait(seconds)

    def __enter__(self) -> StopWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while (deadline_s := stop_deadline_s(self._path)) is None:
            if self.body_ends_within(LOOK_EVERY_S):
                return
        self._deadline_s = deadline_s
        self._asked.set()
        if self._when_asked is not None and self.left_s > 0:
            self._when_asked(self)
            if self.body_ends_within(self.left_s):
                return
        self.end()

    def end(self) -> None:
        """End the driver now."""
        self._end()


def go_on(stop: StopWatch) -> None:
    """For bodies that look for the request themselves."""
    del stop


def end_after_checkpoint(progress: Path) -> Callable[[StopWatch], None]:
    """For bodies that do not say that they saw the request: what they save next is the last they do."""

    def wait(stop: StopWatch) -> None:
        _, offset = read_progress(progress)
        while stop.left_s > 0 and not stop.body_ends_within(LOOK_EVERY_S):
            records, offset = read_progress(progress, offset)
            if any(record["kind"] == "checkpoint" for record in records):
                stop.end()
                return

    return wait


class StopRequests:
    """Asks the relay about once a second whether the run is to end, and waits for an answer a hundredth of the time
    between two calls at most: short steps lose nothing, and long ones do not work with an answer of the step before."""

    def __init__(self, relay: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._relay, self._clock = relay, clock
        self._question: Any = None
        self._asked_at_s, self._called_at_s = float("-inf"), clock()
        self.deadline_s: float | None = None
        """Unix seconds; None while nobody wants an end, as far as is known."""

    def come(self) -> bool:
        """Whether the run is to end, as far as is known."""
        now_s = self._clock()
        since_s, self._called_at_s = now_s - self._called_at_s, now_s
        if self.deadline_s is None:
            if self._question is None and now_s - self._asked_at_s >= ASK_EVERY_S:
                self._question, self._asked_at_s = self._relay.stop_deadline_s.remote(), now_s
            if self._question is not None:
                self._take_answer(min(LONGEST_WAIT_S, since_s / 100))
        return self.deadline_s is not None

    def _take_answer(self, wait_s: float) -> None:
        import ray

        if ray.wait([self._question], timeout=wait_s)[0]:
            question, self._question = self._question, None
            self.deadline_s = ray.get(question)
