"""What a run printed, read from a byte on: from Ray's own file where that is on this machine, else from an answer of
Ray's Jobs API, which knows the whole text only and is shared by all who read it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .protocols import ClusterUnreachable, LogPart

FILE = "job-driver-{run_id}.log"
"""Its name in the folder of a Ray session's logs, on the node that runs the entrypoint."""
FETCH_S = 1.0
"""An answer is so old at most when it is given to another reader,"""
FETCH_REST = 4.0
"""or so many times as old as it took to come: to fetch long logs is not all that is done."""
KEPT_BYTES = 256 << 20
"""Answers of runs that were read last are kept, so long together; the newest is, however long it is."""


@dataclass
class _Fetched:
    """The last answer for one run. Who holds the lock may ask again."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    text: bytes = b""
    error: ClusterUnreachable | None = None
    due_s: float = float("-inf")


class JobLogs:
    """The logs of a cluster's jobs. `fetch` asks for all of one; `folder` is where Ray writes them, where this process
    can read it. Safe to use from several threads."""

    def __init__(
        self, fetch: Callable[[str], str], folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch, self._folder, self._clock = fetch, folder, clock
        self._answers: OrderedDict[str, _Fetched] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        """At most so many bytes from one on. `fresh`: what was fetched before this call does not do. Raises
        ClusterUnreachable."""
        part = None if self._folder is None else read_file(self._folder / FILE.format(run_id=run_id), offset, most)
        if part is not None:
            return part
        text = self._fetched(run_id, fresh)
        return LogPart(text[offset : offset + most], len(text))

    def _fetched(self, run_id: str, fresh: bool) -> bytes:
        with self._lock:
            answer = self._answers.setdefault(run_id, _Fetched())
            self._answers.move_to_end(run_id)
        with answer.lock:
            if fresh or self._clock() >= answer.due_s:
                self._ask(run_id, answer)
            text, error = answer.text, answer.error
        if error is not None:
            raise ClusterUnreachable(str(error))
        self._let_go()
        return text

    def _ask(self, run_id: str, answer: _Fetched) -> None:
        """What could not be had is not asked for again at once either: others wait for the same."""
        began_s = self._clock()
        try:
            answer.text, answer.error = self._fetch(run_id).encode(errors="replace"), None
        except ClusterUnreachable as error:
            answer.error = error
        took_s = self._clock() - began_s
        answer.due_s = self._clock() + max(FETCH_S, FETCH_REST * took_s)

    def _let_go(self) -> None:
        with self._lock:
            kept = sum(len(each.text) for each in self._answers.values())
            while kept > KEPT_BYTES and len(self._answers) > 1:
                kept -= len(self._answers.popitem(last=False)[1].text)


def read_file(path: Path, offset: int, most: int) -> LogPart | None:
    """A part of a file that may be growing; None where there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(offset)
            return LogPart(file.read(max(0, min(most, size - offset))), size)
    except FileNotFoundError:
        return None
