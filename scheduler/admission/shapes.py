"""What a table looks like to the cost model: rows, token lengths, labels. Of a table that is there, or of one that an
earlier step of the pipeline promises to write."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from workloads.errors import Problem, SpecError
from workloads.inputs import TableInfo, inspect_table
from workloads.models import resolve_model
from workloads.remote import fetch, is_remote, is_weights, read_text

SAMPLE_ROWS = 256


@dataclass(frozen=True)
class Shape:
    """Rows of a table, mean tokens of a row (cut at the longest allowed), bytes, and how many rows a host core
    tokenises in a second, where that was sampled."""

    rows: int
    mean_tokens: float | None = None
    size_bytes: int = 0
    rows_per_core_s: float | None = None
    labels: frozenset[str] = frozenset()
    longest_tokens: float | None = None
    """Of the longest row seen; None where only the mean was kept."""


@dataclass
class Promised:
    """What the earlier steps of a pipeline will have written, by path."""

    splits: dict[str, Mapping[str, Shape]] = field(default_factory=dict)
    """Output folder of a preprocess step -> its splits."""
    models: dict[str, str] = field(default_factory=dict)
    """Output folder of a train step -> the model it starts from."""
    outputs: set[str] = field(default_factory=set)
    """Output folders of all earlier steps."""

    def unwritten(self, path: str) -> bool:
        """Whether a path lies in the output of an earlier step that has not written it yet."""
        path = path.removeprefix("file://").rstrip("/")
        inside = any(path == folder or path.startswith(f"{folder}/") for folder in self.outputs)
        return inside and not Path(path).exists()

    def table(self, path: str) -> Shape | None:
        """The shape of a promised split, e.g. `<output>/test`."""
        folder, _, split = path.rstrip("/").rpartition("/")
        return self.splits.get(folder, {}).get(split)

    def model(self, reference: str) -> str:
        """The reference itself, or the model that a promised one will be a fine-tuned copy of."""
        folder = reference.rstrip("/").removesuffix("/model")
        return self.models.get(folder, reference)


def tokenised_splits(folder: str, promised: Promised) -> Mapping[str, Shape]:
    """The splits of a preprocess output. Raises SpecError where the folder is none."""
    folder = folder.removeprefix("file://")
    if folder in promised.splits:
        return promised.splits[folder]
    manifest = f"{folder.rstrip('/')}/manifest.json"
    try:
        splits = json.loads(read_text(manifest))["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(
            Problem(f"{folder} is not the output of a preprocess step: {error}", "input", "use ${step.output}")
        ) from None
    return {name: _from_manifest(entry) for name, entry in splits.items()}


def _from_manifest(entry: Mapping[str, Any]) -> Shape:
    return Shape(int(entry["rows_out"]), float(entry["mean_tokens"]), int(entry["bytes"]))


def shape_of(info: TableInfo, model: str, max_length: int, drop: frozenset[str] = frozenset()) -> Shape:
    """Measure a table: token lengths by tokenising a sample of its rows with the model's own tokenizer."""
    dropped = sum(count for label, count in info.labels if label in drop)
    texts = list(info.sample[:SAMPLE_ROWS])
    labels = frozenset(label for label, _ in info.labels) - drop
    if not texts:
        return Shape(info.rows - dropped, None, info.size_bytes, None, labels)
    try:
        tokenizer = _tokenizer(resolve_model(local_model(model)))
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SpecError(Problem(f"the tokenizer of model {model} cannot be built: {reason}", "model")) from None
    tokenizer(texts[:8])  # the first call builds tables
    start = time.perf_counter()
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]
    seconds = max(time.perf_counter() - start, 1e-6)
    rate = len(texts) / seconds
    return Shape(info.rows - dropped, sum(lengths) / len(lengths), info.size_bytes, rate, labels, float(max(lengths)))


@lru_cache(maxsize=32)
def local_model(reference: str) -> str:
    """The reference itself, or, for a URL, a local copy of the model folder without its weights. Raises SpecError and
    FileNotFoundError."""
    if not is_remote(reference):
        return reference
    folder = Path(tempfile.mkdtemp(prefix="raywise-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(fetch(reference, folder / "model", skip=is_weights))


@lru_cache(maxsize=8)
def _tokenizer(path: str) -> Any:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # what is sampled is the rate of one core
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def inspect(path: str, field_name: str, text_column: str | None, label_column: str | None) -> TableInfo:
    """The table at a path. Raises SpecError with the columns there are, or what else is wrong."""
    return inspect_table(
        path, text_column=text_column, label_column=label_column, field=field_name, sample_rows=SAMPLE_ROWS
    )
