"""A world for each test, where what must always hold is checked when the test ends; and a service without a cluster."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fake_service import FakeRuntime
from postgres_server import Server, running
from scheduler.service.app import create_app
from scheduler.store import Store
from world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A fake cluster with an engine; whatever the test did, the invariants hold at its end."""
    made = World()
    yield made
    made.check()
    made.store.close()


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line sees nothing but this test's folder."""
    for name in ("RAYWISE_URL", "RAYWISE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYWISE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[FakeRuntime]:
    """The service, on a fake cluster."""
    made = FakeRuntime(tmp_path / "home")
    yield made
    made.store.close()


@pytest.fixture
def api(runtime: FakeRuntime) -> TestClient:
    """Its API, with the token."""
    client = TestClient(create_app(runtime))
    client.headers["authorization"] = f"Bearer {runtime.token}"
    return client


@pytest.fixture
def service(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    """Clients that are made from now on speak to the runtime's API without a socket; waiting runs the next cycle."""
    api = create_app(runtime)

    def connect(base_url: str = "", headers: Any = None, **_: Any) -> TestClient:
        client = TestClient(api)
        client.headers.update(headers)
        return client

    (runtime.home.path / "service.json").write_text(json.dumps({"url": "http://testserver"}))
    monkeypatch.setattr(httpx, "Client", connect)
    monkeypatch.setattr(time, "sleep", lambda _: runtime.cycle())
    return runtime


DATABASES = itertools.count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store is kept."""
    return tmp_path / "raywise.db"


@pytest.fixture
def file_store(path: Path) -> Iterator[Store]:
    """One in SQLite."""
    opened = Store(path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, one a session."""
    with running() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def store(path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """One in each kind of database."""
    sqlite = request.param == "sqlite"
    opened = Store(path if sqlite else request.getfixturevalue("server").url(f"d{next(DATABASES)}"))
    yield opened
    opened.close()
