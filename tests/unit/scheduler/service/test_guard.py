"""The door of the API: what is let in, in which form, how often and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.service import auth
from scheduler.service.api.problems import KINDS
from scheduler.service.buckets import MAX_KEYS, Buckets
from scheduler.service.guard import Guard, Limits, Message, Receive, Scope, Send, depth, least_role
from scheduler.store import Store

ADMIN = "rw_admin_" + "a" * 43
BY = auth.User("admin", "admin", "admin")


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[auth.Tokens]:
    store = Store(tmp_path / "raywise.db")
    auth.remember(store, ADMIN)
    yield auth.Tokens(store)
    store.close()


class Answer:
    """What a guarded application sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.begun = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        self.begun.set()

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        found = json.loads(self.body)
        kind = KINDS[self.status]
        assert (found["type"], found["title"], found["status"]) == (kind.uri, kind.title, self.status)
        return found["detail"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back who asked, and the body."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    user = scope.get("state", {}).get("user")
    headers = [(b"content-type", b"text/html" if scope["path"] == "/page" else b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"{user and user.name}:".encode() + b"".join(parts)})


def scope(method: str = "GET", path: str = "/x", token: str | None = ADMIN, **changes: Any) -> Scope:
    headers = [(b"host", b"127.0.0.1:1")] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    made: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 1),
        "scheme": "http",
    }
    made["headers"] = headers + list(changes.pop("headers", []))
    return made | changes


async def _ask(guard: Guard, asked: Scope, *body: bytes) -> Answer:
    answer, parts = Answer(), list(body) or [b""]

    async def receive() -> Message:
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    await guard(asked, receive, answer.send)
    return answer


def ask(guard: Guard, asked: Scope, *body: bytes) -> Answer:
    return asyncio.run(_ask(guard, asked, *body))


def test_a_good_token_is_let_in_and_the_route_knows_who_it_is(tokens: auth.Tokens) -> None:
    _, secret = tokens.create("ann", "submitter", BY)
    answer = ask(Guard(echo, tokens), scope("POST", token=secret), b'{"a":', b"1}")
    assert (answer.status, answer.body) == (200, b'ann:{"a":1}')


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/ready"])
def test_probes_need_no_token(tokens: auth.Tokens, path: str) -> None:
    assert ask(Guard(echo, tokens), scope(path=path, token=None)).body == b"None:"


@pytest.mark.parametrize(
    "path", ["/api/v1/health/", "/api/v1/healthy", "/api/v1/health/../tokens", "//api/v1/health", "/API/v1/health"]
)
def test_nothing_beside_the_probes_is_open(tokens: auth.Tokens, path: str) -> None:
    answer = ask(Guard(echo, tokens), scope(path=path, token=None))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="raywise"')


def test_two_authorizations_are_none(tokens: auth.Tokens) -> None:
    twice = [(b"authorization", f"Bearer {ADMIN}".encode())]
    assert ask(Guard(echo, tokens), scope(headers=twice)).status == 401


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/api/v1/workloads", "viewer"),
        ("HEAD", "/metrics", "viewer"),
        ("POST", "/api/v1/workloads", "submitter"),
        ("PATCH", "/api/v1/whatever-comes", "submitter"),
        ("DELETE", "/api/v1/calibration", "admin"),
        ("GET", "/api/v1/calibration", "viewer"),
        ("GET", "/api/v1/tokens", "admin"),
        ("POST", "/api/v1/tokens", "admin"),
        ("DELETE", "/api/v1/tokens/x", "admin"),
        ("GET", "/api/v1/tokens-of-elsewhere", "viewer"),
    ],
)
def test_roles(tokens: auth.Tokens, method: str, path: str, role: str) -> None:
    assert least_role(method, path) == role
    for number, having in enumerate(auth.ROLES):
        _, secret = tokens.create(f"{having}{number}", having, BY)
        answer = ask(Guard(echo, tokens), scope(method, path, token=secret))
        if number >= auth.ROLES.index(role):
            assert answer.status == 200
        else:
            assert (answer.status, answer.problem) == (403, f"this needs the role {role}; this token has {having}")


def test_a_token_that_comes_too_often_is_told_when_to_come_back(tokens: auth.Tokens) -> None:
    guard = Guard(echo, tokens, Limits(burst=2, requests_per_s=0.1))
    _, other = tokens.create("ann", "viewer", BY)
    answers = [ask(guard, scope()) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 10
    assert ask(guard, scope(token=other)).status == 200


def test_an_address_that_guesses_is_slowed_and_shuts_out_nobody(tokens: auth.Tokens) -> None:
    guard = Guard(echo, tokens, Limits(failures_burst=2, failures_per_s=0.1))
    assert [ask(guard, scope(token=f"rw_{i}_x")).status for i in range(3)] == [401, 401, 429]
    assert ask(guard, scope(token="x", client=("10.0.0.1", 1))).status == 401
    assert ask(guard, scope()).status == 200


def test_buckets_fill_again_and_forget_the_quietest() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 2, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.5]
    for number in range(MAX_KEYS):
        buckets.take(str(number))
    assert buckets.take("a") == 0.0, "forgotten"


BIG = 100


@pytest.mark.parametrize("said", [None, b"3", b"99"], ids=["chunked", "a length that lies", "a length below the limit"])
def test_a_body_is_counted_as_it_comes(tokens: auth.Tokens, said: bytes | None) -> None:
    guard = Guard(echo, tokens, Limits(body_bytes=BIG))
    headers = [(b"transfer-encoding", b"chunked")] if said is None else [(b"content-length", said)]
    answer = ask(guard, scope("POST", headers=headers), *[b"x" * 40] * 3)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert ask(guard, scope("POST", headers=headers[:0]), *[b"x" * 50] * 2).status == 200


@pytest.mark.parametrize("said", [b"101", b"1" * 5000], ids=["above", "far above"])
def test_a_length_above_the_limit_is_refused_at_once(tokens: auth.Tokens, said: bytes) -> None:
    guard = Guard(echo, tokens, Limits(body_bytes=BIG))
    assert ask(guard, scope("POST", headers=[(b"content-length", said)])).status == 413


@pytest.mark.parametrize("said", [[b"-1"], [b"1e3"], [b""], [b"3", b"4"]])
def test_a_length_that_is_none(tokens: auth.Tokens, said: list[bytes]) -> None:
    asked = scope("POST", headers=[(b"content-length", each) for each in said])
    assert ask(Guard(echo, tokens), asked, b"abc").problem == "the content-length is no number"


def test_a_body_of_a_reading_request_is_counted_too(tokens: auth.Tokens) -> None:
    guard = Guard(echo, tokens, Limits(body_bytes=BIG))
    headers = [(b"transfer-encoding", b"chunked")]
    assert ask(guard, scope("GET", headers=headers), *[b"x" * 60] * 2).status == 413


def test_a_body_that_never_ends_is_not_waited_for(tokens: auth.Tokens) -> None:
    async def never() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    answer = Answer()
    guard = Guard(echo, tokens, Limits(body_s=0.01))
    asyncio.run(guard(scope("POST"), never, answer.send))
    assert answer.status == 408


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"", 0),
        (b'{"a": [1, {"b": "]]]]"}]}', 3),
        (b"[" * 50 + b"]" * 50, 50),
        (b'"[[[["', 0),
        (b'"\\"[[["', 0),
        (b'["\\\\", [["', 3),
        (b'"[[[ no end', 0),
        (b'"' + b'\\"' * 1_000_000, 0),
        (b"[]" * 10, 1),
        (b"]]]][", 0),
    ],
)
def test_how_deep_json_is(body: bytes, deep: int) -> None:
    assert depth(body) == deep


def test_json_nested_too_deep_is_refused_before_it_is_parsed(tokens: auth.Tokens) -> None:
    deep, shallow = b"[" * 65 + b"]" * 65, b"[" * 64 + b"]" * 64
    guard = Guard(echo, tokens)
    for kind in (b"application/json", b"application/merge-patch+json"):
        headers = [(b"content-type", kind)]
        assert ask(guard, scope("POST", headers=headers), deep).problem == "JSON is nested at most 64 deep"
        assert ask(guard, scope("POST", headers=headers), shallow).status == 200
    assert ask(guard, scope("POST"), deep).status == 400, "no type said"
    assert ask(guard, scope("POST", headers=[(b"content-type", b"application/zip")]), deep).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": "\\ud800"}', 400),
        (b'{"\\uDfff": 1}', 400),
        (b'{"a": "\\ud83d\\ude00"}', 200),
        (b'{"a": "\\\\ud800"}', 200),
        (b'{"a": "\\ud800', 200),
    ],
    ids=["half", "half of a name", "a whole pair", "an escaped backslash", "no JSON: the route's business"],
)
def test_half_of_a_character_is_refused(tokens: auth.Tokens, body: bytes, status: int) -> None:
    assert ask(Guard(echo, tokens), scope("POST"), body).status == status


def test_long_urls_and_headers(tokens: auth.Tokens) -> None:
    guard = Guard(echo, tokens)
    assert ask(guard, scope(query_string=b"a=" + b"x" * 9000)).status == 414
    assert ask(guard, scope(path="/" + "x" * 9000)).status == 414
    assert ask(guard, scope(headers=[(b"x", b"y" * 40_000)])).status == 431
    assert ask(guard, scope(headers=[(b"x", b"y")] * 200)).status == 431


@pytest.mark.parametrize("changes", [{"path": "/a\x00"}, {"path": "/a\nb"}, {"query_string": b"state=a%00b"}])
def test_characters_that_are_none_of_a_text(tokens: auth.Tokens, changes: dict[str, Any]) -> None:
    assert ask(Guard(echo, tokens), scope(**changes)).status == 400


def hosted(host: str, server: str, *hosts: str) -> tuple[Limits, Scope]:
    asked = scope(path="/api/v1/health", token=None, server=(server, 1))
    asked["headers"] = [(b"host", host.encode())] if host else []
    return Limits(hosts=hosts), asked


@pytest.mark.parametrize(
    ("host", "server", "hosts", "status"),
    [
        ("127.0.0.1:1", "127.0.0.1", (), 200),
        ("localhost", "127.0.0.1", (), 200),
        ("LOCALHOST.:8080", "127.0.0.1", (), 200),
        ("[::1]:8080", "::1", (), 200),
        ("evil.example:1", "127.0.0.1", (), 421),
        ("127.0.0.1.evil.example", "127.0.0.1", (), 421),
        ("localhost.evil.example", "127.0.0.1", (), 421),
        ("", "127.0.0.1", (), 421),
        ("raywise.example", "127.0.0.1", ("raywise.example",), 200),
        ("anything.example", "10.0.0.1", (), 200),
        ("other.example", "10.0.0.1", ("raywise.example",), 421),
        ("raywise.example:443", "10.0.0.1", ("raywise.example",), 200),
        ("10.0.0.1:8443", "10.0.0.1", ("raywise.example",), 200),
        ("[fd00::5]:8443", "fd00::5", ("raywise.example",), 200),
        ("10.0.0.2", "10.0.0.1", ("raywise.example",), 421),
        ("", "10.0.0.1", ("raywise.example",), 421),
    ],
)
def test_a_name_that_was_made_to_point_here_is_not_ours(
    tokens: auth.Tokens, host: str, server: str, hosts: tuple[str, ...], status: int
) -> None:
    limits, asked = hosted(host, server, *hosts)
    assert ask(Guard(echo, tokens, limits), asked).status == status


def test_what_browsers_are_told(tokens: auth.Tokens) -> None:
    guard = Guard(echo, tokens)
    answer = ask(guard, scope(headers=[(b"origin", b"https://evil.example")]))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "strict-transport-security" not in answer.headers
    page = ask(guard, scope(path="/page", scheme="https"))
    assert page.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    refused = ask(guard, scope(token=None))
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_a_route_may_say_otherwise(tokens: auth.Tokens) -> None:
    async def cached(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Cache-Control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = ask(Guard(cached, tokens), scope())
    assert [value for name, value in answer.headers.items() if name.lower() == "cache-control"] == ["max-age=60"]


def test_a_defect_is_a_problem_detail_that_tells_nothing(tokens: auth.Tokens) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("rw_secret_in_a_message")

    answer = Answer()

    async def receive() -> Message:
        raise AssertionError

    with pytest.raises(KeyError):
        asyncio.run(Guard(broken, tokens)(scope(), receive, answer.send))
    assert (answer.status, answer.problem) == (500, "the service failed; its log tells more")


def test_there_are_no_websockets(tokens: auth.Tokens) -> None:
    answer = Answer()

    async def receive() -> Message:
        raise AssertionError

    asyncio.run(Guard(echo, tokens)({"type": "websocket"}, receive, answer.send))
    assert answer.messages == [{"type": "websocket.close", "code": 1008}]


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends one part, and then waits for what never comes."""
    headers = [(b"content-length", b"99")] if scope["path"] == "/sized" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await asyncio.sleep(3600)


@pytest.mark.parametrize(("path", "parts"), [("/events", 3), ("/sized", 2)])
def test_a_stream_ends_when_its_token_is_revoked(tokens: auth.Tokens, path: str, parts: int) -> None:
    token, secret = tokens.create("ann", "viewer", BY)
    answer = Answer()

    async def run() -> None:
        guard = Guard(endless, tokens, Limits(stream_check_s=0.01))
        serving = asyncio.create_task(_serve(guard, scope(path=path, token=secret), answer))
        await answer.begun.wait()
        await asyncio.sleep(0.05)
        assert not serving.done()
        tokens.revoke(token.id, BY)
        await serving

    asyncio.run(run())
    assert (answer.status, answer.body, len(answer.messages)) == (200, b"first", parts)


def test_a_stream_that_the_server_cancels_is_cancelled(tokens: auth.Tokens) -> None:
    answer = Answer()

    async def run() -> None:
        serving = asyncio.create_task(_serve(Guard(endless, tokens), scope(), answer))
        await answer.begun.wait()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(run())


async def _serve(guard: Guard, asked: Scope, answer: Answer) -> None:
    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    await guard(asked, receive, answer.send)
