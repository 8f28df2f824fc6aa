"""The client for asyncio: the same calls, to await."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, overload

import httpx
from typing_extensions import Unpack

from . import _calls, types
from ._calls import Call, Filters
from ._errors import ClientError, error_of
from ._shared import (
    AWAY,
    LOG_TIMEOUT,
    STREAM_TIMEOUT,
    EventReader,
    Patience,
    delay_s,
    ended,
    find_again,
    log_ended,
    require_one,
    service_of,
    unanswered,
)

P = ParamSpec("P")
T = TypeVar("T")
Events = list[types.EventView]


class AsyncVerb(Generic[P, T]):
    """A method that makes one call and awaits what its answer becomes."""

    def __init__(self, call: Callable[P, Call[T]]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: AsyncClient | None, owner: type) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        """The method of a client."""
        if client is None:
            return self

        @wraps(self._call)
        async def method(*arguments: P.args, **named: P.kwargs) -> T:
            return await client.do(self._call(*arguments, **named))

        return method


class AsyncClient:
    """Speaks to the service of a home folder (`$RAYWISE_HOME`, or `~/.raywise`), or to the one at `url`."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        home: str | Path | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport` replaces the network, as httpx has it."""
        self._where, self._answered = (url, token, home), False
        self._http = httpx.AsyncClient(**service_of(url, token, home).options, transport=transport)

    submit = AsyncVerb(_calls.submit)
    plan = AsyncVerb(_calls.plan)
    page = AsyncVerb(_calls.page)
    list = AsyncVerb(_calls.list_)
    show = AsyncVerb(_calls.show)
    event_page = AsyncVerb(_calls.event_page)
    cancel = AsyncVerb(_calls.cancel)
    pause = AsyncVerb(_calls.pause)
    resume = AsyncVerb(_calls.resume)
    change = AsyncVerb(_calls.change)
    explain = AsyncVerb(_calls.explain)
    devices = AsyncVerb(_calls.devices)
    nodes = AsyncVerb(_calls.nodes)
    queues = AsyncVerb(_calls.queues)
    usage = AsyncVerb(_calls.usage)
    snapshot = AsyncVerb(_calls.snapshot)
    metrics = AsyncVerb(_calls.metrics)
    calibration = AsyncVerb(_calls.calibration)
    reset_calibration = AsyncVerb(_calls.reset_calibration)
    ready = AsyncVerb(_calls.ready)
    tokens = AsyncVerb(_calls.tokens)
    create_token = AsyncVerb(_calls.create_token)
    revoke_token = AsyncVerb(_calls.revoke_token)
    rotate_admin_token = AsyncVerb(_calls.rotate_admin_token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def workloads(self, **filters: Unpack[Filters]) -> AsyncIterator[types.Workload]:
        """All workloads, newest first, read page by page."""
        cursor: str | None = None
        while True:
            found = await self.page(cursor, 500, **filters)
            for workload in found["workloads"]:
                yield workload
            cursor = found["next_cursor"]
            if cursor is None:
                return

    @overload
    def events(
        self,
        workload_id: str | None = None,
        after: int | None = None,
        *,
        kinds: Iterable[str] | None = None,
        follow: Literal[False] = False,
    ) -> Awaitable[Events]: ...
    @overload
    def events(
        self,
        workload_id: str | None = None,
        after: int | None = None,
        *,
        kinds: Iterable[str] | None = None,
        follow: Literal[True],
    ) -> AsyncIterator[types.EventView]: ...
    def events(
        self,
        workload_id: str | None = None,
        after: int | None = None,
        *,
        kinds: Iterable[str] | None = None,
        follow: bool = False,
    ) -> Awaitable[Events] | AsyncIterator[types.EventView]:
        """What happened, oldest first, to a workload, a pipeline or all. With `follow` an iterator that waits for what
        comes, from now on or after a number; a connection that breaks is taken up where it was."""
        kinds = None if kinds is None else [*kinds]
        if follow:
            return self._follow_events(_calls.event_stream(workload_id, after, kinds))
        return self._all_events(workload_id, after or 0, kinds)

    @overload
    def logs(self, workload_id: str, offset: int = 0, *, follow: Literal[False] = False) -> Awaitable[str]: ...
    @overload
    def logs(self, workload_id: str, offset: int = 0, *, follow: Literal[True]) -> AsyncIterator[str]: ...
    def logs(self, workload_id: str, offset: int = 0, *, follow: bool = False) -> Awaitable[str] | AsyncIterator[str]:
        """All it printed so far, from a byte on. With `follow` an iterator over what comes until it has ended."""
        if follow:
            return self._follow_logs(workload_id, offset)
        return self.do(_calls.log_text(workload_id, offset))

    async def healthy(self) -> bool:
        """Whether the service answers."""
        try:
            await self.do(_calls.health())
        except ClientError:
            return False
        return True

    async def wait(
        self,
        workload_id: str,
        timeout_s: float | None = None,
        on_update: Callable[[types.Shown], None] | None = None,
        interval_s: float = 1.0,
    ) -> types.Shown:
        """Wait until everything has ended, also while the service is started anew; returns what `show` returns. Raises
        TimeoutError."""
        start, patience = time.monotonic(), Patience(self._answered)
        while True:
            pause_s = interval_s
            try:
                view = await self.show(workload_id)
            except ClientError as error:
                pause_s = patience.pause_s(error)
                find_again(self._http, *self._where)
            else:
                patience.heard()
                if on_update is not None:
                    on_update(view)
                if ended(view):
                    return view
            if timeout_s is not None and time.monotonic() - start > timeout_s:
                raise TimeoutError(f"{workload_id} has not ended after {timeout_s:g} s")
            await asyncio.sleep(pause_s)

    async def do(self, call: Call[T]) -> T:
        """Make a call. Raises ClientError, NoService or Refused."""
        tries = 0
        while True:
            try:
                response = await self._http.request(call.method, call.path, **call.arguments())
            except httpx.HTTPError as error:
                pause_s = delay_s(call, error, tries)
                if pause_s is None:
                    raise unanswered(self._http.base_url, error) from error
                tries += 1
                await asyncio.sleep(pause_s)
                continue
            self._answered = True
            if response.is_error:
                raise error_of(response)
            return call.answer(response)

    async def _all_events(self, workload_id: str | None, after: int, kinds: Iterable[str] | None) -> Events:
        events: Events = []
        number: int | None = after
        while number is not None:
            found = await self.event_page(workload_id, number, kinds)
            events += found["events"]
            number = found["next_after"]
        return events

    async def _follow_events(self, call: Call[None]) -> AsyncIterator[types.EventView]:
        reader, patience = EventReader(), Patience()
        while True:
            try:
                async for line in self._lines(call, reader):
                    patience.heard()
                    event = reader.read(line)
                    if event is not None:
                        yield event
            except httpx.HTTPError as error:
                patience.pause_s(unanswered(self._http.base_url, error))
                find_again(self._http, *self._where)
            await asyncio.sleep(reader.retry_s)

    async def _lines(self, call: Call[None], reader: EventReader) -> AsyncIterator[str]:
        headers = dict(reader.begin())
        arguments: dict[str, Any] = call.arguments() | {"headers": headers, "timeout": STREAM_TIMEOUT}
        async with self._http.stream(call.method, call.path, **arguments) as response:
            if response.is_error:
                await response.aread()
                if response.status_code not in AWAY:  # it is about to end: another may come
                    raise error_of(response)
                return
            async for line in response.aiter_lines():
                yield line

    async def _follow_logs(self, workload_id: str, offset: int) -> AsyncIterator[str]:
        view, patience = await self.show(workload_id), Patience()
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while True:
            begun = offset
            try:
                async for chunk in self._chunks(view["id"], offset):
                    patience.heard()
                    offset += len(chunk)
                    yield decode(chunk)
                view = await self.show(view["id"])
            except httpx.HTTPError as error:
                pause_s = self._log_broke(view, offset, patience, unanswered(self._http.base_url, error))
            except ClientError as error:
                pause_s = self._log_broke(view, offset, patience, error)
            else:
                patience.heard()
                if log_ended(view, offset > begun):
                    return
                pause_s = 0.0 if ended(view) else 1.0
            await asyncio.sleep(pause_s)

    def _log_broke(self, view: types.Shown, offset: int, patience: Patience, error: ClientError) -> float:
        """Seconds until a log is taken up again."""
        pause_s = patience.pause_s(error)
        if offset:
            require_one(view)
        find_again(self._http, *self._where)
        return pause_s

    async def _chunks(self, workload_id: str, offset: int) -> AsyncIterator[bytes]:
        call = _calls.log_stream(workload_id, offset)
        async with self._http.stream(call.method, call.path, params=dict(call.params), timeout=LOG_TIMEOUT) as response:
            if response.is_error:
                await response.aread()
                raise error_of(response)
            async for chunk in response.aiter_bytes():
                yield chunk
