"""What Ray Train's controller writes of the shards' reports, without Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workloads.bodies.checkpoints import step_of
from workloads.bodies.train import ReportsToProgress
from workloads.job import read_progress


def written(path: Path, metrics: dict[str, Any], checkpoint: str | None) -> list[dict[str, Any]]:
    reported = None if checkpoint is None else SimpleNamespace(path=checkpoint)
    ReportsToProgress(str(path)).after_report(None, [metrics, {"loss": 9.0}], reported)
    return [{name: value for name, value in each.items() if name != "t"} for each in read_progress(path)[0]]


@pytest.mark.parametrize(
    ("metrics", "checkpoint", "records"),
    [
        ({}, None, []),
        (
            {"epoch": 1, "loss": 0.5, "note": "x"},
            None,
            [{"kind": "metrics", "epoch": 1, "values": {"loss": 0.5}}],
        ),
        ({}, "/run/train/w/checkpoint-000000120", [{"kind": "checkpoint", "step": 120}]),
        (
            {"loss": 0.5},
            "/run/train/w/checkpoint_2026-01-01",
            [{"kind": "metrics", "values": {"loss": 0.5}}, {"kind": "checkpoint"}],
        ),
    ],
    ids=["nothing", "metrics", "our checkpoint", "a user's own checkpoint, with metrics"],
)
def test_reports(
    tmp_path: Path, metrics: dict[str, Any], checkpoint: str | None, records: list[dict[str, Any]]
) -> None:
    assert written(tmp_path / "progress.jsonl", metrics, checkpoint) == records


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("/a/checkpoint-000000007", 7),
        ("/a/checkpoint-last", None),
        ("/a/7", None),
        ("/a/.checkpoint-000000007.partial", None),
        ("", None),
    ],
)
def test_the_step_of_a_checkpoint(path: str, step: int | None) -> None:
    assert step_of(path) == step
