"""What the command line prints over time: logs of several workloads, and an interrupted demo."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any

import pytest
from typer.testing import CliRunner

import raywise
from scheduler.cli import app, demo
from scheduler.cli.app import _LogPrinter


def test_each_log_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    printer = _LogPrinter()
    printer.print({"a": "1\n", "b": ""})
    printer.print({"a": "1\n2\n", "b": ""})
    printer.print({"a": "1\n2\n", "b": "x\n"})
    printer.print({"a": "again\n", "b": "x\n"})  # another attempt
    assert capsys.readouterr().out == "=== a\n1\n2\n=== b\nx\n=== a\nagain\n"


def test_one_log_has_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    _LogPrinter().print({"a": "1\n"})
    assert capsys.readouterr().out == "1\n"


class Printing:
    """A pipeline whose two workloads have ended."""

    def show(self, _: str) -> Any:
        return {"workloads": [{"id": "p-a", "ended": True}, {"id": "p-b", "ended": True}]}

    def logs(self, workload_id: str) -> str:
        return f"I am {workload_id}\n"


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        ([], "=== p-a\nI am p-a\n=== p-b\nI am p-b\n"),
        (["-f"], "=== p-a\nI am p-a\n=== p-b\nI am p-b\n"),
        (["--json"], json.dumps({"id": "p", "logs": {"p-a": "I am p-a\n", "p-b": "I am p-b\n"}}, indent=2) + "\n"),
    ],
)
def test_logs_of_a_pipeline(monkeypatch: pytest.MonkeyPatch, flags: list[str], printed: str) -> None:
    module = sys.modules[_LogPrinter.__module__]  # `scheduler.cli.app` is the application in it
    monkeypatch.setattr(module, "client_of", lambda _: nullcontext(Printing()))
    result = CliRunner().invoke(app, ["logs", "p", *flags])
    assert (result.exit_code, result.stdout) == (0, printed)


class Stuck:
    def __init__(self, ends: bool) -> None:
        self.ends, self.cancelled = ends, ""

    def cancel(self, workload_id: str) -> None:
        self.cancelled = workload_id

    def wait(self, workload_id: str, timeout_s: float) -> None:
        if not self.ends:
            raise TimeoutError


@pytest.mark.parametrize(
    ("ends", "said"),
    [(True, "interrupted; p is cancelled"), (False, "interrupted; p was told to end and has not after 30 s")],
)
def test_an_interrupted_demo(ends: bool, said: str) -> None:
    client: Any = Stuck(ends)
    assert demo._interrupt(client, "p") == said
    assert client.cancelled == "p"


def test_the_package_exports_the_clients_errors() -> None:
    assert issubclass(raywise.NoService, raywise.ClientError)  # type: ignore[attr-defined]
    assert issubclass(raywise.Refused, raywise.ClientError)  # type: ignore[attr-defined]
