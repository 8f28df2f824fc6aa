"""`raywise token`: who may speak to the service, and as what. Works on a remote service too."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from scheduler.client import Client, NoService, types
from scheduler.service.home import Home
from scheduler.service.token_text import ADMIN, new_token

from .common import HomeOption, JsonFlag, WideFlag, client_of, console, friendly, home_of, print_json, screen

token_app = typer.Typer(help="Make, list and revoke users' tokens.", no_args_is_help=True, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="Whose token it is: what they submit is theirs.")]
RoleOption = Annotated[str, typer.Option(help="viewer (sees all), submitter (also submits), admin (everything).")]


@token_app.command()
def create(
    user: UserArgument,
    role: RoleOption,
    expires: Annotated[str | None, typer.Option(help="It ends after so long, e.g. 30d; without, never.")] = None,
    note: Annotated[str, typer.Option(help="What it is for, as `token list` shows it.")] = "",
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Make a token for a user. Its secret is printed once."""
    with client_of(home) as client:
        made = client.create_token(user, role, expires, note)
    if json_:
        print_json(made)
        return
    typer.echo(made["token"])  # alone on standard output, so that a script can take it
    ends = f"until {_date(made['expires_s'])}" if made["expires_s"] else "until it is revoked"
    typer.echo(f"token {made['id']} for {user} ({role}), {ends}; it cannot be shown again", err=True)
    typer.echo("used with RAYWISE_URL and RAYWISE_TOKEN in the user's environment", err=True)


@token_app.command("list")
def list_(json_: JsonFlag = False, wide: WideFlag = False, home: HomeOption = None) -> None:
    """List tokens, oldest first, also those that open nothing any more."""
    with client_of(home) as client:
        tokens = client.tokens()
    if json_:
        print_json({"tokens": tokens})
    elif tokens:
        screen(wide).print(_table(tokens, time.time()))
    else:
        console.print("no tokens but the administrator's; make one with `raywise token create USER --role ROLE`")


@token_app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")],
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Revoke a token: from now on it opens nothing, and streams that are open with it end."""
    with client_of(home) as client:
        token = client.revoke_token(token_id)
    if json_:
        print_json(token)
    else:
        console.print(f"revoked {token['id']} of {token['user']}", markup=False)


@token_app.command("rotate-admin")
def rotate_admin(home: HomeOption = None) -> None:
    """Replace the administrator's token, the one in the home folder. Without a service, the folder's file alone."""
    folder = home_of(home)
    with friendly():
        try:
            with Client(home=folder.path) as client:
                text = client.rotate_admin_token()
        except NoService:
            if os.environ.get("RAYWISE_URL") or folder.read_token() is None:
                raise
            _rotate_alone(folder)
            text = folder.read_token() or ""
    if folder.read_token() == text:
        console.print(f"the new token is in {folder.path / 'token'}", markup=False, soft_wrap=True)
    else:
        typer.echo(text)
        typer.echo("the administrator's new token, which is in the service's home folder too", err=True)


def _rotate_alone(folder: Home) -> None:
    """Where no service runs: the next start takes what is in the file. Raises ServiceRunning."""
    lock = folder.lock()
    try:
        folder.write_token(new_token(ADMIN))
    finally:
        os.close(lock)


def _table(tokens: Sequence[types.TokenView], now_s: float) -> Table:
    table = Table("ID", "USER", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED", "NOTE", box=None, pad_edge=False)
    for token in tokens:
        times = (_date(at_s) for at_s in (token["created_s"], token["expires_s"], token["last_used_s"]))
        row = (token["id"], token["user"], token["role"], _state(token, now_s), *times, token["note"])
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


def _state(token: types.TokenView, now_s: float) -> str:
    if token["revoked_s"] is not None:
        return "revoked"
    return "expired" if token["expires_s"] is not None and token["expires_s"] <= now_s else "valid"


def _date(at_s: float | None) -> str:
    return "-" if at_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))
