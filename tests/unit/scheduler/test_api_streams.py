"""Events and logs that are followed, over a real socket: nothing is lost, nothing comes twice, all of it ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from asking import PIPELINE
from cluster.fake import Script
from fake_service import FakeRuntime
from scheduler.client import AsyncClient, Client, ClientError, Refused
from scheduler.client._shared import EventReader
from scheduler.service.api import feed as feeds
from scheduler.service.api.feed import EventFeed
from scheduler.store import Event
from serving import Served, serving, until


@pytest.fixture
def served(runtime: FakeRuntime) -> Iterator[Served]:
    with serving(runtime) as made:
        yield made


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, served.token) as made:
        yield made


def note(runtime: FakeRuntime, *causes: str, kind: str = "note", of: str | None = None) -> None:
    runtime.store.append(*(Event(kind, cause, of) for cause in causes))


def causes(events: Iterator[Any], count: int) -> list[str]:
    return [event["cause"] for event in islice(events, count)]


def raw(served: Served, **params: Any) -> Any:
    headers = {"authorization": f"Bearer {served.token}", **params.pop("headers", {})}
    return httpx.stream("GET", f"{served.url}/api/v1/events/stream", params=params, headers=headers, timeout=60)


def test_events_come_as_they_happen(served: Served, client: Client) -> None:
    note(served.runtime, "before")
    events = client.events(follow=True)
    first = threading.Thread(target=lambda: (until(lambda: served.feed.open_streams == 1), note(served.runtime, "a")))
    first.start()
    assert causes(events, 1) == ["a"]
    note(served.runtime, "b", "c")
    assert causes(events, 2) == ["b", "c"]
    first.join()
    events.close()  # type: ignore[attr-defined]
    until(lambda: served.feed.open_streams == 0)


def test_a_stream_begins_where_it_is_told(served: Served, client: Client) -> None:
    note(served.runtime, *map(str, range(5)))
    assert causes(client.events(after=2, follow=True), 3) == ["2", "3", "4"]
    assert causes(client.events(after=0, follow=True), 5) == ["0", "1", "2", "3", "4"]
    with raw(served, after=0, headers={"Last-Event-ID": "3"}) as response:
        lines = list(islice(response.iter_lines(), 8))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert lines[:3] == ["retry: 2000", "id: 3", ""]
    assert lines[3:5] == ["id: 4", "event: note"]


def test_a_reader_that_is_far_behind_misses_nothing(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "READ", 7)
    note(served.runtime, *map(str, range(50)))
    events = client.events(after=0, follow=True)
    assert causes(events, 20) == [str(n) for n in range(20)]
    note(served.runtime, *map(str, range(50, 100)))
    assert causes(events, 80) == [str(n) for n in range(20, 100)]


def test_a_stream_is_filtered_by_workload_and_kind(served: Served, client: Client) -> None:
    served.runtime.script = Script(run_s=1.0)
    spec = {"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}}
    name = client.submit(spec)["id"]
    client.submit(spec)
    for _ in range(5):
        served.runtime.cycle()
    events = client.events(name, 0, kinds=["submitted", "succeeded"], follow=True)
    assert [(event["kind"], event["workload_id"]) for event in islice(events, 2)] == [
        ("submitted", name),
        ("succeeded", name),
    ]


def test_a_quiet_stream_says_how_far_it_is(served: Served) -> None:
    """So that one that is taken up does not look at all of them again."""
    note(served.runtime, "x", "y", kind="other")
    with raw(served, after=0, kind="note") as response:
        lines = list(islice((line for line in response.iter_lines() if line), 4))
    assert lines == ["retry: 2000", "id: 0", ": heartbeat", "id: 2"]


def test_streams_end_when_the_service_does(served: Served) -> None:
    with raw(served) as response:
        until(lambda: served.feed.open_streams == 1)
        served.feed.close()
        assert [line for line in response.iter_lines() if line.startswith("event")] == []
    assert served.feed.open_streams == 0
    with raw(served) as response:
        assert (response.status_code, response.read() and response.json()["detail"]) == (
            503,
            "the service is about to end",
        )


def test_there_are_so_many_streams_and_no_more(runtime: FakeRuntime) -> None:
    with serving(runtime, EventFeed(runtime.store, look_s=0.01, max_streams=1)) as served:
        with raw(served) as first:
            lines = first.iter_lines()  # the connection is closed with it
            next(lines)
            with raw(served) as second:
                second.read()
                assert (second.status_code, second.json()["detail"]) == (503, "1 streams are open already")
        until(lambda: served.feed.open_streams == 0)


def test_what_a_stream_cannot_be_asked(served: Served, client: Client) -> None:
    with pytest.raises(ClientError, match="there is no workload or pipeline 'none'"):
        next(client.events("none", follow=True))
    with raw(served, headers={"Last-Event-ID": "x"}) as response:
        response.read()
        assert (response.status_code, response.json()["problems"][0]["field"]) == (422, "header.Last-Event-ID")
    with pytest.raises(Refused):
        next(client.events(after=-1, follow=True))


def test_a_stream_is_taken_up_by_another_service(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.service.api.streams.RETRY_MS", 20)
    with serving(runtime) as first:
        port = int(first.url.rpartition(":")[2])
        client = Client(first.url, first.token)
        events = client.events(after=0, follow=True)
        note(runtime, "a", "b")
        assert causes(events, 2) == ["a", "b"]
    note(runtime, "c")
    with serving(runtime, port=port):
        assert causes(events, 1) == ["c"]
        note(runtime, "d")
        assert causes(events, 1) == ["d"]
        client.close()


def test_one_loop_reads_for_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    events = served.runtime.store.events

    def counted(**arguments: Any) -> list[Event]:
        read.append(arguments)
        return events(**arguments)

    monkeypatch.setattr(served.runtime.store, "events", counted)

    async def follow(client: AsyncClient) -> list[str]:
        found: list[str] = []
        async for event in client.events(follow=True):
            found.append(event["cause"])
            if len(found) == 3:
                break
        return found

    async def all_of_them() -> list[list[str]]:
        async with AsyncClient(served.url, served.token) as client:
            tasks = [asyncio.create_task(follow(client)) for _ in range(8)]
            while served.feed.open_streams < 8:
                await asyncio.sleep(0.01)
            note(served.runtime, "a", "b", "c")
            return await asyncio.gather(*tasks)

    assert asyncio.run(all_of_them()) == [["a", "b", "c"]] * 8
    assert len(read) == 1


def test_logs_are_followed_to_the_end(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.service.api.streams.LOOK_S", 0.02)
    runtime, texts = served.runtime, {"text": ""}
    monkeypatch.setattr(runtime.cluster, "logs", lambda _: texts["text"])
    runtime.script = Script(run_s=5.0)
    name = client.submit({"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}})["id"]
    for _ in range(3):
        runtime.cycle()
    parts = client.logs(name, follow=True)
    texts["text"] = "one\nhal"
    assert next(parts) == "one\n", "a line that has not ended waits"
    texts["text"] = ""  # the cluster has lost it for a moment
    texts["text"] = "one\nhalf é\nlast"
    assert next(parts) == "half é\n"
    for _ in range(10):
        runtime.cycle()
    assert "".join(parts) == "last"
    assert client.logs(name) == "one\nhalf é\nlast"
    assert client.logs(name, offset=4) == "half é\nlast"
    assert "".join(client.logs(name, offset=4, follow=True)) == "half é\nlast"


def test_a_log_longer_than_a_part_comes_whole_and_without_a_pause(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.api.streams.LOOK_S", 1e9)
    monkeypatch.setattr("scheduler.service.api.streams.PART_BYTES", 8)
    text = "é" * 9 + "\nand\nmore of it\nlast"
    served.runtime.script = Script(run_s=1.0, logs=text)
    name = client.submit({"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}})["id"]
    for _ in range(8):
        served.runtime.cycle()
    assert client.logs(name) == text
    assert client.logs(name, offset=19) == "and\nmore of it\nlast"
    assert "".join(client.logs(name, follow=True)) == text
    headers = {"authorization": f"Bearer {served.token}"}
    answer = httpx.get(f"{served.url}/api/v1/workloads/{name}/logs", params={"offset": 20}, headers=headers)
    assert answer.headers["X-Next-Offset"] == str(len(text.encode()))


def test_who_follows_a_log_stays_until_its_end_is_kept(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.service.api.streams.LOOK_S", 0.02)
    runtime, begun, kept = served.runtime, threading.Event(), threading.Event()
    runtime.script = Script(run_s=1.0, logs="printed\n")
    name = client.submit({"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}})["id"]
    for _ in range(8):
        runtime.cycle()

    def keeping(_: str) -> bool:
        begun.set()
        return not kept.is_set()

    monkeypatch.setattr(runtime.logs.keeper, "is_keeping", keeping)
    parts = client.logs(name, follow=True)
    assert next(parts) == "printed\n"
    assert begun.wait(60)
    record = runtime.store.get(name)
    assert record is not None
    (Path(record.run_dir) / f"{name}.log").write_text("printed\nits end\n")
    kept.set()
    assert "".join(parts) == "its end\n"


def test_logs_of_a_pipeline_are_told_apart(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.service.api.streams.LOOK_S", 0.02)
    served.runtime.script = Script(run_s=1.0, logs="printed\n")
    body = {"text": PIPELINE, "base": "/"}
    headers = {"authorization": f"Bearer {served.token}"}
    pipeline = httpx.post(f"{served.url}/api/v1/workloads", json=body, headers=headers, timeout=60).json()["id"]
    for _ in range(30):
        served.runtime.cycle()
    text = "".join(client.logs(pipeline, follow=True))
    assert text == f"=== {pipeline}-first\nprinted\n=== {pipeline}-second\nprinted\n"
    with pytest.raises(Refused, match="a pipeline has several logs"):
        client.logs(pipeline, offset=1)


def test_a_followed_log_ends_with_the_service_and_the_client_says_so(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(runtime) as served, Client(served.url, served.token) as client:
        name = client.submit({"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}})["id"]
        url = f"{served.url}/api/v1/workloads/{name}/logs"
        headers = {"authorization": f"Bearer {served.token}"}
        with httpx.stream("GET", url, params={"follow": "true"}, headers=headers, timeout=60) as response:
            until(lambda: served.feed.open_streams == 1)
            served.feed.close()
            assert response.read() == b""


def test_the_async_client_does_the_same(served: Served) -> None:
    served.runtime.script = Script(run_s=1.0, logs="printed\n")

    async def use() -> None:
        async with AsyncClient(served.url, served.token) as client:
            spec = {"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}}
            name = (await client.submit(spec))["id"]
            assert await client.healthy()
            with pytest.raises(TimeoutError):
                await client.wait(name, timeout_s=0)
            await asyncio.to_thread(lambda: [served.runtime.cycle() for _ in range(6)])
            states: list[str] = []
            view = await client.wait(name, on_update=lambda view: states.append(view["workloads"][0]["state"]))
            assert (view["workloads"][0]["state"], states) == ("succeeded", ["succeeded"])
            assert [each["id"] async for each in client.workloads(state="succeeded")] == [name]
            assert (await client.events(name))[0]["kind"] == "submitted"
            assert await client.logs(name) == "printed\n"
            assert [part async for part in client.logs(name, follow=True)] == ["printed\n"]
            assert (await client.usage("workload"))["by"] == ["workload"]
            with pytest.raises(ClientError, match="has ended"):
                await client.pause(name)
            with pytest.raises(ClientError, match="there is no workload"):
                async for _ in client.events("none", follow=True):
                    pass

    asyncio.run(use())


def test_what_is_half_read_comes_again() -> None:
    reader = EventReader()
    for line in ("retry: 50", "id: 7", 'data: {"a":', "data: 1}"):
        assert reader.read(line) is None
    assert reader.read("") == {"a": 1}  # type: ignore[comparison-overlap]
    reader.read("data: {")
    assert reader.begin() == {"Last-Event-ID": "7"}
    assert (reader.read(": a comment"), reader.read(""), reader.retry_s) == (None, None, 0.05)


def test_a_process_that_is_told_to_end_ends_its_streams_first(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: dict[int, Any] = {}
    told: list[int] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: lambda *_: told.append(number))
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_.update({number: handler}))

    class Closing:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    feed: Any = Closing()
    feeds.close_on_signals(feed)
    set_[signal.SIGTERM](signal.SIGTERM, None)
    assert (feed.closed, told) == (1, [signal.SIGTERM])
