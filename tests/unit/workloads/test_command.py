"""What a command refuses before it asks Ray for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workloads.bodies.command import ENDED_WELL, run
from workloads.errors import WorkloadFailed
from workloads.job import Job, ProgressWriter, Shard, read_progress


def attempt(folder: Path, *nodes: str) -> Any:
    shards = tuple(Shard("T4", node, {"T4": 1.0}) for node in nodes)
    spec = {"kind": "command", "name": "w", "command": "true"}
    job = Job("w", "w", 1, spec, shards, str(folder / "run"), str(folder / "out"), str(folder / "progress"))
    return run(job, ProgressWriter(folder / "progress"))


def test_a_command_on_two_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadFailed, match="a command runs on one node; its devices are on 2") as failed:
        attempt(tmp_path, "a", "b", "a")
    assert not failed.value.retryable
    assert not list(tmp_path.iterdir())


def test_a_command_does_not_write_where_the_users_files_are(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(WorkloadFailed, match="holds what Raywise did not write"):
        attempt(tmp_path, "a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_command_that_ended_well_before_its_attempt_was_killed_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ENDED_WELL).touch()
    assert attempt(tmp_path, "a") == {"outputs": {"output": str(tmp_path / "out")}, "metrics": {}}
    (note,) = read_progress(tmp_path / "progress")[0]
    assert note["message"] == "the command had ended well when the attempt before was killed"
