"""The Python client: what it asks for, what it asks for again, and what it says when that does not help."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scheduler.client import AsyncClient, Client, ClientError, NoService, Refused, _calls

Handler = Callable[[httpx.Request], httpx.Response]


def client_over(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client = Client("http://x", "t")
    client._http.close()
    client._http = httpx.Client(base_url="http://x", transport=httpx.MockTransport(handler))
    return client


class Answers:
    """Answers one after the other; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


SPEC = {"kind": "command", "name": "a", "command": "x"}
CANCELLED = httpx.Response(202, json={"cancelled": ["a"]})


def test_a_submission_that_broke_off_is_sent_again_under_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(httpx.ReadError("reset"), httpx.Response(200, json={"id": "a", "workloads": []}))
    assert client_over(answers, monkeypatch).submit(SPEC)["id"] == "a"
    keys = [request.headers["idempotency-key"] for request in answers.asked]
    assert keys[0] == keys[1] and len(keys[0]) >= 20
    answers = Answers(httpx.Response(200, json={"id": "a", "workloads": []}))
    client_over(answers, monkeypatch).submit(SPEC, idempotency_key="mine")
    assert answers.asked[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("call", "error", "tries"),
    [
        (lambda client: client.cancel("a"), httpx.ConnectError("refused"), 3),
        (lambda client: client.cancel("a"), httpx.RemoteProtocolError("half an answer"), 3),
        (lambda client: client.list(), httpx.ReadTimeout("slow"), 1),
        (lambda client: client.reset_calibration(), httpx.ReadError("reset"), 1),
        (lambda client: client.reset_calibration(), httpx.ConnectError("refused"), 3),
    ],
    ids=["nobody there", "broken off", "too slow", "not to be done twice", "never sent"],
)
def test_what_is_tried_again(
    call: Callable[[Client], Any], error: Exception, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(*[error] * 3)
    with pytest.raises(NoService, match="the service at http://x does not answer: "):
        call(client_over(answers, monkeypatch))
    assert len(answers.asked) == tries


def test_an_error_of_the_service_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"title": "Not as it stands now", "detail": "a has ended", "status": 409, "problems": [{"message": "m"}]}
    answers = Answers(httpx.Response(409, json=problem))
    with pytest.raises(ClientError, match="a has ended") as caught:
        client_over(answers, monkeypatch).pause("a")
    assert (caught.value.status, isinstance(caught.value, Refused)) == (409, False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(httpx.Response(502, text="bad gateway"), "HTTP 502: bad gateway"), (httpx.Response(500, json=[1]), "HTTP 500")],
)
def test_an_answer_that_is_no_problem_document(
    answer: httpx.Response, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClientError, match=said):
        client_over(Answers(answer), monkeypatch).devices()


def test_each_request_says_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, dict[str, str], Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = request.read()
        seen.append((request.method, request.url.raw_path.decode(), dict(request.url.params), body))
        pages = {"next_cursor": None, "next_after": None, "workloads": [], "events": []}
        return httpx.Response(200, json=pages | {"cancelled": [], "paused": [], "resumed": []})

    client = client_over(handler, monkeypatch)
    client.pause("a/b", restart=True)
    client.change("p", priority=3, count="1..4", deadline=None)
    client.usage(["owner", "day"], since="2026-11-01")
    client.list("failed,cancelled", 5, queue="q", name=None)
    assert list(client.workloads(owner="eve")) == []
    client.events("w", 7, kinds=["running"])
    assert [each[:3] for each in seen] == [
        ("POST", "/api/v1/workloads/a%2Fb/pause?restart=true", {"restart": "true"}),
        ("PATCH", "/api/v1/workloads/p", {}),
        ("GET", "/api/v1/usage?by=owner%2Cday&since=2026-11-01", {"by": "owner,day", "since": "2026-11-01"}),
        (
            "GET",
            "/api/v1/workloads?state=failed%2Ccancelled&queue=q&limit=5&order=oldest",
            {"state": "failed,cancelled", "queue": "q", "limit": "5", "order": "oldest"},
        ),
        ("GET", "/api/v1/workloads?owner=eve&limit=500", {"owner": "eve", "limit": "500"}),
        (
            "GET",
            "/api/v1/workloads/w/events?after=7&limit=1000&kind=running",
            {"after": "7", "limit": "1000", "kind": "running"},
        ),
    ]
    assert httpx.Response(200, content=seen[1][3]).json() == {
        "priority": 3,
        "deadline": None,
        "resources": {"count": "1..4"},
    }


def test_pages_are_read_until_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(
        httpx.Response(200, json={"workloads": [{"id": "b"}], "next_cursor": "4"}),
        httpx.Response(200, json={"workloads": [{"id": "a"}], "next_cursor": None}),
        httpx.Response(200, json={"events": [{"sequence": 5}], "next_after": 5}),
        httpx.Response(200, json={"events": [{"sequence": 9}], "next_after": None}),
    )
    client = client_over(answers, monkeypatch)
    assert [each["id"] for each in client.workloads()] == ["b", "a"]
    assert [each["sequence"] for each in client.events()] == [5, 9]
    assert [request.url.params.get("cursor") for request in answers.asked[:2]] == [None, "4"]
    assert [request.url.params["after"] for request in answers.asked[2:]] == ["0", "5"]


def test_the_async_client_asks_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return

    monkeypatch.setattr(asyncio, "sleep", at_once)
    answers = Answers(httpx.ConnectError("refused"), CANCELLED, *[httpx.ConnectError("refused")] * 3)

    async def use() -> None:
        async with AsyncClient("http://x", "t", transport=httpx.MockTransport(answers)) as client:
            assert await client.cancel("a") == ["a"]
            assert not await client.healthy()

    asyncio.run(use())
    assert len(answers.asked) == 5


def test_both_clients_have_the_same_methods() -> None:
    def public(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)
    for name in public(Client):
        doc = inspect.getdoc(inspect.getattr_static(Client, name))
        assert doc and doc == inspect.getdoc(inspect.getattr_static(AsyncClient, name))
    verbs = {name for name, value in vars(_calls).items() if inspect.isfunction(value) and "Call[" in str(value.__annotations__.get("return"))}  # fmt: skip
    assert {"list" if name == "list_" else name for name in verbs} <= public(Client) | {
        "event_stream", "log_stream", "log_text", "health"
    }  # fmt: skip
