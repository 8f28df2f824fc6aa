"""What the commands share: consoles, exit codes, errors, options."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from scheduler.client import Client, ClientError, Refused
from scheduler.service.home import Home
from workloads.errors import RaywiseError, SpecError

FAILED, BAD_INPUT = 1, 2

PLAIN_WIDTH = 150
"""Columns of a table that does not go to a terminal."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
HomeOption = Annotated[
    Path | None, typer.Option("--home", envvar="RAYWISE_HOME", help="The service's folder (default ~/.raywise).")
]
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", envvar="RAYWISE_CATALOG", help="Your own device types and prices (CSV or YAML)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter or a field, e.g. data=my/folder. Repeatable."),
]


def home_of(path: Path | None) -> Home:
    """The home folder of a command."""
    return Home(path.expanduser().resolve()) if path is not None else Home.default()


@contextmanager
def client_of(path: Path | None) -> Iterator[Client]:
    """A client for the home folder's service; its errors end the command."""
    with friendly(), Client(home=home_of(path).path) as client:
        yield client


@contextmanager
def friendly() -> Iterator[None]:
    """Turn what was raised on purpose into a message and an exit code: 2 for bad input, 1 for the rest."""
    try:
        yield
    except (SpecError, Refused) as error:
        fail(str(error), BAD_INPUT)
    except ClientError as error:
        fail(str(error), BAD_INPUT if error.status == 404 else FAILED)
    except RaywiseError as error:
        fail(str(error), FAILED)


def fail(message: str, code: int) -> NoReturn:
    """Print an error and end with this exit code."""
    errors.print(f"[bold red]error:[/bold red] {_escape(message)}")
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """JSON on standard output, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
