"""What the command line prints over time: logs of several workloads, and an interrupted demo."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import raywise
from scheduler.cli import app, demo
from scheduler.cli.common import doing
from scheduler.cli.log_lines import LinePrinter
from scheduler.cli.waiting import Milestones, wait_for

NOISE = "2026-11-21 08:24:02,556\tINFO job_manager.py:581 -- Runtime env is setting up.\n"


def test_a_line_of_rays_own_is_not_shown_by_halves(capsys: pytest.CaptureFixture[str]) -> None:
    printer, text = LinePrinter(), f"a\n{NOISE}b\nc"
    for character in text:
        printer.print(character)
    assert capsys.readouterr().out == "a\nb\n"
    printer.end()
    assert capsys.readouterr().out == "c", "what has no end of line comes last, but it comes"


def test_the_raw_log_is_all_there_and_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(raw=True)
    printer.print(NOISE[:30])
    assert capsys.readouterr().out == NOISE[:30]
    printer.print(NOISE[30:])
    printer.end()
    assert capsys.readouterr().out == NOISE[30:]


class Printing:
    """A pipeline whose two workloads have ended."""

    def show(self, _: str) -> Any:
        return {"workloads": [{"id": "p-a", "ended": True}, {"id": "p-b", "ended": True}]}

    def wait(self, _: str) -> None:
        """They have."""

    def logs(self, workload_id: str, *, follow: bool = False) -> Any:
        if follow:
            return iter(["=== p-a\n" + NOISE[:9], NOISE[9:] + "I am p-a\n", "=== p-b\nI am p-b\n"])
        return f"{NOISE if workload_id == 'p-a' else ''}I am {workload_id}\n"


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        ([], "=== p-a\nI am p-a\n=== p-b\nI am p-b\n"),
        (["-f"], "=== p-a\nI am p-a\n=== p-b\nI am p-b\n"),
        (["-f", "--raw"], f"=== p-a\n{NOISE}I am p-a\n=== p-b\nI am p-b\n"),
        (["--raw"], f"=== p-a\n{NOISE}I am p-a\n=== p-b\nI am p-b\n"),
        (
            ["--json", "-f"],
            json.dumps({"id": "p", "logs": {"p-a": f"{NOISE}I am p-a\n", "p-b": "I am p-b\n"}}, indent=2) + "\n",
        ),
    ],
)
def test_logs_of_a_pipeline(monkeypatch: pytest.MonkeyPatch, flags: list[str], printed: str) -> None:
    module = sys.modules["scheduler.cli.app"]  # the attribute is the application in it
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


def telling(*moments: tuple[float, str, int], ticks: bool = True) -> list[bool]:
    """Whether each (second, state, attempt) is told of."""
    now_s = [0.0]
    milestones = Milestones(ticks, clock=lambda: now_s[0])
    told = []
    for at_s, state, attempt in moments:
        now_s[0] = at_s
        told.append(milestones.due({"id": "w", "state": state, "attempt": attempt, "explanation": None}))
    return told


@pytest.mark.parametrize(
    ("ticks", "told"),
    [(True, [False, False, True, False, True, False, True, False, True]), (False, [False, False, True, False, True, False, False, False, True])],
    ids=["a stream that cannot be redrawn", "a terminal"],
)  # fmt: skip
def test_a_line_stays_when_something_changed_or_after_half_a_minute(ticks: bool, told: list[bool]) -> None:
    moments = [(100.0, "pending", 0), (101.0, "queued", 0), (102.0, "starting", 1), (103.0, "starting", 1)]
    moments += [(104.0, "running", 1), (133.0, "running", 1), (134.5, "running", 1), (140.0, "running", 1)]
    assert telling(*moments, (141.0, "succeeded", 1), ticks=ticks) == told


def test_the_next_attempt_is_told_of() -> None:
    moments = [(1.0, "running", 1), (2.0, "queued", 1), (3.0, "queued", 1), (4.0, "running", 2)]
    assert telling(*moments) == [True, True, False, True]


def test_what_takes_time_is_said_once_on_a_plain_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with doing("starting [this]"):
        assert capsys.readouterr().out == "starting [this] ...\n"
    assert capsys.readouterr().out == ""


class Interrupting:
    """A client whose user presses Ctrl-C."""

    def wait(self, *_: object, **__: object) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize("quiet", [False, True])
def test_ctrl_c_ends_the_waiting_only(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = Interrupting()
    with pytest.raises(typer.Exit) as ended:
        wait_for(client, "w-1", quiet=quiet, first="submitted w-1")
    assert ended.value.exit_code == 130
    said = capsys.readouterr()
    assert "w-1 goes on. `raywise show w-1` follows it" in said.err
    assert said.out.startswith("" if quiet else "submitted w-1\n")
