"""The first steps of a submission as a pipeline of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scheduler.admission.trial import LEAST_BATCHES, MAX_NAME, Devices, Limits, Trial, trial
from workloads.bodies.blocks import BlockQueue
from workloads.bodies.infer import IN_FLIGHT
from workloads.loading import Submission, load_data, load_text

PIPELINE = """
kind: pipeline
name: triage
deadline: 1h
budget_usd: 5
steps:
  - {name: prepare, kind: preprocess, input: {train: a.csv}, model: m, output: mine, env: {A: "$${HOME}"}}
  - name: train
    kind: train
    needs: [prepare]
    input: ${prepare.output}
    model: m
    output: /home/me/model
    deadline: 10m
    expected_runtime: 5m
    hyperparameters: {epochs: 5, max_steps: 8}
    resources: {devices: accelerator, count: 2..3, memory_per_shard: 1GB}
  - {name: evaluate, kind: batch-infer, needs: [prepare, train], input: "${prepare.output}/test", model: "${train.output}/model"}
  - {name: label, kind: batch-infer, needs: [train], input: new.csv, model: "${train.output}/model", max_rows: 9}
  - {name: clean, kind: command, command: rm -rf x, needs: [train]}
  - {name: own, kind: train, entrypoint: "mine:loop"}
  - {name: after, kind: batch-infer, needs: [clean], input: b.csv, model: m}
"""
DEVICES = Devices(
    {"train": ["T4", "A100-SXM4-40GB"], "evaluate": ["T4", "cpu"], "label": ["A100-SXM4-40GB"], "after": ["cpu"]},
    {"T4": 2, "A100-SXM4-40GB": 1, "cpu": 8},
)
LIMITS = Limits(steps=12, rows=256)


def submission(text: str = PIPELINE) -> Submission:
    return load_text(text, base=Path("/spec"), file="triage.yaml")


def made(devices: Devices = DEVICES, text: str = PIPELINE, **options: Any) -> Trial:
    found = trial(submission(text), devices, LIMITS, **options)
    if found.trials:
        load_data(found.pipeline, base=Path("/elsewhere"))  # it can be submitted
    return found


def step(found: Trial, name: str) -> dict[str, Any]:
    return next(each for each in found.pipeline["steps"] if each["name"] == name)


def test_every_step_with_a_built_in_model_becomes_a_trial_on_each_type() -> None:
    found = made()
    assert found.pipeline["name"] == "triage-trial"
    assert found.trials == {
        "train": ("train-t4-x1", "train-t4-x2", "train-a100-sxm4-40gb-x1"),
        "evaluate": ("evaluate-t4-x1", "evaluate-cpu-x1"),
        "label": ("label-a100-sxm4-40gb-x1",),
    }
    assert [each["name"] for each in found.pipeline["steps"]] == [
        "prepare",
        *(name for names in found.trials.values() for name in names),
    ]
    assert found.left_out == {
        "clean": "a command step has no short form",
        "own": "it is your own code: only whole runs of it are measured",
        "after": "it needs clean, which is left out",
    }


def test_a_trial_is_short_pinned_and_writes_nowhere_of_the_user() -> None:
    found = made()
    assert step(found, "train-t4-x2") == {
        "kind": "train",
        "name": "train-t4-x2",
        "needs": ["prepare"],
        "input": "${prepare.output}",
        "model": "m",
        "hyperparameters": {"epochs": 5, "max_steps": 8},
        "resources": {"devices": ["T4"], "count": 2, "memory_per_shard": 1_000_000_000},
    }
    assert step(found, "evaluate-cpu-x1")["max_rows"] == 256
    assert step(found, "label-a100-sxm4-40gb-x1")["max_rows"] == 9
    assert not [each for each in found.pipeline["steps"] if {"output", "deadline", "budget_usd"} & set(each)]
    assert set(found.pipeline) == {"kind", "name", "steps", "budget_usd"}


def test_trials_spend_no_more_than_the_budgets_together() -> None:
    text = PIPELINE.replace("max_rows: 9}", "max_rows: 9, budget_usd: 0.2}").replace("deadline: 10m", "budget_usd: 1")
    text = text.replace("model: m, output: mine", "model: m, budget_usd: 0.5, output: mine")
    found = made(text=text)
    shares = {each["name"]: each.get("budget_usd") for each in found.pipeline["steps"]}
    assert found.pipeline["budget_usd"] == 5
    assert [shares[name] for name in found.trials["train"]] == [pytest.approx(1 / 3)] * 3
    assert (shares["label-a100-sxm4-40gb-x1"], shares["prepare"], shares["evaluate-t4-x1"]) == (0.2, 0.5, None)
    assert found.budgets == {
        "triage": "all trials together keep to its $5",
        "train": "each of its trials keeps to $0.3333, $1 together",
        "label": "its trial keeps to $0.2",
    }
    fewer = made(text=text, refused={"train-t4-x1": "too dear"})
    assert step(fewer, "train-t4-x2")["budget_usd"] == 0.5


def test_without_a_budget_none_is_told_of() -> None:
    found = made(text=PIPELINE.replace("budget_usd: 5", ""))
    assert (found.budgets, set(found.pipeline)) == ({}, {"kind", "name", "steps"})


@pytest.mark.parametrize(
    ("fields", "rows"),
    [("", 256), ("batch_size: 128", 1024), ("batch_size: 512, max_rows: 900", 900), ("batch_size: 8", 256)],
    ids=["few rows a batch", "a large batch", "the user's own limit", "a small batch"],
)
def test_a_trial_has_eight_batches(fields: str, rows: int) -> None:
    text = f"{{kind: batch-infer, name: label, input: new.csv, model: m, {fields}}}"
    found = made(Devices({"label": ["T4"]}, {"T4": 1}), text)
    assert step(found, "label-t4-x1")["max_rows"] == rows


@pytest.mark.parametrize(("rate", "blocks"), [(100.0, 3), (1500.0, 3), (1e6, 1)], ids=["slow", "fast", "very fast"])
def test_most_of_a_trial_is_timed(rate: float, blocks: int) -> None:
    """As the body gives out blocks: two ahead, of which the first two are not timed."""
    batch, held, timed = 128, [], []
    queue = BlockQueue.over([(0, LEAST_BATCHES * batch)], batch)
    while not queue.finished:
        held += [block for _ in range(IN_FLIGHT - len(held)) if (block := queue.take(0, 1)) is not None]
        timed.append(held.pop(0))
        queue.done(0, timed[-1], timed[-1].rows / rate)
    assert len(timed[IN_FLIGHT:]) >= blocks
    assert sum(block.rows for block in timed[IN_FLIGHT:]) == 6 * batch


def test_later_steps_use_the_first_trial_of_what_they_need() -> None:
    found = step(made(), "evaluate-t4-x1")
    assert found["needs"] == ["prepare", "train-t4-x1"]
    assert (found["input"], found["model"]) == ("${prepare.output}/test", "${train-t4-x1.output}/model")


def test_a_refused_trial_is_left_out_and_the_next_stands_in_for_it() -> None:
    found = made(refused={"train-t4-x1": "needs 40 GB"})
    assert found.trials["train"] == ("train-t4-x2", "train-a100-sxm4-40gb-x1")
    assert step(found, "evaluate-t4-x1")["model"] == "${train-t4-x2.output}/model"
    assert found.left_out["train-t4-x1"] == "needs 40 GB"


def test_without_a_device_nothing_is_tried_and_it_is_said_why() -> None:
    found = made(Devices({}, {}))
    assert found.trials == {}
    assert found.left_out["train"] == "no device it may run on is there"
    assert found.left_out["evaluate"] == "it needs train, which is left out"


def test_trials_on_the_hosts_cores_wait_for_each_other() -> None:
    found = made(Devices(DEVICES.allowed, DEVICES.totals, {"T4", "cpu"}))
    needs = {each["name"]: each["needs"] for each in found.pipeline["steps"]}
    assert needs["train-t4-x1"] == ["prepare"]
    assert needs["train-t4-x2"] == ["prepare", "train-t4-x1"]
    assert needs["train-a100-sxm4-40gb-x1"] == ["prepare"]
    assert needs["evaluate-t4-x1"] == ["prepare", "train-t4-x1", "train-t4-x2"]
    assert needs["evaluate-cpu-x1"] == ["prepare", "train-t4-x1", "evaluate-t4-x1"]


def test_a_text_that_only_looks_like_a_parameter_stays_what_it_was() -> None:
    read = load_data(made().pipeline, base=Path("/elsewhere"))
    assert read.steps[0].env == submission().steps[0].env == {"A": "${HOME}"}


def test_paths_are_seen_from_the_file() -> None:
    read = load_data(made().pipeline, base=Path("/elsewhere"))
    assert getattr(read.steps[0], "input", None) == {"train": "/spec/a.csv"}


@pytest.mark.parametrize("name", ["a" * MAX_NAME, "a" * (MAX_NAME - 3) + "-bc"])
def test_long_names_are_cut_and_stay_apart(name: str) -> None:
    found = made(
        Devices({name: ["T4", "A100-SXM4-40GB"]}, {"T4": 2, "A100-SXM4-40GB": 2}),
        f"{{kind: train, name: {name}, input: /d, model: m}}",
    )
    names = found.trials[name]
    assert len(set(names)) == 4
    assert all(len(each) <= MAX_NAME for each in (*names, found.pipeline["name"]))


def test_a_workload_of_its_own_is_tried_like_a_pipeline_of_one_step() -> None:
    text = "{kind: batch-infer, name: label, input: new.csv, model: m}"
    found = made(Devices({"label": ["T4"]}, {"T4": 1}), text)
    assert found.trials == {"label": ("label-t4-x1",)}
