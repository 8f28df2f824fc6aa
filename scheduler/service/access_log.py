"""A line for each request: method, path, status, milliseconds, address, and the user where the API knows one. Never a
query, a header or a body."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .logs import FIELDS

log = logging.getLogger("raywise.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

QUIET_PATHS = ("/api/v1/health", "/api/v1/ready")
"""Asked every few seconds by whoever watches: a good answer is logged at `debug` only."""
_SHOWN_PATH_CHARS = 300


class AccessLog:
    """An ASGI application around another, that logs what was asked of it."""

    def __init__(self, app: App, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start_s, status = self._clock(), 500
        scope.setdefault("state", {})

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            _tell(scope, status, (self._clock() - start_s) * 1000)


def _tell(scope: Scope, status: int, ms: float) -> None:
    path = _path(scope)
    level = logging.DEBUG if path in QUIET_PATHS and status < 400 else logging.INFO
    fields: dict[str, Any] = {"method": scope["method"], "path": path, "status": status, "ms": round(ms, 1)}
    fields |= {"client": scope["client"][0]} if scope.get("client") else {}
    user = scope["state"].get("user")
    fields |= {"user": str(getattr(user, "name", user))} if user is not None else {}
    log.log(level, "%s %s %d", scope["method"], path, status, extra={FIELDS: fields})


def _path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded: what is in it cannot end a line. Without the query."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "backslashreplace")
    path = bytes(raw).partition(b"?")[0].decode("ascii", "backslashreplace")
    return "".join(letter if letter.isprintable() else "?" for letter in path)[:_SHOWN_PATH_CHARS]
