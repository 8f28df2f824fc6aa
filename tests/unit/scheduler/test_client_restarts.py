"""Waiting and following go on over a restart of the service, also at another port; where none comes back, they end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cluster.fake import Script
from fake_service import FakeRuntime
from scheduler.client import AsyncClient, Client, ClientError, NoService, Refused
from scheduler.client import _shared as shared
from scheduler.client._shared import Patience, find_again, log_ended
from serving import Served, serving, until

SPEC = {"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(shared, "LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr(shared, "RETRY_DELAYS_S", ())
    monkeypatch.setattr("scheduler.service.api.streams.LOOK_S", 0.02)


def announce(served: Served) -> None:
    """What the service writes into its home folder."""
    (served.runtime.home.path / "service.json").write_text(json.dumps({"url": served.url}))


def waiting(runtime: FakeRuntime, name: str, seen: threading.Event) -> dict[str, Callable[[], Any]]:
    """What waits for an end, by the client; `seen` is set with its first answer."""
    home = runtime.home.path

    def wait() -> Any:
        with Client(home=home) as client:
            return client.wait(name, on_update=lambda _: seen.set(), interval_s=0.01)["workloads"][0]["state"]

    def follow() -> Any:
        with Client(home=home) as client:
            return text_of(client.logs(name, follow=True))

    def text_of(parts: Iterator[str]) -> str:
        text = ""
        for part in parts:
            text += part
            seen.set()
        return text

    async def wait_async() -> Any:
        async with AsyncClient(home=home) as client:
            view = await client.wait(name, on_update=lambda _: seen.set(), interval_s=0.01)
            return view["workloads"][0]["state"]

    async def follow_async() -> Any:
        text = ""
        async with AsyncClient(home=home) as client:
            async for part in client.logs(name, follow=True):
                text += part
                seen.set()
        return text

    return {
        "wait": wait,
        "follow": follow,
        "wait, async": lambda: asyncio.run(wait_async()),
        "follow, async": lambda: asyncio.run(follow_async()),
    }


def begun(runtime: FakeRuntime, served: Any, what: str, seen: threading.Event) -> Callable[[], Any]:
    """Something that waits for a workload which runs."""
    announce(served)
    with Client(home=runtime.home.path) as client:
        name = client.submit(SPEC)["id"]
    for _ in range(3):
        runtime.cycle()
    return waiting(runtime, name, seen)[what]


@pytest.mark.parametrize("what", ["wait", "follow", "wait, async", "follow, async"])
def test_a_restart_at_another_port_is_waited_for(
    runtime: FakeRuntime, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, seen, found = {"text": "one\n"}, threading.Event(), []
    monkeypatch.setattr(runtime.cluster, "logs", lambda _: texts["text"])
    runtime.script = Script(run_s=5.0)
    with serving(runtime) as served:
        act = begun(runtime, served, what, seen)
        thread = threading.Thread(target=lambda: found.append(act()))
        thread.start()
        assert seen.wait(60)
    texts["text"] += "two\n"
    for _ in range(10):
        runtime.cycle()
    (runtime.home.path / "service.json").unlink()
    with serving(runtime) as served:
        announce(served)
        thread.join(60)
    assert found == ["succeeded" if what.startswith("wait") else "one\ntwo\n"]


@pytest.mark.parametrize("what", ["wait", "follow", "wait, async", "follow, async"])
def test_a_service_that_does_not_come_back_is_said_so(
    runtime: FakeRuntime, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "PATIENCE_S", 0.05)
    monkeypatch.setattr(runtime.cluster, "logs", lambda _: "one\n")
    runtime.script, seen, found = Script(run_s=5.0), threading.Event(), []
    with serving(runtime) as served:
        act = begun(runtime, served, what, seen)

        def run() -> None:
            with pytest.raises(NoService, match="does not answer") as error:
                act()
            found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert seen.wait(60)
    thread.join(60)
    assert len(found) == 1


def test_a_service_that_never_answered_is_not_waited_for(runtime: FakeRuntime) -> None:
    with serving(runtime) as served:
        announce(served)
    with Client(home=runtime.home.path) as client, pytest.raises(NoService, match="does not answer"):
        client.wait("a")


def test_a_wait_ends_when_its_time_is_over_though_nobody_answers(runtime: FakeRuntime) -> None:
    with serving(runtime) as served:
        announce(served)
        client = Client(home=runtime.home.path)
        name = client.submit(SPEC)["id"]
    with client, pytest.raises(TimeoutError):
        client.wait(name, timeout_s=0.05)


def test_pauses_grow_and_end() -> None:
    now: list[float] = [0.0]
    patience = Patience(clock=lambda: now[0])
    gone, pauses = NoService("it does not answer"), []
    for second in range(0, 61, 10):
        now[0] = second
        pauses.append(patience.pause_s(gone))
    assert pauses == [0.01] + [0.02] * 6
    patience.heard()
    now[0] = 100.0
    assert patience.pause_s(ClientError("it is about to end", 503)) == 0.01
    now[0] = 160.1
    with pytest.raises(NoService):
        patience.pause_s(gone)


@pytest.mark.parametrize(
    ("error", "heard"),
    [(ClientError("no such", 404), True), (Refused([{"message": "wrong"}]), True), (NoService("none"), False)],
    ids=["an answer", "a refusal", "it never answered"],
)
def test_what_is_no_outage_is_raised_at_once(error: ClientError, heard: bool) -> None:
    with pytest.raises(type(error)):
        Patience(heard).pause_s(error)


def test_a_service_by_its_url_stays_where_it_is() -> None:
    with httpx.Client(base_url="http://127.0.0.1:9") as http:
        find_again(http, "http://127.0.0.1:9", "token", None)
        assert str(http.base_url) == "http://127.0.0.1:9"
        assert http.headers["authorization"] == "Bearer token"


def shown(*ended: bool, of: str = "a") -> Any:
    return {"id": of, "workloads": [{"id": "a", "ended": each} for each in ended]}


def test_a_log_is_whole_when_a_stream_of_what_has_ended_brings_nothing_more() -> None:
    assert [log_ended(shown(True), is_more) for is_more in (True, False)] == [False, True]
    assert not log_ended(shown(False), False)
    assert log_ended(shown(True, True, of="p"), True), "nobody can go on in that of a pipeline"
    with pytest.raises(ClientError, match="follow one of the workloads of p"):
        log_ended(shown(True, False, of="p"), True)


def test_the_log_of_a_pipeline_is_not_taken_up_where_it_was(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.cluster, "logs", lambda _: "one\n")
    runtime.script = Script(run_s=1e6)
    steps = {"kind": "pipeline", "name": "p", "steps": [{**SPEC, "name": "b"}, {**SPEC, "name": "c", "needs": ["b"]}]}
    with serving(runtime) as served:
        announce(served)
        client = Client(home=runtime.home.path)
        pipeline = client.submit(steps)["id"]
        for _ in range(4):
            runtime.cycle()
        parts = client.logs(pipeline, follow=True)
        assert "one\n" in next(parts)
        until(lambda: served.feed.open_streams == 1)
    with client, pytest.raises(ClientError, match="follow one of the workloads"):
        next(parts)
