"""The command line and the Python client, against the real API on a fake cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cluster.fake import Script
from fake_service import HOST, FakeRuntime
from scheduler.cli import app
from scheduler.cli.common import console, plain_width
from scheduler.client import Client, ClientError, NoService, Refused

COMMAND = "kind: command\nname: hello\ncommand: echo hello\nresources: {devices: cpu}\nexpected_runtime: 10s\n"
PIPELINE = """
kind: pipeline
name: two
steps:
  - {name: first, kind: command, command: x, resources: {devices: cpu}, expected_runtime: 10s}
  - {name: second, kind: command, command: y, needs: [first], resources: {devices: [T4]}, expected_runtime: 10s}
"""


pytestmark = pytest.mark.usefixtures("own_home")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def good(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def bad(code: int, *arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "hello.yaml").write_text(COMMAND)
    return "hello.yaml"


# Without a service.


@pytest.mark.parametrize(
    "verb",
    [["submit", "hello.yaml"], ["list"], ["show", "x"], ["logs", "x"], ["cancel", "x"], ["explain", "x"], ["devices"]],
    ids=" ".join,
)
def test_without_a_service_it_says_how_to_start_one(verb: list[str], spec: str, tmp_path: Path) -> None:
    message = bad(1, *verb)
    assert message == f"error: no service runs from {tmp_path / 'home'}; start one with `raywise up --detach`\n"


def test_a_service_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("t")
    (tmp_path / "home" / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:9"}))
    assert "the service at http://127.0.0.1:9 does not answer: " in bad(1, "list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "helo.yaml"], "error: helo.yaml: file does not exist\n  hint: did you mean 'hello.yaml'?\n"),
        (
            ["plan", "hello.yaml", "--set", "comand=x"],
            "error: hello.yaml: --set: there is no parameter or field 'comand'\n  hint: did you mean 'command'?\n",
        ),
        (["plan", "bad.yaml"], "error: bad.yaml: retries: must be at least 0, got -1\n"),
        (
            ["up", "--policy", "best"],
            "error: unknown policy 'best'\n  hint: one of cheapest, cheapest-fit, fifo, first-fit, gavel-fifo, gavel-ftf, gavel-las, gavel-las-het, gavel-makespan, gavel-throughput-per-cost, least-loaded, market, no-packing, ray-autoscaler, sia, srtf\n",
        ),
        (
            ["up", "--address", "a:1", "--autoscale"],
            "error: --autoscale and --scenario are for a cluster on this machine, not with --address\n",
        ),
        (
            ["up", "--autoscale", "--scenario", "none.yaml"],
            "error: none.yaml: cannot be read: [Errno 2] No such file or directory: 'none.yaml'\n",
        ),
        (["demo", "none.yaml"], "error: none.yaml does not exist; the example pipeline comes with the source tree\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_exit_code_2(
    spec: str, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)
    (tmp_path / "bad.yaml").write_text(COMMAND + "retries: -1\n")
    assert bad(2, *arguments) == message


def test_a_verb_or_option_nobody_knows() -> None:
    assert run("sumbit").exit_code == 2
    assert run("list", "--jsn").exit_code == 2
    assert run().exit_code in (0, 2)


def test_a_plan_needs_no_service(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)
    text = good("plan", spec, "--set", "objective=cost")
    assert "Plan for hello by policy market, on the local emulated cluster (no service is running)" in text
    assert "cpu x1" in text and "taken" in text and "13.0 s" in text
    answer = json.loads(good("plan", spec, "--json"))
    assert (answer["name"], answer["steps"][0]["chosen"]) == ("hello", {"cpu": 1})


def test_a_plan_for_a_cluster_that_is_only_written_down(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)
    (tmp_path / "c.yaml").write_text("nodes: [{name: h, device: H100, count: 4}]")
    answer = json.loads(
        good("plan", spec, "--cluster", "c.yaml", "--set", "resources={devices: accelerator, count: 1..4}", "--json")
    )
    assert [o["configuration"] for o in answer["steps"][0]["options"]] == [{"H100-SXM5-80GB": n} for n in (1, 2, 3, 4)]
    assert "H100" in bad(2, "plan", spec, "--cluster", "c.yaml", "--set", "resources.devices=[T4]")
    (tmp_path / "c.yaml").write_text("nodes: [{name: h, device: H1000}]")
    assert "unknown device type 'H1000'" in bad(2, "plan", spec, "--cluster", "c.yaml")


def test_a_plan_says_what_it_cannot_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)
    (tmp_path / "u.yaml").write_text("kind: command\nname: u\ncommand: x\ndeadline: 1s\n")
    text = " ".join(good("plan", "u.yaml").split())
    assert "note: the run time of u is not known: it cannot be checked against the deadline of 1 s" in text
    assert json.loads(good("plan", "u.yaml", "--json"))["steps"][0]["options"][0]["total_usd"] is None


def test_each_problem_is_called_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(COMMAND + "retries: -1\npriority: high\n")
    assert bad(2, "plan", "bad.yaml") == (
        "error: bad.yaml: priority: expected a whole number, got 'high'\n"
        "error: bad.yaml: retries: must be at least 0, got -1\n"
    )


@pytest.mark.parametrize(
    ("environ", "terminal", "width"),
    [({}, False, 150), ({"COLUMNS": "80"}, False, None), ({"COLUMNS": "wide"}, False, 150), ({}, True, None)],
    ids=["a pipe", "a pipe and COLUMNS", "COLUMNS that is no number", "a terminal"],
)
def test_how_wide_tables_are(environ: dict[str, str], terminal: bool, width: int | None) -> None:
    assert plain_width(environ, terminal=terminal) == width


def test_wide_prints_every_column_in_a_narrow_window(
    service: FakeRuntime, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 40)
    narrow, wide = good("plan", spec), good("plan", spec, "--wide")
    assert "no room for: " in narrow and "no room for: " not in wide
    assert max(len(line) for line in narrow.splitlines()) <= 40


def test_a_flag_takes_no_value_in_the_help() -> None:
    for verb in ("submit", "up", "plan", "show"):
        assert "<bool>" not in good(verb, "--help")


def test_help_names_every_verb() -> None:
    text = good("--help")
    for verb in (
        "up",
        "down",
        "demo",
        "plan",
        "submit",
        "list",
        "show",
        "logs",
        "cancel",
        "explain",
        "devices",
        "profile",
        "calibrate",
    ):
        assert f" {verb} " in text


# With a service.


def test_submit_and_follow_a_workload_by_hand(service: FakeRuntime, spec: str) -> None:
    service.script = Script(run_s=3.0, logs="printed\n")
    submitted = json.loads(good("submit", spec, "--json"))
    name = submitted["id"]
    assert "not planned yet" in good("explain", name)
    service.cycle()
    assert "cpu x1 is the least money" in good("explain", name)
    assert "starting" in good("show", name)
    for _ in range(6):
        service.cycle()
    shown = good("show", name, "--events")
    assert "succeeded" in shown and "cpu x1" in shown and "3.0 s" in shown
    assert " submitted: " in shown
    assert [line.split()[4] for line in shown.splitlines() if " cycle " in line] == [
        "queued:", "planned:", "starting:", "running:", "succeeded:",
    ]  # fmt: skip
    assert json.loads(good("show", name, "--json", "--events"))["events"][0]["kind"] == "submitted"
    assert good("logs", name) == "printed\n"
    assert name in good("list") and "succeeded" in good("list", "--state", "succeeded")
    assert json.loads(good("list", "--json"))["workloads"][0]["id"] == name
    assert good("cancel", name) == f"{name} has already ended\n"


def test_submit_and_wait(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(PIPELINE)
    text = good("submit", "two.yaml", "--wait")
    lines = text.splitlines()
    assert lines[0].startswith("submitted two-")
    assert "first: succeeded on cpu x1" in text
    assert "second: succeeded on T4 x1 (emulated)" in text
    assert "What ran" in text
    assert [line.partition(":")[0] for line in lines[-2:]] == ["first", "second"]
    assert all(line.endswith("/output") for line in lines[-2:])
    view = json.loads(good("submit", "two.yaml", "--wait", "--json"))
    assert [w["state"] for w in view["workloads"]] == ["succeeded", "succeeded"]


def test_a_workload_that_fails_is_exit_code_1(service: FakeRuntime, spec: str) -> None:
    service.script = Script(fail_at_s=1.0, message="boom [bold]")
    result = run("submit", spec, "--wait", "--set", "retries=0")
    assert result.exit_code == 1
    assert "boom [bold]" in result.stdout
    assert "`raywise logs hello-" in result.stdout.splitlines()[-1]


def test_a_failed_attempt_is_seen_while_it_waits_and_afterwards(service: FakeRuntime, spec: str) -> None:
    scripts = [Script(fail_at_s=1.0, message="boom"), Script(run_s=5.0)]
    service.cluster._script_of = lambda request: scripts[min(request.job.run_id.count(".r"), 1)]
    text = good("submit", spec, "--wait")
    assert "hello: queued   0%  attempt 1 failed: boom; waits after a failed attempt" in text
    assert "time and cost are of 2 attempts, the last took 5.0 s; before it: attempt 1 failed" in " ".join(text.split())


def test_a_missed_deadline_is_seen_in_show_and_list(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "u.yaml").write_text("kind: command\nname: u\ncommand: x\ndeadline: 1s\n")
    service.script = Script(run_s=5.0)
    text = good("submit", "u.yaml", "--wait")
    name = text.split()[1].rstrip(";")
    assert "deadline missed by" in text
    assert "deadline missed by" in good("list")
    for verb in ("show", "explain"):
        assert "u: deadline 1.0 s after it was submitted (" in good(verb, name)


def test_the_start_of_an_id_is_enough(service: FakeRuntime, spec: str) -> None:
    name = json.loads(good("submit", spec, "--json"))["id"]
    assert json.loads(good("show", name[:-2], "--json"))["id"] == name
    assert "did you mean" in bad(2, "show", name.replace("hello", "helo"))


def test_a_pipeline_is_listed_with_its_own_id(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(PIPELINE)
    name = json.loads(good("submit", "two.yaml", "--json"))["id"]
    assert [line.split()[:2] for line in good("list").splitlines() if name in line] == [
        [name, "pipeline"], [f"{name}-first", "command"], [f"{name}-second", "command"],
    ]  # fmt: skip


def test_a_refusal_by_the_service_is_exit_code_2(service: FakeRuntime, spec: str) -> None:
    text = bad(2, "submit", spec, "--set", "resources.devices=[T5]")
    assert "hello.yaml: resources.devices: no catalog knows the device type 'T5'\n  hint: did you mean 'T4'?" in text
    assert bad(2, "plan", spec, "--set", "retries=-1").startswith("error: hello.yaml: retries: ")


def test_an_id_nobody_knows_is_exit_code_2(service: FakeRuntime) -> None:
    for verb in ("show", "logs", "cancel", "explain"):
        assert bad(2, verb, "none") == "error: there is no workload or pipeline 'none'\n"


def test_cancel_by_hand(service: FakeRuntime, spec: str) -> None:
    name = json.loads(good("submit", spec, "--json"))["id"]
    assert good("cancel", name) == f"cancelling {name}\n"
    assert json.loads(good("cancel", name, "--json")) == {"cancelled": [name]}


def test_an_empty_list_says_what_to_do(service: FakeRuntime) -> None:
    assert good("list") == "no workloads; submit one with `raywise submit FILE`\n"
    assert good("list", "--state", "failed") == "no workloads in state failed\n"


def test_devices_by_hand(service: FakeRuntime) -> None:
    text = good("devices")
    assert "T4 (emulated at 0.5 of a core)" in text
    assert "0.526" in text
    assert {kind["name"] for kind in json.loads(good("devices", "--json"))["device_types"]} == {
        "T4",
        "A100-SXM4-40GB",
        "cpu",
    }


def test_a_plan_on_the_running_cluster(service: FakeRuntime, spec: str) -> None:
    assert "on the running cluster" in good("plan", spec)
    assert json.loads(good("plan", spec, "--json"))["cluster"] == "the running cluster"


def test_logs_are_followed_to_the_end(service: FakeRuntime, spec: str) -> None:
    service.script = Script(run_s=3.0, logs="line\n")
    name = json.loads(good("submit", spec, "--json"))["id"]
    assert good("logs", name) == ""
    for _ in range(8):
        service.cycle()
    assert good("logs", "-f", name) == "line\n"


# The client.


def test_the_client_says_what_was_wrong(service: FakeRuntime) -> None:
    with Client() as client:
        with pytest.raises(Refused) as caught:
            client.submit({"kind": "command", "name": "a", "command": "x", "retries": -1})
        assert (caught.value.status, [p["field"] for p in caught.value.problems]) == (422, ["retries"])
        with pytest.raises(ClientError) as missing:
            client.show("none")
        assert missing.value.status == 404
        assert client.healthy()


def test_the_client_waits_and_tells(service: FakeRuntime) -> None:
    states: list[str] = []
    with Client() as client:
        name = client.submit({"kind": "command", "name": "a", "command": "x", "resources": {"devices": "cpu"}})["id"]
        view = client.wait(name, on_update=lambda view: states.append(view["workloads"][0]["state"]))
        assert view["workloads"][0]["state"] == "succeeded"
        assert list(dict.fromkeys(states)) == ["pending", "starting", "running", "succeeded"]
        service.script = Script(run_s=1e6)
        slow = client.submit({"kind": "command", "name": "b", "command": "x", "resources": {"devices": "cpu"}})["id"]
        with pytest.raises(TimeoutError, match=f"{slow} has not ended after 0 s"):
            client.wait(slow, timeout_s=0)
        assert client.cancel(slow) == [slow]
        assert [w["id"] for w in client.list()] == [name, slow]
        assert client.events(name)[0]["kind"] == "submitted"
        assert client.devices()["nodes"]
        assert client.explain(name)["workloads"][0]["chosen"] == {"cpu": 1}
        assert client.plan({"kind": "command", "name": "b", "command": "x"})["steps"][0]["chosen"] is not None


def test_overrides_that_name_something_here_are_made_absolute(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "f.yaml").write_text(COMMAND)
    (tmp_path / "here").mkdir()
    with Client() as client:
        name = client.submit("folder/f.yaml", ["output=./here", "command=" + "x" * 5000])["id"]
        assert client.show(name)["workloads"][0]["output"] == str(tmp_path / "here")


def test_the_token_and_url_of_the_environment_come_first(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYWISE_URL", "http://elsewhere:1")
    monkeypatch.setenv("RAYWISE_TOKEN", "other")
    client = Client()
    assert (str(client._http.base_url), client._http.headers["authorization"]) == ("http://elsewhere:1", "Bearer other")
    client.close()


def test_no_service_is_said_by_the_client_too(tmp_path: Path) -> None:
    with pytest.raises(NoService, match="start one with `raywise up --detach`"):
        Client(home=tmp_path / "none")
