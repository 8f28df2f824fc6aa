"""`preprocess`: raw tables to tokenised Parquet, one folder a split, on a pool of actors with Ray Data.

The driver reads the tables into blocks and learns the labels; one actor on each placed device turns blocks into files.
It is a single operator on purpose: actors and read or write tasks that share the few bundles of a placement group can
wait for each other for ever.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from ..errors import SpecError, WorkloadFailed
from ..inputs import clean_text, column_names, find_table, iter_tables, require_column
from ..job import Job, ProgressWriter
from ..spec import Preprocess
from .folders import local_folder, whole, write_json
from .placement import gang, in_bundle, remote_options
from .text import load_tokenizer, model_folder
from .tokenising import BLOCK, SPLIT, TokeniseConfig, Tokeniser, manifest_entry
from .usercode import load_entrypoint

TIMING_EVERY_S = 5.0
MAX_BLOCK_ROWS = 5_000


@dataclass
class Split:
    """One split as read: its blocks and its labels."""

    name: str
    path: str
    rows: int = 0
    blocks: list[pa.Table] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    """Labels of rows that stay, with the first row (0-based) that has each."""


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Preprocess every split into `job.output`. Raises WorkloadFailed."""
    spec = Preprocess.model_validate(job.spec)
    output = local_folder(job.output)
    if spec.entrypoint is None:
        load_tokenizer(spec.model or "")  # fails here, not once for every actor
    splits = [_read_split(name, path, spec, len(job.shards)) for name, path in _inputs(spec).items()]
    bundles = [shard.resources for shard in job.shards]
    nodes = [shard.node_id for shard in job.shards]
    with whole(output, job.workload_id) as draft, gang(job.run_id, bundles, nodes) as group:
        _use_gang(group)
        if spec.entrypoint is not None:
            manifest = _run_user_code(spec, splits, draft, progress)
        else:
            manifest = _tokenise(job, spec, splits, draft, progress)
        progress.write("phase", phase="finishing")
        write_json(draft / "manifest.json", manifest)
    rows = sum(entry["rows_out"] for entry in manifest["splits"].values())
    tokens = sum(entry.get("tokens", 0) for entry in manifest["splits"].values())
    outputs = {"output": job.output} | {name: str(output / name) for name in manifest["splits"]}
    return {"outputs": outputs, "metrics": {"rows": rows, "tokens": tokens}, "rows": rows, "tokens": tokens}


def _inputs(spec: Preprocess) -> dict[str, str]:
    return {"train": spec.input} if isinstance(spec.input, str) else dict(spec.input)


def _read_split(name: str, path: str, spec: Preprocess, actors: int) -> Split:
    source = find_table(path, f"input.{name}")
    builtin = spec.entrypoint is None
    wanted = [spec.text_column, *([spec.label_column] if spec.label_column is not None else [])]
    if builtin:
        columns = column_names(source)
        for column in wanted:
            require_column(column, columns, path, "text_column" if column == spec.text_column else "label_column")
    split = Split(name, path)
    tables = iter_tables(source, wanted if builtin else None, text_columns=wanted if builtin else ())
    for table in _evenly(tables, actors):
        if builtin and spec.label_column is not None:
            _collect_labels(split, table, spec)
        split.blocks.append(_marked(table, split) if builtin else table)
        split.rows += table.num_rows
    if split.rows == 0:
        raise WorkloadFailed(f"split {name} is empty: {path} has no rows")
    return split


def _evenly(tables: Iterator[pa.Table], actors: int) -> Iterator[pa.Table]:
    """Blocks small enough that every actor gets several, even of a small table."""
    for table in tables:
        size = max(1, min(MAX_BLOCK_ROWS, -(-table.num_rows // (4 * actors))))
        for start in range(0, table.num_rows, size):
            yield table.slice(start, size)


def _marked(table: pa.Table, split: Split) -> pa.Table:
    rows = table.num_rows
    table = table.append_column(SPLIT, pa.array([split.name] * rows, pa.string()))
    return table.append_column(BLOCK, pa.array([len(split.blocks)] * rows, pa.int64()))


def _collect_labels(split: Split, table: pa.Table, spec: Preprocess) -> None:
    texts, labels = table.column(spec.text_column).to_pylist(), table.column(spec.label_column).to_pylist()
    for i, (text, raw) in enumerate(zip(texts, labels, strict=True)):
        label = clean_text(raw)
        if label is not None and clean_text(text) is not None and label not in spec.drop_labels:
            split.labels.setdefault(label, split.rows + i)


def labels_of(splits: list[Split]) -> tuple[str, ...]:
    """The label list: sorted labels of the train split (the first one where none is called so).

    Raises WorkloadFailed where there are fewer than two, or another split has labels that train has not.
    """
    train = next((split for split in splits if split.name == "train"), splits[0])
    labels = tuple(sorted(train.labels))
    if len(labels) < 2:
        found = f"only the label {labels[0]}" if labels else "no labels"
        raise WorkloadFailed(f"split {train.name} ({train.path}) has {found}: a classifier needs two or more")
    for split in splits:
        unseen = sorted(set(split.labels) - set(labels))
        if unseen:
            shown = ", ".join(unseen[:10]) + (f" and {len(unseen) - 10} more" if len(unseen) > 10 else "")
            raise WorkloadFailed(
                f"{split.path}: split {split.name} has labels that {train.name} has not: {shown} "
                f"(first in row {split.labels[unseen[0]]}); name them in drop_labels to leave their rows out"
            )
    return labels


def _use_gang(group: Any) -> None:
    """Make Ray Data count the gang's bundles as its whole cluster and run its tasks in them.

    With anything else it asks its autoscaling coordinator for resources of the whole cluster.
    """
    context = ray.data.DataContext.get_current()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated for a release that is not out yet; there is no other way
        context.scheduling_strategy = in_bundle(group)
        context.scheduling_strategy_large_args = in_bundle(group)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _tokenise(job: Job, spec: Preprocess, splits: list[Split], draft: Path, progress: ProgressWriter) -> dict[str, Any]:
    labels = labels_of(splits) if spec.label_column is not None else ()
    for split in splits:
        (draft / split.name).mkdir()
    config = TokeniseConfig(
        model=model_folder(spec.model or ""),
        max_length=spec.max_length,
        text_column=spec.text_column,
        label_column=spec.label_column,
        drop_labels=tuple(spec.drop_labels),
        labels=labels,
        folder=str(draft),
        speed=job.shards[0].emulated_speed,
    )
    dataset = ray.data.from_blocks([block for split in splits for block in split.blocks]).map_batches(
        Tokeniser,
        fn_constructor_args=(config,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=len(job.shards)),
        **remote_options(job.shards[0].resources),
    )
    total = sum(split.rows for split in splits)
    counts = _follow(dataset, job, total, progress)
    if spec.label_column is not None:
        write_json(draft / "labels.json", list(labels))
    return _manifest(spec, splits, counts)


def _follow(dataset: Any, job: Job, total: int, progress: ProgressWriter) -> list[dict[str, Any]]:
    counts: list[dict[str, Any]] = []
    device_type, actors = job.shards[0].device_type, len(job.shards)
    done = 0
    started = window = time.monotonic()
    window_rows = window_tokens = 0
    try:
        for row in dataset.iter_rows():
            if not counts:
                progress.write("phase", phase="running")
                # The first block waited for the actors to start; it is no measure of their speed.
                started = window = time.monotonic()
            else:
                window_rows, window_tokens = window_rows + row["rows_in"], window_tokens + row["tokens"]
            counts.append(row)
            done += row["rows_in"]
            now = time.monotonic()
            rate = (done - counts[0]["rows_in"]) / max(now - started, 1e-9)
            progress.maybe("rows", rows=done, total_rows=total, rows_s=round(rate, 1), by_device={device_type: done})
            if window_rows and (now - window >= TIMING_EVERY_S or done == total):
                progress.write(
                    "timing", device_type=device_type, count=actors, seconds=round(now - window, 4),
                    samples=window_rows, tokens=window_tokens, unit="row", precision="fp32",
                )  # fmt: skip
                window, window_rows, window_tokens = now, 0, 0
    except ray.exceptions.RayTaskError as error:
        raise WorkloadFailed(f"tokenising failed: {error.cause}") from error
    progress.write("rows", rows=done, total_rows=total, rows_s=0.0, by_device={device_type: done})
    return counts


def _manifest(spec: Preprocess, splits: list[Split], counts: list[dict[str, Any]]) -> dict[str, Any]:
    entries = {
        split.name: {"source": split.path, **manifest_entry([row for row in counts if row["split"] == split.name])}
        for split in splits
    }
    for split in splits:
        _check_counts(split, entries[split.name])
    return {
        "model": spec.model,
        "text_column": spec.text_column,
        "label_column": spec.label_column,
        "max_length": spec.max_length,
        "splits": entries,
    }


def _check_counts(split: Split, entry: Mapping[str, Any]) -> None:
    accounted = entry["rows_out"] + sum(entry["dropped"].values())
    if not entry["rows_in"] == split.rows == accounted:
        raise WorkloadFailed(
            f"split {split.name}: {split.rows} rows were read, {entry['rows_in']} processed, {accounted} accounted for",
            retryable=True,
        )
    if entry["rows_out"] == 0:
        raise WorkloadFailed(f"split {split.name} ({split.path}) has no rows left: {entry['dropped']} dropped")


def _run_user_code(spec: Preprocess, splits: list[Split], draft: Path, progress: ProgressWriter) -> dict[str, Any]:
    function = load_entrypoint(spec.entrypoint or "")
    entries: dict[str, Any] = {}
    progress.write("phase", phase="running")
    for split in splits:
        config = {**spec.hyperparameters, "raywise": {"split": split.name, "output": str(draft / split.name)}}
        try:
            result = function(ray.data.from_blocks(split.blocks), config)
            # Writing takes no CPU of its own: it would wait for the user's actors, and they for it.
            result.write_parquet(str(draft / split.name), ray_remote_args={"num_cpus": 0})
        except (SpecError, WorkloadFailed):
            raise
        except Exception as error:
            raise WorkloadFailed(f"{spec.entrypoint} failed on split {split.name}: {_cause(error)}") from error
        rows_out, size = _written(draft / split.name)
        entries[split.name] = {"source": split.path, "rows_in": split.rows, "rows_out": rows_out, "bytes": size}
        progress.write("rows", rows=sum(e["rows_in"] for e in entries.values()), total_rows=sum(s.rows for s in splits),
                       rows_s=0.0, by_device={})  # fmt: skip
    return {"entrypoint": spec.entrypoint, "splits": entries}


def _written(folder: Path) -> tuple[int, int]:
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*.parquet"))
    return sum(pq.read_metadata(file).num_rows for file in files), sum(file.stat().st_size for file in files)


def _cause(error: Exception) -> str:
    """The user's own exception in one line; Ray Data wraps it in words of its own, and keeps only its text."""
    first, wrapped, _ = str(error).partition("\nThe above exception was the direct cause of")
    if wrapped and isinstance(error, ray.exceptions.RayTaskError):
        return first.strip().splitlines()[-1]
    cause = getattr(error, "cause", None) or error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"
