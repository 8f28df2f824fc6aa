"""`raywise pause`, `resume` and `change`: what becomes of a workload that was submitted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dashboards import terminal

from .common import BAD_INPUT, HomeOption, JsonFlag, client_of, console, fail, print_json

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A workload's or a pipeline's id.")]
NONE = "none"
"""Takes a deadline or a budget away."""


def pause(
    workload_id: IdArgument,
    restart: Annotated[bool, typer.Option("--restart", help="Also what runs and would begin again.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Take a workload's devices away, after a checkpoint, until it is resumed; or those of a whole pipeline."""
    with client_of(home) as client:
        paused = client.pause(workload_id, restart=restart)
    if json_:
        print_json({"paused": paused})
    else:
        console.print(f"pausing {', '.join(paused)}" if paused else f"{workload_id} is paused already", markup=False)


def resume(workload_id: IdArgument, json_: JsonFlag = False, home: HomeOption = None) -> None:
    """Let a paused workload go on, or a whole pipeline."""
    with client_of(home) as client:
        resumed = client.resume(workload_id)
    if json_:
        print_json({"resumed": resumed})
    else:
        console.print(f"resuming {', '.join(resumed)}" if resumed else f"{workload_id} is not paused", markup=False)


def change(
    workload_id: IdArgument,
    priority: Annotated[int | None, typer.Option(help="-1000..1000; higher goes first.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What it may cost in all, or `none`.")] = None,
    deadline: Annotated[str | None, typer.Option(metavar="DURATION", help="From now on, e.g. 2h, or `none`.")] = None,
    count: Annotated[str | None, typer.Option(metavar="COUNT", help="Devices: 2, or 1..4.")] = None,
    objective: Annotated[str | None, typer.Option(help="cost, balanced or time.")] = None,
    queue: Annotated[str | None, typer.Option(help="The queue it waits in.")] = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Change a workload while it waits or runs, or all steps of a pipeline."""
    fields = {
        "priority": priority,
        "budget_usd": None if budget is None else _dollars(budget),
        "deadline": deadline,
        "count": count,
        "objective": objective,
        "queue": queue,
    }
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if not given:
        fail("nothing is to be changed\n  hint: give one of the options; see `raywise change --help`", BAD_INPUT)
    given = {
        name: None if value == NONE and name in ("budget_usd", "deadline") else value for name, value in given.items()
    }
    with client_of(home) as client:
        answer = client.change(workload_id, **given)
    if json_:
        print_json(answer)
        return
    console.print(f"changed {', '.join(answer['changed'])} of:", markup=False)
    console.print(terminal.workloads_table(answer["workloads"]))


def _dollars(text: str) -> float | str:
    """A number as one; anything else as it is, for the service to say what is wrong with it."""
    try:
        return float(text)
    except ValueError:
        return text
