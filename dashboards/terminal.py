"""Tables in the terminal, from what the API returns. Reads, decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .text import dollars, duration, error_percent, percent, size

Json = Mapping[str, Any]
_STATE_STYLE = {
    "running": "cyan",
    "starting": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "stopping": "yellow",
}


def configuration_text(counts: Mapping[str, int] | None, emulated: Iterable[str] = ()) -> str:
    """`T4 x2 (emulated) + A100 x1`."""
    if not counts:
        return "-"
    return marked_text([f"{name} x{n}" for name, n in counts.items()], set(emulated))


def marked_text(parts: Sequence[str], emulated: set[str]) -> str:
    """Parts such as `T4 x2`, each said to be emulated where it is; once where all are."""
    marks = [part.rsplit(" x", 1)[0] in emulated for part in parts]
    if all(marks):
        return " + ".join(parts) + " (emulated)"
    return " + ".join(f"{part} (emulated)" if mark else part for part, mark in zip(parts, marks, strict=True))


def emulated_types(devices: Json | None) -> set[str]:
    """Names of the emulated device types in what `/devices` returned."""
    return {kind["name"] for kind in (devices or {}).get("device_types", []) if kind["emulated"]}


def options_table(title: str, explanation: Json, emulated: Iterable[str] = ()) -> Table:
    """The configurations that were weighed: prediction, price, money, and for each one not taken, why."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=False)
    table.add_column("configuration")
    for name in ("time", "likely", "memory/device", "$/h", "dollars", "total money"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from")
    table.add_column("why not", overflow="fold")
    chosen = explanation.get("chosen")
    for row in sorted(explanation["options"], key=lambda row: _order(row, chosen)):
        taken = chosen is not None and row["configuration"] == chosen
        table.add_row(
            configuration_text(row["configuration"], emulated),
            duration(row["seconds"]),
            _interval(row),
            size(row["memory_bytes"]) if row["memory_bytes"] else "-",
            _price(row),
            dollars(row["money_usd"]) if row["money_usd"] is not None else "-",
            dollars(row["total_usd"]) if row["total_usd"] is not None else "-",
            row["source"],
            "[green]taken[/green]" if taken else escape((row["reason"] or {}).get("message", "")),
            style="bold" if taken else "dim",
        )
    table.caption = escape(explanation["summary"])
    table.caption_justify = "left"
    return table


def _price(row: Json) -> str:
    if row["price_usd_h"] is not None:
        return f"{row['price_usd_h']:.3f}"
    return "-" if (row["reason"] or {}).get("code") == "count" else "unpriced"


def _order(row: Json, chosen: Mapping[str, int] | None) -> tuple[int, float, str]:
    taken = chosen is not None and row["configuration"] == chosen
    total = row["total_usd"]
    return (0 if taken else 1 if total is not None else 2, total or 0.0, str(row["configuration"]))


def _interval(row: Json) -> str:
    if row["low_s"] is None or row["seconds"] is None:
        return "-"
    return f"{row['low_s']:.0f}..{row['high_s']:.0f} s"


def workloads_table(workloads: Iterable[Json], now_s: float | None = None) -> Table:
    """One row a workload."""
    table = Table(box=box.SIMPLE_HEAD, expand=False)
    for name in ("workload", "kind", "state", "placement", "progress"):
        table.add_column(name)
    for name in ("held for", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("age", justify="right")
    now_s = now_s or time.time()
    for workload in workloads:
        table.add_row(
            workload["id"],
            workload["kind"],
            state_text(workload),
            workload["placement"] or "-",
            progress_text(workload),
            duration(workload["run_s"]) if workload["run_s"] else "-",
            dollars(workload["cost_usd"]),
            duration(now_s - workload["submitted_s"]),
        )
    return table


def state_text(workload: Json) -> Text:
    """The state in its colour."""
    return Text(workload["state"], style=_STATE_STYLE.get(workload["state"], ""))


def progress_text(workload: Json) -> str:
    """What is happening, in one cell."""
    progress = workload["progress"]
    if workload["state"] in ("pending", "queued"):
        return escape(workload["explanation"] or workload["message"] or "waits for what it needs")
    if workload["state"] in ("failed", "cancelled"):
        return escape(workload["message"])
    parts = []
    if progress["total_steps"]:
        parts.append(f"step {progress['step']}/{progress['total_steps']}")
    elif progress["total_rows"]:
        parts.append(f"row {progress['rows']}/{progress['total_rows']}")
    if progress["per_second"]:
        parts.append(f"{progress['per_second']:.0f} rows/s")
    if progress["loss"] is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress["rows_by_device"] and len(progress["rows_by_device"]) > 1:
        parts.append(", ".join(f"{name}: {rows}" for name, rows in progress["rows_by_device"].items()))
    if progress["row_errors"]:
        parts.append(f"{progress['row_errors']} rows left out")
    if progress["resumed"]:
        parts.append(f"resumed {progress['resumed']}x")
    return "; ".join(parts) or progress["phase"]


def live_line(workload: Json) -> str:
    """One workload's progress while it runs, on one line."""
    bar = "" if workload["ended"] else f" {workload['progress']['fraction'] * 100:3.0f}%"
    held = f" on {workload['placement']}" if workload["placement"] else ""
    cost = f", {dollars(workload['cost_usd'])} so far" if workload["run_s"] else ""
    what = f"{workload['name']}: {workload['state']}{held}{bar}"
    return f"{what}  {progress_text(workload)}  ({duration(workload['run_s'])}{cost})"


def report_table(workloads: Iterable[Json], emulated: Iterable[str] = ()) -> Table:
    """The end of a pipeline: placement, predicted against measured time and cost, result, outputs."""
    table = Table(title="What ran", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("step")
    table.add_column("state")
    table.add_column("placement")
    for name in ("predicted", "measured", "off by", "predicted $", "measured $"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    marked = set(emulated)
    for workload in workloads:
        table.add_row(
            workload["name"],
            state_text(workload),
            marked_text(workload["placement"].split(" + "), marked) if workload["placement"] else "-",
            duration(workload["predicted_s"]),
            duration(workload["run_s"]),
            percent(error_percent(workload["run_s"], workload["predicted_s"])),
            dollars(workload["predicted_usd"]),
            dollars(workload["cost_usd"]),
            result_text(workload),
        )
    return table


def result_text(workload: Json) -> str:
    """What came out, in one cell."""
    if workload["state"] != "succeeded":
        return escape(workload["message"])
    progress, metrics = workload["progress"], workload["metrics"]
    parts = [f"{name.replace('_', ' ')} {metrics[name]:.4g}" for name in _SHOWN_METRICS if name in metrics]
    if progress["rows_by_device"]:
        parts.append("rows: " + ", ".join(_rows_on(workload, name) for name in progress["rows_by_device"]))
    if progress["row_errors"]:
        parts.append(f"{progress['row_errors']} rows left out")
    if progress["resumed"]:
        parts.append(f"resumed {progress['resumed']}x")
    return "; ".join(parts) or "done"


def _rows_on(workload: Json, device_type: str) -> str:
    """`T4 140 (70 a device)`: what the devices of one type took."""
    rows = workload["progress"]["rows_by_device"][device_type]
    counts = dict(part.rsplit(" x", 1) for part in (workload["placement"] or "").split(" + ") if " x" in part)
    devices = int(counts.get(device_type, 1))
    return f"{device_type} {rows}" + (f" ({rows / devices:.0f} a device)" if devices > 1 else "")


_SHOWN_METRICS = ("accuracy", "macro_f1", "best_validation_accuracy", "validation_accuracy", "loss")


def devices_table(devices: Json) -> Table:
    """Device types with counts and prices."""
    table = Table(box=box.SIMPLE_HEAD, expand=False)
    table.add_column("device type")
    for name in ("free", "total", "memory", "fp32 TFLOP/s", "$/h each", "congestion $/h"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("price from", overflow="fold")
    for kind in devices["device_types"]:
        peak = kind["peak_flops"].get("fp32")
        mark = f" (emulated at {kind['emulated_speed']:g} of a core)" if kind["emulated"] else ""
        table.add_row(
            kind["name"] + mark,
            str(kind["free"]),
            str(kind["total"]),
            size(kind["memory_bytes"]) if kind["memory_bytes"] else "-",
            f"{peak / 1e12:.3g}" if peak else "?",
            "unpriced" if kind["price_usd_h"] is None else f"{kind['price_usd_h']:.3f}",
            f"{devices.get('congestion_usd_h', {}).get(kind['name'], 0.0):.3f}",
            f"{kind['price_source']} {kind['price_as_of']}".strip(),
        )
    return table
