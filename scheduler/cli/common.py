"""What the commands share: consoles, exit codes, errors, options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from scheduler.client import Client, ClientError, Refused
from scheduler.service.home import Home
from workloads.errors import Problem, RaywiseError, SpecError

FAILED, BAD_INPUT = 1, 2

PLAIN_WIDTH = 150
"""Columns of a table that does not go to a terminal, where COLUMNS does not say."""
WIDE = 200
"""Columns with --wide."""


def plain_width(environ: Mapping[str, str], *, terminal: bool) -> int | None:
    """Columns of what is printed; None where the terminal, or COLUMNS, is asked."""
    return None if terminal or environ.get("COLUMNS", "").isdigit() else PLAIN_WIDTH


console = Console(highlight=False, width=plain_width(os.environ, terminal=sys.stdout.isatty()))
errors = Console(stderr=True, highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
WideFlag = Annotated[bool, typer.Option("--wide", help="Every column, however narrow the window.")]
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
    except SpecError as error:
        fail_all([str(problem) for problem in error.problems], BAD_INPUT)
    except Refused as error:
        fail_all([str(Problem(**problem)) for problem in error.problems], BAD_INPUT)
    except ClientError as error:
        fail(str(error), BAD_INPUT if error.status == 404 else FAILED)
    except RaywiseError as error:
        fail(str(error), FAILED)


def fail(message: str, code: int) -> NoReturn:
    """Print an error and end with this exit code."""
    fail_all([message], code)


def fail_all(messages: Sequence[str], code: int) -> NoReturn:
    """Print several errors and end with this exit code."""
    for message in messages:
        errors.print(f"[bold red]error:[/bold red] {escape(message)}")
    raise typer.Exit(code)


def screen(wide: bool) -> Console:
    """Where tables go: with `wide`, as if the window were wide."""
    return Console(highlight=False, width=max(WIDE, console.width)) if wide else console


@contextmanager
def doing(text: str) -> Iterator[None]:
    """Say what takes some time: a line that moves in a terminal, one that stays elsewhere."""
    if console.is_terminal:
        with console.status(f"{text} ..."):
            yield
    else:
        console.print(f"{text} ...", markup=False)
        yield


def print_json(value: Any) -> None:
    """JSON on standard output, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
