"""The examples of "Your own code" in `docs/spec.md` do what is said of them, without a cluster."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.job import Shard
from workloads.loading import load_text
from workloads.spec import BatchInfer

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "spec.md"
SECTION = DOCUMENT.read_text(encoding="utf-8").split("\n## Your own code\n")[1]
MODULES = dict(re.findall(r"`(my_\w+)\.py`:\n\n```python\n(.*?)```", SECTION, flags=re.DOTALL))
Columns = dict[str, Any]


class Dataset:
    """As much of a Ray Dataset as the example takes."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def map_batches(self, function: Callable[[Columns], Columns]) -> Dataset:
        return Dataset(function(dict(self.columns)))


class Context:
    """The only shard."""

    def get_world_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documented modules in a folder from which they are imported."""
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def train(
    folder: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Prepare, train and return the spec's steps and what was reported."""
    import ray.train
    import ray.train.torch
    import torch

    steps = {step.name: step.model_dump() for step in load_text(DOCUMENTED, base=folder).steps}
    x = np.linspace(-100.0, 100.0, 21)
    rows = {"x": x, "y": 3 * x * factor + 1}
    columns = {name: np.array([str(v) for v in values], object) for name, values in rows.items()}  # as of a CSV file
    config = {**steps["prepare"]["hyperparameters"], "raywise": {"split": "train", "output": "out/train"}}
    prepared = importlib.import_module("my_data").scale(Dataset(columns), config)
    (folder / "tokens" / "train").mkdir(parents=True)
    pq.write_table(pa.table(prepared.columns), folder / "tokens" / "train" / "part-0.parquet")

    reported: list[dict[str, float]] = []
    monkeypatch.setattr(ray.train, "get_context", Context)
    monkeypatch.setattr(ray.train, "report", reported.append)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ray.train.torch, "prepare_model", lambda model: model)
    (folder / "out").mkdir()
    place = {"input": str(folder / "tokens"), "output": str(folder / "out")}
    importlib.import_module("my_loop").loop({**steps["fit"]["hyperparameters"], "raywise": place})
    return steps, reported


DOCUMENTED = re.search(r"```yaml\n(.*?)```", SECTION, flags=re.DOTALL)[1]  # type: ignore[index]


def test_every_kind_of_entrypoint_has_its_module(folder: Path) -> None:
    entrypoints = re.findall(r"entrypoint: (\w+):(\w+)", DOCUMENTED)
    assert sorted(MODULES) == sorted(module for module, _ in entrypoints) == ["my_data", "my_loop", "my_predictor"]
    for module, name in entrypoints:
        assert callable(getattr(importlib.import_module(module), name))


def test_data_loop_and_predictor_fit_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workloads.bodies.replica import Replica

    steps, reported = train(folder, monkeypatch, factor=0.01)
    assert len(reported) == steps["fit"]["hyperparameters"]["epochs"]
    assert reported[-1]["loss"] < 0.01 < reported[0]["loss"]
    spec = {**steps["predict"], "model": str(folder / "out" / "model")}
    replica = Replica(BatchInfer.model_validate(spec).model_dump(mode="json"), Shard("cpu", "n", {}).__dict__)
    result = replica.predict({"row": [0, 1], "x": [0.0, 0.5], "y": [1.0, 2.5]})
    assert result.errors == {}
    assert result.columns["prediction"] == pytest.approx([1.0, 2.5], abs=0.1)


def test_all_that_user_code_is_told_is_documented() -> None:
    """The keys under `config["raywise"]`, as the bodies write them."""
    bodies = DOCUMENT.parents[1] / "workloads" / "bodies"
    for name, kind in (("preprocess", "preprocess"), ("user_loop", "train"), ("replica", "batch-infer")):
        source = (bodies / f"{name}.py").read_text()
        place = re.search(r'(?:place = |"raywise": )\{\s*("(?:[^{}])*?)\}', source)
        assert place is not None, name
        written = re.findall(r'"(\w+)": ', place[1])
        (row,) = re.findall(rf"^\| `{kind}` \|.*\| ([^|]+) \|$", SECTION, flags=re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == written
