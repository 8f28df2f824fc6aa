"""The door of the API: an ASGI application around it that lets in only what is from somebody, of a bearable size, and
sent in a bearable time.

In this order: the form of the request (host, URL, headers), who it is from, what they may do, how often they came, and
the body. Whatever route comes behind it is guarded: all need a token but `OPEN_PATHS`, and what is not in `LEAST_ROLES`
needs a submitter unless it only reads.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .api.problems import problem_response
from .auth import Denied, Grant, Tokens
from .buckets import Buckets
from .streams import Stream
from .token_text import ADMIN

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, list[bytes]]

OPEN_PATHS = ("/api/v1/health", "/api/v1/ready")
"""Probes: answered to anybody."""
READING = ("GET", "HEAD", "OPTIONS")
LEAST_ROLES: tuple[tuple[str, str, str], ...] = (
    ("/api/v1/tokens", "", ADMIN),
    ("/api/v1/calibration", "DELETE", ADMIN),
)
"""Start of a path, method (empty: any) and the least role; what a route itself asks for comes on top."""
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}
_CSP = b"default-src 'none'; frame-ancestors 'none'"
_CSP_OF_PAGES = (
    b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'"
)
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string, or one that does not end. Each byte is looked at once."""
_DEPTH = np.zeros(256, dtype=np.int8)
_DEPTH[[ord("["), ord("{")]], _DEPTH[[ord("]"), ord("}")]] = 1, -1


@dataclass(frozen=True)
class Limits:
    """What the guard bears. The defaults are far above what the command line, a page and scripts ask for."""

    body_bytes: int = 4 << 20
    body_s: float = 30.0
    """A body must be there whole after so many seconds."""
    url_bytes: int = 8 << 10
    header_bytes: int = 32 << 10
    headers: int = 100
    json_depth: int = 64
    requests_per_s: float = 100.0
    """Of one token, in the long run."""
    burst: int = 1000
    """Of one token, at once."""
    failures_per_s: float = 1.0
    """Requests of one address without a good token, in the long run; the next ones get 429."""
    failures_burst: int = 60
    stream_check_s: float = 2.0
    """An answer that goes on ends so soon after its token was revoked or expired."""
    hosts: tuple[str, ...] = ()
    """Names in `Host` that are ours, beside those of loopback: a reverse proxy's on this machine. On another address
    than loopback any name is, where this is empty, and the address itself always."""


class Refusal(Exception):
    """The answer to what is not let in."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: App, tokens: Tokens, limits: Limits = Limits()) -> None:
        self._app, self._tokens, self._limits = app, tokens, limits
        self._requests = Buckets(limits.requests_per_s, limits.burst)
        self._failures = Buckets(limits.failures_per_s, limits.failures_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:  # there are no other routes
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = Stream(_with_headers(send, scope), self._limits.stream_check_s)
        try:
            headers = _check_form(scope, self._limits)
            grant = None if scope["path"] in OPEN_PATHS else self._admit(scope, headers)
            if _has_body(scope, headers):
                receive = _replay(await _body(receive, headers, self._limits), receive)
            valid = (lambda: True) if grant is None else (lambda: self._tokens.is_valid(grant))
            await stream.run(lambda sending: self._app(scope, receive, sending), valid)
        except Refusal as refusal:
            await _answer(stream.send, refusal, scope["path"])
        except Exception:
            if not stream.begun:
                await _answer(stream.send, Refusal(500, "the service failed; its log tells more"), scope["path"])
            raise

    def _admit(self, scope: Scope, headers: Headers) -> Grant:
        """Who it is from. Raises Refusal."""
        given = [value.decode("latin-1") for value in headers.get(b"authorization", [])]
        try:
            grant = self._tokens.check(given[0] if len(given) == 1 else None)
        except Denied as denied:
            raise self._unknown(scope, str(denied)) from None
        least = least_role(scope["method"], scope["path"])
        if not grant.user.may(least):
            raise Refusal(403, f"this needs the role {least}; this token has {grant.user.role}")
        if wait_s := self._requests.take(grant.user.token_id):
            raise _too_many("too many requests with this token", wait_s)
        scope.setdefault("state", {})["user"] = grant.user
        return grant

    def _unknown(self, scope: Scope, title: str) -> Refusal:
        """An address that only guesses is told to wait; a good token from there is let in all the same: nobody shuts
        out another who shares the address."""
        address = scope["client"][0] if scope.get("client") else ""
        if wait_s := self._failures.take(address):
            return _too_many("too many requests without a valid token from this address", wait_s)
        return Refusal(401, title, ((b"www-authenticate", b'Bearer realm="raywise"'),))


def least_role(method: str, path: str) -> str:
    """The least role that may ask for this at all."""
    for start, of_method, role in LEAST_ROLES:
        if (path == start or path.startswith(f"{start}/")) and of_method in ("", method):
            return role
    return "viewer" if method in READING else "submitter"


def depth(body: bytes) -> int:
    """How deep JSON is nested, whether it is whole or not."""
    levels = np.cumsum(_DEPTH[np.frombuffer(_STRINGS.sub(b"", body), dtype=np.uint8)], dtype=np.int32)
    return int(levels.max(initial=0))


def _too_many(title: str, wait_s: float) -> Refusal:
    return Refusal(429, title, ((b"retry-after", str(math.ceil(wait_s)).encode()),))


def _check_form(scope: Scope, limits: Limits) -> Headers:
    """The headers by name. Raises Refusal for a request that has no form we answer to."""
    raw: Iterable[tuple[bytes, bytes]] = scope["headers"]
    headers: Headers = {}
    for name, value in raw:
        headers.setdefault(name.lower(), []).append(value)
    url_bytes = len(scope.get("raw_path") or scope["path"].encode("utf-8", "replace")) + len(scope["query_string"])
    if url_bytes > limits.url_bytes:
        raise Refusal(414, f"a URL has at most {limits.url_bytes:,} bytes")
    sizes = [len(name) + len(value) for name, value in scope["headers"]]
    if len(sizes) > limits.headers or sum(sizes) > limits.header_bytes:
        raise Refusal(431, f"there are at most {limits.headers} headers of {limits.header_bytes:,} bytes")
    if any(not letter.isprintable() for letter in scope["path"]) or b"%00" in scope["query_string"]:
        raise Refusal(400, "the URL has a character that is none of a text")
    _check_host(scope, headers, limits.hosts)
    return headers


def _check_host(scope: Scope, headers: Headers, hosts: tuple[str, ...]) -> None:
    """On loopback only requests to a name of loopback are ours: a page of elsewhere whose name was made to point here
    (DNS rebinding) speaks to a name of its own. Raises Refusal."""
    given = headers.get(b"host", [])
    name = _host_name(given[0].decode("latin-1")) if len(given) == 1 else ""
    ours = name in hosts or _is_loopback(name)
    if not ours and not _on_loopback(scope):
        ours = not hosts or (name != "" and name == _server(scope))
    if not ours:
        raise Refusal(421, "this service does not go by the name in the Host header")


def _host_name(host: str) -> str:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _on_loopback(scope: Scope) -> bool:
    return _is_loopback(_server(scope))


def _server(scope: Scope) -> str:
    """The address that the request came to."""
    server = scope.get("server")
    return "" if server is None else str(server[0])


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _has_body(scope: Scope, headers: Headers) -> bool:
    """A request that only reads and says nothing of a body has none: what it may still receive is its end."""
    return scope["method"] not in READING or bool(headers.keys() & {b"content-length", b"transfer-encoding"})


async def _body(receive: Receive, headers: Headers, limits: Limits) -> bytes:
    """The whole body, counted as it comes: what a header says of its length may be a lie. Raises Refusal."""
    too_large = Refusal(413, f"a request body has at most {limits.body_bytes:,} bytes")
    said = headers.get(b"content-length", [b"0"])
    if len(set(said)) != 1 or not said[0].isdigit():
        raise Refusal(400, "the content-length is no number")
    if int(said[0][:20]) > limits.body_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.body_s):
            more = True
            while more:
                message = await receive()
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                more = message["type"] == "http.request" and message.get("more_body", False)
                if size > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the request body was not there after {limits.body_s:g} s") from None
    body = b"".join(parts)
    if _is_json(headers) and depth(body) > limits.json_depth:
        raise Refusal(400, f"JSON is nested at most {limits.json_depth} deep")
    if _is_json(headers) and b"\\ud" in body.lower() and _has_half_characters(body):
        raise Refusal(400, "a text has half of a surrogate pair, which is no character")
    return body


def _has_half_characters(body: bytes) -> bool:
    """Whether JSON has a text that no answer, no file and no database can hold."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except ValueError:  # no JSON: the route says so
        return False
    return False


def _is_json(headers: Mapping[bytes, list[bytes]]) -> bool:
    kinds = headers.get(b"content-type", [])
    return not kinds or any(b"json" in kind.lower() for kind in kinds)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever comes after it."""
    told = False

    async def receiving() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _with_headers(send: Send, scope: Scope) -> Send:
    """Every answer says how a browser is to treat it, unless its route says so itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            present = {name.lower(): value for name, value in headers}
            page = present.get(b"content-type", b"").startswith(b"text/html")
            wanted = _HEADERS | {b"content-security-policy": _CSP_OF_PAGES if page else _CSP}
            if scope.get("scheme") == "https":
                wanted[b"strict-transport-security"] = b"max-age=31536000"
            message["headers"] = headers + [pair for pair in wanted.items() if pair[0] not in present]
        await send(message)

    return sending


async def _answer(send: Send, refusal: Refusal, path: str) -> None:
    answer = problem_response(refusal.status, refusal.detail, None, path)
    headers = [*answer.raw_headers, *refusal.headers]
    if refusal.status in (400, 408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body may still be under way
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
