"""Tokenised rows in memory, as the trainer takes them: what `preprocess` wrote, flat and small."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import WorkloadFailed
from .batching import IndexArray


@dataclass(frozen=True)
class Examples:
    """Rows of token ids, laid end to end: row i is `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: npt.NDArray[np.int32]
    offsets: IndexArray
    labels: IndexArray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> IndexArray:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def batch(self, rows: IndexArray, pad_id: int) -> tuple[IndexArray, IndexArray, IndexArray]:
        """(ids, mask, labels) of these rows, padded to the longest of them."""
        lengths = self.lengths[rows]
        width = int(lengths.max(initial=1))
        columns = np.arange(width)
        mask = columns < lengths[:, None]
        index = np.minimum(self.offsets[rows][:, None] + columns, max(len(self.tokens) - 1, 0))
        ids = np.where(mask, self.tokens[index], pad_id)
        return ids.astype(np.int64), mask.astype(np.int64), self.labels[rows]


def read_examples(folder: Path, max_length: int) -> Examples:
    """All rows of a split, cut at `max_length` tokens. Raises WorkloadFailed when there is nothing to train on."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise WorkloadFailed(f"{folder} has no Parquet files; was it written by preprocess?")
    try:
        table = pa.concat_tables([pq.read_table(file, columns=["input_ids", "label_id"]) for file in files])
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise WorkloadFailed(f"{folder} has no columns input_ids and label_id: {error}") from error
    if table.num_rows == 0:
        raise WorkloadFailed(f"{folder} has no rows")
    ids = table.column("input_ids").combine_chunks()
    labels = table.column("label_id").to_numpy().astype(np.int64)
    offsets = ids.offsets.to_numpy().astype(np.int64)
    tokens = ids.values.to_numpy().astype(np.int32)
    return _cut(Examples(tokens, offsets, labels), max_length)


def _cut(examples: Examples, max_length: int) -> Examples:
    lengths = examples.lengths
    if int(lengths.max(initial=0)) <= max_length:
        return examples
    within = np.arange(len(examples.tokens)) - np.repeat(examples.offsets[:-1], lengths)
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, max_length))])
    return Examples(examples.tokens[within < max_length], offsets, examples.labels)


def read_labels(folder: Path) -> list[str]:
    """The label list of a preprocess output. Raises WorkloadFailed."""
    file = folder / "labels.json"
    if not file.is_file():
        raise WorkloadFailed(f"{folder} has no labels.json; input must be the output of a preprocess step with labels")
    labels = [str(label) for label in json.loads(file.read_text())]
    if len(labels) < 2:
        raise WorkloadFailed(f"{file} has {len(labels)} labels: a classifier needs two or more")
    return labels
