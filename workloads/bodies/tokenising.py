"""Cleaning and tokenising one block of rows: what a preprocess actor does."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..inputs import clean_text
from .emulation import Pacer
from .text import load_tokenizer, tokenise

SPLIT, BLOCK = "__raywise_split", "__raywise_block"
"""Columns that tell an actor which split and block it was given."""


@dataclass(frozen=True)
class TokeniseConfig:
    """What the actors need; the same for all of them."""

    model: str
    max_length: int
    text_column: str
    label_column: str | None
    drop_labels: tuple[str, ...]
    labels: tuple[str, ...]
    folder: str
    speed: float | None


@dataclass(frozen=True)
class Kept:
    """The rows of a block that stay, and why the others do not."""

    texts: list[str]
    labels: list[str]
    empty: int
    dropped_label: int


def keep_rows(texts: Sequence[str | None], labels: Sequence[str | None] | None, drop: Collection[str]) -> Kept:
    """Clean the texts; leave out rows without text or label (`empty`) and rows with a label in `drop`."""
    kept: list[tuple[str, str]] = []
    empty = dropped = 0
    for i, raw in enumerate(texts):
        text = clean_text(raw)
        label = clean_text(labels[i]) if labels is not None else ""
        if text is None or label is None:
            empty += 1
        elif labels is not None and label in drop:
            dropped += 1
        else:
            kept.append((text, label))
    return Kept([text for text, _ in kept], [label for _, label in kept], empty, dropped)


class Tokeniser:
    """Writes the tokenised rows of each block to its own Parquet file and returns one row of counts.

    A block that Ray runs twice writes the same file twice: rows are never doubled.
    """

    def __init__(self, config: TokeniseConfig) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(config.model)
        self._label_ids = {label: i for i, label in enumerate(config.labels)}
        self._pacer = Pacer(config.speed)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One block: a row of counts."""
        start = time.perf_counter()
        split, block = table.column(SPLIT)[0].as_py(), table.column(BLOCK)[0].as_py()
        with self._pacer.pace():
            kept = self._kept(table)
            ids = tokenise(self._tokenizer, kept.texts, self._config.max_length)
            size = self._write(kept, ids, Path(self._config.folder) / split / f"part-{block:05d}.parquet")
        counts = {"split": split, "block": block, "rows_in": table.num_rows, "rows_out": len(ids)}
        counts |= {"empty": kept.empty, "dropped_label": kept.dropped_label, "bytes": size}
        counts |= {"tokens": sum(map(len, ids)), "max_tokens": max(map(len, ids), default=0)}
        return pa.Table.from_pylist([{**counts, "seconds": time.perf_counter() - start}])

    def _kept(self, table: pa.Table) -> Kept:
        label_column = self._config.label_column
        labels = table.column(label_column).to_pylist() if label_column is not None else None
        return keep_rows(table.column(self._config.text_column).to_pylist(), labels, self._config.drop_labels)

    def _write(self, kept: Kept, ids: list[list[int]], path: Path) -> int:
        columns: dict[str, pa.Array] = {"text": pa.array(kept.texts, pa.string())}
        if self._config.label_column is not None:
            columns["label"] = pa.array(kept.labels, pa.string())
            columns["label_id"] = pa.array([self._label_ids[label] for label in kept.labels], pa.int32())
        columns["input_ids"] = pa.array(ids, pa.list_(pa.int32()))
        pq.write_table(pa.table(columns), path)
        return path.stat().st_size


def manifest_entry(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A split's entry in `manifest.json`, from the counts of its blocks."""
    rows_out = sum(block["rows_out"] for block in blocks)
    tokens = sum(block["tokens"] for block in blocks)
    return {
        "rows_in": sum(block["rows_in"] for block in blocks),
        "rows_out": rows_out,
        "dropped": {
            "empty": sum(block["empty"] for block in blocks),
            "label": sum(block["dropped_label"] for block in blocks),
        },
        "tokens": tokens,
        "mean_tokens": round(tokens / rows_out, 3) if rows_out else 0.0,
        "max_tokens": max((block["max_tokens"] for block in blocks), default=0),
        "bytes": sum(block["bytes"] for block in blocks),
    }
