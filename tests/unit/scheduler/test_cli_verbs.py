"""The verbs of the command line, each in its own module or in another that is imported when it is called."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from scheduler.cli import app


@pytest.mark.parametrize(
    ("verb", "sentence"),
    [
        ("up", "Start the service, and a local cluster"),
        ("down", "Stop the service"),
        ("demo", "Start a local cluster with emulated accelerators"),
        ("calibrate", "Measure the devices that are there"),
        ("profile", "Show where each step"),
        ("simulate", "Run the jobs of a trace"),
        ("list", "List workloads"),
        ("pause", "Take a workload's devices away"),
        ("resume", "Let a paused workload go on"),
        ("change", "Change a workload while it waits or runs"),
        ("usage", "Show device hours and dollars"),
        ("queues", "List queues"),
        ("nodes", "List the machines"),
        ("events", "Show what happened"),
        ("token", "Make, list and revoke users' tokens"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_verb_says_what_it_does_alone_and_in_the_list(verb: str, sentence: str) -> None:
    alone = CliRunner().invoke(app, [verb, "--help"])
    assert (alone.exit_code, f"Usage: raywise {verb} " in alone.stdout) == (0, True), alone.output
    assert sentence in alone.stdout
    assert f"  {verb:9}  {sentence}" in CliRunner().invoke(app, ["--help"]).stdout
