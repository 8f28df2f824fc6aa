"""What an inference reads: the first rows, less those of dropped labels, all of them accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workloads.bodies.infer import ROW, Inference
from workloads.job import Job, ProgressWriter, Shard

LABELS = ["cat", "oos", "dog", "oos", "cat"]


@pytest.mark.parametrize(
    ("limits", "rows", "dropped"),
    [
        ({}, [0, 1, 2, 3, 4], 0),
        ({"max_rows": 2}, [0, 1], 0),
        ({"max_rows": 99}, [0, 1, 2, 3, 4], 0),
        ({"drop_labels": ["oos"]}, [0, 2, 4], 2),
        ({"max_rows": 3, "drop_labels": ["oos"]}, [0, 2], 1),
    ],
    ids=["all", "the first two", "more than there are", "dropped labels", "dropped labels among the first three"],
)
def test_rows_to_predict(tmp_path: Path, limits: dict[str, Any], rows: list[int], dropped: int) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"row {i},{label}\n" for i, label in enumerate(LABELS)))
    spec = {"kind": "batch-infer", "name": "i", "input": str(table), "model": "m", "label_column": "label", **limits}
    run = Inference(
        Job("i-1", "i-1", 1, spec, (Shard("T4", "n1", {"T4": 1.0}),), str(tmp_path), str(tmp_path / "out"), "unused"),
        ProgressWriter(tmp_path / "progress"),
    )
    assert run.table.column(ROW).to_pylist() == rows
    assert run.dropped == dropped
    assert run.table.num_rows + run.dropped == min(len(LABELS), limits.get("max_rows", len(LABELS)))
