"""What the doctor finds out by itself: on this machine, of files that a test makes, and of a service that answers."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from cluster.probe import ClusterProbe, ahead_s, health_of
from postgres_server import Server, running
from scheduler.cli import app
from scheduler.doctor import ask, gather
from scheduler.doctor.gather import Target
from scheduler.service.home import Home, ServiceInfo
from scheduler.service.main import bind
from scheduler.service.opening import open_store
from scheduler.store import Store

SUMMARY = {
    "data": {
        "summary": [
            {
                "now": 1002.5,
                "hostname": "one",
                "mem": [100, 60, 40.0, 40],
                "disk": {"/": {"percent": 25.9, "free": 1}, "/odd": {}},
                "gpus": [{"name": "T4"}],
                "raylet": {"nodeId": "a", "state": "ALIVE"},
            },
            {"raylet": {"nodeId": "b", "state": "DEAD"}, "now": None, "mem": "odd"},
        ]
    }
}


@pytest.fixture
def target(tmp_path: Path) -> Target:
    made = Target(Home(tmp_path / "home"))
    made.home.prepare()
    return made


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with running() as server:
        yield server


def test_this_machine(tmp_path: Path) -> None:
    facts = gather.machine([("home", tmp_path / "not" / "there")])
    assert facts.python == sys.version_info[:3]
    assert facts.packages["ray"] and facts.packages["torch"]
    assert facts.ray_error is None
    assert 0 < facts.memory_available_bytes <= facts.memory_bytes
    assert facts.open_files > 0
    (disk,) = facts.disks
    assert (disk.path, 0 < disk.free_bytes < disk.total_bytes) == (str(tmp_path), True)
    assert facts.is_root == (os.geteuid() == 0)


def test_what_cannot_be_imported_is_said_in_its_last_words() -> None:
    assert gather._import_error("raywise_has_no_such_module") == (
        "ModuleNotFoundError: No module named 'raywise_has_no_such_module'"
    )
    assert gather._version("raywise-has-no-such-package") is None


def test_a_home_and_what_is_private_in_it(target: Target) -> None:
    assert gather.home(Target(Home(target.home.path / "none"))).mode is None
    target.home.ensure_token()
    Store(target.home.database).close()
    target.home.database.chmod(0o644)
    facts = gather.home(target)
    assert (facts.mode, facts.owned) == (0o700, True)
    assert facts.private_modes == {str(target.home.path / "token"): 0o600, str(target.home.database): 0o644}


def test_a_store_is_looked_at_and_left_as_it_is(target: Target) -> None:
    assert not gather.store(target).exists
    Store(target.home.database).close()
    db = sqlite3.connect(target.home.database)
    db.execute("PRAGMA user_version=1")
    db.close()
    facts = gather.store(target)
    assert (facts.integrity, facts.version, facts.expected_version, facts.write_error) == ("ok", 1, 3, None)
    assert gather.store(target).version == 1, "it was not brought up to date"


def test_a_store_that_is_none(target: Target) -> None:
    target.home.database.write_text("no database, but long enough to be taken for one" * 100)
    assert gather.store(target).error == "file is not a database"


def test_a_store_that_is_damaged(target: Target) -> None:
    store = Store(target.home.database)
    for number in range(200):
        store.set_setting(f"name-{number}", "x" * 100)
    store.close()
    data = bytearray(target.home.database.read_bytes())
    data[-3000:-100] = b"\xff" * 2900
    target.home.database.write_bytes(data)
    facts = gather.store(target)
    assert facts.error is not None or facts.integrity != "ok"


def test_a_store_that_somebody_locks_cannot_be_written(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(target.home.database).close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0.05}))
    holder = connect(target.home.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert gather.store(target).write_error == "database is locked"
    holder.close()


def test_a_database_by_url_has_no_password_in_what_is_said(target: Target) -> None:
    facts = gather.store(Target(target.home, store="postgresql://u:correct-horse@nowhere.invalid/d"))
    assert facts.error is not None
    assert "correct-horse" not in f"{facts.place}{facts.error}"


def test_a_database_is_looked_at_beside_its_service_and_left_as_it_is(target: Target, postgres: Server) -> None:
    url = postgres.url("doctor")
    assert not gather.store(Target(target.home, store=url)).exists, "no table is made"
    store = open_store(target.home, url)
    facts = gather.store(Target(target.home, store=url))
    assert (facts.error, facts.write_error, facts.version, facts.expected_version) == (None, None, 3, 3)
    assert facts.size_bytes is not None and facts.size_bytes > 0
    with store.database.transaction() as db:
        db.exec_driver_sql("ALTER DATABASE doctor SET default_transaction_read_only = on")
    assert gather.store(Target(target.home, store=url)).write_error == "the server takes no writes (a replica?)"
    store.close()


def test_a_port_that_is_free_and_one_that_is_not(target: Target) -> None:
    with bind(0) as listener:
        port = listener.getsockname()[1]
        facts = gather.service(Target(target.home, port=port), None)
        assert facts.port_error is not None and facts.port_error.startswith("Address already in use")
        assert f"(pid {os.getpid()})" in facts.port_error
    assert gather.service(Target(target.home, port=port), None).port_error is None
    assert gather.service(target, None).configured_port is None


def answering(monkeypatch: pytest.MonkeyPatch, routes: dict[str, tuple[int, Any]]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        status, body = routes.get(request.url.path, (404, {}))
        return httpx.Response(status, json=body)

    client = httpx.Client

    def connect(**options: Any) -> httpx.Client:
        return client(base_url=options["base_url"], transport=httpx.MockTransport(handle))

    monkeypatch.setattr(ask.httpx, "Client", connect)


HEALTH: dict[str, tuple[int, Any]] = {"/api/v1/health": (200, {"status": "ok"})}


@pytest.mark.parametrize(
    ("routes", "answer"),
    [
        ({"/api/v1/health": (500, {})}, None),
        (
            HEALTH | {"/api/v1/ready": (200, {"ready": True, "reasons": [], "last_cycle_age_s": 0.5})},
            ask.Answer(None, (), 0.5),
        ),
        (HEALTH | {"/api/v1/ready": (503, {"reasons": ["no cluster"]})}, ask.Answer(None, ("no cluster",))),
        (HEALTH | {"/api/v1/ready": (503, {"title": "not ready"})}, ask.Answer(None, ("not ready",))),
        (HEALTH | {"/api/v1/ready": (503, ["odd"])}, ask.Answer(None, ("it does not say why",))),
        (HEALTH | {"/api/v1/snapshot": (200, {"now_s": 90.0})}, ask.Answer(None, None, 10.0)),
        (HEALTH | {"/api/v1/snapshot": (200, {"odd": 1})}, ask.Answer()),
        (HEALTH, ask.Answer()),
    ],
)
def test_a_service_is_asked(
    monkeypatch: pytest.MonkeyPatch, routes: dict[str, tuple[int, Any]], answer: ask.Answer | None
) -> None:
    answering(monkeypatch, routes)
    given = ask.ask_service("http://service", "token", lambda: 100.0)
    if answer is None:
        assert given.health_error is not None and "500" in given.health_error
    else:
        assert given == answer


def test_a_service_that_does_not_answer() -> None:
    with bind(0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert ask.ask_service(url, None, lambda: 0.0).health_error


def test_what_nodes_report_of_themselves() -> None:
    one, two = health_of(SUMMARY, 1000.0)
    assert (one.node_id, one.hostname, one.alive, one.ahead_s, one.gpus) == ("a", "one", True, 2.5, 1)
    assert one.memory_used == pytest.approx(0.4)
    assert one.disk_used == {"/": pytest.approx(0.259)}
    assert (two.alive, two.ahead_s, two.memory_used, two.gpus) == (False, None, None, 0)
    assert health_of([], 0.0) == health_of({}, 0.0) == ()


@pytest.mark.parametrize(
    ("date", "expected"),
    [("Thu, 01 Jan 1970 00:01:40 GMT", 0.5), ("Thu, 01 Jan 1970 00:01:30 GMT", -9.5), (None, None), ("soon", None)],
)
def test_a_clock_behind_http(date: str | None, expected: float | None) -> None:
    assert ahead_s(date, 100.0) == expected


def test_the_command_says_it_and_fails_where_something_does(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_import_error", lambda _: None)
    arguments = ["doctor", "--home", str(target.home.path)]
    target.home.ensure_token()
    monkeypatch.setattr(os, "geteuid", lambda: target.home.path.stat().st_uid)
    report = CliRunner().invoke(app, [*arguments, "--json"])
    said = json.loads(report.stdout)
    assert {each["subject"] for each in said["findings"]} >= {"python", "ray", "home", "store", "service", "cluster"}
    assert report.exit_code == (said["level"] == "fail")
    (target.home.path / "token").chmod(0o644)
    broken = CliRunner().invoke(app, arguments)
    assert broken.exit_code == 1
    assert f"fail  secrets            {target.home.path / 'token'} can be read by others (mode 0644)" in broken.stdout
    assert f"do: chmod 600 {target.home.path / 'token'}" in broken.stdout
    assert stat.S_IMODE((target.home.path / "token").stat().st_mode) == 0o644, "it looks, and changes nothing"


def test_a_running_service_and_its_cluster_are_found(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ServiceInfo("http://service", os.getpid(), psutil.Process().create_time(), "a:1", "http://a:2", False)
    target.home.announce(info)
    monkeypatch.setattr(gather, "_import_error", lambda _: None)
    probed: list[tuple[Any, ...]] = []

    def probe(*where: Any) -> ClusterProbe:
        probed.append(where)
        return ClusterProbe(where[0], where[1])

    monkeypatch.setattr(gather, "probe", probe)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    answering(monkeypatch, HEALTH)
    facts = gather.gather(target)
    assert (facts.service.url, facts.service.health_error) == ("http://service", None)
    assert facts.cluster == ClusterProbe("a:1", "http://a:2")
    gather.gather(Target(target.home, address="b:1", token_file=Path("/t")))
    assert probed == [("a:1", "http://a:2", None), ("b:1", "http://b:8265", Path("/t"))]
