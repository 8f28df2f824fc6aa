"""A start that fails does so before a cluster is started, says why in a sentence, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from scheduler.cli import app, lifecycle
from scheduler.service import main
from scheduler.service.home import Home, HomeError
from scheduler.service.main import PortError, ServiceOptions, bind, serve
from scheduler.service.opening import open_store
from workloads.errors import RaywiseError, SpecError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a cluster would have been started")

    monkeypatch.setattr(main, "_access", refuse)
    return Home(tmp_path / "home")


@pytest.fixture
def busy() -> Iterator[int]:
    with bind(0) as listener:
        yield listener.getsockname()[1]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_busy_port_is_named_before_anything_starts(home: Home, busy: int) -> None:
    with pytest.raises(
        PortError, match=f"the API cannot have port {busy}: Address already in use\n  hint: choose another"
    ):
        serve(ServiceOptions(home, port=busy))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (OverflowError(), "not between 0 and 65535")],
)
def test_a_port_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def fail(*_: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(socket.socket, "bind", fail)
    with pytest.raises(PortError, match=f"port 80: {reason}"):
        bind(80)


def test_a_store_that_is_none_is_found_before_anything_starts(home: Home) -> None:
    home.prepare()
    home.database.write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(RaywiseError, match=r"raywise\.db"):
        serve(ServiceOptions(home))


def test_a_bad_catalog_is_found_before_anything_starts(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("[")
    with pytest.raises(SpecError):
        serve(ServiceOptions(home, catalog=tmp_path / "mine.yaml"))


@pytest.mark.parametrize("option", ["--cluster", "--catalog"])
@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["in the foreground", "detached"])
def test_a_bad_file_is_bad_input_however_it_is_started(tmp_path: Path, option: str, detach: list[str]) -> None:
    (tmp_path / "bad.yaml").write_text("[")
    command = ["up", "--home", str(tmp_path / "home"), option, str(tmp_path / "bad.yaml"), *detach]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "bad.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("2026 INFO x\nerror: port 80: no\n  hint: another\n", "port 80: no\n  hint: another"),
        ("error: first\nTraceback (most recent call last):\nerror: last\n", "last"),
        ("Traceback (most recent call last):\n  File x\nValueError: deep\n", "ValueError: deep"),
        ("", ""),
    ],
    ids=["an error with its hint", "the last of two", "a defect", "nothing"],
)
def test_what_is_said_of_a_failed_start(printed: str, said: str) -> None:
    assert lifecycle.last_error(printed) == said


class Cluster(SimpleNamespace):
    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("before", "after", "running", "stopped"),
    [
        (None, "new", False, True),
        ("old", "new", False, True),
        ("old", "old", False, False),
        (None, "new", True, False),
    ],
    ids=["its own", "one that replaced another", "one that was there", "one of a service that starts beside it"],
)
def test_a_failed_start_takes_its_cluster_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str, running: bool, stopped: bool
) -> None:
    home = Home(tmp_path)
    left = Cluster(cluster_id=after, stopped=False)
    found = [None if before is None else Cluster(cluster_id=before), left]
    monkeypatch.setattr(lifecycle.LocalCluster, "open", lambda _: found.pop(0))
    monkeypatch.setattr(lifecycle, "sys", SimpleNamespace(executable="/bin/false"))
    lock = home.lock() if running else None
    with pytest.raises(lifecycle.ServiceStartError, match=r"did not start: it ended without a word\n  log: "):
        lifecycle.start_detached(home)
    assert left.stopped == stopped
    if lock is not None:
        os.close(lock)


def test_a_home_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.path.chmod(0o755)
    home.prepare()
    assert mode(home.path) == 0o700


def test_a_folder_that_everybody_shares_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    with pytest.raises(HomeError, match="is shared with others"):
        Home(tmp_path / "tmp").prepare()
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="cannot be the home folder: "):
        Home(tmp_path / "file").prepare()


@pytest.mark.parametrize("existing", [False, True])
def test_the_database_is_private_from_its_first_byte(tmp_path: Path, existing: bool) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    old = os.umask(0)
    try:
        if existing:
            home.database.touch(0o644)
        store = open_store(home)
    finally:
        os.umask(old)
    beside = [path for path in home.path.iterdir() if path.is_file()]
    assert len(beside) == 3, "the file, its log and its index"
    assert {mode(path) for path in beside} == {0o600}
    store.close()
