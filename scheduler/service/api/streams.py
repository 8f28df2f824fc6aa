"""What does not end with the first answer: the stream of events (Server-Sent Events), and logs that are followed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from cluster.protocols import ClusterUnreachable
from workloads.errors import Problem

from ...states import ENDED
from ...store import Event, Record, StoreError
from .. import views
from ..run_logs import PART_BYTES
from ..runtime import Runtime
from ..users import needs
from .feed import EventFeed, TooManyStreams
from .finding import find
from .problems import ProblemError
from .reading import Kinds, WorkloadId

RETRY_MS = 2000
LOOK_S = 1.0
"""The cluster is asked this often for what a followed workload printed."""
_NO_STORE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def router(runtime: Runtime, feed: EventFeed) -> APIRouter:
    """The routes over a runtime; `feed` has its events."""
    routes = APIRouter(prefix="/api/v1", dependencies=[needs("viewer")])
    _add_events(routes, runtime, feed)
    _add_logs(routes, runtime, feed)
    return routes


def _add_events(routes: APIRouter, runtime: Runtime, feed: EventFeed) -> None:
    @routes.get("/events/stream", tags=["events"], response_class=StreamingResponse)
    async def stream(
        workload: Annotated[str | None, Query(description="Only of this workload or pipeline")] = None,
        kind: Kinds = None,
        after: Annotated[
            int | None, Query(ge=0, lt=2**63, description="From this number on; else only what is new")
        ] = None,
        last_id: Annotated[str | None, Header(alias="Last-Event-ID", description="Goes before `after`")] = None,
    ) -> StreamingResponse:
        """Events as they happen, as Server-Sent Events: `id` is the sequence number, `event` the kind, `data` the event
        as JSON. A stream that broke goes on where it was with `Last-Event-ID`."""
        found = None if workload is None else await run_in_threadpool(find, runtime.store, workload)
        ids = None if found is None else {record.id for record in found.records}
        kinds = None if kind is None else set(kind.split(","))
        start = _start(last_id, after, runtime.store.last_sequence)
        _room(feed)

        def wanted(event: Event) -> bool:
            return (ids is None or event.workload_id in ids) and (kinds is None or event.kind in kinds)

        return StreamingResponse(_events(feed, start, wanted), media_type="text/event-stream", headers=_NO_STORE)


def _room(feed: EventFeed) -> None:
    """Raise before the answer has begun where no stream can be opened."""
    if feed.closed:
        raise ProblemError(503, "the service is about to end")
    if feed.full:
        raise ProblemError(503, f"{feed.open_streams} streams are open already")


def _start(last_id: str | None, after: int | None, newest: int) -> int:
    """Where a stream begins: one that was ahead of the log goes on with what is new."""
    if last_id is None:
        return newest if after is None else min(after, newest)
    if not (last_id.isascii() and last_id.isdigit() and len(last_id) < 19):
        problem = Problem(f"expected a sequence number, got {last_id!r}", "header.Last-Event-ID")
        raise ProblemError(422, problem.message, [problem])
    return min(int(last_id), newest)


async def _events(feed: EventFeed, start: int, wanted: Callable[[Event], bool]) -> AsyncIterator[str]:
    """A reader that left events out is told their number: it goes on after them."""
    try:
        async with feed.stream():
            yield f"retry: {RETRY_MS}\nid: {start}\n\n"
            while not feed.closed:
                new = await feed.after(start, feed.heartbeat_s)
                for event in filter(wanted, new):
                    yield _sse(event)
                start = new[-1].sequence if new else start
                if not new and not feed.closed:
                    yield f": heartbeat\nid: {start}\n\n"
    except (TooManyStreams, StoreError):  # the reader comes back and goes on where it was
        return


def _sse(event: Event) -> str:
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {json.dumps(views.event(event))}\n\n"


def _add_logs(routes: APIRouter, runtime: Runtime, feed: EventFeed) -> None:
    @routes.get("/workloads/{workload_id}/logs", tags=["workloads"], response_class=PlainTextResponse)
    async def logs(
        workload_id: WorkloadId,
        offset: Annotated[int, Query(ge=0, lt=2**63, description="Leave out so many bytes; of one workload only")] = 0,
        follow: Annotated[bool, Query(description="Go on until it has ended")] = False,
    ) -> Response:
        """What it printed, all attempts; of a pipeline with a line `=== ID` before each workload's. `X-Next-Offset`
        says where a later request goes on."""
        found = await run_in_threadpool(find, runtime.store, workload_id)
        if offset and found.is_pipeline:
            problem = Problem("a pipeline has several logs", "query.offset", "name one of its workloads")
            raise ProblemError(422, problem.message, [problem])
        if follow:
            _room(feed)
            return StreamingResponse(
                _followed(runtime, feed, found.records, offset),
                media_type="text/plain; charset=utf-8",
                headers=_NO_STORE,
            )
        whole = await run_in_threadpool(_Whole, runtime, found.records, offset)
        headers = {"X-Next-Offset": str(max(offset, whole.end))}
        return StreamingResponse(whole.parts(), media_type="text/plain; charset=utf-8", headers=headers)


class _Whole:
    """All that some workloads have printed by now, from a byte on; of several with a line before each."""

    def __init__(self, runtime: Runtime, records: list[Record], offset: int) -> None:
        """Raises ClusterUnreachable."""
        begun = [record for record in records if record.attempt]
        self._runtime, self._offset = runtime, offset
        self._sizes = [(record, runtime.logs.size(record)) for record in begun]
        self._heads = len(records) > 1
        self.end = sum(size for _, size in self._sizes)

    def parts(self) -> Iterator[bytes]:
        """Piece by piece: a log may be long."""
        for number, (record, size) in enumerate(self._sizes):
            if self._heads:
                yield (("\n" if number else "") + f"=== {record.id}\n").encode()
            place = self._offset
            while place < size and (data := self._runtime.logs.read(record, place, min(PART_BYTES, size - place))):
                yield data
                place += len(data)


class _Tail:
    """What is new in one workload's log since it was last looked at. Until it has ended only whole lines are new: one
    that is being written may end otherwise."""

    def __init__(self, runtime: Runtime, record: Record, offset: int = 0) -> None:
        self._runtime, self._id, self._shown, self.ended = runtime, record.id, offset, False

    def read(self) -> tuple[bytes, bool]:
        """A part of what came, and whether there may be more now. A cluster that does not answer is asked again."""
        record = self._runtime.store.get(self._id)
        if record is None or not record.attempt:
            self.ended = record is None or record.state in ENDED
            return b"", False
        ended = record.state in ENDED and self._runtime.logs.is_whole(record)
        try:
            raw = self._runtime.logs.read(record, self._shown, PART_BYTES)
        except ClusterUnreachable:
            return b"", False
        more = len(raw) == PART_BYTES
        self.ended = ended and not more
        new = raw if ended else raw[: raw.rfind(b"\n") + 1] or (raw if more else b"")
        self._shown += len(new)
        return new, more


async def _followed(runtime: Runtime, feed: EventFeed, records: list[Record], offset: int) -> AsyncIterator[bytes]:
    """With several workloads a line `=== ID` stands wherever another one goes on."""
    tails = {record.id: _Tail(runtime, record, offset) for record in records}
    last = ""
    try:
        async with feed.stream():
            while not feed.closed:
                waits = True
                for workload_id, tail in tails.items():
                    new, more = (b"", False) if tail.ended else await run_in_threadpool(tail.read)
                    waits = waits and not more
                    if new:
                        head = f"=== {workload_id}\n" if len(tails) > 1 and workload_id != last else ""
                        last = workload_id
                        yield head.encode() + new
                if all(tail.ended for tail in tails.values()):
                    return
                if waits:
                    await feed.pause(LOOK_S)
    except TooManyStreams:
        return
