"""Raywise's own store as a trace: what really ran, to be run again under another policy.

A workload that succeeded becomes a job. On each configuration that was weighed for it, it takes the time that was
predicted then, times measured / predicted of what it really ran on; what was not weighed is impossible. Where it ran
in several attempts, no attempt says how long the whole takes: the median factor of its family is taken, or 1.

A step of a pipeline arrives when everything it needs has succeeded in the replay; where the replay has not all of it,
not before it really became ready either. Not kept: what fails, and memory. The file is only read, also while a service
writes to it.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from workloads.errors import Problem, SpecError

from ...store import SCHEMA_VERSION, Record
from ...types import Configuration
from ..types import Phase, Trace, TraceJob
from .tables import refused

DATABASE = "raywise.db"
MAGIC = b"SQLite format 3\x00"
_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Really:
    """What became of a workload in truth. Times are seconds from the start of the trace."""

    configuration: Configuration | None
    """Of its first attempt."""
    spent_s: float
    spent_usd: float | None
    """None where a price is not known."""
    started_s: float
    ended_s: float


@dataclass(frozen=True)
class Replay:
    """A store as a trace, and what really happened to the same jobs."""

    trace: Trace
    really: Mapping[str, Really]
    skipped: Mapping[str, int]
    """Workloads left out, by why."""


def read(path: Path, objective: str | None = None) -> Trace:
    """The workloads of a store (the file or the folder it is in) that succeeded. Raises SpecError."""
    return replay(path, objective).trace


def replay(path: Path, objective: str | None = None) -> Replay:
    """As `read`, and what really happened. `objective` replaces that of every workload. Raises SpecError."""
    file = path / DATABASE if path.is_dir() else path
    records, ready_s = _load(file)
    skipped = Counter[str](record.state if record.ended_s else "not ended" for record in records)
    del skipped["succeeded"]
    kept = list[Record]()
    for record in records:
        if record.state != "succeeded":
            continue
        if _weighed(record):
            kept.append(record)
        else:
            skipped["nothing was predicted or measured"] += 1
    if not kept:
        hint = "only workloads that succeeded, and on which time was spent, can be replayed"
        left_out = ", ".join(f"{count} {why}" for why, count in sorted(skipped.items()))
        raise refused(file, f"holds no workload to replay{f' ({left_out})' if left_out else ''}", hint)
    arrives_s = {record.id: _arrives_s(record, ready_s, {each.id for each in kept}) for record in kept}
    begin_s = min(arrives_s.values())
    factors = _factors(kept)
    jobs = [_job(record, arrives_s[record.id], begin_s, factors[record.id], objective) for record in kept]
    trace = Trace(file.parent.name or file.stem, tuple(sorted(jobs, key=lambda job: job.arrives_s)))
    return Replay(trace, {record.id: _really(record, begin_s) for record in kept}, dict(skipped))


def is_store(path: Path) -> bool:
    """Whether a path is a store, or a folder with one."""
    if path.is_dir():
        return (path / DATABASE).is_file()
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _load(file: Path) -> tuple[list[Record], dict[str, float]]:
    """All records in the order of their submission, and when each first became ready."""
    if not file.is_file():
        raise refused(file, "there is no such file", f"give a service's {DATABASE} or the folder it is in")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True, timeout=10)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"workloads", "events"} <= tables:
                raise refused(file, "is a database, but no store of Raywise", f"give a service's {DATABASE}")
            if version != SCHEMA_VERSION:
                hint = "start this Raywise on it once: it brings an older store up to date"
                raise refused(file, f"has schema version {version}; this Raywise reads {SCHEMA_VERSION}", hint)
            rows = db.execute("SELECT id, record FROM workloads ORDER BY number").fetchall()
            query = "SELECT workload_id, min(at_s) FROM events WHERE kind = 'queued' GROUP BY workload_id"
            ready_s = dict(db.execute(query).fetchall())
    except sqlite3.Error as error:
        raise refused(file, f"cannot be read as a store: {error}", "was it copied while it was written?") from error
    return [_record(file, name, text) for name, text in rows], ready_s


def _record(file: Path, name: str, text: str) -> Record:
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = Problem(f"{where}: {first['msg']}", f"workload {name}", "the record is damaged", str(file))
        raise SpecError(problem) from None


def _arrives_s(record: Record, ready_s: Mapping[str, float], kept: Collection[str]) -> float:
    """A step whose needs are all replayed was submitted then, and waits for them; others were ready then."""
    if record.needs and all(need in kept for need in record.needs):
        return record.submitted_s
    return ready_s.get(record.id, record.queued_s or record.submitted_s)


def _weighed(record: Record) -> dict[Configuration, tuple[float, float]]:
    """(seconds, start-up seconds) as predicted of each configuration that could have been taken. Where nothing was
    predicted: what it really ran on, with what was measured."""
    known = [*record.estimates, *([record.predicted] if record.predicted else [])]
    found = {e.configuration: (e.seconds, e.startup_s) for e in known if e.seconds and e.infeasible is None}
    chosen = None if record.explanation is None else record.explanation.chosen
    if not found and chosen is not None and record.attempt == 1 and record.spent_s > 0:
        found = {chosen: (record.spent_s, 0.0)}
    return found


def _factor(record: Record) -> float | None:
    """Measured / predicted of its only attempt; None where that cannot be told."""
    predicted = record.predicted.seconds if record.predicted is not None else None
    return record.spent_s / predicted if record.attempt == 1 and record.spent_s > 0 and predicted else None


def _factors(records: Sequence[Record]) -> dict[str, float]:
    found = {record.id: _factor(record) for record in records}
    by_family: dict[str, list[float]] = defaultdict(list)
    for record in records:
        factor = found[record.id]
        if factor is not None:
            by_family[_family(record)].append(factor)
    typical = {family: statistics.median(factors) for family, factors in by_family.items()}
    return {
        record.id: factor if (factor := found[record.id]) is not None else _without(record, typical)
        for record in records
    }


def _without(record: Record, typical: Mapping[str, float]) -> float:
    """The factor of a workload whose own is not known. What was not predicted was measured."""
    predicted = any(estimate.seconds for estimate in record.estimates) or record.predicted is not None
    return typical.get(_family(record), 1.0) if predicted else 1.0


def _family(record: Record) -> str:
    """Training and inference with one model are not equally fast."""
    return f"{record.kind} {record.work.family if record.work is not None else record.name}"


def _job(record: Record, arrives_s: float, begin_s: float, factor: float, objective: str | None) -> TraceJob:
    weighed = _weighed(record)
    startup_s = factor * min(startup for _, startup in weighed.values())
    rates = {held: 1 / max(factor * seconds - startup_s, 1e-3) for held, (seconds, _) in weighed.items()}
    spec = record.spec
    return TraceJob(
        record.id,
        _family(record),
        arrives_s - begin_s,
        1.0,
        (Phase(0.0, rates),),
        priority=int(spec.get("priority") or 0),
        queue=str(spec.get("queue") or "default"),
        objective=objective or str(spec.get("objective") or "balanced"),
        deadline_s=None if record.deadline_s is None else record.deadline_s - begin_s,
        budget_usd=record.budget_usd,
        startup_s=startup_s,
        kind=record.kind,
        needs=record.needs,
    )


def _really(record: Record, begin_s: float) -> Really:
    return Really(
        record.predicted.configuration if record.predicted is not None else None,
        record.spent_s,
        None if record.price_usd_h is None else record.spent_usd,
        (record.first_started_s or begin_s) - begin_s,
        (record.ended_s or begin_s) - begin_s,
    )
