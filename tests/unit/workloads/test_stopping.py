"""The request to end a run: one file, the first deadline, whatever becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads.job import Job
from workloads.stopping import request_stop, stop_deadline_s, stop_path


def test_the_first_deadline_holds(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "w.r2.stop"
    assert stop_deadline_s(path) is None
    assert request_stop(path, 100.0) == 100.0
    assert request_stop(path, 500.0) == 100.0
    assert request_stop(path, 5.0) == 100.0
    assert stop_deadline_s(path) == 100.0
    assert [each.name for each in path.parent.iterdir()] == ["w.r2.stop"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"deadline_s": null}', '{"deadline_s": NaN}'])
def test_what_cannot_be_understood_asks_for_an_end_now(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.stop"
    path.write_text(text)
    assert stop_deadline_s(path) == 0.0


def test_the_executor_and_the_body_mean_the_same_file() -> None:
    job = Job("w", "w.r2", 2, {}, (), "/runs/w", "/out", "/runs/w/w.r2.progress.jsonl")
    assert job.stop_path == stop_path(Path("/runs/w/w.r2.progress.jsonl"), "w.r2") == Path("/runs/w/w.r2.stop")
