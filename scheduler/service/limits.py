"""So many requests a second from one address: a token bucket each. Who is above it gets 429 and is told when to come
back."""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .access_log import QUIET_PATHS, App, Receive, Scope, Send

MAX_ADDRESSES = 10_000
"""Of so many addresses it is known what they asked; the one that was quiet for longest is forgotten."""


@dataclass(frozen=True)
class RateLimit:
    """What one address may ask in the long run, and at once."""

    requests_per_s: float
    burst: int


class Buckets:
    """What each address may still ask. Not for several threads: the server has one."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Take one request; 0, or the seconds until there is one."""
        now_s = self._clock()
        left, at_s = self._left.pop(address, (float(self._limit.burst), now_s))
        left = min(float(self._limit.burst), left + (now_s - at_s) * self._limit.requests_per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._limit.requests_per_s
        self._left[address] = (left if wait_s else left - 1, now_s)
        while len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return wait_s


class Limited:
    """An ASGI application around another, that lets no address ask too much. Probes are always answered."""

    def __init__(self, app: App, buckets: Buckets) -> None:
        self._app, self._buckets = app, buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        wait_s = 0.0
        if scope["type"] == "http" and scope["path"] not in QUIET_PATHS:
            wait_s = self._buckets.take(scope["client"][0] if scope.get("client") else "")
        if wait_s:
            await _refuse(send, wait_s)
        else:
            await self._app(scope, receive, send)


async def _refuse(send: Send, wait_s: float) -> None:
    body = {"type": "about:blank", "title": "too many requests from this address", "status": 429}
    headers = [(b"content-type", b"application/problem+json"), (b"retry-after", str(math.ceil(wait_s)).encode())]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
