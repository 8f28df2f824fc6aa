"""New events, for any number of readers: one loop looks whether the log has grown, and reads what came once. A reader
asks for what comes after the last event it has; who is far behind reads the store. Nothing is kept for a slow reader.

One event loop of asyncio has all of it. `close` ends every stream; it may be called from a signal handler.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from fastapi.concurrency import run_in_threadpool

from workloads.errors import RaywiseError

from ...store import Event, Store, StoreError

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""The loop looks this often; it compares two numbers."""
HEARTBEAT_S = 15.0
"""A stream that has nothing to say gives a sign of life this often, so that no proxy ends it."""
KEPT = 2000
"""So many of the newest events are in memory."""
READ = 500
"""So many are read from the store at once."""
MAX_STREAMS = 256


class TooManyStreams(RaywiseError):
    """More streams than `MAX_STREAMS` are open."""


class EventFeed:
    """The newest events of a store."""

    def __init__(
        self,
        store: Store,
        *,
        look_s: float = LOOK_S,
        heartbeat_s: float = HEARTBEAT_S,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._store, self._look_s, self._max_streams = store, look_s, max_streams
        self.heartbeat_s = heartbeat_s
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._whole_after = 0
        """All events after this number are in `_kept`."""
        self._newest = 0
        """All events up to this one have been seen by the loop."""
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.open_streams = 0

    @property
    def closed(self) -> bool:
        """Whether streams shall end."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether no more streams may be opened."""
        return self.open_streams >= self._max_streams

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[EventFeed]:
        """Counts as an open stream; the loop runs as long as there is one. Raises TooManyStreams."""
        if self.full:
            raise TooManyStreams(f"{self.open_streams} streams are open already")
        self.open_streams += 1
        try:
            self._run()
            yield self
        finally:
            self.open_streams -= 1
            if not self.open_streams and self._task is not None:
                self._task.cancel()
                self._task = None

    async def after(self, sequence: int, timeout_s: float) -> list[Event]:
        """Events after this one, oldest first, as soon as there are any; none after so many seconds, or when streams
        shall end. What the reader's filter leaves out is among them. Raises StoreError where they had to be read."""
        if sequence >= self._newest:
            await self.news(timeout_s)
        if self._closed or sequence >= self._newest:
            return []
        if sequence >= self._whole_after:
            return [event for event in self._kept if event.sequence > sequence]
        return await run_in_threadpool(self._store.events, after=sequence, limit=READ)

    async def news(self, timeout_s: float) -> None:
        """Wait until the log has grown or streams shall end, so many seconds at most."""
        if self._closed:
            return
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return

    async def pause(self, seconds: float) -> None:
        """Wait, unless streams shall end."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._closed and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left_s, self._look_s))

    def close(self) -> None:
        """End every stream. From any thread, and from a signal handler."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell)

    def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._task is None or self._task.done():
            self._kept.clear()
            self._whole_after = self._newest = self._store.last_sequence
            self._news = asyncio.Event()
            self._task = self._loop.create_task(self._watch(), name="events")

    async def _watch(self) -> None:
        while not self._closed:
            if self._store.last_sequence > self._newest:
                await self._read()
            else:
                await asyncio.sleep(self._look_s)
        self._tell()

    async def _read(self) -> None:
        """A store that cannot be read for a moment is read again."""
        try:
            new: Sequence[Event] = await run_in_threadpool(self._store.events, after=self._newest, limit=READ)
        except StoreError as error:
            log.warning("events cannot be read: %s", error)
            new = ()
        if new:
            self._keep(new)
            self._newest = new[-1].sequence
            self._tell()
        else:
            await asyncio.sleep(self._look_s)

    def _keep(self, new: Sequence[Event]) -> None:
        self._kept.extend(new)
        if len(self._kept) == KEPT:
            self._whole_after = max(self._whole_after, self._kept[0].sequence - 1)

    def _tell(self) -> None:
        """Wake every reader; those who come later wait for the next time."""
        self._news.set()
        self._news = asyncio.Event()


def close_on_signals(feed: EventFeed) -> None:
    """Streams end when the process is told to: a server waits for its open answers before it ends. The handlers that
    are there are called afterwards. Nothing outside the main thread, where a process has no signals."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _closing(feed, before))


def _closing(feed: EventFeed, before: Any) -> Any:
    def handler(number: int, frame: FrameType | None) -> None:
        feed.close()
        before(number, frame)

    return handler
