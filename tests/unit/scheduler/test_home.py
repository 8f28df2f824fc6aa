"""The service's folder: what is private, what is stored only as a hash, who is taken for the service."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scheduler.service import auth
from scheduler.service.home import Home, ServiceInfo, ServiceRunning
from scheduler.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def here() -> ServiceInfo:
    return ServiceInfo("http://127.0.0.1:1", os.getpid(), psutil.Process().create_time(), "a:1", "http://a:2", True)


def test_the_token_is_made_once_and_only_its_owner_reads_it(home: Home) -> None:
    assert home.read_token() is None
    token = home.ensure_token()
    assert len(token) >= 43, "256 bits"
    assert (home.ensure_token(), home.read_token()) == (token, token)
    assert (mode(home.path), mode(home.path / "token")) == (0o700, 0o600)
    assert Home(home.path.parent / "other").read_token() is None


def test_an_empty_token_file_is_no_token(home: Home) -> None:
    (home.path / "token").write_text("\n")
    assert len(home.ensure_token()) >= 43


def test_a_token_is_private_whatever_the_umask(home: Home) -> None:
    old = os.umask(0)
    try:
        home.ensure_token()
        home.announce(here())
    finally:
        os.umask(old)
    assert (mode(home.path / "token"), mode(home.path / "service.json")) == (0o600, 0o600)
    assert not [name for name in os.listdir(home.path) if name.startswith(".")]


def test_the_database_knows_only_a_hash(home: Home) -> None:
    token = home.ensure_token()
    store = Store(home.database)
    auth.remember(store, token)
    tokens = auth.Tokens(store)
    for header in (f"Bearer {token}", f"bearer  {token} "):
        assert tokens.check(header).user == auth.User("admin", "admin", "admin")
    for header in (None, "", token, "Bearer", "Bearer ", f"Basic {token}", f"Bearer {token[:-1]}", "Bearer \udc80"):
        with pytest.raises(auth.Denied):
            tokens.check(header)
    store.close()
    assert all(
        token.encode() not in path.read_bytes() for path in home.path.iterdir() if path.name.startswith("raywise.db")
    )


def test_before_any_token_nobody_is_let_in(home: Home) -> None:
    store = Store(home.database)
    for header in ("Bearer ", None):
        with pytest.raises(auth.Denied):
            auth.Tokens(store).check(header)
    store.close()


def test_a_token_of_a_time_before_there_were_ids_opens_the_door(home: Home) -> None:
    store = Store(home.database)
    for token in ("q" * 43, "rw_" + "q" * 40, "rw_q_" + "q" * 38):
        auth.remember(store, token)
        assert auth.Tokens(store).check(f"Bearer {token}").user.role == "admin"
    store.close()


def test_the_service_is_found_while_it_lives(home: Home) -> None:
    assert home.service() is None
    home.announce(here())
    assert home.service() == here()
    home.withdraw()
    home.withdraw()
    assert home.service() is None


@pytest.mark.parametrize(
    "changes",
    [{"process_started_s": 12345.0}, {"pid": 2**22 + 1}],
    ids=["a process that took over the pid", "a pid that nobody has"],
)
def test_a_dead_service_is_not_taken_for_one(home: Home, changes: dict[str, float]) -> None:
    home.announce(replace(here(), **changes))  # type: ignore[arg-type]
    assert home.service() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"url": "x", "pid": 1})])
def test_a_broken_announcement_is_none(home: Home, text: str) -> None:
    (home.path / "service.json").write_text(text)
    assert home.service() is None


def test_one_service_a_folder(home: Home) -> None:
    descriptor = home.lock()
    with pytest.raises(ServiceRunning, match=f"a service already runs from {home.path}"):
        home.lock()
    os.close(descriptor)
    os.close(home.lock())


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYWISE_HOME", str(tmp_path / "mine"))
    assert Home.default().path == tmp_path / "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAYWISE_HOME", "")
    assert Home.default().path == tmp_path / ".raywise"
    monkeypatch.setenv("RAYWISE_HOME", "~/other")
    assert Home.default().path == tmp_path / "other"
