"""The contract between the scheduler and a body on the cluster: a `Job` goes in, progress records come out.

The executor writes a `Job` as JSON into the environment variable `RAYWISE_JOB` of a Ray Job whose driver runs
`python -P -m raywise_workloads`. The body appends progress records, one JSON object a line, to `Job.progress_path`
(the driver runs on the head node, beside the service). A reader may see a half-written last line and must wait for its
newline.

Progress records, all with `t` (Unix seconds) and `kind`:

    phase    {phase: "starting" | "running" | "finishing"}             "running" = the first step or row begins
    step     {step, total_steps, epoch, loss, samples, samples_s}      at most about one a second; training
    checkpoint {step?}                                                 training: a restart goes on from here
             `step` is left out for a user's own loop, which does not say where it is
    rows     {rows, total_rows, rows_s, by_device: {type: rows}}       at most one a second; rows of a table, items
    timing   {device_type, count, seconds, samples, tokens, unit: "step" | "row" | "batch", precision}
             measured work, for calibration: `seconds` spent by each of `count` devices working together (a gang of
             shards) or apart (count 1: one replica), for `samples` samples of `tokens` tokens in all;
             training adds `steps`; a gang of several types writes one record a type, of its shards' own compute:
             count 1, all steps of all of them, and `gang`, the number of all shards
    rates    {device_type, shards, flops: {precision: FLOP/s}, bandwidth_bytes_s, elementwise_bytes_s, launch_s,
             reduce_bytes_s}                                           benchmark: one record for each device type
             medians over `shards` devices: a matrix product by precision, bytes read and written by a copy and by
             element-wise operators, seconds to launch one tiny operator; bytes a second on each link of an
             all-reduce of all the shards (null for one shard, and where it failed)
    metrics  {epoch?, split?, values: {name: number}}
    row_error {row, error}                                             a row that was left out; 0-based number
    resumed  {step | rows, from}                                       work goes on from a checkpoint
    note     {message}                                                 one sentence for the user
    failed   {message, retryable}
    done     {outputs: {name: path}, metrics: {name: number}, rows?: int, tokens?: int}

A run that is asked to end with time to save finds a request beside its progress file (`stopping`). It saves, ends with
exit code 143 and writes neither `failed` nor `done`: the next attempt goes on from there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .stopping import stop_path

JOB_VARIABLE = "RAYWISE_JOB"


@dataclass(frozen=True)
class Shard:
    """One member of a gang: the device it holds and the node it must run on."""

    device_type: str
    node_id: str
    resources: Mapping[str, float]
    """What Ray is asked for, e.g. `{"T4": 1}`, `{"GPU": 1}` or `{"CPU": 1}`."""
    emulated_speed: float | None = None
    """Fraction of a host core's speed that an emulated device shows; None for real hardware."""
    threads: int = 1
    speed: float = 1.0
    """Predicted speed beside the other shards of the gang, in any unit: what it is given to do is in proportion."""


@dataclass(frozen=True)
class Job:
    """Everything a body needs to run one attempt of one workload."""

    workload_id: str
    run_id: str
    """Ray's `submission_id`: the workload's id, with `.r2`, `.r3` ... from the second attempt on."""
    attempt: int
    spec: Mapping[str, Any]
    """The workload's spec as JSON (`WorkloadSpec.model_dump(mode="json")`), every reference resolved."""
    shards: tuple[Shard, ...]
    run_dir: str
    """Folder of this workload, the same for every attempt: checkpoints and partial results live here."""
    output: str
    progress_path: str
    publish: str | None = None
    """URL that the output folder is copied to when the body has succeeded."""

    @property
    def stop_path(self) -> Path:
        """Where a request to end this run would be."""
        return stop_path(Path(self.progress_path), self.run_id)

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "shards": tuple(Shard(**shard) for shard in data["shards"])})

    @classmethod
    def from_environment(cls) -> Job:
        """The job this process was started for."""
        return cls.from_json(os.environ[JOB_VARIABLE])


@dataclass
class ProgressWriter:
    """Appends progress records; each record is one `write` of a whole line, so a killed writer leaves at most one
    torn line at the end."""

    path: Path
    min_interval_s: float = 1.0
    _last: dict[str, float] = field(default_factory=dict)

    def write(self, kind: str, **values: Any) -> None:
        """Append one record now."""
        line = json.dumps({"t": round(time.time(), 3), "kind": kind, **values}) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())

    def maybe(self, kind: str, **values: Any) -> None:
        """Append one record unless one of this kind was written less than `min_interval_s` ago."""
        now = time.monotonic()
        if now - self._last.get(kind, float("-inf")) >= self.min_interval_s:
            self._last[kind] = now
            self.write(kind, **values)


def read_progress(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Whole records from byte `offset` on, and the offset after the last whole line. A torn line in the middle (its
    writer was killed and a retry wrote on) is passed over."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            chunk = file.read()
    except FileNotFoundError:
        return [], offset
    end = chunk.rfind(b"\n") + 1
    return list(_records(chunk[:end])), offset + end


def _records(chunk: bytes) -> Iterator[dict[str, Any]]:
    for line in chunk.splitlines():
        try:
            record = json.loads(line)
            if b"\\u" in line or not line.isascii():  # half a surrogate pair, e.g. of a file's name: no store takes it
                record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "kind" in record:
            yield record
