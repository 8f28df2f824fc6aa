"""Tables in the terminal, from what the API returns; what is not known is said to be so."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dashboards import terminal
from dashboards.sheet import Sheet
from dashboards.text import configuration_text

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
    "attempt_s": None,
    "deadline_s": None,
    "late_s": None,
    "budget_usd": None,
    "emulated": [],
    "failure": "",
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
    "market": "on-demand",
    "note": "",
    "breakdown": None,
    "energy": None,
    "total_usd": None,
    "congestion_usd": 0.0,
    "wait_s": None,
    "reason": None,
}


def rows(sheet: Sheet) -> list[list[str]]:
    """Cells and remarks as plain text."""
    for width in (40, 80, 300):  # drawing it raises nothing
        drawn(sheet, width)
    return sheet.plain()


def headers(sheet: Sheet) -> list[str]:
    return [*(column.name for column in sheet.columns), sheet.remark]


def workload(**fields: Any) -> dict[str, Any]:
    progress = PROGRESS | fields.pop("progress", {})
    return WORKLOAD | fields | {"progress": progress}


def test_every_option_with_its_numbers_or_why_not() -> None:
    taken = OPTION | {"seconds": 61.0, "low_s": 40.4, "high_s": 90.6, "memory_bytes": 2e9, "price_usd_h": 1.052, "money_usd": 0.0178, "total_usd": 0.05, "source": "roofline", "bound": "compute"}  # fmt: skip
    dearer = OPTION | {"configuration": {"A100": 1}, "seconds": 9.0, "low_s": 5.0, "high_s": 20.0, "price_usd_h": 4.0, "money_usd": 0.01, "total_usd": 0.02, "source": "calibrated", "bound": "communication", "reason": {"code": "dearer", "message": "it [costs] more"}}  # fmt: skip
    gone = OPTION | {"configuration": {"H100": 1}, "reason": {"code": "count", "message": "the cluster has no H100"}}
    unknown = OPTION | {"configuration": {"FPGA": 1}}
    explanation = {
        "chosen": {"T4": 2},
        "summary": "T4 x2 is [the] least money",
        "options": [gone, dearer, unknown, taken],
    }
    table = terminal.options_table("train", explanation, {"T4"})
    assert rows(table) == [
        [
            "T4 x2 (emulated)",
            "1m 01s",
            "40 s..1m 31s",
            "roofline\ncompute",
            "2.00 GB",
            "1.052",
            "$0.0178",
            "$0.0500",
            "taken",
        ],
        ["A100 x1", "9.0 s", "5.0..20 s", "calibrated\ncomms", "-", "4.000", "$0.0100", "$0.0200", "it [costs] more"],
        ["FPGA x1", "?", "-", "unknown", "-", "unpriced", "-", "-", ""],
        ["H100 x1", "?", "-", "unknown", "-", "-", "-", "-", "the cluster has no H100"],
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert "T4 x2 is [the] least money" in console.file.getvalue()  # type: ignore[attr-defined]


MANY: list[dict[str, Any]] = [
    OPTION | {"configuration": {"A100-SXM4-40GB": 1, "T4": 2}, "seconds": 21600.0, "low_s": 14400.0, "high_s": 36000.0, "memory_bytes": 13.55e9, "price_usd_h": 4.7253, "money_usd": 28.35, "total_usd": 40.5, "source": "calibrated", "bound": "communication", "market": "spot", "note": "how often spot nodes are taken back is not known: 20% a month assumed", "energy": {"kwh": 4.2, "usd": 0.5, "gco2e": 1600.0}},
    OPTION | {"configuration": {"A100-SXM4-40GB": 16}, "seconds": 61.0, "low_s": 40.4, "high_s": 90.6, "memory_bytes": 2e9, "price_usd_h": 58.77, "money_usd": 1.0178, "total_usd": 1.05, "source": "roofline", "bound": "memory", "energy": {"kwh": 0.00234, "usd": None, "gco2e": 1.1}, "reason": {"code": "dearer", "message": "costs $0.0321 more in all: its devices are dear and it waits 20 s for them"}},
    OPTION | {"configuration": {"V100-SXM2-16GB": 4}, "memory_bytes": 20e9, "reason": {"code": "memory", "message": "needs 20.0 GB a device, 4.0 GB too much; 8 shards would fit"}},
]  # fmt: skip


def drawn(table: Sheet, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("emulated", [(), ("A100-SXM4-40GB", "T4")], ids=["real", "all emulated"])
def test_every_cell_can_be_read_in_120_columns(emulated: tuple[str, ...]) -> None:
    explanation = {"chosen": {"A100-SXM4-40GB": 1, "T4": 2}, "summary": "the least money", "options": MANY}
    text = drawn(terminal.options_table("train", explanation, emulated))
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 120
    for cell in (
        "A100-SXM4-40GB x16",
        "+ T4 x2",
        "6h 00m",
        "4h 00m..10h 00m",
        "13.55 GB",
        "unpriced",
        "calibrated",
        "$40.50",
    ):
        assert cell in text
    words = " ".join(text.split())
    for word in ("shards", "would", "fit", "taken (1)", "(1) how often spot nodes are taken back"):
        assert word in words


def test_energy_has_a_column_where_it_is_known_with_its_units() -> None:
    explanation = {"chosen": None, "summary": "", "options": MANY}
    table = terminal.options_table("train", explanation)
    assert headers(table)[-2] == "energy\nkWh, $\ng CO2e"
    assert [row[-2] for row in rows(table)] == ["0.0023\n1.1", "4.2\n$0.5000\n1600", "-"]
    bare = [row | {"energy": row["energy"] and row["energy"] | {"usd": None, "gco2e": None}} for row in MANY]
    table = terminal.options_table("train", explanation | {"options": bare})
    assert headers(table)[-2] == "energy\nkWh"
    none = [row | {"energy": None, "memory_bytes": None} for row in MANY]
    table = terminal.options_table("train", explanation | {"options": none})
    expected = ["configuration", "time", "likely", "from\nbound by", "$/h", "dollars", "total\nmoney", "why not"]
    assert headers(table) == expected


def test_notes_stand_once_below_the_table() -> None:
    same = [row | {"note": "a [prior]"} for row in MANY[:2]]
    table = terminal.options_table(
        "t", {"chosen": None, "summary": "s", "options": [*same, MANY[2] | {"note": "other"}]}
    )
    assert [row[-1][-3:] for row in rows(table)] == ["(1)", "(1)", "(2)"]
    assert drawn(table).count("a [prior]") == 1


@pytest.mark.parametrize(
    ("counts", "emulated", "market", "cell"),
    [
        ({"T4": 2}, ("T4",), "on-demand", "T4 x2 (emulated)"),
        ({"T4": 2}, (), "spot", "T4 x2\non spot"),
        ({"A100-SXM4-40GB": 1}, ("A100-SXM4-40GB",), "on-demand", "A100-SXM4-40GB x1\n(emulated)"),
        ({"A100": 1, "T4": 2}, ("A100", "T4"), "spot", "A100 x1\n+ T4 x2\nall emulated\non spot"),
    ],
)
def test_one_device_type_a_line(counts: dict[str, int], emulated: tuple[str, ...], market: str, cell: str) -> None:
    options = [OPTION | {"configuration": counts, "market": market}]
    table = terminal.options_table("t", {"chosen": None, "summary": "", "options": options}, emulated)
    assert rows(table)[0][0] == cell


def test_no_option_and_nothing_chosen() -> None:
    assert rows(terminal.options_table("t", {"chosen": None, "summary": "not planned yet", "options": []})) == []
    assert rows(terminal.options_table("t", {"chosen": None, "summary": "", "options": [OPTION]}))[0][-1] == ""


def test_the_list_of_workloads() -> None:
    found = rows(
        terminal.workloads_table(
            [
                workload(explanation="waits for [T4]"),
                workload(id="w-2", state="running", placement="T4 x2", run_s=65.0, cost_usd=None, progress={"step": 3, "total_steps": 9, "per_second": 12.4, "loss": 0.5}),
                workload(id="w-3", state="failed", ended=True, message="[bold]boom", run_s=3.0, cost_usd=0.25),
            ],
            now_s=1090.0,
        )
    )  # fmt: skip
    assert found == [
        ["w-1", "train", "queued", "-", "-", "$0", "1m 30s", "waits for [T4]"],
        ["w-2", "train", "running", "T4 x2", "~1m 05s", "?", "1m 30s", "step 3/9; 12 rows/s; loss 0.500"],
        ["w-3", "train", "failed", "-", "3.0 s", "$0.2500", "1m 30s", "[bold]boom"],
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "waits for what it needs"),
        ({"message": "attempt 1 failed"}, "attempt 1 failed"),
        ({"state": "cancelled", "ended": True, "message": "cancelled by the user"}, "cancelled by the user"),
        ({"state": "succeeded", "ended": True, "progress": {"phase": "finishing"}}, "done"),
        (
            {
                "state": "succeeded",
                "ended": True,
                "metrics": {"accuracy": 0.5},
                "progress": {"step": 9, "total_steps": 9},
            },
            "accuracy 0.5",
        ),
        (
            {"attempt": 1, "failure": "boom\nTraceback", "explanation": "tries again in 2 s"},
            "attempt 1 failed: boom; tries again in 2 s",
        ),
        (
            {"state": "running", "attempt": 2, "failure": "boom", "progress": {"step": 1, "total_steps": 4}},
            "attempt 2, the one before failed: boom; step 1/4",
        ),
        (
            {"state": "running", "attempt": 2, "failure": "x" * 200},
            "attempt 2, the one before failed: " + "x" * 159 + "…",
        ),
        ({"state": "running", "attempt": 2}, "attempt 2"),
        ({"state": "starting", "progress": {"phase": "starting"}}, "starting"),
        (
            {"state": "running", "progress": {"rows": 5, "total_rows": 9, "rows_by_device": {"T4": 2, "A100": 3}}},
            "row 5/9; T4: 2, A100: 3",
        ),
        ({"state": "running", "progress": {"rows": 5, "total_rows": 9, "rows_by_device": {"T4": 5}}}, "row 5/9"),
        ({"state": "running", "progress": {"row_errors": 2, "resumed": 1}}, "2 rows left out; resumed 1x"),
    ],
    ids=[
        "nothing known",
        "a message",
        "cancelled",
        "done",
        "what came out",
        "waits after a failure",
        "again",
        "a long failure",
        "stopped for the plan before",
        "starting",
        "rows by device",
        "one device",
        "errors",
    ],
)
def test_progress_in_one_cell(fields: dict[str, Any], text: str) -> None:
    assert terminal.progress_text(workload(**fields)) == text


def test_one_line_while_it_runs() -> None:
    running = workload(
        state="running",
        placement="T4 x2",
        emulated=["T4"],
        run_s=5.0,
        cost_usd=0.01,
        progress={"fraction": 0.25, "step": 1, "total_steps": 4},
    )
    assert terminal.live_line(running) == "w: running on T4 x2 (emulated)  25%  step 1/4  (~5 s, ~$0.0100 so far)"
    done = workload(state="succeeded", ended=True, placement="T4 x2", run_s=5.0, cost_usd=None)
    assert terminal.live_line(done).startswith("w: succeeded on T4 x2  ")
    assert "%" not in terminal.live_line(done)
    assert terminal.live_line(workload()) == "w: queued   0%  waits for what it needs  (0.0 s)"


def test_the_report_compares_predicted_and_measured() -> None:
    ran = workload(
        state="succeeded", ended=True, attempt=1, emulated=["T4"], placement="T4 x2 + A100 x1", predicted_s=20.0, run_s=10.0, predicted_usd=0.02, cost_usd=0.01,
        metrics={"accuracy": 0.91234, "other": 3.0}, progress={"rows_by_device": {"T4": 30, "A100": 40}, "row_errors": 1, "resumed": 2},
    )  # fmt: skip
    found = rows(terminal.report_table([ran, workload(state="failed", ended=True, message="no [luck]", cost_usd=None)]))
    assert found == [
        ["w", "succeeded", "T4 x2 (emulated)\n+ A100 x1", "20.0 s", "10.0 s", "100%", "$0.0200", "$0.0100", "accuracy 0.9123; rows: T4 30 (15 a device), A100 40; 1 rows left out; resumed 2x"],
        ["w", "failed", "-", "?", "0.0 s", "?", "?", "?", "no [luck]"],
    ]  # fmt: skip
    assert rows(terminal.report_table([workload(state="succeeded", ended=True)]))[0][-1] == "done"


@pytest.mark.parametrize(
    ("fields", "off", "result"),
    [
        ({"attempt": 1}, "50%", "done"),
        ({"attempt": 3, "attempt_s": 10.0, "failure": "attempt 2 failed: boom"}, "100%", "done; time and cost are of 3 attempts, the last took 10.0 s; before it: attempt 2 failed: boom"),
        ({"attempt": 2, "attempt_s": 10.0, "progress": {"resumed": 1}}, "?", "resumed 1x; time and cost are of 2 attempts, the last took 10.0 s"),
        ({"attempt": 2, "attempt_s": 10.0, "state": "failed", "message": "boom", "failure": "boom"}, "100%", "boom; time and cost are of 2 attempts, the last took 10.0 s"),
        ({"attempt": 1, "ended": False, "state": "running"}, "?", "running"),
    ],
    ids=["one attempt", "the last of several", "the last went on from a checkpoint", "all failed", "still running"],
)  # fmt: skip
def test_a_prediction_is_compared_with_one_whole_attempt(fields: dict[str, Any], off: str, result: str) -> None:
    given = {"state": "succeeded", "ended": True, "predicted_s": 20.0, "run_s": 40.0} | fields
    (row,) = rows(terminal.report_table([workload(**given)]))
    assert (row[5], row[-1]) == (off, result)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"late_s": 58.0, "ended": True, "state": "succeeded"}, "deadline missed by 58.0 s; done"),
        ({"late_s": 58.0, "state": "running"}, "58.0 s past its deadline; running"),
        ({"late_s": None, "deadline_s": 2000.0, "ended": True, "state": "succeeded"}, "done"),
    ],
    ids=["ended late", "runs late", "in time"],
)
def test_a_missed_deadline_is_said(fields: dict[str, Any], text: str) -> None:
    given = workload(run_s=59.0, **fields)
    assert rows(terminal.workloads_table([given], now_s=1090.0))[0][-1] == text
    assert rows(terminal.report_table([given]))[0][-1] == text
    assert terminal.lateness(given) in terminal.live_line(given)


def test_limits_and_where_the_results_and_logs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    late = workload(deadline_s=1001.0, late_s=58.0, ended=True, state="succeeded", budget_usd=5.0)
    failed = workload(id="w-9", name="v", state="failed", ended=True, attempt=3)
    unstarted = workload(id="w-8", name="u", state="failed", ended=True, attempt=0)
    (line,) = terminal.limit_lines([late, failed])
    assert re.fullmatch(
        r"w: deadline 1\.0 s after it was submitted \(.* ..:..:..\), deadline missed by 58\.0 s; budget \$5\.0000", line
    )
    assert list(terminal.output_lines([late, failed, unstarted])) == [
        "w: /out",
        "v failed; `raywise logs w-9` shows what it printed",
    ]


def test_a_pipeline_is_listed_above_its_steps() -> None:
    steps = [workload(id=f"p-{name}", pipeline_id="p") for name in ("a", "b")]
    found = rows(terminal.workloads_table([*steps, workload()], now_s=1090.0))
    assert [row[:2] for row in found] == [["p", "pipeline"], ["  p-a", "train"], ["  p-b", "train"], ["w-1", "train"]]


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
        ({"T4": 2, "A100": 1}, ("T4", "A100"), "T4 x2 + A100 x1, all emulated"),
        ({"T4": 2, "A100": 1}, ("T4",), "T4 x2 (emulated) + A100 x1"),
    ],
)
def test_what_is_emulated_is_called_so(counts: dict[str, int] | None, emulated: tuple[str, ...], text: str) -> None:
    assert configuration_text(counts, emulated) == text
