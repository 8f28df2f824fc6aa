"""The verbs of `raywise`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dashboards import terminal
from scheduler.client import Client, NoService, Refused
from workloads.errors import SpecError
from workloads.refusals import not_a_file

from .common import (
    BAD_INPUT,
    FAILED,
    CatalogOption,
    HomeOption,
    JsonFlag,
    SetOption,
    WideFlag,
    client_of,
    console,
    friendly,
    home_of,
    print_json,
    screen,
)
from .log_lines import follow_logs, print_logs
from .token import token_app
from .verbs import ELSEWHERE, Verbs, elsewhere
from .waiting import wait_for

app = typer.Typer(
    name="raywise",
    cls=Verbs,
    help="Runs machine-learning workloads on a mixed Ray cluster where they cost least, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)
for verb in ELSEWHERE:
    app.command(verb)(elsewhere)
app.add_typer(token_app, name="token")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file with a workload or a pipeline.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A workload's or a pipeline's id.")]


@app.command()
def plan(
    file: FileArgument,
    set_: SetOption = None,
    cluster: Annotated[Path | None, typer.Option(help="Plan for this cluster definition, without a service.")] = None,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    wide: WideFlag = False,
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
        screen(wide).print(terminal.options_table(title, step, emulated))
    for note in answer.get("notes", []):
        console.print(f"note: {note}", style="yellow", markup=False)


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
    from .offline import offline_plan  # imports what decides: a second for each command that only asks the service

    return offline_plan(file, overrides, cluster, home_of(home), catalog)


@app.command()
def submit(
    file: FileArgument,
    set_: SetOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended; exit code 1 if it failed.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="Accepted once, however often it is sent.")
    ] = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Submit a workload or a pipeline."""
    with client_of(home) as client:
        answer = client.submit(_existing(file), set_ or [], idempotency_key=idempotency_key)
        said = f"submitted [bold]{answer['id']}[/bold]; see `raywise show {answer['id']}`"
        if wait:
            _finish(wait_for(client, answer["id"], quiet=json_, first=said), json_)
        elif json_:
            print_json(answer)
        else:
            console.print(said)


def _finish(view: Any, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        _report(view["workloads"], console)
    if any(workload["state"] != "succeeded" for workload in view["workloads"]):
        raise typer.Exit(FAILED)


def _report(workloads: Any, printer: Console) -> None:
    """The table, limits, and where the outputs and the logs are."""
    printer.print(terminal.report_table(workloads))
    for line in (*terminal.limit_lines(workloads), *terminal.output_lines(workloads)):
        printer.print(line, soft_wrap=True, markup=False)


def _existing(file: Path) -> Path:
    problem = not_a_file(file)
    if problem is not None:
        raise SpecError(problem)
    return file


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only these states, separated by commas.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most the newest so many.")] = 50,
    kind: Annotated[str | None, typer.Option(help="Only these kinds, separated by commas.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only what this user submitted.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Only what was submitted since.")] = None,
    json_: JsonFlag = False,
    wide: WideFlag = False,
    home: HomeOption = None,
) -> None:
    """List workloads, oldest first."""
    with client_of(home) as client:
        found = client.workloads(state=state, kind=kind, queue=queue, owner=owner, name=name, since=since)
        workloads = list(islice(found, limit))[::-1]
    if json_:
        print_json({"workloads": workloads})
    elif workloads:
        screen(wide).print(terminal.workloads_table(workloads))
    else:
        console.print(_none_of(state, others=any((kind, queue, owner, name, since))), markup=False)


def _none_of(state: str | None, *, others: bool) -> str:
    if others:
        return "no such workloads"
    return f"no workloads in state {state}" if state else "no workloads; submit one with `raywise submit FILE`"


@app.command()
def show(
    workload_id: IdArgument,
    events: Annotated[bool, typer.Option("--events", help="Also what happened, line by line.")] = False,
    json_: JsonFlag = False,
    wide: WideFlag = False,
    home: HomeOption = None,
) -> None:
    """Show a workload or a pipeline: state, placement, predicted and measured, outputs."""
    with client_of(home) as client:
        view: dict[str, Any] = {**client.show(workload_id)}
        if events:
            view["events"] = client.events(workload_id)
    if json_:
        print_json(view)
        return
    _report(view["workloads"], screen(wide))
    for event in view.get("events", []):
        console.print(terminal.event_line(event), markup=False, soft_wrap=True)


@app.command()
def logs(
    workload_id: IdArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it has ended.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Also what Ray itself writes at every start.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Print what a workload printed, or each workload of a pipeline."""
    with client_of(home) as client:
        if follow and not json_:
            follow_logs(client, workload_id, raw=raw)
            return
        if follow:
            client.wait(workload_id)
        ids = [workload["id"] for workload in client.show(workload_id)["workloads"]]
        texts = {each: client.logs(each) for each in ids}
    if json_:
        print_json({"id": workload_id, "logs": texts})
    else:
        print_logs(texts, raw=raw)


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
def explain(workload_id: IdArgument, json_: JsonFlag = False, wide: WideFlag = False, home: HomeOption = None) -> None:
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
            screen(wide).print(terminal.options_table(title, workload, emulated))
        else:
            console.print(f"{title}: {workload['message'] or workload['summary']}", markup=False)
    for line in terminal.limit_lines(answer["workloads"]):
        console.print(line, soft_wrap=True, markup=False)


@app.command()
def devices(json_: JsonFlag = False, wide: WideFlag = False, home: HomeOption = None) -> None:
    """List the cluster's device types: how many, how many free, at what price."""
    with client_of(home) as client:
        answer = client.devices()
    if json_:
        print_json(answer)
        return
    screen(wide).print(terminal.devices_table(answer))
    for warning in answer["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)


__all__ = ["BAD_INPUT", "Refused", "app"]
