"""The judge of the torture sees what is broken: a verdict that could not be bad would prove nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scheduler.store import Event, Record, Store
from tests.torture.load import ROWS
from tests.torture.verdict import Verdict, judge

GOOD = "1 begin 10.0\n1 tick 10.5\n2 begin 13.0\n2 tick 13.5\n2 end 14.0\n"


class Home:
    """A home folder with one workload of two attempts, the second of which came to a good end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "raywise.db")
        self.kind, self.state, self.spoilt = "command", "succeeded", ""
        self.events = ["submitted", "queued", "starting", "retry", "starting", "succeeded"]
        self.output = folder / "out"
        self.output.mkdir()
        self.ticks(GOOD)
        (self.output / "marker").write_text("2\n")
        self.progress(1, [{"kind": "phase", "phase": "starting"}])
        self.progress(2, [{"kind": "phase", "phase": "starting"}, {"kind": "done"}])

    def ticks(self, text: str) -> None:
        (self.output / "ticks").write_text(text)

    def progress(self, attempt: int, records: Sequence[dict[str, Any]]) -> None:
        name = "w" if attempt == 1 else f"w.r{attempt}"
        lines = (json.dumps({"t": 1.0, **each}) + "\n" for each in records)
        (self.folder / f"{name}.progress.jsonl").write_text("".join(lines))

    def judge(self, accepted: Sequence[str] = ("w",), kills: Sequence[dict[str, Any]] = ()) -> Verdict:
        record = Record("w", "w", self.kind, {}, self.state, 0.0, str(self.output), str(self.folder), attempt=2)  # type: ignore[arg-type]
        attempts = iter((1, 2))
        events = [
            Event(kind, "why", "w", cycle=10 + number, at_s=10.0 + number,
                  data={"attempt": next(attempts)} if kind == "starting" else {})
            for number, kind in enumerate(self.events)
        ]  # fmt: skip
        self.store.add([record], events)
        self.store.close()
        return judge(self.folder, accepted, kills)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_what_went_well_is_called_so(home: Home) -> None:
    verdict = home.judge()
    assert verdict.broken == []
    assert (verdict.accepted, verdict.attempts, dict(verdict.states)) == (1, 2, {"succeeded": 1})


def test_a_workload_that_was_accepted_and_is_not_there_is_lost(home: Home) -> None:
    assert home.judge(["w", "x"]).lost == ["x was accepted and is not there"]


def test_one_that_did_not_succeed_is_lost(home: Home) -> None:
    home.state = "running"
    assert home.judge().lost == ["w is running: "]


def test_two_attempts_that_were_done_are_seen(home: Home) -> None:
    home.progress(1, [{"kind": "phase", "phase": "starting"}, {"kind": "done"}])
    assert home.judge().twice == ["w: attempts [1, 2] were done, recorded is 2"]


def test_a_run_that_was_started_twice_is_seen(home: Home) -> None:
    home.progress(2, [{"kind": "phase", "phase": "starting"}] * 2 + [{"kind": "done"}])
    assert home.judge().twice == ["w: a run was started 2 times"]


def test_two_ends_are_seen(home: Home) -> None:
    home.events.append("succeeded")
    assert home.judge().twice == ["w ended as ['succeeded', 'succeeded']"]


def test_two_attempts_that_lived_at_once_are_seen(home: Home) -> None:
    home.ticks(GOOD + "1 tick 13.6\n")
    assert home.judge().overlaps == ["w: attempt 1 lived (tick) 0.6 s into another"]


def test_a_script_that_began_twice_in_one_attempt_is_seen(home: Home) -> None:
    home.ticks(GOOD + "2 begin 13.2\n")
    assert "w: an attempt's script began twice" in home.judge().twice


def test_a_script_that_ended_in_an_attempt_that_was_killed_is_told_apart(home: Home) -> None:
    home.ticks("1 begin 10.0\n1 end 10.5\n2 begin 13.0\n2 end 14.0\n")
    verdict = home.judge()
    assert (verdict.broken, verdict.again) == ([], ["w: the script ended in attempts [1, 2]"])


@pytest.mark.parametrize("rows", [[*range(ROWS), 7], list(range(ROWS - 1))], ids=["a row twice", "a row too few"])
def test_rows_are_counted(home: Home, rows: list[int]) -> None:
    home.kind = "batch-infer"
    pq.write_table(pa.table({"row": rows}), home.output / "part-00000.parquet")
    (said,) = home.judge().repeats
    assert said.startswith(f"w: {len(rows)} rows")


def test_training_that_goes_back_behind_its_checkpoint_is_seen(home: Home) -> None:
    home.kind = "train"
    home.progress(1, [{"kind": "phase", "phase": "starting"}, {"kind": "checkpoint", "step": 20}])
    again = [{"kind": "resumed", "step": 10}, {"kind": "step", "step": 90, "total_steps": 90}, {"kind": "done"}]
    home.progress(2, [{"kind": "phase", "phase": "starting"}, *again])
    assert home.judge().repeats == ["w: attempt 2 went on at 10, saved was 20"]


def test_recovery_is_counted_from_the_first_cycle_after_the_return(home: Home) -> None:
    kill = {"kind": "service", "at_s": 12.5, "workload": None, "live": ["w"]}  # cycle 12 was the last before it
    verdict = home.judge(kills=[kill])
    assert (verdict.adopted, verdict.cycles) == (0, [1])


def test_what_goes_on_under_the_next_service_was_adopted(home: Home) -> None:
    kill = {"kind": "service", "at_s": 14.5, "workload": None, "live": ["w"]}
    verdict = home.judge(kills=[kill])
    assert (verdict.adopted, verdict.cycles) == (1, [])
