"""The verbs of `raywise`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dashboards import terminal
from scheduler.client import Client, NoService, Refused
from workloads.errors import Problem, SpecError

from . import demo as demo_command
from . import lifecycle
from .common import (
    BAD_INPUT,
    FAILED,
    CatalogOption,
    HomeOption,
    JsonFlag,
    SetOption,
    client_of,
    console,
    fail,
    friendly,
    home_of,
    print_json,
)
from .offline import offline_plan

app = typer.Typer(
    name="raywise",
    help="Runs machine-learning workloads on a mixed Ray cluster where they cost least, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(lifecycle.up)
app.command("down")(lifecycle.down)
app.command("demo")(demo_command.demo)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file with a workload or a pipeline.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A workload's or a pipeline's id.")]


@app.command()
def plan(
    file: FileArgument,
    set_: SetOption = None,
    cluster: Annotated[Path | None, typer.Option(help="Plan for this cluster definition, without a service.")] = None,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Show what each step would run on, how long and for how much, without running it. Needs no cluster."""
    with friendly():
        answer, emulated = _plan(file, set_ or [], cluster, catalog, home)
    if json_:
        print_json(answer)
        return
    console.print(f"Plan for [bold]{answer['name']}[/bold] by policy {answer['policy']}, on {answer['cluster']}")
    for step in answer["steps"]:
        title = f"{step['name']} ({step['kind']})" + (f" after {', '.join(step['needs'])}" if step["needs"] else "")
        console.print(terminal.options_table(title, step, emulated))


def _plan(
    file: Path, overrides: list[str], cluster: Path | None, catalog: Path | None, home: Path | None
) -> tuple[Any, set[str]]:
    if cluster is None and catalog is None:
        try:
            with Client(home=home_of(home).path) as client:
                answer = client.plan(_existing(file), overrides)
                return answer | {"cluster": "the running cluster"}, terminal.emulated_types(client.devices())
        except NoService:
            pass
    return offline_plan(file, overrides, cluster, home_of(home), catalog)


@app.command()
def submit(
    file: FileArgument,
    set_: SetOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended; exit code 1 if it failed.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Submit a workload or a pipeline."""
    with client_of(home) as client:
        answer = client.submit(_existing(file), set_ or [])
        if not wait:
            if json_:
                print_json(answer)
            else:
                console.print(f"submitted [bold]{answer['id']}[/bold]; see `raywise show {answer['id']}`")
            return
        try:
            view = client.wait(answer["id"], on_update=None if json_ else _Ticker())
        except KeyboardInterrupt:
            fail(
                f"stopped waiting; {answer['id']} goes on. `raywise show {answer['id']}` follows it, "
                f"`raywise cancel {answer['id']}` ends it",
                130,
            )
        _finish(view, json_)


def _finish(view: Any, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        console.print(terminal.report_table(view["workloads"]))
    if any(workload["state"] != "succeeded" for workload in view["workloads"]):
        raise typer.Exit(FAILED)


class _Ticker:
    """Prints a line for each workload whose progress changed, at most every few seconds on a plain stream."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._printed_s: dict[str, float] = {}

    def __call__(self, view: Any) -> None:
        for workload in view["workloads"]:
            state = workload["state"]
            due = time.monotonic() - self._printed_s.get(workload["id"], 0.0) > 5 and state == "running"
            if self._last.get(workload["id"]) != state or due:
                self._last[workload["id"]] = state
                self._printed_s[workload["id"]] = time.monotonic()
                if state != "pending":
                    console.print(terminal.live_line(workload), markup=False)


def _existing(file: Path) -> Path:
    if not file.is_file():
        from workloads.loading import near_files

        raise SpecError(Problem("file does not exist", file=str(file), hint=near_files(file)))
    return file


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only these states, separated by commas.")] = None,
    limit: Annotated[int, typer.Option(help="At most the newest so many.")] = 50,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """List workloads, oldest first."""
    with client_of(home) as client:
        workloads = client.list(state, limit)
    if json_:
        print_json({"workloads": workloads})
    elif workloads:
        console.print(terminal.workloads_table(workloads))
    else:
        console.print("no workloads" + (f" in state {state}" if state else "; submit one with `raywise submit FILE`"))


@app.command()
def show(
    workload_id: IdArgument,
    events: Annotated[bool, typer.Option("--events", help="Also what happened, line by line.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Show a workload or a pipeline: state, placement, predicted and measured, outputs."""
    with client_of(home) as client:
        view = client.show(workload_id)
        if events:
            view["events"] = client.events(workload_id)
    if json_:
        print_json(view)
        return
    console.print(terminal.report_table(view["workloads"]))
    for workload in view["workloads"]:
        console.print(f"{workload['name']}: {workload['output']}", soft_wrap=True)
    for event in view.get("events", []):
        at = time.strftime("%H:%M:%S", time.localtime(event["at_s"]))
        console.print(
            f"{at} cycle {event['cycle']} {event['workload_id']} {event['kind']}: {event['cause']}", markup=False
        )


@app.command()
def logs(
    workload_id: IdArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it has ended.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Print what a workload printed, or each workload of a pipeline."""
    with client_of(home) as client:
        printer = _LogPrinter()
        while True:
            workloads = client.show(workload_id)["workloads"]
            texts = {workload["id"]: client.logs(workload["id"]) for workload in workloads}
            if not json_:
                printer.print(texts)
            if not follow or all(workload["ended"] for workload in workloads):
                break
            try:
                time.sleep(1.0)
            except KeyboardInterrupt:
                break
    if json_:
        print_json({"id": workload_id, "logs": texts})


class _LogPrinter:
    """Prints what is new in each workload's log; with several, a line with the id wherever another one goes on."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._last: str | None = None

    def print(self, texts: dict[str, str]) -> None:
        """Print what came since the last call."""
        for workload_id, text in texts.items():
            before = self._shown.get(workload_id, "")
            new = text.removeprefix(before) if text.startswith(before) else text  # the log of another attempt
            self._shown[workload_id] = text
            if new and len(texts) > 1 and workload_id != self._last:
                sys.stdout.write(f"=== {workload_id}\n")
            if new:
                self._last = workload_id
                sys.stdout.write(new)
        sys.stdout.flush()


@app.command()
def cancel(workload_id: IdArgument, json_: JsonFlag = False, home: HomeOption = None) -> None:
    """End a workload, or all of a pipeline."""
    with client_of(home) as client:
        cancelled = client.cancel(workload_id)
    if json_:
        print_json({"cancelled": cancelled})
    else:
        console.print(f"cancelling {', '.join(cancelled)}" if cancelled else f"{workload_id} has already ended")


@app.command()
def explain(workload_id: IdArgument, json_: JsonFlag = False, home: HomeOption = None) -> None:
    """Say why a workload runs where it does, or why it waits: every configuration with its money or a reason."""
    with client_of(home) as client:
        answer = client.explain(workload_id)
        emulated = terminal.emulated_types(None if json_ else client.devices())
    if json_:
        print_json(answer)
        return
    for workload in answer["workloads"]:
        title = f"{workload['name']} ({workload['kind']}, {workload['state']})"
        if workload["options"]:
            console.print(terminal.options_table(title, workload, emulated))
        else:
            console.print(f"[bold]{title}[/bold]: {workload['message'] or workload['summary']}")


@app.command()
def devices(json_: JsonFlag = False, home: HomeOption = None) -> None:
    """List the cluster's device types: how many, how many free, at what price."""
    with client_of(home) as client:
        answer = client.devices()
    if json_:
        print_json(answer)
        return
    console.print(terminal.devices_table(answer))
    for warning in answer["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)


__all__ = ["BAD_INPUT", "Refused", "app"]
