"""`batch-infer`: one table over replicas on several device types at once; this is the driver.

Replicas pull blocks, so each takes as many rows as it is fast (see `blocks`). The driver alone writes parts, so a block
that two replicas computed after a crash is still there once.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from ..errors import WorkloadFailed, WorkloadStopped
from ..inputs import clean_text, find_table, read_table, require_column
from ..job import Job, ProgressWriter
from ..spec import BatchInfer
from .blocks import Block, BlockQueue, missing_ranges
from .folders import claim, local_folder, write_json
from .parts import Part, fingerprint, part_path, read_parts, write_part
from .placement import gang, in_bundle, remote_options
from .replica import BlockResult, Columns, Replica
from .report import Report, classification_report
from .stop_watch import StopWatch, go_on

IN_FLIGHT = 2
TIMING_EVERY_S = 5.0
LONGEST_JOIN_S = 15.0
"""How long replicas that have loaded wait for the others, at most."""
ROW = "row"


@dataclass
class Member:
    """One replica's place in the gang, and the calls it has not answered. `seen` counts finished blocks."""

    index: int
    actor: Any = None
    calls: dict[Any, Block] = field(default_factory=dict)
    deaths: int = 0
    seen: int = 0
    timing: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Seconds, rows and tokens since the last timing record."""

    @property
    def alive(self) -> bool:
        """Whether it can be given work."""
        return self.actor is not None


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Predict every row into `job.output`. Raises WorkloadFailed."""
    return Inference(job, progress).run()


class Inference:
    """One attempt."""

    def __init__(self, job: Job, progress: ProgressWriter) -> None:
        self.job, self.progress = job, progress
        self.spec = BatchInfer.model_validate(job.spec)
        self.output = local_folder(job.output)
        claim(self.output, job.workload_id)
        self.table, self.dropped = self._read()
        self.members = [Member(index) for index in range(len(job.shards))]
        self.labels: list[str] | None = None
        self.parts: list[Part] = []
        self.started = time.monotonic()

    def _read(self) -> tuple[pa.Table, int]:
        """The rows to predict, with their numbers in the input, and how many of those read drop_labels leaves out."""
        spec = self.spec
        source = find_table(spec.input)
        text = (spec.text_column,) if spec.entrypoint is None else ()
        label = (spec.label_column,) if spec.label_column is not None else ()
        table = read_table(source, text_columns=(*text, *label), max_rows=spec.max_rows)
        for name in text:
            require_column(name, table.column_names, spec.input, "text_column")
        for name in label:
            require_column(name, table.column_names, spec.input, "label_column")
        if table.num_rows == 0:
            raise WorkloadFailed(f"{spec.input} has no rows")
        if ROW in table.column_names:
            table = table.rename_columns([f"input_{n}" if n == ROW else n for n in table.column_names])
        total = table.num_rows
        table = table.add_column(0, ROW, pa.array(range(total), pa.int64()))
        if spec.label_column is not None and spec.drop_labels:
            labels = [clean_text(value) for value in table.column(spec.label_column).to_pylist()]
            table = table.filter(pa.array([value not in spec.drop_labels for value in labels]))
        if table.num_rows == 0:
            raise WorkloadFailed(f"every row of {spec.input} has a label in drop_labels: none is left")
        return table, total - table.num_rows

    def run(self) -> dict[str, Any]:
        """Predict what no finished part covers, then write the reports."""
        mark = fingerprint(self.job.workload_id, [self.spec.model_dump_json(), self.table.num_rows, self.dropped])
        self.parts = read_parts(self.output, mark)
        self.mark = mark
        if self.parts:
            rows = sum(part.stop - part.start for part in self.parts)
            self.progress.write("resumed", rows=rows, **{"from": f"{len(self.parts)} finished parts"})
        missing = missing_ranges(self.table.num_rows, [(part.start, part.stop) for part in self.parts])
        number = max((part.number for part in self.parts), default=-1) + 1
        self.queue = BlockQueue.over(missing, self.spec.batch_size, number)
        bundles = [shard.resources for shard in self.job.shards]
        nodes = [shard.node_id for shard in self.job.shards]
        with gang(self.job.run_id, bundles, nodes) as group, StopWatch(self.job.stop_path, go_on) as stop:
            self.group, self.stop = group, stop
            self._predict_all()
        self.progress.write("phase", phase="finishing")
        return self._finish()

    # -- replicas ---------------------------------------------------------------------------------------------------

    def _predict_all(self) -> None:
        for member in self.members:
            self._start(member)
        self._wait_for_models()
        self.progress.write("phase", phase="running")
        self.started = time.monotonic()
        self.done_before = sum(part.stop - part.start for part in self.parts)
        while not self.queue.finished:
            if self.stop.asked:
                self._finish_what_is_begun()
                break
            self._give_work()
            self._collect()
        self._report_rows(last=True)
        for member in self.members:
            self._report_timing(member, last=True)
        if not self.queue.finished:
            raise WorkloadStopped(f"{self.queue.rows_left} of {self.table.num_rows} rows are left")

    def _finish_what_is_begun(self) -> None:
        """No new blocks; those that replicas have been given are written."""
        while any(block.number >= 0 for member in self.members for block in member.calls.values()):
            self._collect()

    def _start(self, member: Member) -> None:
        shard = self.job.shards[member.index]
        member.actor = (
            ray.remote(Replica)
            .options(**remote_options(shard.resources), scheduling_strategy=in_bundle(self.group, member.index))
            .remote(self.spec.model_dump(mode="json"), asdict(shard))
        )
        member.seen = 0
        member.calls = {member.actor.labels.remote(): Block(-1, 0, 0)}

    def _wait_for_models(self) -> None:
        """Until the gang has loaded, so that the fast devices do not eat up a short table before the others are there.
        Once the first is ready the rest have half of the time that it took, and join later where that is not enough."""
        begun = time.monotonic()
        first_s: float | None = None
        while True:
            loading = [member for member in self.members if member.alive and member.calls]
            waited_s = time.monotonic() - begun
            if first_s is None and len(loading) < sum(member.alive for member in self.members):
                first_s = waited_s
            if first_s is not None and (not loading or waited_s > first_s + min(LONGEST_JOIN_S, first_s / 2)):
                return
            self._collect()

    def _give_work(self) -> None:
        for round_ in range(IN_FLIGHT):
            for member in self.members:
                loading = any(block.number < 0 for block in member.calls.values())
                if member.alive and not loading and len(member.calls) <= round_:
                    self._send(member)

    def _send(self, member: Member) -> None:
        block = self.queue.take(member.index, sum(other.alive for other in self.members))
        if block is not None:
            rows = self.table.slice(block.start, block.rows)
            member.calls[member.actor.predict.remote(self._payload(rows))] = block

    def _payload(self, rows: pa.Table) -> Columns:
        names = [self.spec.text_column] if self.spec.entrypoint is None else rows.column_names
        return {name: rows.column(name).to_pylist() for name in names}

    def _collect(self) -> None:
        owners = {call: member for member in self.members for call in member.calls}
        if not owners:
            raise WorkloadFailed("no replica is left to go on with", retryable=True)
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=1.0)
        for call in ready:
            self._answer(owners[call], call)

    def _answer(self, member: Member, call: Any) -> None:
        block = member.calls[call]
        try:
            result = ray.get(call)
        except ray.exceptions.RayActorError as error:
            self._lost(member, error)
            return
        except ray.exceptions.RayTaskError as error:
            raise _why(error) from error
        del member.calls[call]
        if block.number < 0:
            self.labels = result
        else:
            self._commit(member, block, result)

    def _lost(self, member: Member, error: Exception) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, WorkloadFailed):
            raise cause from error
        if "creation task" in str(error) or "__init__" in str(error):
            raise _why(error) from error
        member.calls, member.actor = {}, None
        member.deaths += 1
        device_type = self.job.shards[member.index].device_type
        for block in self.queue.lost(member.index):
            message = "the replica died each time it was given this row"
            self._write(block, device_type, BlockResult([], {}, {0: message}))
        if member.deaths <= self.spec.retries + 1:
            self.progress.write("note", message=f"a replica on {device_type} died; it is started again")
            self._start(member)
        elif not any(other.alive for other in self.members):
            raise WorkloadFailed(f"every replica died {member.deaths} times: {error}", retryable=True)
        else:
            self.progress.write("note", message=f"a replica on {device_type} died too often; the others go on")

    # -- results ----------------------------------------------------------------------------------------------------

    def _commit(self, member: Member, block: Block, result: BlockResult) -> None:
        self._write(block, self.job.shards[member.index].device_type, result)
        self.queue.done(member.index, block, result.seconds)
        member.seen += 1
        if member.seen > IN_FLIGHT:
            timing = member.timing
            member.timing = [timing[0] + result.seconds, timing[1] + block.rows, timing[2] + result.tokens]
        self._report_rows()
        self._report_timing(member)

    def _write(self, block: Block, device_type: str, result: BlockResult) -> None:
        rows = self.table.slice(block.start, block.rows)
        numbers = rows.column(ROW).to_pylist()
        errors = [(numbers[place], message) for place, message in sorted(result.errors.items())]
        table = _output_table(rows.take(pa.array(result.kept, pa.int64())), result.columns, device_type)
        part = Part(
            block.number, block.start, block.stop, device_type, len(result.kept), self.mark, errors, result.tokens
        )
        write_part(self.output, part, table)
        self.parts.append(part)
        for row, message in errors:
            self.progress.write("row_error", row=row, error=message)

    def _by_device(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for part in self.parts:
            counts[part.device_type] += part.rows
        return dict(sorted(counts.items()))

    def _report_rows(self, last: bool = False) -> None:
        rows = sum(part.stop - part.start for part in self.parts)
        seconds = max(time.monotonic() - self.started, 1e-9)
        write = self.progress.write if last else self.progress.maybe
        write(
            "rows", rows=rows, total_rows=self.table.num_rows, rows_s=round((rows - self.done_before) / seconds, 2),
            by_device=self._by_device(),
        )  # fmt: skip

    def _report_timing(self, member: Member, last: bool = False) -> None:
        seconds, rows, tokens = member.timing
        if rows and (last or seconds >= TIMING_EVERY_S):
            member.timing = [0.0, 0.0, 0.0]
            self.progress.write(
                "timing", device_type=self.job.shards[member.index].device_type, count=1, seconds=round(seconds, 4),
                samples=int(rows), tokens=int(tokens), unit="row", precision=self.spec.precision,
            )  # fmt: skip

    def _finish(self) -> dict[str, Any]:
        self.parts.sort(key=lambda part: part.start)
        errors = [error for part in self.parts for error in part.errors]
        predicted = sum(part.rows for part in self.parts)
        if predicted + len(errors) != self.table.num_rows:
            raise WorkloadFailed(f"{predicted} rows and {len(errors)} errors do not add up to {self.table.num_rows}")
        if predicted == 0:
            raise WorkloadFailed(f"every row failed; the first: row {errors[0][0]}: {errors[0][1]}")
        lines = [json.dumps({"row": row, "error": message}, ensure_ascii=False) for row, message in errors]
        (self.output / "errors.jsonl").write_text("".join(line + "\n" for line in lines))
        tokens = sum(part.tokens for part in self.parts)
        metrics: dict[str, float] = {}
        outputs = {"output": self.job.output}
        if self.spec.label_column is not None:
            report = self._evaluate()
            metrics = {"accuracy": report.accuracy, "macro_f1": report.macro_f1}
            outputs |= {"metrics": str(self.output / "metrics.json"), "confusion": str(self.output / "confusion.csv")}
        write_json(
            self.output / "manifest.json",
            {
                "input": self.spec.input,
                "model": self.spec.model,
                "rows_in": self.table.num_rows + self.dropped,
                "rows_predicted": predicted,
                "rows_failed": len(errors),
                "rows_dropped": self.dropped,
                "by_device": self._by_device(),
                "tokens": tokens,
                "parts": [part_path(self.output, part.number).name for part in self.parts],
            },
        )
        return {"outputs": outputs, "metrics": metrics, "rows": predicted, "tokens": tokens}

    def _evaluate(self) -> Report:
        labels: list[str] = []
        predictions: list[str] = []
        for part in (part for part in self.parts if part.rows):
            table = pq.read_table(part_path(self.output, part.number), columns=[self.spec.label_column, "prediction"])
            labels += [clean_text(value) or "" for value in table.column(0).to_pylist()]
            predictions += [str(value) for value in table.column(1).to_pylist()]
        report = classification_report(labels, predictions, self.labels)
        if report.unknown_labels:
            names, rows = ", ".join(list(report.unknown_labels)[:10]), sum(report.unknown_labels.values())
            message = f"{rows} rows have labels that the model does not know and count as wrong: {names}"
            self.progress.write("note", message=message)
        write_json(self.output / "metrics.json", report.to_json())
        with open(self.output / "confusion.csv", "w", newline="") as file:
            csv.writer(file).writerows(report.confusion_rows())
        self.progress.write("metrics", values={"accuracy": report.accuracy, "macro_f1": report.macro_f1})
        return report


def _output_table(rows: pa.Table, columns: Columns, device_type: str) -> pa.Table:
    """Input columns, then predictions, then where they were made; a prediction replaces an input column of its name."""
    for name, values in columns.items():
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        rows = rows.append_column(name, pa.array(values))
    if not columns:  # every row of the block failed: the same columns, so that the parts can be read together
        rows = rows.append_column("prediction", pa.array([], pa.string())).append_column(
            "score", pa.array([], pa.float64())
        )
    name = "device_type"
    if name in rows.column_names:
        rows = rows.drop_columns([name])
    return rows.append_column(name, pa.array([device_type] * rows.num_rows, pa.string()))


def _why(error: Exception) -> WorkloadFailed:
    cause = getattr(error, "cause", None)
    if isinstance(cause, WorkloadFailed):
        return cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WorkloadFailed(f"a replica cannot start or go on: {lines[-1]}", retryable=True)
