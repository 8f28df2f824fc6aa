"""The service's log: what is in a line, and what never is."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cluster.fake import FakeCluster
from cluster.types import RunRequest
from fake_service import FakeRuntime
from scheduler.log_context import about, current, enter_cycle, leave_cycle
from scheduler.service.access_log import AccessLog
from scheduler.service.app import create_app
from scheduler.service.logs import (
    FIELDS,
    JsonFormatter,
    LogOptions,
    Secrets,
    TextFormatter,
    configure,
    without_environments,
)
from scheduler.service.telling import told
from scheduler.store import Event, Record, Store, StoreError
from workloads.errors import SpecError

TOKEN = "kX3-very+secret/token=="
COMMAND = "kind: command\nname: hello\ncommand: echo\nenv: {API_KEY: s3cr3t-value}\nresources: {devices: cpu}\nexpected_runtime: 10s\n"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    leave_cycle()


@pytest.fixture
def secrets() -> Secrets:
    made = Secrets()
    made.add(TOKEN)
    return made


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest, secrets: Secrets, tmp_path: Path) -> Path:
    path = tmp_path / "service.log"
    configure(LogOptions("debug", request.param, path), secrets)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def json_log(tmp_path: Path, secrets: Secrets, level: str = "info") -> Path:
    configure(LogOptions(level, "json", tmp_path / "service.log"), secrets)
    return tmp_path / "service.log"


def entry(formatter: logging.Formatter, message: str, *args: object, **fields: object) -> str:
    record = logging.LogRecord("raywise.x", logging.INFO, "f.py", 1, message, args, None)
    if fields:
        setattr(record, FIELDS, fields)
    return formatter.format(record)


def test_a_line_knows_its_cycle_and_its_workload(secrets: Secrets) -> None:
    text = TextFormatter(secrets)
    assert entry(text, "idle").endswith("INFO raywise.x: idle")
    enter_cycle(12)
    with about("hello-1"):
        assert entry(text, "it %s", "runs").endswith("INFO raywise.x: it runs cycle=12 workload_id=hello-1")
        told = json.loads(entry(JsonFormatter(secrets), "it runs", status=200))
    assert entry(text, "on").endswith("on cycle=12")
    leave_cycle()
    assert current() == {}
    at = told.pop("at")
    assert told == {
        "level": "info",
        "logger": "raywise.x",
        "message": "it runs",
        "cycle": 12,
        "workload_id": "hello-1",
        "status": 200,
    }
    assert at.endswith("Z") and "T" in at


def test_what_another_workload_said_before_an_error_is_not_taken_for_this_one() -> None:
    with pytest.raises(ValueError, match="x"), about("a"):
        raise ValueError("x")
    assert current() == {}


def test_every_line_of_a_cycle_has_its_number(
    runtime: FakeRuntime, api: TestClient, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = api.post("/api/v1/workloads", json={"text": COMMAND, "base": str(tmp_path)})
    assert answer.status_code == 201, answer.text
    path = json_log(tmp_path, secrets)

    def fail(self: FakeCluster, request: RunRequest) -> None:
        raise RuntimeError(f"Ray refused {{'env_vars': {dict(request.env)!r}}} with Authorization: Bearer {TOKEN}")

    monkeypatch.setattr(FakeCluster, "start", fail)
    runtime.cycle()
    (line,) = [each for each in lines(path) if "could not be started" in each["message"]]
    assert (line["level"], line["cycle"], line["workload_id"]) == ("error", runtime.engine.cycle, answer.json()["id"])
    assert "RuntimeError: Ray refused {'env_vars': {***}} with Authorization: Bearer ***" in line["exception"]
    for secret in ("s3cr3t-value", TOKEN, runtime.token):
        assert secret not in path.read_text()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"token {TOKEN}", "token ***"),
        ("Authorization: Bearer abcdef.ghi-JKL", "Authorization: Bearer ***"),
        ("postgresql://raywise:hunter22@db:5432/raywise", "postgresql://raywise:***@db:5432/raywise"),
        ("redis://:hunter22@redis", "redis://:***@redis"),
        ("GET /x?token=abcdefg&limit=3", "GET /x?token=***&limit=3"),
        ("password='hunter22', host='db'", "password='***', host='db'"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g", "AWS_SECRET_ACCESS_KEY=***"),
        ("kX3-very%2Bsecret%2Ftoken%3D%3D", "***"),
        ("env_vars={'A': 'x}y', 'B': '{\"c\": 1}'} next", "env_vars={***} next"),
        ('"env": {"A": {"b": 1}}, "name": "n"', '"env": {***}, "name": "n"'),
        ("env: {'A': 'never closed", "env: {***}"),
    ],
)
def test_what_is_secret_or_looks_so_is_hidden(secrets: Secrets, said: str, kept: str) -> None:
    assert secrets.hide(said) == kept
    assert TOKEN not in entry(JsonFormatter(secrets), said)


@pytest.mark.parametrize(
    "harmless",
    [
        "512 tokens/s on A100, tokens: 512, total_tokens=3",
        "service at http://127.0.0.1:8000, cluster at 10.0.0.5:6379",
        "wrote /var/lib/raywise/home/token",
        "the environment {is} fine",
        "2026-11-27 10:00:00 cycle=3",
    ],
)
def test_what_is_harmless_stays(secrets: Secrets, harmless: str) -> None:
    assert secrets.hide(harmless) == harmless


def test_short_texts_are_no_secrets_and_nothing_is_none(secrets: Secrets) -> None:
    secrets.add("", None, "abc")
    secrets.add_url(None)
    secrets.add_url("/data/raywise.db")
    secrets.add_url("postgresql://u:correct-horse@h/d")
    assert secrets.hide("abc correct-horse") == "abc ***"
    assert without_environments("no mapping") == "no mapping"


def test_nothing_of_a_request_but_its_line_is_logged(runtime: FakeRuntime, written: Path) -> None:
    client = TestClient(
        AccessLog(create_app(runtime)), headers={"authorization": f"Bearer {TOKEN}x", "x-own": "header-value"}
    )  # type: ignore[arg-type]
    assert client.get("/api/v1/workloads?state=query-value", headers={"cookie": "cookie-value"}).status_code == 401
    body = {"text": COMMAND, "base": "/"}
    client.headers["authorization"] = f"Bearer {runtime.token}"
    assert client.post("/api/v1/workloads", json=body).status_code == 201
    runtime.cycle()
    text = written.read_text()
    for secret in (TOKEN, runtime.token, "header-value", "query-value", "cookie-value", "s3cr3t-value", "Bearer"):
        assert secret not in text
    assert "GET /api/v1/workloads 401" in text and "POST /api/v1/workloads 201" in text


def test_a_request_has_its_fields(runtime: FakeRuntime, secrets: Secrets, tmp_path: Path) -> None:
    path = json_log(tmp_path, secrets)
    ticks = iter([10.0, 10.0417, 20.0, 20.5])
    client = TestClient(AccessLog(create_app(runtime), lambda: next(ticks)))  # type: ignore[arg-type]
    client.get("/api/v1/workloads/a%0Ab?x=1")
    client.get("/api/v1/health")
    (line,) = [each for each in lines(path) if each["logger"] == "raywise.access"]
    del line["at"]
    assert line == {
        "level": "info", "logger": "raywise.access", "message": "GET /api/v1/workloads/a%0Ab 400", "method": "GET",
        "path": "/api/v1/workloads/a%0Ab", "status": 400, "ms": 41.7, "client": "testclient",
    }  # fmt: skip


@pytest.mark.parametrize("user", ["ann", type("User", (), {"name": "ann"})()], ids=["a name", "an object with one"])
def test_the_user_is_told_where_the_api_knows_one(secrets: Secrets, tmp_path: Path, user: object) -> None:
    async def app(scope: Any, _: Any, send: Any) -> None:
        scope["state"]["user"] = user
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    path = json_log(tmp_path, secrets)
    TestClient(AccessLog(app)).get("/")  # type: ignore[arg-type]
    assert [each["user"] for each in lines(path) if each["logger"] == "raywise.access"] == ["ann"]


def test_the_user_is_the_one_of_the_token(runtime: FakeRuntime, secrets: Secrets, tmp_path: Path) -> None:
    path = json_log(tmp_path, secrets)
    client = TestClient(AccessLog(create_app(runtime)))  # type: ignore[arg-type]
    client.get("/api/v1/workloads", headers={"authorization": f"Bearer {runtime.token}"})
    client.get("/api/v1/workloads")
    told = [each for each in lines(path) if each["logger"] == "raywise.access"]
    assert [(each["status"], each.get("user")) for each in told] == [(200, "admin"), (401, None)]


def test_a_request_that_breaks_is_told_as_500(secrets: Secrets, tmp_path: Path) -> None:
    async def app(*_: Any) -> None:
        raise RuntimeError("defect")

    path = json_log(tmp_path, secrets)
    assert TestClient(AccessLog(app), raise_server_exceptions=False).get("/x").status_code == 500  # type: ignore[arg-type]
    assert [each["status"] for each in lines(path) if each["logger"] == "raywise.access"] == [500]


def test_probes_are_heard_of_at_debug_only(runtime: FakeRuntime, secrets: Secrets, tmp_path: Path) -> None:
    path = json_log(tmp_path, secrets, "debug")
    TestClient(AccessLog(create_app(runtime))).get("/api/v1/health")  # type: ignore[arg-type]
    assert [each["level"] for each in lines(path) if each["logger"] == "raywise.access"] == ["debug"]


def test_the_file_is_its_owners_and_follows_a_rotation(written: Path) -> None:
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    logging.getLogger("raywise.x").info("before")
    written.rename(written.with_suffix(".1"))
    logging.getLogger("raywise.x").info("after")
    assert "after" in written.read_text() and "before" not in written.read_text()


def test_a_file_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=r"log\.file: .*cannot be written: "):
        configure(LogOptions(file=tmp_path / "file" / "x.log"))


def test_uvicorn_and_httpx_tell_of_trouble_only(tmp_path: Path, secrets: Secrets) -> None:
    path = json_log(tmp_path, secrets, "debug")
    logging.getLogger("httpx").info("HTTP Request: GET http://x?token=abcdefg")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("trouble")
    assert [each["message"] for each in lines(path)] == ["trouble"]


def test_what_gets_into_the_event_log_is_told(secrets: Secrets, tmp_path: Path) -> None:
    path = json_log(tmp_path, secrets)
    store = Store(":memory:")
    told_store = told(store)
    record = Record("hello-1", "hello", "command", {}, "pending", 0.0, "/out", "/run")
    store.add([record], [])
    enter_cycle(7)
    told_store.put(replace(record, state="cancelled"), Event("cancelled", "the user asked for it", "hello-1", 7))
    told_store.append(Event("calibration-reset", "the user asked for it", None, 7))
    shown = [{name: line.get(name) for name in ("message", "cycle", "workload_id")} for line in lines(path)]
    assert shown == [
        {"message": "cancelled: the user asked for it", "cycle": 7, "workload_id": "hello-1"},
        {"message": "calibration-reset: the user asked for it", "cycle": 7, "workload_id": None},
    ]
    assert told_store.last_cycle() == store.last_cycle() == 7
    with pytest.raises(StoreError):
        told_store.put(replace(record, id="nobody"), Event("cancelled", "never", "nobody"))
    assert len(lines(path)) == 2, "what was not written is not told"
    store.close()
