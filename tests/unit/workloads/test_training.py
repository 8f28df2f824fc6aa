"""The trainer's data and what it reports, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.bodies.examples import read_examples, read_labels
from workloads.bodies.train_progress import ShardWork, TrainProgress
from workloads.bodies.workers import shard_at
from workloads.errors import WorkloadFailed
from workloads.job import Shard


def write(folder: Path, name: str, rows: list[list[int]], first_label: int = 0) -> None:
    ids = pa.array(rows, pa.list_(pa.int32()))
    labels = pa.array([first_label + i for i in range(len(rows))], pa.int32())
    pq.write_table(pa.table({"input_ids": ids, "label_id": labels}), folder / name)


def test_rows_of_several_files_are_padded_to_the_longest_of_a_batch(tmp_path: Path) -> None:
    write(tmp_path, "part-0.parquet", [[1, 2, 3], [4]])
    write(tmp_path, "part-1.parquet", [[5, 6]], first_label=2)
    examples = read_examples(tmp_path, max_length=16)
    ids, mask, labels = examples.batch(np.array([2, 1]), pad_id=0)
    assert ids.tolist() == [[5, 6], [4, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]
    assert labels.tolist() == [2, 1]


def test_rows_are_cut_at_max_length(tmp_path: Path) -> None:
    write(tmp_path, "part-0.parquet", [[1, 2, 3, 4, 5], [6], [7, 8, 9]])
    examples = read_examples(tmp_path, max_length=2)
    assert examples.batch(np.arange(3), pad_id=0)[0].tolist() == [[1, 2], [6, 0], [7, 8]]


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(WorkloadFailed, match="no Parquet files"):
        read_examples(tmp_path, 8)
    with pytest.raises(WorkloadFailed, match=r"no labels\.json"):
        read_labels(tmp_path)


class Recorder:
    """Stands in for the relay actor."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.write = self
        self.remote = lambda kind, values: self.records.append((kind, values))


def test_timing_leaves_the_first_steps_out_and_adds_the_rest_up() -> None:
    relay, now = Recorder(), [0.0]
    progress = TrainProgress(relay, ["T4", "T4"], "fp32", total_steps=10, clock=lambda: now[0])
    progress.begin(samples=0)
    for step in range(1, 11):
        seconds = 100.0 if step <= 2 else 1.0
        now[0] += seconds
        progress.step(step, 0, 0.5, [ShardWork(4, 40.0, 0.0)] * 2, seconds=seconds)
    timing = [values for kind, values in relay.records if kind == "timing"]
    assert [(t["seconds"], t["samples"], t["tokens"], t["steps"]) for t in timing] == [
        (1, 8, 80, 1),
        (5, 40, 400, 5),
        (2, 16, 160, 2),
    ], "the first window is short: a training that is soon stopped has been timed"
    assert {(t["device_type"], t["count"], t["unit"]) for t in timing} == {("T4", 2, "step")}
    steps = [values for kind, values in relay.records if kind == "step"]
    assert steps[-1]["step"] == steps[-1]["total_steps"] == 10
    assert steps[-1]["samples"] == 80


def test_a_gang_of_several_types_is_timed_shard_by_shard() -> None:
    relay, now = Recorder(), [0.0]
    progress = TrainProgress(relay, ["T4", "A100", "T4"], "fp32", total_steps=6, clock=lambda: now[0])
    work = [ShardWork(2, 20.0, 0.5), ShardWork(6, 66.0, 0.4), ShardWork(0, 0.0, 0.1)]
    for step in range(1, 7):
        now[0] += 2.0
        progress.step(step, 0, 0.5, work, seconds=2.0)
    timing = [values for kind, values in relay.records if kind == "timing"]
    told = [(t["device_type"], t["steps"], t["samples"], t["tokens"], t["seconds"]) for t in timing]
    one, three = (
        [("T4", 1, 2, 20, 0.5), ("A100", 1, 6, 66, 0.4)],
        [("T4", 3, 6, 60, 1.5), ("A100", 3, 18, 198, pytest.approx(1.2))],
    )
    assert told == [*one, *three], "a shard without rows was not timed"
    assert {(t["count"], t["gang"], t["unit"]) for t in timing} == {(1, 3, "step")}


def test_steps_are_reported_about_once_a_second() -> None:
    relay, now = Recorder(), [0.0]
    progress = TrainProgress(relay, ["T4"], "fp32", total_steps=1000, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] += 0.1
        progress.step(step, 0, 0.5, [ShardWork(1, 1.0, 0.0)], seconds=0.1)
    assert 9 <= sum(kind == "step" for kind, _ in relay.records) <= 11


def test_a_worker_finds_its_shard_by_node_and_place_on_it() -> None:
    shards = (Shard("T4", "n2", {}), Shard("A100", "n1", {}), Shard("cpu", "n2", {}))
    assert [shard_at(shards, *where).device_type for where in [("n1", 0), ("n2", 0), ("n2", 1)]] == [
        "A100",
        "T4",
        "cpu",
    ]
