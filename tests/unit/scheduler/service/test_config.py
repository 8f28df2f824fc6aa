"""`service.yaml`: what is read, where its paths point, and what is said of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scheduler.service.config import ServiceConfig, is_loopback
from scheduler.service.guard import Limits
from scheduler.service.home import Home
from scheduler.service.main import ServiceOptions, hosts_of, url_of
from scheduler.service.options import options_of
from scheduler.service.tls import TlsFiles
from workloads.errors import SpecError

BASE = Path("/etc/raywise")
TLS = {"cert": "tls.crt", "key": "tls.key"}


def parse(**data: Any) -> ServiceConfig:
    return ServiceConfig.parse(data, base=BASE, file="service.yaml")


def refused(data: Any) -> list[str]:
    with pytest.raises(SpecError) as refusal:
        ServiceConfig.parse(data, base=BASE, file="service.yaml")
    assert {problem.file for problem in refusal.value.problems} == {"service.yaml"}
    return [f"{problem.field}: {problem.message} | {problem.hint}" for problem in refusal.value.problems]


def test_an_empty_file_is_the_service_that_up_starts(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("")
    config = ServiceConfig.load(tmp_path / "service.yaml")
    home = Home(tmp_path / "home")
    assert options_of(config, None, home) == ServiceOptions(home)


def test_relative_paths_are_seen_from_the_files_folder() -> None:
    config = parse(
        home="home",
        runs="../runs",
        store="data/raywise.db",
        catalog="/opt/mine.csv",
        tls=TLS,
        cluster={"definition": "cluster.yaml"},
        log={"file": "log/service.log"},
    )
    assert (config.home, config.runs, config.store) == (
        "/etc/raywise/home",
        "/etc/runs",
        "/etc/raywise/data/raywise.db",
    )
    assert config.tls is not None and (config.tls.cert, config.tls.key) == (
        "/etc/raywise/tls.crt",
        "/etc/raywise/tls.key",
    )
    assert (config.catalog, config.cluster.definition) == ("/opt/mine.csv", "/etc/raywise/cluster.yaml")
    assert config.log.file == "/etc/raywise/log/service.log"


def test_a_url_is_no_path() -> None:
    assert parse(store="postgresql://raywise@db/raywise").store == "postgresql://raywise@db/raywise"


def test_the_options_are_what_the_file_says() -> None:
    config = parse(
        home="home",
        runs="/shared/runs",
        listen={"host": "0.0.0.0", "port": 8443},
        tls=TLS,
        cluster={"address": "10.0.0.5:6379", "token_file": "ray-token"},
        queues=[{"name": "research", "quota": {"a100": 4}}],
        policy="fifo",
        cycle_s=5,
        rate_limit={"burst": 7},
    )
    options = options_of(config, "postgresql://x", Home(Path("/other")))
    assert options == ServiceOptions(
        Home(Path("/etc/raywise/home"), Path("/shared/runs")),
        address="10.0.0.5:6379",
        dashboard_url="http://10.0.0.5:8265",
        port=8443,
        policy="fifo",
        host="0.0.0.0",
        tls=TlsFiles(BASE / "tls.crt", BASE / "tls.key"),
        token_file=BASE / "ray-token",
        store="postgresql://x",
        queues=config.queues,
        cycle_s=5.0,
        limits=Limits(requests_per_s=50.0, burst=7),
    )
    assert options.queues[0].quota == {"A100-SXM4-40GB": 4}, "by the catalog's own name"
    assert options.home.runs == Path("/shared/runs")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            [],
            ": expected a mapping of fields | fields: home, runs, listen, tls, store, store_env, store_file, cluster, queues, policy, catalog, cycle_s, log, rate_limit",
        ),
        ({"polcy": "x"}, "polcy: unknown field 'polcy' | did you mean 'policy'?"),
        ({"listen": {"prt": 1}}, "listen.prt: unknown field 'prt' | did you mean 'port'?"),
        ({"policy": "mrket"}, "policy: unknown policy 'mrket' | did you mean 'market'?"),
        ({"cycle_s": 0}, "cycle_s: must be at least 0.1, got 0 | "),
        ({"listen": {"port": 70000}}, "listen.port: must be at most 65535, got 70000 | "),
        ({"log": {"format": "xml"}}, "log.format: expected one of text, json, got 'xml' | known: text, json"),
        ({"tls": {"cert": "a"}}, "tls.key: is required | "),
        (
            {"listen": {"host": "0.0.0.0"}},
            "listen.host: 0.0.0.0 is reached from other machines: tokens would go over the network in the clear | give `tls`, listen on 127.0.0.1, or write `insecure: true` behind a proxy that has TLS",
        ),
        (
            {"listen": {"host": "raywise.example.com"}, "tls": TLS},
            "listen.host: 'raywise.example.com' is no IP address | write an address of this machine, e.g. 127.0.0.1, ::1 or 0.0.0.0",
        ),
        (
            {"store": "postgresql://raywise:hunter22@db/raywise"},
            "store: a password stands in the file | put the URL into a variable or a file, and name it in `store_env` or `store_file`",
        ),
        (
            {"store": "postgresql://db/raywise?user=x&password=hunter22"},
            "store: a password stands in the file | put the URL into a variable or a file, and name it in `store_env` or `store_file`",
        ),
        ({"store": "mysql://db/x"}, "store: unknown kind of store 'mysql' | write a path, or postgresql://..."),
        ({"store": "a", "store_env": "B"}, "store_env: store, store_env exclude each other | keep one of them"),
        (
            {"cluster": {"address": "10.0.0.5"}},
            "cluster.address: is not of the right form | write HOST:PORT, e.g. 10.0.0.5:6379",
        ),
        (
            {"cluster": {"token_file": "t"}},
            "cluster.token_file: is for a cluster that runs already | give its `address`, HOST:PORT",
        ),
        (
            {"cluster": {"address": "a:1", "stop_with_service": True}},
            "cluster.stop_with_service: is for a cluster that is started here | leave it out, or leave out `address`",
        ),
        ({"queues": [{"name": "a", "weigt": 1}]}, "queues.0.weigt: unknown field 'weigt' | did you mean 'weight'?"),
        (
            {"queues": [{"name": "a", "quota": {"T5": 1}}]},
            "queues.0.quota.T5: unknown device type 'T5' | did you mean TPU-v5p?",
        ),
    ],
    ids=lambda value: value.partition("|")[0].strip() if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_field_and_hint(data: Any, said: str) -> None:
    assert refused(data) == [said]


def test_every_problem_is_said_at_once() -> None:
    assert len(refused({"listen": {"host": "::"}, "policy": "x", "store": "ftp://a"})) == 3


def test_a_password_that_stands_in_the_wrong_place_is_not_repeated() -> None:
    said = refused({"store_env": "postgresql://u:hunter22@db/x", "cluster": {"address": "hunter22@host"}})
    assert len(said) == 2 and "hunter22" not in "".join(said)
    assert "hunter22" not in "".join(refused({"store": "postgresql://u:hunter22@db/x"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("home: a\nhome: b\n", "field 'home' twice"),
        ("home: [", "not YAML"),
        ("- a\n", "expected a mapping of fields"),
    ],
    ids=["a field twice", "no YAML", "a list"],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=said) as refusal:
        ServiceConfig.load(path)
    assert refusal.value.problems[0].file == str(path)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").touch()
    with pytest.raises(SpecError, match=r"did you mean 'service\.yaml'"):
        ServiceConfig.load(tmp_path / "servce.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"home: \xff")
    with pytest.raises(SpecError, match="it is no UTF-8 text"):
        ServiceConfig.load(tmp_path / "bytes.yaml")


def test_the_store_comes_from_where_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:p@db/x\n")
    (tmp_path / "empty").write_text("\n")
    secret = "postgresql://u:p@db/y"
    assert parse().read_store({}) is None
    assert parse(store="/data/x.db").read_store({}) == "/data/x.db"
    assert parse(store_env="STORE").read_store({"STORE": secret}) == secret
    assert parse(store_file=str(tmp_path / "url")).read_store({}) == "postgresql://u:p@db/x"
    for config, said in (
        (parse(store_env="STORE"), "the variable STORE is not set"),
        (parse(store_file=str(tmp_path / "none")), "cannot be read"),
        (parse(store_file=str(tmp_path / "empty")), "is empty"),
    ):
        with pytest.raises(SpecError, match=said):
            config.read_store({"STORE": " "})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("::", False),
        ("a", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


@pytest.mark.parametrize(
    ("host", "tls", "url", "told"),
    [
        ("127.0.0.1", False, None, "http://127.0.0.1:8000"),
        ("localhost", False, None, "http://127.0.0.1:8000"),
        ("0.0.0.0", True, None, "https://127.0.0.1:8000"),
        ("::", True, None, "https://[::1]:8000"),
        ("10.0.0.1", True, None, "https://10.0.0.1:8000"),
        ("0.0.0.0", True, "https://raywise.example.com", "https://raywise.example.com"),
    ],
)
def test_what_clients_are_told(tmp_path: Path, host: str, tls: bool, url: str | None, told: str) -> None:
    files = TlsFiles(tmp_path / "c", tmp_path / "k") if tls else None
    assert url_of(ServiceOptions(Home(tmp_path), host=host, tls=files, url=url), 8000) == told


@pytest.mark.parametrize(
    ("host", "url", "hosts"),
    [
        ("127.0.0.1", None, ()),
        ("localhost", "https://raywise.example.com", ("raywise.example.com",)),
        ("0.0.0.0", None, ()),
        ("::", "https://Raywise.example.com:8443", ("raywise.example.com",)),
        ("10.0.0.5", None, ("10.0.0.5",)),
        ("10.0.0.5", "https://raywise.example.com:8443", ("raywise.example.com", "10.0.0.5")),
        ("fd00::5", "https://[fd00::5]:8443", ("fd00::5",)),
    ],
)
def test_the_names_that_the_api_goes_by(tmp_path: Path, host: str, url: str | None, hosts: tuple[str, ...]) -> None:
    assert hosts_of(ServiceOptions(Home(tmp_path), host=host, url=url)) == hosts
