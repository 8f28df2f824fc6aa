"""Tables in the terminal, from what the API returns; what is not known is said to be so."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from dashboards import terminal

PROGRESS: dict[str, Any] = {
    "phase": "running",
    "fraction": 0.0,
    "step": 0,
    "total_steps": None,
    "rows": 0,
    "total_rows": None,
    "per_second": None,
    "loss": None,
    "epoch": None,
    "rows_by_device": {},
    "row_errors": 0,
    "resumed": 0,
    "note": "",
    "metrics": {},
}
WORKLOAD: dict[str, Any] = {
    "id": "w-1",
    "name": "w",
    "kind": "train",
    "pipeline_id": None,
    "state": "queued",
    "attempt": 0,
    "needs": [],
    "submitted_s": 1000.0,
    "started_s": None,
    "ended_s": None,
    "run_s": 0.0,
    "cost_usd": 0.0,
    "placement": None,
    "predicted_s": None,
    "predicted_usd": None,
    "predicted_source": None,
    "explanation": None,
    "progress": PROGRESS,
    "metrics": {},
    "output": "/out",
    "message": "",
    "cancel_requested": False,
    "ended": False,
}
OPTION: dict[str, Any] = {
    "configuration": {"T4": 2},
    "seconds": None,
    "low_s": None,
    "high_s": None,
    "startup_s": 0.0,
    "memory_bytes": None,
    "price_usd_h": None,
    "money_usd": None,
    "compute_usd": None,
    "storage_usd": None,
    "communication_usd": None,
    "source": "unknown",
    "bound": "",
    "total_usd": None,
    "congestion_usd": 0.0,
    "wait_s": None,
    "reason": None,
}


def rows(table: Table) -> list[list[str]]:
    """Cells of a table as plain text."""
    console = Console(file=io.StringIO(), width=300, highlight=False)
    columns = [[_plain(console, cell) for cell in column._cells] for column in table.columns]
    console.print(table)  # drawing it raises nothing
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(console: Console, cell: Any) -> str:
    return console.render_str(cell).plain if isinstance(cell, str) else str(cell.plain)


def workload(**fields: Any) -> dict[str, Any]:
    progress = PROGRESS | fields.pop("progress", {})
    return WORKLOAD | fields | {"progress": progress}


def test_every_option_with_its_numbers_or_why_not() -> None:
    taken = OPTION | {"seconds": 61.0, "low_s": 40.4, "high_s": 90.6, "memory_bytes": 2e9, "price_usd_h": 1.052, "money_usd": 0.0178, "total_usd": 0.05, "source": "roofline"}  # fmt: skip
    dearer = OPTION | {"configuration": {"A100": 1}, "seconds": 9.0, "low_s": 5.0, "high_s": 20.0, "price_usd_h": 4.0, "money_usd": 0.01, "total_usd": 0.02, "source": "calibrated", "reason": {"code": "dearer", "message": "it [costs] more"}}  # fmt: skip
    gone = OPTION | {"configuration": {"H100": 1}, "reason": {"code": "count", "message": "the cluster has no H100"}}
    unknown = OPTION | {"configuration": {"FPGA": 1}}
    explanation = {
        "chosen": {"T4": 2},
        "summary": "T4 x2 is [the] least money",
        "options": [gone, dearer, unknown, taken],
    }
    table = terminal.options_table("train", explanation, {"T4"})
    assert rows(table) == [
        ["T4 x2 (emulated)", "1m 01s", "40..91 s", "2.00 GB", "1.052", "$0.0178", "$0.0500", "roofline", "taken"],
        ["A100 x1", "9.0 s", "5..20 s", "-", "4.000", "$0.0100", "$0.0200", "calibrated", "it [costs] more"],
        ["FPGA x1", "?", "-", "-", "unpriced", "-", "-", "unknown", ""],
        ["H100 x1", "?", "-", "-", "-", "-", "-", "unknown", "the cluster has no H100"],
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert "T4 x2 is [the] least money" in console.file.getvalue()  # type: ignore[attr-defined]


def test_no_option_and_nothing_chosen() -> None:
    assert rows(terminal.options_table("t", {"chosen": None, "summary": "not planned yet", "options": []})) == []
    assert rows(terminal.options_table("t", {"chosen": None, "summary": "", "options": [OPTION]}))[0][-1] == ""


def test_the_list_of_workloads() -> None:
    found = rows(
        terminal.workloads_table(
            [
                workload(explanation="waits for [T4]"),
                workload(id="w-2", state="running", placement="T4 x2", run_s=65.0, cost_usd=None, progress={"step": 3, "total_steps": 9, "per_second": 12.4, "loss": 0.5}),
                workload(id="w-3", state="failed", message="[bold]boom", run_s=3.0, cost_usd=0.25),
            ],
            now_s=1090.0,
        )
    )  # fmt: skip
    assert found == [
        ["w-1", "train", "queued", "-", "waits for [T4]", "-", "$0", "1m 30s"],
        ["w-2", "train", "running", "T4 x2", "step 3/9; 12 rows/s; loss 0.500", "1m 05s", "?", "1m 30s"],
        ["w-3", "train", "failed", "-", "[bold]boom", "3.0 s", "$0.2500", "1m 30s"],
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "waits for what it needs"),
        ({"message": "attempt 1 failed"}, "attempt 1 failed"),
        ({"state": "cancelled", "message": "cancelled by the user"}, "cancelled by the user"),
        ({"state": "starting", "progress": {"phase": "starting"}}, "starting"),
        (
            {"state": "running", "progress": {"rows": 5, "total_rows": 9, "rows_by_device": {"T4": 2, "A100": 3}}},
            "row 5/9; T4: 2, A100: 3",
        ),
        ({"state": "running", "progress": {"rows": 5, "total_rows": 9, "rows_by_device": {"T4": 5}}}, "row 5/9"),
        ({"state": "running", "progress": {"row_errors": 2, "resumed": 1}}, "2 rows left out; resumed 1x"),
    ],
    ids=["nothing known", "a message", "cancelled", "starting", "rows by device", "one device", "errors"],
)
def test_progress_in_one_cell(fields: dict[str, Any], text: str) -> None:
    assert terminal.progress_text(workload(**fields)) == text


def test_one_line_while_it_runs() -> None:
    running = workload(
        state="running",
        placement="T4 x2",
        run_s=5.0,
        cost_usd=0.01,
        progress={"fraction": 0.25, "step": 1, "total_steps": 4},
    )
    assert terminal.live_line(running) == "w: running on T4 x2  25%  step 1/4  (5.0 s, $0.0100 so far)"
    done = workload(state="succeeded", ended=True, placement="T4 x2", run_s=5.0, cost_usd=None)
    assert terminal.live_line(done).startswith("w: succeeded on T4 x2  ")
    assert "%" not in terminal.live_line(done)
    assert terminal.live_line(workload()) == "w: queued   0%  waits for what it needs  (0.0 s)"


def test_the_report_compares_predicted_and_measured() -> None:
    ran = workload(
        state="succeeded", placement="T4 x2 + A100 x1", predicted_s=20.0, run_s=10.0, predicted_usd=0.02, cost_usd=0.01,
        metrics={"accuracy": 0.91234, "other": 3.0}, progress={"rows_by_device": {"T4": 30, "A100": 40}, "row_errors": 1, "resumed": 2},
    )  # fmt: skip
    found = rows(terminal.report_table([ran, workload(state="failed", message="no [luck]", cost_usd=None)], {"T4"}))
    assert found == [
        ["w", "succeeded", "T4 x2 (emulated) + A100 x1", "20.0 s", "10.0 s", "100%", "$0.0200", "$0.0100", "accuracy 0.9123; rows: T4 30 (15 a device), A100 40; 1 rows left out; resumed 2x"],
        ["w", "failed", "-", "?", "0.0 s", "?", "?", "?", "no [luck]"],
    ]  # fmt: skip
    assert rows(terminal.report_table([workload(state="succeeded")]))[0][-1] == "done"


def test_devices() -> None:
    kind: dict[str, Any] = {"name": "T4", "kind": "gpu", "emulated": True, "emulated_speed": 0.5, "total": 2, "free": 1, "price_usd_h": 0.526, "price_source": "aws", "price_as_of": "2026-07", "memory_bytes": 16e9, "peak_flops": {"fp32": 25e9}}  # fmt: skip
    bare = {**kind, "name": "Z9", "emulated": False, "emulated_speed": None, "price_usd_h": None, "price_source": "", "price_as_of": "", "memory_bytes": None, "peak_flops": {}}  # fmt: skip
    found = rows(terminal.devices_table({"device_types": [kind, bare], "congestion_usd_h": {"T4": 1.5}}))
    assert found == [
        ["T4 (emulated at 0.5 of a core)", "1", "2", "16.00 GB", "0.025", "0.526", "1.500", "aws 2026-07"],
        ["Z9", "1", "2", "-", "?", "unpriced", "0.000", ""],
    ]
    assert terminal.emulated_types({"device_types": [kind, bare]}) == {"T4"}
    assert terminal.emulated_types(None) == set()


@pytest.mark.parametrize(
    ("counts", "emulated", "text"),
    [
        (None, (), "-"),
        ({}, (), "-"),
        ({"T4": 2}, (), "T4 x2"),
        ({"T4": 2, "A100": 1}, ("T4", "A100"), "T4 x2 + A100 x1 (emulated)"),
        ({"T4": 2, "A100": 1}, ("T4",), "T4 x2 (emulated) + A100 x1"),
    ],
)
def test_what_is_emulated_is_called_so(counts: dict[str, int] | None, emulated: tuple[str, ...], text: str) -> None:
    assert terminal.configuration_text(counts, emulated) == text
