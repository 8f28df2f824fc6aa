"""`raywise token`: a secret is printed once, alone on standard output; roles are told apart; an old token is replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fake_service import FakeRuntime
from scheduler.cli import app
from scheduler.service.home import Home

pytestmark = pytest.mark.usefixtures("own_home")


def run(*arguments: str, code: int = 0, **environment: str) -> Result:
    result = CliRunner().invoke(app, ["token", *arguments], env=environment)
    assert result.exit_code == code, result.output
    return result


def tokens() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json").stdout)["tokens"]
    return found


def test_a_secret_is_alone_on_standard_output_and_opens_what_its_role_may(service: FakeRuntime) -> None:
    made = run("create", "ann", "--role", "viewer", "--expires", "30d", "--note", "her laptop")
    (secret,) = made.stdout.split()
    (token,) = tokens()
    assert secret.startswith(f"rw_{token['id']}_")
    assert f"token {token['id']} for ann (viewer), until 20" in made.stderr
    refused = run("create", "eve", "--role", "admin", code=1, RAYWISE_TOKEN=secret)
    assert "this needs the role admin; this token has viewer" in refused.stderr
    assert len(tokens()) == 1


def test_the_list_says_what_is_still_open(service: FakeRuntime) -> None:
    assert "no tokens but the administrator's" in run("list").stdout
    run("create", "ann", "--role", "submitter", "--note", "[bold]x[/bold]")
    run("create", "bob", "--role", "admin")
    first = tokens()[0]["id"]
    assert run("revoke", first).stdout == f"revoked {first} of ann\n"
    lines = run("list").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        [first, "ann", "submitter", "revoked"],
        [tokens()[1]["id"], "bob", "admin", "valid"],
    ]
    assert "[bold]x[/bold]" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "a b", "--role", "viewer"), 2, "body.user"),
        (("create", "ann", "--role", "root"), 2, "body.role"),
        (("create", "ann", "--role", "viewer", "--expires", "soon"), 2, "body.expires"),
        (("revoke", "a?b c"), 2, "there is no token 'a?b c'"),
    ],
)
def test_what_is_wrong_is_said(service: FakeRuntime, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in run(*arguments, code=code).stderr
    assert tokens() == []


def test_the_administrators_token_is_rotated_and_the_next_command_uses_it(service: FakeRuntime) -> None:
    before = service.home.read_token()
    assert str(service.home.path / "token") in run("rotate-admin").stdout
    after = service.home.read_token()
    assert before != after
    assert tokens() == []
    run("list", code=1, RAYWISE_TOKEN=str(before))


def test_the_new_token_of_a_remote_service_is_printed(service: FakeRuntime, tmp_path: Path) -> None:
    remote = {"RAYWISE_URL": "http://testserver", "RAYWISE_TOKEN": service.token}
    answer = run("rotate-admin", "--home", str(tmp_path / "other"), **remote)
    assert answer.stdout.strip() == service.home.read_token()


def test_without_a_service_the_file_alone_is_replaced(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert "no service runs" in run("rotate-admin", code=1).stderr
    home.prepare()
    before = home.ensure_token()
    assert str(home.path / "token") in run("rotate-admin").stdout
    assert home.read_token() not in (before, None)
    lock = home.lock()
    assert "a service already runs" in run("rotate-admin", code=1).stderr
    os.close(lock)
