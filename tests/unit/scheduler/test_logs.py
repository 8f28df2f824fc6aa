"""What all attempts of a workload printed, as one text that only grows; and what is kept of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.protocols import ClusterUnreachable, LogPart
from scheduler.service import run_logs
from scheduler.service.run_logs import LogKeeper, RunLogs, cut_here, left_out
from scheduler.store import Record
from serving import until


class Printed:
    """An executor that has these logs. With a `gate` nobody gets any until it is open."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}
        self.gate: threading.Event | None = None
        self.down = False
        self.asked: list[tuple[str, int, int, bool]] = []

    def log_part(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        self.asked.append((run_id, offset, most, fresh))
        if self.gate is not None:
            self.gate.wait(60)
        if self.down:
            raise ClusterUnreachable("nobody is there")
        text = self.texts.get(run_id, b"")
        return LogPart(text[offset : offset + most], len(text))


@pytest.fixture
def printed() -> Printed:
    return Printed()


@pytest.fixture
def logs(printed: Printed, tmp_path: Path) -> Iterator[RunLogs]:
    found = RunLogs(printed, tmp_path / "notes")
    yield found
    if printed.gate is not None:
        printed.gate.set()
    found.keeper.close(60)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record("w", "w", "command", {}, "running", 0.0, "/out", str(tmp_path), attempt=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 10 bytes of the beginning of a log are kept, and 4 of its end; they are read 3 at a time."""
    for name, count in (("HEAD_BYTES", 10), ("TAIL_BYTES", 4), ("PART_BYTES", 3)):
        monkeypatch.setattr(run_logs, name, count)


def whole(logs: RunLogs, record: Record, step: int = 1000) -> bytes:
    text = b""
    while part := logs.read(record, len(text), step):
        text += part
    assert len(text) == logs.size(record)
    return text


def keep(logs: RunLogs, record: Record) -> None:
    logs.keep(record)
    until(lambda: logs.is_whole(record))


def test_the_log_of_a_retried_workload_only_grows(logs: RunLogs, printed: Printed, record: Record) -> None:
    seen = []
    for attempt, run_id, text in [
        (1, "w", b""),
        (1, "w", b"one\n"),
        (1, "w", b"one\ntwo\n"),
        (2, "w.r2", b""),
        (2, "w.r2", b"again\n"),
    ]:
        printed.texts[run_id] = text
        seen.append(whole(logs, replace(record, attempt=attempt)))
    assert seen[1:3] == [b"one\n", b"one\ntwo\n"], "a first attempt has no header"
    assert seen[-1] == b"one\ntwo\n\n--- attempt 2\nagain\n"
    assert all(after.startswith(before) for before, after in pairwise(seen))


def test_what_was_kept_of_an_attempt_goes_before_what_the_cluster_still_has(
    logs: RunLogs, printed: Printed, record: Record, tmp_path: Path
) -> None:
    (tmp_path / "w.log").write_text("kept\n")
    printed.texts = {"w": b"not this", "w.r2": b"live\n"}
    assert whole(logs, replace(record, attempt=2)) == b"kept\n\n--- attempt 2\nlive\n"


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_it_is_read_from_a_byte_on_whatever_lies_there(
    logs: RunLogs, printed: Printed, record: Record, tmp_path: Path, step: int
) -> None:
    (tmp_path / "w.log").write_bytes(b"k\xff\n")
    printed.texts["w.r2"] = b"live\n"
    record = replace(record, attempt=2)
    text = b"k\xff\n\n--- attempt 2\nlive\n"
    assert whole(logs, record, step) == text
    assert [logs.read(record, place, 4) for place in range(len(text) + 2)] == [
        text[place : place + 4] for place in range(len(text) + 2)
    ]


def test_what_comes_is_read_without_what_came_before(logs: RunLogs, printed: Printed, record: Record) -> None:
    printed.texts["w"] = b"x" * 1000
    assert logs.read(record, 990, 50) == b"x" * 10
    assert [(offset, most) for _, offset, most, _ in printed.asked] == [(0, 0), (990, 10)]


def test_of_a_long_log_the_beginning_and_the_end_are_kept_and_it_only_grows(
    logs: RunLogs, printed: Printed, record: Record, small: None, tmp_path: Path
) -> None:
    del small
    text, seen = b"0123456789 and then the end", []
    for length in (5, 10, 14, 15, len(text)):
        printed.texts["w"] = text[:length]
        seen.append(whole(logs, record))
    assert seen[:3] == [b"01234", b"0123456789", b"0123456789"]
    assert seen[4] == b"0123456789" + cut_here("w")
    assert b"job-driver-w.log among Ray's logs" in seen[4]
    keep(logs, record)
    seen.append(whole(logs, record, step=3))
    assert seen[-1] == b"0123456789" + cut_here("w") + left_out(len(text) - 14) + b" end"
    assert seen[-1] == (tmp_path / "w.log").read_bytes()
    assert all(after.startswith(before) for before, after in pairwise(seen))


def test_a_log_that_is_not_too_long_is_kept_whole(
    logs: RunLogs, printed: Printed, record: Record, small: None, tmp_path: Path
) -> None:
    del small
    printed.texts["w"] = b"0123456789abcd"
    keep(logs, record)
    assert (tmp_path / "w.log").read_bytes() == b"0123456789abcd"
    assert {fresh for _, _, most, fresh in printed.asked if most == 0} >= {True}, "nothing that somebody read before"
    assert not [*tmp_path.glob("*.partial")]


def test_who_says_that_an_attempt_has_ended_does_not_wait_for_its_log(
    logs: RunLogs, printed: Printed, record: Record, small: None
) -> None:
    del small
    printed.texts = {"w": b"0123456789 and then the end", "w.r2": b"again"}
    printed.gate = threading.Event()
    logs.keep(record)  # returns though no log can be had
    later = replace(record, attempt=2)
    assert not logs.is_whole(later)
    printed.gate.set()
    until(lambda: logs.is_whole(later))
    assert whole(logs, later).endswith(b" end\n--- attempt 2\nagain")


def test_an_attempt_is_not_shown_before_the_end_of_the_one_before_it(
    logs: RunLogs, printed: Printed, record: Record, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del small
    copying = threading.Event()
    monkeypatch.setattr(logs.keeper, "_copy", lambda *_: copying.wait(60))
    printed.texts = {"w": b"0123456789 and then the end", "w.r2": b"again"}
    logs.keep(record)
    later = replace(record, attempt=2)
    assert whole(logs, later) == b"0123456789" + cut_here("w")
    copying.set()


def test_a_cluster_that_does_not_answer_is_tried_again(
    logs: RunLogs, printed: Printed, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logs, "LONGEST_PAUSE_S", 0.01)
    printed.down, printed.texts["w"] = True, b"the end"
    logs.keep(record)
    until(lambda: len(printed.asked) > 2)
    printed.down = False
    until(lambda: logs.is_whole(record))
    assert (tmp_path / "w.log").read_bytes() == b"the end"


def test_one_that_is_never_there_is_given_up(
    logs: RunLogs, printed: Printed, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logs, "LONGEST_PAUSE_S", 0.0)
    printed.down = True
    keep(logs, record)
    assert len(printed.asked) == run_logs.TRIES
    assert not [*(tmp_path / "notes").iterdir()]


def test_a_service_takes_up_what_the_one_before_it_had_not_copied(
    printed: Printed, record: Record, tmp_path: Path
) -> None:
    printed.down, printed.texts["w"] = True, b"the end"
    before = RunLogs(printed, tmp_path / "notes")
    before.keep(record)
    until(lambda: bool(printed.asked))
    before.keeper.close(60)
    printed.down = False
    (tmp_path / "notes" / "torn").write_text("{")
    after = RunLogs(printed, tmp_path / "notes")
    assert not after.is_whole(record)
    after.keeper.take_up()
    until(lambda: after.is_whole(record))
    assert (tmp_path / "w.log").read_bytes() == b"the end"


def test_what_printed_nothing_leaves_no_file(logs: RunLogs, record: Record, tmp_path: Path) -> None:
    keep(logs, record)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_was_kept_is_not_copied_again(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "w.log").write_text("kept")
    keeper = LogKeeper(printed, tmp_path / "notes")
    keeper.keep("w", tmp_path)
    assert not keeper.is_keeping("w")
    assert printed.asked == []
