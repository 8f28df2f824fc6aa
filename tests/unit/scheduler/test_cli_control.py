"""The verbs that change what was submitted, and those that say who holds what and what it has cost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from asking import COMMAND, PIPELINE
from cluster.fake import Script
from fake_service import FakeRuntime
from scheduler.cli import app
from scheduler.service.spending import day_of
from scheduler.store import Charge, Event, Record

pytestmark = pytest.mark.usefixtures("own_home")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def good(*arguments: str) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def bad(code: int, *arguments: str) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return result.stderr


@pytest.fixture
def name(service: FakeRuntime, tmp_path: Path) -> str:
    """A workload that waits."""
    (tmp_path / "hello.yaml").write_text(COMMAND)
    return str(json.loads(good("submit", "hello.yaml", "--json"))["id"])


def test_pause_and_resume_by_hand(service: FakeRuntime, name: str) -> None:
    assert good("pause", name) == f"pausing {name}\n"
    assert "paused by admin" in good("list")
    assert good("pause", name) == f"{name} is paused already\n"
    assert json.loads(good("resume", name, "--json")) == {"resumed": [name]}
    assert good("resume", name) == f"{name} is not paused\n"
    assert json.loads(good("pause", name, "--json")) == {"paused": [name]}


def test_what_would_begin_again_is_paused_on_purpose_only(service: FakeRuntime, name: str) -> None:
    service.script = Script(run_s=1e6, records=[(0.5, {"kind": "phase", "phase": "running"})])
    for _ in range(3):
        service.cycle()
    assert "would begin again from its start" in bad(1, "pause", name)
    assert good("pause", name, "--restart") == f"pausing {name}\n"


def test_change_by_hand(service: FakeRuntime, name: str) -> None:
    text = good(
        "change", name, "--priority", "5", "--budget", "3", "--deadline", "2h", "--count", "1..2", "--objective", "time"
    )
    assert text.startswith("changed budget_usd, deadline, objective, priority, resources of:\n") and name in text
    shown = json.loads(good("show", name, "--json"))["workloads"][0]
    assert (shown["priority"], shown["budget_usd"], shown["spec"]["resources"]["count"]) == (5, 3.0, "1..2")
    assert json.loads(good("change", name, "--deadline", "none", "--queue", "night", "--json"))["changed"] == [
        "deadline",
        "queue",
    ]
    shown = json.loads(good("show", name, "--json"))["workloads"][0]
    assert (shown["deadline_s"], shown["queue"]) == (None, "night")


def test_a_wrong_change_is_exit_code_2(service: FakeRuntime, name: str) -> None:
    assert bad(2, "change", name, "--budget", "$3") == (
        "error: budget_usd: expected a number, got '$3'\n  hint: write 3, without the $\n"
    )
    assert "nothing is to be changed" in bad(2, "change", name)
    assert "expected a count" in bad(2, "change", name, "--count", "some")
    assert "there is no workload" in bad(2, "change", "none", "--priority", "1")


def test_a_submission_with_a_key_is_accepted_once(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(PIPELINE)
    ids = {json.loads(good("submit", "two.yaml", "--idempotency-key", "k", "--json"))["id"] for _ in range(2)}
    assert len(ids) == 1


def test_a_list_is_filtered_by_hand(service: FakeRuntime, name: str) -> None:
    assert name in good("list", "--kind", "command", "--queue", "default", "--owner", "admin", "--name", "hel")
    assert good("list", "--since", "2100-01-01") == "no such workloads\n"
    assert "there is no 'runing'" in bad(2, "list", "--state", "runing")
    assert json.loads(good("list", "--limit", "1", "--json"))["workloads"][0]["id"] == name


def test_usage_by_hand(service: FakeRuntime) -> None:
    today = day_of(time.time())
    record = Record("x", "x", "command", {}, "queued", 1.0, "/o", "/r")
    service.store.add([record], [])
    charges = [
        Charge("x", 1, today, "T4", "eve", "night", 7200.0, 1.052),
        Charge("x", 1, today, "FPGA", "eve", "night", 3600.0, None),
    ]
    service.store.put(record, Event("note", "x", "x"), charges=charges)
    lines = good("usage", "--by", "queue,device_type").splitlines()
    assert lines[0] == f"Held and paid, {today[:8]}01 to {today} (UTC)"
    assert [line.split() for line in lines if line.startswith((" night", "night"))] == [
        ["night", "FPGA", "1.00", "$0", "1.00", "device", "hours", "without", "a", "price"],
        ["night", "T4", "2.00", "$1.0520"],
    ]
    assert next(line.split()[:4] for line in lines if "in all" in line) == ["in", "all", "3.00", "$1.0520"]
    assert json.loads(good("usage", "--owner", "eve", "--json"))["total"]["device_s"] == 10800.0
    assert "there is no 'colour'" in bad(2, "usage", "--by", "colour")


def test_queues_and_nodes_by_hand(service: FakeRuntime, name: str) -> None:
    service.script = Script(run_s=1e6)
    service.cycle()
    lines = good("queues").splitlines()
    assert next(line.split()[:6] for line in lines if "default" in line)[:3] == ["default", "cpu", "x1"]
    text = good("nodes")
    assert f"{name} (cpu x1)" in text and "T4 2/2" in text
    assert json.loads(good("queues", "--json"))["queues"][0]["name"] == "default"
    assert [node["name"] for node in json.loads(good("nodes", "--json"))["nodes"]] == ["head", "a100", "t4"]


def test_events_by_hand(service: FakeRuntime, name: str) -> None:
    service.cycle()
    lines = good("events").splitlines()
    assert f"{name} submitted: a user submitted it" in lines[0]
    assert "cycle 1" in lines[1]
    (line,) = good("events", name, "--kind", "planned", "--json").splitlines()
    assert json.loads(line)["kind"] == "planned"
    assert "there is no workload" in bad(2, "events", "none")
