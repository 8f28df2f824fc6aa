"""What all attempts of a workload printed, as one text that only grows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from fake_service import FakeRuntime
from scheduler.store import Record


class Printed:
    """An executor that has these logs."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def logs(self, run_id: str) -> str:
        return self.texts.get(run_id, "")


def test_the_log_of_a_retried_workload_only_grows(tmp_path: Path) -> None:
    runtime, printed = FakeRuntime(tmp_path / "home"), Printed()
    runtime.executor = printed  # type: ignore[assignment]
    record = Record("w", "w", "command", {}, "running", 0.0, "/out", str(tmp_path), attempt=1)
    seen = []
    for attempt, run_id, text in [
        (1, "w", ""),
        (1, "w", "one\n"),
        (1, "w", "one\ntwo\n"),
        (2, "w.r2", ""),
        (2, "w.r2", "again\n"),
    ]:
        printed.texts[run_id] = text
        seen.append(runtime.logs(replace(record, attempt=attempt)))
    runtime.store.close()
    assert seen[1:3] == ["one\n", "one\ntwo\n"], "a first attempt has no header"
    assert seen[-1] == "one\ntwo\n\n--- attempt 2\nagain\n"
    assert all(after.startswith(before) for before, after in pairwise(seen))


def test_what_was_kept_of_an_attempt_goes_before_what_the_cluster_still_has(tmp_path: Path) -> None:
    runtime, printed = FakeRuntime(tmp_path / "home"), Printed()
    runtime.executor = printed  # type: ignore[assignment]
    (tmp_path / "w.log").write_text("kept\n")
    printed.texts["w.r2"] = "live\n"
    record = Record("w", "w", "command", {}, "running", 0.0, "/out", str(tmp_path), attempt=2)
    assert runtime.logs(record) == "kept\n\n--- attempt 2\nlive\n"
    runtime.store.close()
