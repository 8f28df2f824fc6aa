"""`raywise usage`, `queues`, `nodes` and `events`: who holds what, what it has cost, and what happens."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Annotated

import typer

from dashboards import ledger, terminal

from .common import HomeOption, JsonFlag, WideFlag, client_of, console, print_json, screen


def usage(
    by: Annotated[str, typer.Option(help="owner, queue, workload, day, device_type; several with commas.")] = "queue",
    since: Annotated[str | None, typer.Option(metavar="DAY", help="First day (UTC); the first of this month.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day, included; today.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue's.")] = None,
    workload: Annotated[str | None, typer.Option(metavar="ID", help="Only this workload's.")] = None,
    device_type: Annotated[str | None, typer.Option("--device-type", help="Only this device type's.")] = None,
    json_: JsonFlag = False,
    wide: WideFlag = False,
    home: HomeOption = None,
) -> None:
    """Show device hours and dollars, of what has ended and of what runs, up to now."""
    with client_of(home) as client:
        answer = client.usage(
            by, since=since, until=until, owner=owner, queue=queue, workload=workload, device_type=device_type
        )
    if json_:
        print_json(answer)
    else:
        screen(wide).print(ledger.usage_table(answer))


def queues(json_: JsonFlag = False, wide: WideFlag = False, home: HomeOption = None) -> None:
    """List queues: their rules, what they hold, what waits, what they have cost today and this month."""
    with client_of(home) as client:
        answer = client.queues()
    if json_:
        print_json(answer)
    elif answer["queues"]:
        screen(wide).print(ledger.queues_table(answer))
    else:
        console.print("no queue has rules or work; see docs/cluster.md")


def nodes(json_: JsonFlag = False, wide: WideFlag = False, home: HomeOption = None) -> None:
    """List the machines with what runs on each, and the kinds that can be rented."""
    with client_of(home) as client:
        answer = client.nodes()
    if json_:
        print_json(answer)
        return
    screen(wide).print(ledger.nodes_table(answer))
    for line in ledger.rentable_lines(answer):
        console.print(line, markup=False, soft_wrap=True)


def events(
    workload_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only of a workload or pipeline.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only these kinds, separated by commas.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Only after this number.")] = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Show what happened, line by line."""
    kinds = None if kind is None else [each.strip() for each in kind.split(",")]
    with client_of(home) as client, suppress(KeyboardInterrupt):
        found = (
            client.events(workload_id, after, kinds=kinds, follow=True)
            if follow
            else iter(client.events(workload_id, after, kinds=kinds))
        )
        for event in found:
            if json_:
                sys.stdout.write(json.dumps(event) + "\n")
                sys.stdout.flush()
            else:
                console.print(terminal.event_line(event), markup=False, soft_wrap=True)
