"""Lists page by page, events, and submissions that come twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from asking import COMMAND, PIPELINE, fields, problem, submit
from fake_service import FakeRuntime
from scheduler.store import Event, Record, StoreError

KEY = {"Idempotency-Key": "k-1"}


def stored(runtime: FakeRuntime, number: int, **others: Any) -> None:
    """Workloads that ended long ago."""
    records = [
        Record(f"old-{n:05}", "old", "command", {"kind": "command"}, "succeeded", 10.0 + n, "/o", "/r", **others)
        for n in range(number)
    ]
    runtime.store.add(records, [])


def listed(api: TestClient, **params: Any) -> list[str]:
    return [each["id"] for each in api.get("/api/v1/workloads", params=params).json()["workloads"]]


def test_pages_go_into_the_past_and_end(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, 5)
    first = api.get("/api/v1/workloads", params={"limit": 2}).json()
    assert [each["id"] for each in first["workloads"]] == ["old-00004", "old-00003"]
    second = api.get("/api/v1/workloads", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in second["workloads"]] == ["old-00002", "old-00001"]
    last = api.get("/api/v1/workloads", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert ([each["id"] for each in last["workloads"]], last["next_cursor"]) == (["old-00000"], None)
    assert listed(api, limit=2, order="oldest") == ["old-00003", "old-00004"]


def test_a_list_is_filtered(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, 2, owner="eve")
    name = submit(api, COMMAND + "queue: night\npriority: 5\n").json()["id"]
    pipeline = submit(api, PIPELINE).json()["id"]
    steps = [f"{pipeline}-second", f"{pipeline}-first"]
    assert listed(api, owner="eve", limit=1) == ["old-00001"]
    assert listed(api, queue="night") == [name]
    assert listed(api, pipeline=pipeline) == steps
    assert listed(api, name="irs") == [f"{pipeline}-first"]
    assert listed(api, since="1970-01-02") == [*steps, name]
    assert listed(api, since="11") == [*steps, name, "old-00001"]
    assert listed(api, kind="train") == []
    assert listed(api, kind="command,train", state="pending", queue="night", owner="admin") == [name]
    (shown,) = api.get(f"/api/v1/workloads/{name}").json()["workloads"]
    assert (shown["queue"], shown["priority"], shown["owner"], shown["paused"]) == ("night", 5, "admin", False)


@pytest.mark.parametrize(
    ("params", "field", "said"),
    [
        ({"state": "runing"}, "query.state", "there is no 'runing'"),
        ({"kind": "trian"}, "query.kind", "there is no 'trian'"),
        ({"since": "yesterday"}, "query.since", "expected a date, got 'yesterday'"),
        ({"since": "nan"}, "query.since", "expected a date, got 'nan'"),
        ({"cursor": "-1"}, "query.cursor", "is no cursor"),
        ({"cursor": "9" * 30}, "query.cursor", "is no cursor"),
        ({"limit": "0"}, "query.limit", "input should be greater than or equal to 1"),
        ({"limit": "1001"}, "query.limit", "input should be less than or equal to 1000"),
        ({"order": "up"}, "query.order", "input should be 'newest' or 'oldest'"),
    ],
    ids=str,
)
def test_what_a_list_cannot_be_asked(api: TestClient, params: dict[str, str], field: str, said: str) -> None:
    body = problem(api.get("/api/v1/workloads", params=params), 422)
    assert [(each["field"], each["message"]) for each in body["problems"]] == [(field, said)]


def test_a_page_asks_the_store_as_often_whatever_its_length(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(runtime, 60, failures=1)
    runtime.store.append(*(Event("retry", "attempt 1 failed", f"old-{n:05}") for n in range(60)))
    asked = []
    reading = runtime.store.database.reading

    def counted() -> Any:
        asked.append(1)
        return reading()

    monkeypatch.setattr(runtime.store.database, "reading", counted)
    numbers = {}
    for limit in (1, 60):
        asked.clear()
        found = api.get("/api/v1/workloads", params={"limit": limit}).json()["workloads"]
        assert {each["failure"] for each in found} == {"attempt 1 failed"}
        numbers[limit] = len(asked)
    assert numbers[1] == numbers[60] <= 4


def test_all_events_page_by_page(api: TestClient, runtime: FakeRuntime) -> None:
    runtime.store.append(*(Event("note", f"{n}", None) for n in range(5)), Event("other", "x", None))
    first = api.get("/api/v1/events", params={"limit": 4}).json()
    assert [each["cause"] for each in first["events"]] == ["0", "1", "2", "3"]
    rest = api.get("/api/v1/events", params={"limit": 4, "after": first["next_after"]}).json()
    assert ([each["cause"] for each in rest["events"]], rest["next_after"]) == (["4", "x"], None)
    assert [each["cause"] for each in api.get("/api/v1/events", params={"kind": "other"}).json()["events"]] == ["x"]
    assert fields(problem(api.get("/api/v1/events", params={"after": -1}), 422)) == ["query.after"]


def test_the_same_key_and_body_is_accepted_once(api: TestClient, runtime: FakeRuntime) -> None:
    first, again = submit(api, headers=KEY), submit(api, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(runtime.store.select()) == 1
    assert submit(api, PIPELINE, headers={"Idempotency-Key": "k-2"}).status_code == 201
    pipeline = submit(api, PIPELINE, headers={"Idempotency-Key": "k-2"}).json()
    assert [each["name"] for each in pipeline["workloads"]] == ["first", "second"]


def test_the_same_key_with_another_body_is_refused(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api, headers=KEY).json()["id"]
    body = problem(submit(api, COMMAND + "priority: 1\n", headers=KEY), 422)
    assert body["detail"] == f"the key 'k-1' was used for {name}, with another body"
    assert fields(body) == ["header.Idempotency-Key"]
    assert fields(problem(submit(api, headers={"Idempotency-Key": "a b"}), 422)) == ["header.Idempotency-Key"]
    assert len(runtime.store.select()) == 1


def test_of_two_that_come_at_once_with_a_key_one_is_accepted(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has looked before the first was stored."""
    first = submit(api, headers=KEY).json()["id"]
    accepted, looked = runtime.store.accepted, []

    def late(owner: str, key: str) -> tuple[str, str] | None:
        looked.append(key)
        return None if len(looked) == 1 else accepted(owner, key)

    monkeypatch.setattr(runtime.store, "accepted", late)
    again = submit(api, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (200, first)
    assert [path.name for path in runtime.home.runs.iterdir()] == [first], "nothing is left of the second"


def test_a_store_that_is_full_leaves_no_folder(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(runtime.store, "add", full)
    assert problem(submit(api, headers=KEY), 507)["detail"].endswith("cannot be written: disk full")
    assert list(runtime.home.runs.iterdir()) == []


def test_an_id_that_is_taken_is_drawn_again(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["hello-1", "hello-1", "hello-2"])
    monkeypatch.setattr(sys.modules["scheduler.admission.admit"], "new_id", lambda _: next(drawn))
    assert [submit(api).json()["id"] for _ in range(2)] == ["hello-1", "hello-2"]


def test_a_spec_as_json(api: TestClient, runtime: FakeRuntime, tmp_path: Path) -> None:
    spec = {"kind": "command", "name": "j", "command": "x", "resources": {"devices": "cpu"}}
    body = api.post("/api/v1/workloads", json={"spec": spec, "overrides": ["priority=3"]}).json()
    assert body["workloads"][0]["priority"] == 3
    relative = spec | {"output": "out"}
    answer = api.post("/api/v1/workloads", json={"spec": relative, "base": str(tmp_path)}).json()
    assert answer["workloads"][0]["output"] == str(tmp_path / "out")
    assert fields(problem(api.post("/api/v1/workloads", json={"spec": relative}), 422)) == ["output"]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"kind": "train", "name": "t", "entrypoint": "a:b", "model": "./m"}, ["model", "code"]),
        ({"kind": "preprocess", "name": "p", "model": "m", "input": {"train": "x", "test": "/y"}}, ["input"]),
        ({"kind": "pipeline", "name": "p", "steps": [{"name": "s", "input": "x"}]}, ["steps.s.input"]),
        ({"kind": "command", "name": "c", "command": "x", "retries": -1}, ["retries"]),
        ({}, ["kind"]),
    ],
    ids=["code and a model", "one of two inputs", "a step", "a wrong value", "nothing"],
)
def test_a_json_spec_is_refused_field_by_field(api: TestClient, spec: dict[str, Any], found: list[str]) -> None:
    assert fields(problem(api.post("/api/v1/plan", json={"spec": spec}), 422)) == found


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b'{"text": 3, "base": "/"}',
        b'{"text": "\\ud800", "base": "/"}',
        json.dumps({"spec": [1]}).encode(),
    ],
    ids=["half a JSON", "a list", "a number", "no character", "a list as spec"],
)
def test_a_body_that_is_no_submission(api: TestClient, body: bytes) -> None:
    answer = api.post("/api/v1/workloads", content=body, headers={"content-type": "application/json"})
    if b"ud800" in body:
        assert "half of a surrogate pair" in problem(answer, 400)["detail"]
    else:
        assert problem(answer, 422)["problems"]


def test_ids_are_looked_for_in_bounds(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, 500)
    assert "is the start of several ids: " in problem(api.get("/api/v1/workloads/old"), 404)["detail"]
    assert "did you mean old-0" in problem(api.get("/api/v1/workloads/olf-00400"), 404)["detail"]
    assert problem(api.get("/api/v1/workloads/x%00"), 400)["detail"]
