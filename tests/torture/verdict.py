"""What became of it all: read from the store, the runs' own files and the service's log, after everything has ended."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from scheduler.states import ENDED
from scheduler.store import Event, Record, Store
from workloads.job import read_progress

from .load import ROWS

_UNREACHABLE = re.compile(r"cycle (\d+): the cluster cannot be reached")


@dataclass
class Verdict:
    """Everything that was promised, and what broke the promise, in sentences."""

    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    """Completed by more than one attempt, or not by the recorded one."""
    overlaps: list[str] = field(default_factory=list)
    """Two attempts of a workload that lived at once."""
    repeats: list[str] = field(default_factory=list)
    """Training that went back behind a reported checkpoint; rows that are missing or there twice."""
    again: list[str] = field(default_factory=list)
    """Commands whose script came to its end, and was killed before that was on record: it ran again."""
    adopted: int = 0
    """Runs that were live when the service or the head was killed and went on under the next service."""
    cycles: list[int] = field(default_factory=list)
    """For each of the others: cycles from the return until it was submitted again, or taken back into the queue."""

    @property
    def broken(self) -> list[str]:
        """What must not be; empty where all promises were kept."""
        return [*self.lost, *self.twice, *self.overlaps, *self.repeats]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        known = {"median": median(self.cycles), "max": max(self.cycles), "n": len(self.cycles)} if self.cycles else {}
        return {
            "accepted": self.accepted,
            "states": dict(self.states),
            "attempts": self.attempts,
            "lost": self.lost,
            "completed_twice": self.twice,
            "attempts_at_once": self.overlaps,
            "work_repeated_or_missing": self.repeats,
            "scripts_that_ended_unrecorded": self.again,
            "adopted": self.adopted,
            "recovery_cycles": known,
        }


def judge(home: Path, accepted: Sequence[str], kills: Sequence[Mapping[str, Any]]) -> Verdict:
    """Look at all workloads of a home whose service is down. `accepted` are the ids that clients were told."""
    store = Store(home / "raywise.db", exclusive=False)
    try:
        records = {record.id: record for record in store.select()}
        events = store.events(limit=10_000_000)
    finally:
        store.close()
    verdict = Verdict(accepted=len(accepted), states=Counter(record.state for record in records.values()))
    verdict.lost += [f"{each} was accepted and is not there" for each in accepted if each not in records]
    of_workload: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.workload_id is not None:
            of_workload[event.workload_id].append(event)
    for record in records.values():
        verdict.attempts += record.attempt
        _judge(record, of_workload[record.id], verdict)
    verdict.adopted, verdict.cycles = _recovery(home, of_workload, events, kills)
    return verdict


def _judge(record: Record, events: Sequence[Event], verdict: Verdict) -> None:
    ends = [event.kind for event in events if event.kind in ENDED]
    if record.state != "succeeded":
        verdict.lost.append(f"{record.id} is {record.state}: {record.message}")
        return
    if ends != ["succeeded"]:
        verdict.twice.append(f"{record.id} ended as {ends}")
    starts = Counter(event.data["attempt"] for event in events if event.kind == "starting")
    if any(count != 1 for count in starts.values()) or max(starts) != record.attempt:
        verdict.twice.append(f"{record.id}: attempts started {dict(starts)}, recorded {record.attempt}")
    done = [attempt for attempt in range(1, record.attempt + 1) if _of(record, attempt, "done")]
    if done != [record.attempt]:
        verdict.twice.append(f"{record.id}: attempts {done} were done, recorded is {record.attempt}")
    drivers = [len(_of(record, attempt, "phase", phase="starting")) for attempt in range(1, record.attempt + 1)]
    if max(drivers) > 1:
        verdict.twice.append(f"{record.id}: a run was started {max(drivers)} times")
    if record.kind == "command":
        _judge_ticks(record, verdict)
    elif record.kind == "batch-infer":
        _judge_rows(record, verdict)
    elif record.kind == "train":
        _judge_steps(record, verdict)


def _judge_ticks(record: Record, verdict: Verdict) -> None:
    output = Path(record.output)
    lines = [line.split() for line in (output / "ticks").read_text().splitlines()]
    ticks = [(int(attempt), what, float(at_s)) for attempt, what, at_s in lines]
    begun = {attempt: at_s for attempt, what, at_s in ticks if what == "begin"}
    if len(begun) != sum(what == "begin" for _, what, _ in ticks):
        verdict.twice.append(f"{record.id}: an attempt's script began twice")
    for attempt, what, at_s in ticks:
        later = [begin_s for other, begin_s in begun.items() if other > attempt and begin_s < at_s]
        if later:
            verdict.overlaps.append(
                f"{record.id}: attempt {attempt} lived ({what}) {at_s - min(later):.1f} s into another"
            )
            break
    ended = [attempt for attempt, what, _ in ticks if what == "end"]
    if len(ended) > 1 or not (output / "marker").is_file():
        verdict.again.append(f"{record.id}: the script ended in attempts {ended}")


def _judge_rows(record: Record, verdict: Verdict) -> None:
    tables = [pq.read_table(path) for path in sorted(Path(record.output).glob("part-*.parquet"))]
    rows = sorted(row for table in tables for row in table.column("row").to_pylist())
    if rows != list(range(ROWS)):
        verdict.repeats.append(f"{record.id}: {len(rows)} rows, {len(set(rows))} different, of {ROWS}")


def _judge_steps(record: Record, verdict: Verdict) -> None:
    """What goes on goes on from the last checkpoint that was reported, or from a later one."""
    saved = 0
    for attempt in range(1, record.attempt + 1):
        for each in _of(record, attempt):
            if each["kind"] == "checkpoint":
                saved = max(saved, int(each.get("step") or 0))
            elif each["kind"] == "resumed" and int(each["step"]) < saved:
                verdict.repeats.append(f"{record.id}: attempt {attempt} went on at {each['step']}, saved was {saved}")
    last = list(_of(record, record.attempt, "step"))
    if last and last[-1]["step"] != last[-1]["total_steps"]:
        verdict.repeats.append(f"{record.id}: ended at step {last[-1]['step']} of {last[-1]['total_steps']}")


def _of(record: Record, attempt: int, kind: str | None = None, **values: Any) -> list[dict[str, Any]]:
    run_id = record.id if attempt == 1 else f"{record.id}.r{attempt}"
    records = read_progress(Path(record.run_dir) / f"{run_id}.progress.jsonl")[0]
    return [
        each
        for each in records
        if kind in (None, each["kind"]) and all(each.get(name) == value for name, value in values.items())
    ]


def _recovery(
    home: Path, of_workload: Mapping[str, Sequence[Event]], events: Sequence[Event], kills: Sequence[Mapping[str, Any]]
) -> tuple[int, list[int]]:
    """Of the runs that were live when the service or the head was killed: how many the next service adopted as they
    were, and for each of the others the cycles from the return until it was submitted again or taken back into the
    queue. What another kill may have done is not counted."""
    log = (home / "service.log").read_text(errors="replace") if (home / "service.log").is_file() else ""
    unreachable = sorted(int(number) for number in _UNREACHABLE.findall(log))
    adopted, cycles = 0, []
    for index, kill in enumerate(kills):
        if kill["kind"] not in ("service", "head"):
            continue
        before = max((event.cycle or 0 for event in events if event.at_s <= kill["at_s"]), default=0)
        away = [number for number in unreachable if before < number] if kill["kind"] == "head" else []
        first = _end_of_row(away, before) + 1
        for workload_id in kill["live"]:
            later = [each["at_s"] for each in kills[index + 1 :] if _may_touch(each, workload_id)]
            until_s = min(later, default=float("inf"))
            mine = [each for each in of_workload.get(workload_id, ()) if kill["at_s"] < each.at_s < until_s]
            if not mine:
                continue
            taken_up = next((each for each in mine if each.kind in ("resubmitted", "retry")), None)
            if taken_up is None:
                adopted += 1
            else:
                cycles.append(max(1, (taken_up.cycle or 0) - first + 1))
    return adopted, cycles


def _may_touch(kill: Mapping[str, Any], workload_id: str) -> bool:
    return kill["kind"] in ("service", "head", "raylet", "node") or kill["workload"] == workload_id


def _end_of_row(numbers: Sequence[int], before: int) -> int:
    """The last of the cycles that follow each other from `before` on, but for a few that found the cluster still
    there."""
    last = before
    for number in numbers:
        if number > last + 5:
            break
        last = number
    return last
