"""The verbs whose modules import what decides, or Ray's side. They are imported when they are called: a verb that only
asks the service answers at once."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

ELSEWHERE = {
    "up": "lifecycle:up",
    "down": "lifecycle:down",
    "serve": "serve:serve",
    "cluster": "cluster:cluster_app",
    "doctor": "doctor:doctor",
    "backup": "backup:backup_command",
    "restore": "backup:restore_command",
    "demo": "demo:demo",
    "calibrate": "calibrate:calibrate",
    "profile": "profile:profile",
    "simulate": "simulate:simulate_command",
    "pause": "control:pause",
    "resume": "control:resume",
    "change": "control:change",
    "usage": "reports:usage",
    "queues": "reports:queues",
    "nodes": "reports:nodes",
    "events": "reports:events",
}
"""Module and function, or group of verbs, of each that is not in `app`."""


def elsewhere() -> None:
    """Holds the place of a verb among the others until it is called."""


class Verbs(TyperGroup):
    """The commands of `raywise`."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, imported now where it is in another module; None where there is none."""
        if cmd_name in ELSEWHERE:
            return _imported(cmd_name, self.rich_markup_mode)
        return super().get_command(ctx, cmd_name)


def _imported(name: str, rich_markup_mode: Any) -> Any:
    module, _, function = ELSEWHERE[name].partition(":")
    found = getattr(import_module(f".{module}", __package__), function)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=rich_markup_mode)
    alone.command(name)(found)
    return typer.main.get_command(alone)
