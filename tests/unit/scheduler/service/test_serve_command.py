"""`raywise serve` before it serves: what it prints, what it refuses, and what it hands on."""

from __future__ import annotations

import datetime
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from certificates import make
from scheduler.cli import app
from scheduler.service import main
from scheduler.service.config import ServiceConfig
from scheduler.service.home import Home
from scheduler.service.main import PortError, ServiceOptions, bind, serve
from scheduler.service.tls import TlsFiles
from scheduler.store import StoreError
from workloads.errors import SpecError


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither a cluster nor a handler of this process is touched."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a cluster would have been started")

    monkeypatch.setattr(main, "_access", refuse)
    monkeypatch.setenv("RAYWISE_HOME", str(tmp_path / "home"))
    root = logging.getLogger()
    handlers, level, on_term = list(root.handlers), root.level, signal.getsignal(signal.SIGTERM)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    signal.signal(signal.SIGTERM, on_term)


def run(folder: Path, text: str, *arguments: str) -> Result:
    (folder / "service.yaml").write_text(text)
    return CliRunner().invoke(app, ["serve", "--config", str(folder / "service.yaml"), *arguments])


def test_the_printed_configuration_is_one_that_says_the_same(tmp_path: Path) -> None:
    printed = run(tmp_path, "home: here\nqueues: [{name: a, quota: {T4: 1}}]\n", "--print-config")
    assert printed.exit_code == 0, printed.output
    again = ServiceConfig.parse(yaml.safe_load(printed.stdout), base=Path("/elsewhere"))
    assert again == ServiceConfig.load(tmp_path / "service.yaml")
    assert again.home == str(tmp_path / "here")
    assert CliRunner().invoke(app, ["serve", "--print-config"]).exit_code == 0


def test_a_check_looks_at_what_is_named_and_starts_nothing(tmp_path: Path) -> None:
    make(tmp_path, days=5, now=datetime.datetime.now(datetime.UTC))
    done = run(tmp_path, "tls: {cert: tls.crt, key: tls.key}\n", "--check")
    assert (done.exit_code, done.stdout) == (0, "the configuration is good\n")
    assert "warning: the certificate" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hme: x\n", "service.yaml: hme: unknown field 'hme'\n  hint: did you mean 'home'?"),
        ("tls: {cert: a.crt, key: a.key}\n", "a.crt cannot be read: No such file or directory"),
        ("cluster: {definition: none.yaml}\n", "none.yaml: cannot be read"),
        ("catalog: none.csv\n", "none.csv"),
        ("store_env: RAYWISE_NO_SUCH\n", "store_env: the variable RAYWISE_NO_SUCH is not set"),
        ("log: {file: /proc/none/x.log}\n", "log.file: "),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["served", "checked"])
def test_what_is_wrong_is_bad_input(tmp_path: Path, text: str, said: str, arguments: list[str]) -> None:
    result = run(tmp_path, text, *arguments)
    if "log.file" in said and arguments:
        assert result.exit_code == 0, "a check writes nothing"
        return
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_secret_of_the_environment_is_not_left_to_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGURL", str(tmp_path / "mine.db"))
    seen: list[tuple[ServiceOptions, bool]] = []
    monkeypatch.setattr(main, "serve", lambda options, on_ready: seen.append((options, "PGURL" in os.environ)))
    assert run(tmp_path, "store_env: PGURL\n").exit_code == 0
    ((options, left),) = seen
    assert (options.store, left) == (str(tmp_path / "mine.db"), False)


def test_what_is_wrong_with_the_options_is_found_before_a_cluster_starts(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    one, other = make(tmp_path / "a"), make(tmp_path / "b")
    queues = ServiceConfig.parse({"queues": [{"name": "a"}]}, base=tmp_path).queues
    (tmp_path / "cluster.yaml").write_text("queues: [{name: b}]\n")
    refusals: list[tuple[ServiceOptions, type[Exception], str]] = [
        (ServiceOptions(home, tls=TlsFiles(one.cert, other.key)), SpecError, "is not the key of"),
        (
            ServiceOptions(home, store="postgresql://u:correct-horse@127.0.0.1:9/d"),
            StoreError,
            r"u:\*\*\*@127.0.0.1:9/d",
        ),
        (ServiceOptions(home, store="/proc/none/x.db"), StoreError, "cannot be the store"),
        (ServiceOptions(home, definition=tmp_path / "cluster.yaml", queues=queues), SpecError, "has queues as well"),
        (ServiceOptions(home, host="192.0.2.77"), PortError, "the API cannot have port 0"),
    ]
    for number, (options, error, said) in enumerate(refusals):
        with pytest.raises(error, match=said):
            serve(replace(options, home=Home(tmp_path / f"home-{number}")))  # a process holds each until its end


def test_rules_of_queues_hold_beside_a_cluster_that_runs_already(tmp_path: Path) -> None:
    from cluster.catalog import Catalog

    queues = ServiceConfig.parse({"queues": [{"name": "a", "weight": 3}]}, base=tmp_path).queues
    (tmp_path / "cluster.yaml").write_text("queues: [{name: b}]\n")
    options = ServiceOptions(Home(tmp_path), address="a:1", queues=queues)
    assert [each.name for each in main._definition(options, Catalog.load()).queues] == ["a"]
    local = ServiceOptions(Home(tmp_path), definition=tmp_path / "cluster.yaml")
    assert [each.name for each in main._definition(local, Catalog.load()).queues] == ["b"]


def test_a_token_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/from/environment")
    where = SimpleNamespace()
    options = ServiceOptions(Home(tmp_path), address="10.0.0.5:6379")
    access = main._access(options, where, where)  # type: ignore[arg-type]
    assert (access.token_path, access.dashboard_url) == (Path("/from/environment"), "http://10.0.0.5:8265")
    named = ServiceOptions(Home(tmp_path), address="10.0.0.5:6379", token_file=Path("/t"), dashboard_url="http://d:1")
    access = main._access(named, where, where)  # type: ignore[arg-type]
    assert (access.token_path, access.dashboard_url, access.local) == (Path("/t"), "http://d:1", None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
def test_it_listens_where_it_is_told(host: str) -> None:
    with bind(0, host) as listener:
        assert listener.getsockname()[1] > 0
        assert listener.getsockname()[0] == {"localhost": "127.0.0.1"}.get(host, host)


def test_a_definition_beside_an_address_says_what_may_be_rented_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.catalog import Catalog

    monkeypatch.undo()
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "provider: {type: aws, region: us-east-1}\nrent_cap_usd_h: 5\nrent_cap_usd_month: 900\n"
        "nodes: [{name: t4, device: T4, instance: aws/g4dn.xlarge, rent: {most: 3}}]\n"
    )
    options = ServiceOptions(Home(tmp_path), definition=file, address="10.0.0.5:6379")
    catalog = Catalog.load()
    renting = main._access(options, catalog, main._definition(options, catalog)).renting
    assert renting is not None
    assert ([each.node_type for each in renting.offers], renting.cap_usd_h, renting.cap_usd_month) == (["t4"], 5, 900)
    without = replace(options, definition=None)
    assert main._access(without, catalog, main._definition(without, catalog)).renting is None
