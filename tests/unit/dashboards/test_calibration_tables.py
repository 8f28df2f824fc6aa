"""What a calibration knows and changed, as people see it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from dashboards.calibration_tables import changes_table, factors_table, rates_table, times_table

CATALOG = {
    "flops": {"fp32": 8e12, "fp16": 65e12},
    "bandwidth_bytes_s": 320e9,
    "launch_s": None,
    "reduce_bytes_s": 16e9,
}
MEASURED = {
    "flops": {"fp32": 4e12, "bf16": 2e12},
    "bandwidth_bytes_s": 240e9,
    "launch_s": 5.5e-6,
    "reduce_bytes_s": 8e9,
    "shards": 2,
}


def lines(table: Table) -> list[str]:
    """The cells of each line, with single spaces."""
    console = Console(width=140)
    with console.capture() as captured:
        console.print(table)
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


def kind(**fields: Any) -> dict[str, Any]:
    return {"name": "T4", "emulated_speed": None, "catalog": CATALOG, "measured": MEASURED, **fields}


def test_rates_stand_beside_what_was_believed() -> None:
    assert lines(rates_table([kind()]))[2:] == [
        "T4 matrix product, fp32 8 TFLOP/s 4 TFLOP/s 0.50",
        "matrix product, bf16 - 2 TFLOP/s -",
        "copy 320 GB/s 240 GB/s 0.75",
        "all-reduce, 2 devices 16 GB/s 8 GB/s 0.50",
        "launch of an operator - 5.5 us -",
    ]


def test_a_type_that_is_not_measured_shows_what_is_believed() -> None:
    shown = lines(rates_table([kind(measured=None, emulated_speed=0.5)]))[2:]
    assert shown[:2] == ["T4 (emulated) matrix product, fp32 8 TFLOP/s - -", "matrix product, fp16 65 TFLOP/s - -"]
    assert shown[-1] == "all-reduce 16 GB/s - -"


def test_a_type_that_has_gone_shows_what_was_measured() -> None:
    assert lines(rates_table([kind(catalog=None)]))[2] == "T4 matrix product, fp32 - 4 TFLOP/s -"


def test_factors_have_their_interval_and_the_measurements_behind_them() -> None:
    factor = {"mean": 1.25, "low": 1.1, "high": 1.4}
    subject = {
        "kind": "train",
        "family": "bert [x]",
        "device": "T4",
        "precision": "fp32",
        "factors": {"compute": factor, "memory": factor},
        "points": [{"count": 3}, {"count": 4}],
    }
    shown = lines(factors_table([subject]))
    assert shown[0] == "kind model family device type precision compute memory measured"
    assert shown[2:] == ["train bert [x] T4 fp32 x 1.25 x 1.25 7 times", "1.10..1.40 1.10..1.40 2 points"]


def test_times_name_what_they_are_of() -> None:
    seconds = {"seconds": 12.0, "low_s": 10.0, "high_s": 14.0, "count": 3}
    overheads = [
        {"kind": "train", "family": "*", "devices": "*", **seconds},
        {"kind": "train", "family": "bert", "devices": "2", **seconds},
    ]
    clean = {"kind": "command", "family": "clean", "configuration": "cpux1", **seconds, "count": 1}
    history = [{**clean, "size": None}, {**clean, "size": 1200.0}]
    assert lines(times_table({"overheads": overheads, "history": history}))[2:] == [
        "train start-up, any model any number 12.0 s 10..14 s 3 times",
        "train start-up, bert 2 devices 12.0 s 10..14 s 3 times",
        "command clean cpux1 12.0 s 10..14 s once",
        "command clean, size 1200 cpux1 12.0 s 10..14 s once",
    ]


def test_predictions_before_and_after_stand_side_by_side() -> None:
    before = {"seconds": 40.0, "low_s": 20.0, "high_s": 50.0, "source": "roofline"}
    after = {"seconds": 30.0, "low_s": 29.0, "high_s": 31.0, "source": "measured"}
    step = {
        "name": "label",
        "kind": "batch-infer",
        "changes": [
            {"configuration": {"T4": 2}, "before": before, "after": after},
            {"configuration": {"cpu": 1}, "before": None, "after": {**after, "seconds": None}},
        ],
    }
    shown = lines(changes_table(step, ["T4"]))
    assert shown[0] == "label (batch-infer)"
    assert shown[3:] == [
        "T4 x2 (emulated) 40.0 s 20..50 s, roofline 30.0 s 29..31 s, measured",
        "cpu x1 - unknown - unknown",
    ]
