"""Tables and lines in the terminal, from what the API returns of workloads. Reads, decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from .options import options_table
from .sheet import Column, Row, Sheet
from .text import dollars, duration, error_percent, marked_text, percent, size

Json = Mapping[str, Any]
_STATE_STYLE = {
    "running": "cyan",
    "starting": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "stopping": "yellow",
    "paused": "yellow",
}
_SHOWN_METRICS = ("accuracy", "macro_f1", "best_validation_accuracy", "validation_accuracy", "loss")
_LONGEST_FAILURE = 160


def emulated_types(devices: Json | None) -> set[str]:
    """Names of the emulated device types in what `/devices` returned."""
    return {kind["name"] for kind in (devices or {}).get("device_types", []) if kind["emulated"]}


def placement_text(workload: Json) -> str:
    """`T4 x2 (emulated) + A100 x1`, or `-`."""
    placement = workload["placement"]
    return marked_text(placement.split(" + "), set(workload.get("emulated", ()))) if placement else "-"


def _placement_cell(workload: Json) -> str:
    """One device type a line."""
    return placement_text(workload).replace(" + ", "\n+ ").replace(", ", "\n")


def workloads_table(workloads: Iterable[Json], now_s: float | None = None) -> Sheet:
    """One row a workload; those of a pipeline below a row with its id."""
    now_s = now_s or time.time()
    rows = []
    for pipeline_id, group in groupby(workloads, key=lambda workload: workload["pipeline_id"]):
        if pipeline_id is not None:
            rows.append(Row([pipeline_id, "pipeline", "", "", "", "", ""], style="bold"))
        rows += [_listed(workload, now_s) for workload in group]
    columns = (
        Column("workload", "left"),
        Column("kind", "left", 5),
        Column("state", "left"),
        Column("placement", "left", 2),
        Column("held for", rank=3),
        Column("cost", rank=1),
        Column("age", rank=4),
    )
    return Sheet(columns, rows, "progress")


def _listed(workload: Json, now_s: float) -> Row:
    indent = "" if workload["pipeline_id"] is None else "  "
    cells: list[str | Text] = [
        indent + workload["id"],
        workload["kind"],
        state_text(workload),
        _placement_cell(workload),
        held_text(workload) if workload["run_s"] else "-",
        cost_text(workload),
        duration(now_s - workload["submitted_s"]),
    ]
    return Row(cells, _with_lateness(progress_text(workload), workload))


def state_text(workload: Json) -> Text:
    """The state in its colour."""
    return Text(workload["state"], style=_STATE_STYLE.get(workload["state"], ""))


def held_text(workload: Json) -> str:
    """How long it has held devices. What still runs is timed by the service's clock, which hears of an end some time
    after it: a later number may be smaller, so this one is said to be about right."""
    if workload["ended"] or not workload["run_s"]:
        return duration(workload["run_s"])
    return "~" + (f"{workload['run_s']:.0f} s" if workload["run_s"] < 59.5 else duration(workload["run_s"]))


def cost_text(workload: Json) -> str:
    """Dollars so far, with `~` as long as they come from the service's clock."""
    text = dollars(workload["cost_usd"])
    exact = workload["ended"] or not workload["cost_usd"] or not workload["run_s"]
    return text if exact or text.startswith("<") else f"~{text}"


def lateness(workload: Json) -> str:
    """`deadline missed by 58.0 s`, or an empty text."""
    late_s = workload.get("late_s")
    if late_s is None:
        return ""
    return f"deadline missed by {duration(late_s)}" if workload["ended"] else f"{duration(late_s)} past its deadline"


def _with_lateness(text: str, workload: Json) -> Text:
    late = lateness(workload)
    joined = Text(late, style="bold yellow")
    return joined.append(f"; {text}" if late and text else text, style="not bold default" if late else "")


def failure_text(workload: Json) -> str:
    """Why the last attempt that failed did, in one line."""
    lines = (workload.get("failure") or "").strip().splitlines()
    text = lines[0] if lines else ""
    return text if len(text) <= _LONGEST_FAILURE else text[: _LONGEST_FAILURE - 1] + "…"


def progress_text(workload: Json) -> str:
    """What is happening, or what came of it, in one cell."""
    state, failure = workload["state"], failure_text(workload)
    if workload["ended"]:
        return result_text(workload)
    if state == "paused" or (workload.get("paused") and state in ("pending", "queued")):
        return workload.get("pause_cause") or "paused"
    if state in ("pending", "queued"):
        waits = workload["explanation"] or workload["message"] or "waits for what it needs"
        return f"attempt {workload['attempt']} failed: {failure}; {waits}" if failure and workload["attempt"] else waits
    parts = _attempts(workload, failure) + _counts(workload)
    return "; ".join(parts) or str(workload["progress"]["phase"])


def _attempts(workload: Json, failure: str) -> list[str]:
    if workload["attempt"] < 2:
        return []
    return [f"attempt {workload['attempt']}" + (f", the one before failed: {failure}" if failure else "")]


def _counts(workload: Json) -> list[str]:
    """Steps, rows and speed of what runs."""
    progress, parts = workload["progress"], []
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
    return parts + _defects(progress)


def _defects(progress: Json) -> list[str]:
    left_out = [f"{progress['row_errors']} rows left out"] if progress["row_errors"] else []
    return left_out + ([f"resumed {progress['resumed']}x"] if progress["resumed"] else [])


def live_line(workload: Json) -> str:
    """One workload's progress while it runs, on one line."""
    bar = "" if workload["ended"] else f" {workload['progress']['fraction'] * 100:3.0f}%"
    placed = workload["placement"] and workload["state"] not in ("pending", "queued")
    held = f" on {placement_text(workload)}" if placed else ""
    so_far = "" if workload["ended"] else " so far"
    cost = f", {cost_text(workload)}{so_far}" if workload["run_s"] else ""
    late = f"  {lateness(workload)}" if lateness(workload) else ""
    what = f"{workload['name']}: {workload['state']}{held}{bar}"
    return f"{what}  {progress_text(workload)}  ({held_text(workload)}{cost}){late}"


def report_table(workloads: Iterable[Json]) -> Sheet:
    """The end of a pipeline: placement, predicted against measured time and cost, result, outputs."""
    columns = (
        Column("step", "left"),
        Column("state", "left"),
        Column("placement", "left", 2),
        Column("predicted", rank=1),
        Column("measured"),
        Column("off by", rank=3),
        Column("predicted $", rank=5),
        Column("measured $", rank=4),
    )
    rows = [
        Row(
            [
                workload["name"],
                state_text(workload),
                _placement_cell(workload),
                duration(workload["predicted_s"]),
                held_text(workload),
                percent(off_by(workload)),
                dollars(workload["predicted_usd"]),
                cost_text(workload),
            ],
            _with_lateness(progress_text(workload), workload),
        )
        for workload in workloads
    ]
    return Sheet(columns, rows, "result", "What ran")


def off_by(workload: Json) -> float | None:
    """Percent that the predicted time was off. It is a prediction of one attempt from start to end: with several, the
    last is what it is compared with, and nothing is where that one only went on from a checkpoint."""
    if not workload["ended"]:
        return None
    if workload["attempt"] < 2:
        return error_percent(workload["run_s"], workload["predicted_s"])
    if workload["progress"]["resumed"]:
        return None
    return error_percent(workload.get("attempt_s"), workload["predicted_s"])


def result_text(workload: Json) -> str:
    """What came out of a workload that has ended, in one cell."""
    repeated = _all_attempts(workload)
    if workload["state"] != "succeeded":
        return "; ".join([part for part in (workload["message"], repeated) if part])
    progress, metrics = workload["progress"], workload["metrics"]
    parts = [f"{name.replace('_', ' ')} {metrics[name]:.4g}" for name in _SHOWN_METRICS if name in metrics]
    if progress["rows_by_device"]:
        parts.append("rows: " + ", ".join(_rows_on(workload, name) for name in progress["rows_by_device"]))
    parts += _defects(progress)
    return "; ".join([*(parts or ["done"]), *([repeated] if repeated else [])])


def _all_attempts(workload: Json) -> str:
    """That time and cost are of several attempts, how long the last one took, and why the one before it failed."""
    if workload["attempt"] < 2:
        return ""
    last_s = workload.get("attempt_s")
    text = f"time and cost are of {workload['attempt']} attempts"
    text += f", the last took {duration(last_s)}" if last_s is not None else ""
    failure = failure_text(workload)
    return f"{text}; before it: {failure}" if failure and workload["state"] == "succeeded" else text


def _rows_on(workload: Json, device_type: str) -> str:
    """`T4 140 (70 a device)`: what the devices of one type took."""
    rows = workload["progress"]["rows_by_device"][device_type]
    counts = dict(part.rsplit(" x", 1) for part in (workload["placement"] or "").split(" + ") if " x" in part)
    devices = int(counts.get(device_type, 1))
    return f"{device_type} {rows}" + (f" ({rows / devices:.0f} a device)" if devices > 1 else "")


def output_lines(workloads: Sequence[Json]) -> Iterator[str]:
    """Where the results lie, and for what failed, how to see what it printed."""
    for workload in workloads:
        if workload["state"] == "succeeded":
            yield f"{workload['name']}: {workload['output']}"
        elif workload["state"] == "failed" and workload["attempt"]:
            yield f"{workload['name']} failed; `raywise logs {workload['id']}` shows what it printed"


def event_line(event: Json) -> str:
    """`10:04:05 cycle 7 hello-4x7ks running: its body reported the first step or row`."""
    at = time.strftime("%H:%M:%S", time.localtime(event["at_s"]))
    cycle = "" if event["cycle"] is None else f" cycle {event['cycle']}"
    of = "" if event["workload_id"] is None else f" {event['workload_id']}"
    return f"{at}{cycle}{of} {event['kind']}: {event['cause']}"


def limit_lines(workloads: Sequence[Json]) -> Iterator[str]:
    """The deadline and the budget of each workload that has one, and whether it was late."""
    for workload in workloads:
        limits = []
        if workload.get("deadline_s") is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(workload["deadline_s"]))
            after = duration(workload["deadline_s"] - workload["submitted_s"])
            late = f", {lateness(workload)}" if lateness(workload) else ""
            limits.append(f"deadline {after} after it was submitted ({at}){late}")
        if workload.get("budget_usd") is not None:
            limits.append(f"budget {dollars(workload['budget_usd'])}")
        if limits:
            yield f"{workload['name']}: {'; '.join(limits)}"


def devices_table(devices: Json) -> Sheet:
    """Device types with counts and prices."""
    columns = (
        Column("device type", "left"),
        Column("free"),
        Column("total"),
        Column("memory", rank=2),
        Column("fp32 TFLOP/s", rank=3),
        Column("$/h each"),
        Column("congestion $/h", rank=1),
    )
    rows = [
        Row(_device_cells(devices, kind), f"{kind['price_source']} {kind['price_as_of']}".strip())
        for kind in devices["device_types"]
    ]
    return Sheet(columns, rows, "price from", lead="price from ")


def _device_cells(devices: Json, kind: Json) -> list[str | Text]:
    peak = kind["peak_flops"].get("fp32")
    mark = f" (emulated at {kind['emulated_speed']:g} of a core)" if kind["emulated"] else ""
    price = "unpriced" if kind["price_usd_h"] is None else f"{kind['price_usd_h']:.3f}"
    return [
        kind["name"] + mark,
        str(kind["free"]),
        str(kind["total"]),
        size(kind["memory_bytes"]) if kind["memory_bytes"] else "-",
        f"{peak / 1e12:.3g}" if peak else "?",
        price + (" spot" if kind.get("market") == "spot" else ""),
        f"{devices.get('congestion_usd_h', {}).get(kind['name'], 0.0):.3f}",
    ]


__all__ = [
    "devices_table",
    "emulated_types",
    "event_line",
    "lateness",
    "limit_lines",
    "live_line",
    "off_by",
    "options_table",
    "output_lines",
    "report_table",
    "workloads_table",
]
