"""The client that waits for each answer."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Iterator
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


class Verb(Generic[P, T]):
    """A method that makes one call and returns what its answer becomes."""

    def __init__(self, call: Callable[P, Call[T]]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    def __get__(self, client: Client | None, owner: type) -> Self | Callable[P, T]:
        """The method of a client."""
        if client is None:
            return self

        @wraps(self._call)
        def method(*arguments: P.args, **named: P.kwargs) -> T:
            return client.do(self._call(*arguments, **named))

        return method


class Client:
    """Speaks to the service of a home folder (`$RAYWISE_HOME`, or `~/.raywise`), or to the one at `url`."""

    def __init__(self, url: str | None = None, token: str | None = None, home: str | Path | None = None) -> None:
        self._where, self._answered = (url, token, home), False
        self._http = httpx.Client(**service_of(url, token, home).options)

    submit = Verb(_calls.submit)
    plan = Verb(_calls.plan)
    page = Verb(_calls.page)
    list = Verb(_calls.list_)
    show = Verb(_calls.show)
    event_page = Verb(_calls.event_page)
    cancel = Verb(_calls.cancel)
    pause = Verb(_calls.pause)
    resume = Verb(_calls.resume)
    change = Verb(_calls.change)
    explain = Verb(_calls.explain)
    devices = Verb(_calls.devices)
    nodes = Verb(_calls.nodes)
    queues = Verb(_calls.queues)
    usage = Verb(_calls.usage)
    snapshot = Verb(_calls.snapshot)
    metrics = Verb(_calls.metrics)
    calibration = Verb(_calls.calibration)
    reset_calibration = Verb(_calls.reset_calibration)
    ready = Verb(_calls.ready)
    tokens = Verb(_calls.tokens)
    create_token = Verb(_calls.create_token)
    revoke_token = Verb(_calls.revoke_token)
    rotate_admin_token = Verb(_calls.rotate_admin_token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def workloads(self, **filters: Unpack[Filters]) -> Iterator[types.Workload]:
        """All workloads, newest first, read page by page."""
        cursor: str | None = None
        while True:
            found = self.page(cursor, 500, **filters)
            yield from found["workloads"]
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
    ) -> Events: ...
    @overload
    def events(
        self,
        workload_id: str | None = None,
        after: int | None = None,
        *,
        kinds: Iterable[str] | None = None,
        follow: Literal[True],
    ) -> Iterator[types.EventView]: ...
    def events(
        self,
        workload_id: str | None = None,
        after: int | None = None,
        *,
        kinds: Iterable[str] | None = None,
        follow: bool = False,
    ) -> Events | Iterator[types.EventView]:
        """What happened, oldest first, to a workload, a pipeline or all. With `follow` an iterator that waits for what
        comes, from now on or after a number; a connection that breaks is taken up where it was."""
        kinds = None if kinds is None else [*kinds]
        if follow:
            return self._follow_events(_calls.event_stream(workload_id, after, kinds))
        events: Events = []
        number: int | None = after or 0
        while number is not None:
            found = self.event_page(workload_id, number, kinds)
            events += found["events"]
            number = found["next_after"]
        return events

    @overload
    def logs(self, workload_id: str, offset: int = 0, *, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, workload_id: str, offset: int = 0, *, follow: Literal[True]) -> Iterator[str]: ...
    def logs(self, workload_id: str, offset: int = 0, *, follow: bool = False) -> str | Iterator[str]:
        """All it printed so far, from a byte on. With `follow` an iterator over what comes until it has ended."""
        if follow:
            return self._follow_logs(workload_id, offset)
        return self.do(_calls.log_text(workload_id, offset))

    def healthy(self) -> bool:
        """Whether the service answers."""
        try:
            self.do(_calls.health())
        except ClientError:
            return False
        return True

    def wait(
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
                view = self.show(workload_id)
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
            time.sleep(pause_s)

    def do(self, call: Call[T]) -> T:
        """Make a call. Raises ClientError, NoService or Refused."""
        tries = 0
        while True:
            try:
                response = self._http.request(call.method, call.path, **call.arguments())
            except httpx.HTTPError as error:
                pause_s = delay_s(call, error, tries)
                if pause_s is None:
                    raise unanswered(self._http.base_url, error) from error
                tries += 1
                time.sleep(pause_s)
                continue
            self._answered = True
            if response.is_error:
                raise error_of(response)
            return call.answer(response)

    def _follow_events(self, call: Call[None]) -> Iterator[types.EventView]:
        reader, patience = EventReader(), Patience()
        while True:
            try:
                for line in self._lines(call, reader):
                    patience.heard()
                    event = reader.read(line)
                    if event is not None:
                        yield event
            except httpx.HTTPError as error:
                patience.pause_s(unanswered(self._http.base_url, error))
                find_again(self._http, *self._where)
            time.sleep(reader.retry_s)

    def _lines(self, call: Call[None], reader: EventReader) -> Iterator[str]:
        headers = dict(reader.begin())
        arguments: dict[str, Any] = call.arguments() | {"headers": headers, "timeout": STREAM_TIMEOUT}
        with self._http.stream(call.method, call.path, **arguments) as response:
            if response.is_error:
                response.read()
                if response.status_code not in AWAY:  # it is about to end: another may come
                    raise error_of(response)
                return
            yield from response.iter_lines()

    def _follow_logs(self, workload_id: str, offset: int) -> Iterator[str]:
        view, patience = self.show(workload_id), Patience()
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while True:
            begun = offset
            try:
                for chunk in self._chunks(view["id"], offset):
                    patience.heard()
                    offset += len(chunk)
                    yield decode(chunk)
                view = self.show(view["id"])
            except httpx.HTTPError as error:
                pause_s = self._log_broke(view, offset, patience, unanswered(self._http.base_url, error))
            except ClientError as error:
                pause_s = self._log_broke(view, offset, patience, error)
            else:
                patience.heard()
                if log_ended(view, offset > begun):
                    return
                pause_s = 0.0 if ended(view) else 1.0
            time.sleep(pause_s)

    def _log_broke(self, view: types.Shown, offset: int, patience: Patience, error: ClientError) -> float:
        """Seconds until a log is taken up again."""
        pause_s = patience.pause_s(error)
        if offset:
            require_one(view)
        find_again(self._http, *self._where)
        return pause_s

    def _chunks(self, workload_id: str, offset: int) -> Iterator[bytes]:
        call = _calls.log_stream(workload_id, offset)
        with self._http.stream(call.method, call.path, params=dict(call.params), timeout=LOG_TIMEOUT) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            yield from response.iter_bytes()
