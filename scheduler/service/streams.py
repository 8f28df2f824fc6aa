"""An answer on its way: whether it has begun, and, where it goes on for long, whether it may still go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Stream:
    """One answer. While it is sent in parts, it is asked at intervals whether it is still allowed, and ended where it
    is not: also one in which nothing happens."""

    def __init__(self, send: Send, check_s: float) -> None:
        self._send, self._check_s = send, check_s
        self._valid: Callable[[], bool] = lambda: True
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut = self._has_length = False
        self.begun = self.ended = False

    async def run(self, app: Callable[[Send], Awaitable[None]], valid: Callable[[], bool]) -> None:
        """Let the application answer, for as long as `valid` says so."""
        self._valid, self._task = valid, asyncio.current_task()
        try:
            await app(self.send)
        except asyncio.CancelledError:
            if not self._cut or self._task is None:
                raise
            self._task.uncancel()
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if self._cut and not self.ended and not self._has_length:  # a length that is not kept: the server hangs up
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer."""
        if message["type"] == "http.response.start":
            self.begun = True
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
            if not self.ended and self._timer is None:
                self._watch()
        await self._send(message)

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._check_s, self._look)

    def _look(self) -> None:
        if self._valid():
            self._watch()
        elif self._task is not None:
            self._cut = True
            self._task.cancel("its token opens nothing any more")
