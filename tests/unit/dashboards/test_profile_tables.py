"""The tables of `raywise profile`: every number of the answer in its cell, at 80 and at 120 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dashboards import profile_tables


def estimate(seconds: float | None = 100.0, usd: float | None = 0.05, **fields: Any) -> dict[str, Any]:
    return {
        "configuration": {"T4": 2},
        "seconds": seconds,
        "low_s": seconds and seconds / 2,
        "high_s": seconds and seconds * 2,
        "money_usd": usd,
        "memory_bytes": 1.5e9,
        "source": "roofline",
        "bound": "compute",
        "note": "",
        "breakdown": {"startup_s": 16.0, "checkpoint_s": 0.01, "rework_s": 2.0},
        "infeasible": None,
    } | fields


def operator(name: str, seconds: float, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "phase": "forward",
        "bound": "compute",
        "seconds": seconds,
        "share": seconds,
        "moved_bytes": 2.5e6,
        "flops": 3e9,
    } | fields


def advice(change: str, after: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "change": change,
        "setting": None,
        "available": False,
        "assumption": "",
        "helps": True,
        "makes_it_fit": False,
        "trade_off": False,
        "gain_s": 40.0,
        "gain_percent": 40.0,
        "step_gain_percent": 50.0,
        "gain_usd": 0.02,
        "gain_usd_percent": 40.0,
        "reason": "",
        "before": estimate(),
        "after": after or estimate(60.0, 0.03, memory_bytes=0.75e9),
    } | fields


DEVICE = {
    "device": "T4",
    "step_s": 1.0,
    "steps": 9.5,
    "samples": 16.0,
    "scale": 1.25,
    "operators": [
        operator("addmm", 0.5),
        operator("gelu", 0.25, bound="memory", moved_bytes=7.5e6, flops=0.0),
        operator("add", 0.15),
        operator("all-reduce", 0.1, phase="communication", bound="communication", moved_bytes=0.0, flops=0.0),
    ],
}


def step(**fields: Any) -> dict[str, Any]:
    return {
        "name": "fit",
        "kind": "train",
        "message": "",
        "family": "bert-6x384",
        "parameters": 22_713_216,
        "precision": "fp32",
        "batch_size": 32,
        "tokens_per_sample": 26.3,
        "estimate": estimate(),
        "devices": [DEVICE],
        "advice": [advice("compute in bf16", setting="precision: bf16", available=True)],
        "would_not_help": [],
    } | fields


def drawn(*steps: dict[str, Any], top: int = 10, width: int = 120) -> str:
    answer = {"name": "triage", "cluster": "a cluster", "emulated": ["T4"], "steps": list(steps)}
    console = Console(width=width, file=io.StringIO(), highlight=False)
    for part in profile_tables.everything(answer, top):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    return text


def test_the_step_is_told_in_two_lines() -> None:
    text = drawn(step(), width=200)
    assert "fit (train): bert-6x384, 22.7M parameters, fp32, batches of 32 rows of 26 tokens" in text
    assert "on T4 x2 (emulated): 1m 40s (likely" in text
    assert "roofline), $0.0500, 1.50 GB a device, bound by compute; of it start-up 16.0 s, rework 2.0 s" in text


def test_the_longest_operators_and_the_others_in_one_row() -> None:
    table = profile_tables.operators_table(DEVICE, "train", {"T4"}, 2)
    assert [row[:7] for row in table.plain()] == [
        ["addmm", "forward", "compute", "500.0 ms", "50.0%", "2.5M", "3G"],
        ["gelu", "forward", "memory", "250.0 ms", "25.0%", "7.5M", "-"],
        ["2 others", "", "", "250.0 ms", "25.0%", "2.5M", "3G"],
    ]
    assert table.title == "one step on T4 (emulated): 1.00 s, 16 rows a device; 10 to do"
    assert table.caption[0] == "most bytes: gelu (forward) 60%, addmm (forward) 20%, add (forward) 20% of 12.5 MB"
    assert "roofline x 1.25" in table.caption[1]
    alone = profile_tables.operators_table(DEVICE, "batch-infer", set(), 9, alone=False)
    assert alone.title == "one batch on T4: 1.00 s, 16 rows a device" and len(alone.rows) == 4


def test_advice_shows_what_is_left_and_the_difference() -> None:
    rows = profile_tables.advice_table(step()).plain()
    assert rows[0] == ["as it is", "1m 40s", "$0.0500", "1.50 GB", ""]
    assert rows[1] == [
        "compute in bf16\nprecision: bf16",
        "1m 00s\n-40.0 s\n-40%",
        "$0.0300\n-$0.0200\n-40%",
        "0.75 GB\n-50%",
        "",
    ]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"available": True}, ""),
        ({}, "not available in the built-in bodies yet"),
        ({"trade_off": True, "available": True}, "a trade-off"),
        ({"makes_it_fit": True, "available": True}, "makes it fit"),
        ({"assumption": "weights are a byte"}, "not available in the built-in bodies yet; weights are a byte"),
    ],
    ids=["a field of the spec", "no field yet", "dearer and faster", "too large before", "an assumption"],
)
def test_a_note_beside_advice(fields: dict[str, Any], note: str) -> None:
    table = profile_tables.advice_table(step(advice=[advice("change", **fields)]))
    assert table.plain()[1][-1] == note


def test_what_fits_only_after_the_change_has_no_difference() -> None:
    too_large = estimate(None, None)
    row = advice(
        "checkpointing", gain_s=None, gain_percent=None, gain_usd=None, gain_usd_percent=None, before=too_large
    )
    rows = profile_tables.advice_table(step(estimate=too_large, advice=[row])).plain()
    assert rows[0][1:4] == ["-", "unpriced", "1.50 GB"] and rows[1][1:3] == ["1m 00s", "$0.0300"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reason": "no bf16 rate is known of T4"}, "x: no bf16 rate is known of T4"),
        ({"gain_percent": -20.0, "gain_usd_percent": 1.0, "step_gain_percent": -25.0}, "x: +20.0% time, -1.0% dollars"),
        ({"gain_percent": 0.01, "gain_usd_percent": 0.0, "step_gain_percent": 0.0}, "x: no change"),
        (
            {"gain_percent": 1.0, "gain_usd_percent": 1.0, "step_gain_percent": 30.0},
            "x: -1.0% time, -1.0% dollars (-30% of the work without start-up)",
        ),
        ({"gain_percent": None, "gain_usd_percent": None, "step_gain_percent": None}, "x: nothing is known of it"),
    ],
    ids=["a reason", "a loss", "nothing", "more in a longer run", "unknown"],
)
def test_why_not(fields: dict[str, Any], text: str) -> None:
    assert text in drawn(step(would_not_help=[advice("x", helps=False, **fields)]))


def test_of_many_device_types_the_best_few() -> None:
    many = [
        advice(f"GPU{n} x1", setting=f"resources: {{devices: [GPU{n}], count: 1}}", available=True) for n in range(9)
    ]
    text = drawn(step(advice=many, would_not_help=many))
    assert "GPU3 x1" in text and "GPU4 x1" not in text
    assert "5 more device types would help: --json has them" in text and "5 more device types: --json has them" in text


def test_a_step_that_is_not_looked_into_is_one_sentence() -> None:
    text = drawn({"name": "tell", "kind": "command", "message": "a command [runs] no model"})
    assert text.splitlines()[-1] == "tell (command): a command [runs] no model"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_numbers_can_be_read_at(width: int) -> None:
    text = drawn(step(advice=[advice("compile", assumption="a long sentence " * 9)]), width=width)
    for words in (
        "addmm",
        "forward",
        "comms",
        "500.0 ms",
        "50.0%",
        "1m 00s",
        "-40.0 s",
        "-$0.0200",
        "0.75 GB",
        "not available",
    ):
        assert words in text


def test_a_speed_that_is_unknown_and_no_advice() -> None:
    unknown = estimate(None, None, note="unknown speed: the catalog has no rates for Z9", memory_bytes=None)
    text = drawn(step(estimate=unknown, devices=[], advice=[]))
    assert "no operators: unknown speed" in text and "nothing that was tried would help" in text
