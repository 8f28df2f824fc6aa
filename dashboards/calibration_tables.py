"""What is known by measurement, and what a calibration changed, as tables in the terminal. Reads, decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .text import configuration_text, duration, interval

Json = Mapping[str, Any]


def rates_table(device_types: Iterable[Json]) -> Table:
    """Rates of each device type: what is believed without a benchmark, what was measured, and their ratio."""
    table = _table("device type", "what", ">before", ">measured", ">ratio")
    for kind in device_types:
        name = f"{kind['name']} (emulated)" if kind["emulated_speed"] is not None else kind["name"]
        for number, (what, before, measured, unit) in enumerate(_rates(kind)):
            ratio = f"{measured / before:.2f}" if before and measured else "-"
            cells = (what, _quantity(before, unit), _quantity(measured, unit), ratio)
            table.add_row("" if number else Text(name), *cells)
        table.add_section()
    return table


def _rates(kind: Json) -> Iterator[tuple[str, float | None, float | None, str]]:
    """(what, before, measured, unit) of everything a benchmark measures."""
    before, measured = kind["catalog"] or {"flops": {}}, kind["measured"] or {"flops": {}}
    precisions = sorted(measured["flops"], reverse=True) or sorted(before["flops"], reverse=True)
    for precision in precisions:
        rates = before["flops"].get(precision), measured["flops"].get(precision)
        yield f"matrix product, {precision}", *rates, "FLOP/s"
    shards = f", {measured['shards']} devices" if measured.get("reduce_bytes_s") else ""
    rest = (("copy", "bandwidth_bytes_s", "B/s"), (f"all-reduce{shards}", "reduce_bytes_s", "B/s"))
    for what, key, unit in (*rest, ("launch of an operator", "launch_s", "s")):
        if before.get(key) is not None or measured.get(key) is not None:
            yield what, before.get(key), measured.get(key), unit


def _quantity(value: float | None, unit: str) -> str:
    """`52.1 GFLOP/s`, `3.40 us`; `-` where it is not known."""
    if not value:
        return "-"
    scales = ((1e-6, "u"), (1e-3, "m"), (1.0, "")) if unit == "s" else ((1e6, "M"), (1e9, "G"), (1e12, "T"))
    scale, prefix = next(((s, p) for s, p in reversed(scales) if value >= s), scales[0])
    return f"{value / scale:.3g} {prefix}{unit}"


def factors_table(subjects: Sequence[Json]) -> Table:
    """What measured steps made of the prediction: the factor of each part with its 95% interval."""
    parts = list(subjects[0]["factors"]) if subjects else []
    table = _table("kind", "model family", "device type", "precision", *(f">{part}" for part in parts), ">measured")
    for subject in subjects:
        factors = [subject["factors"][part] for part in parts]
        cells = [f"x {each['mean']:.2f}\n{each['low']:.2f}..{each['high']:.2f}" for each in factors]
        count = sum(point["count"] for point in subject["points"])
        names = [Text(subject[name]) for name in ("kind", "family", "device", "precision")]
        points = len(subject["points"])
        table.add_row(*names, *cells, f"{_times(count)}\n{points} point{'s' if points > 1 else ''}")
    return table


def times_table(calibration: Json) -> Table:
    """Seconds that were learnt as they are: start-up, and work that no model predicts."""
    table = _table("kind", "of", "on", ">time", ">likely", ">measured")
    for each in calibration["overheads"]:
        family = "any model" if each["family"] == "*" else each["family"]
        devices = (
            "any number" if each["devices"] == "*" else f"{each['devices']} device{'s' * (each['devices'] != '1')}"
        )
        table.add_row(each["kind"], Text(f"start-up, {family}"), devices, *_learnt(each))
    for each in calibration["history"]:
        size = "" if each.get("size") is None else f", size {each['size']:g}"
        table.add_row(each["kind"], Text(each["family"] + size), Text(each["configuration"]), *_learnt(each))
    return table


def _learnt(each: Json) -> tuple[str, str, str]:
    return duration(each["seconds"]), interval(each["low_s"], each["high_s"]), _times(each["count"])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def changes_table(step: Json, emulated: Iterable[str] = ()) -> Table:
    """Predicted time of each configuration of a step before and after; `step` has `name`, `kind` and `changes`."""
    table = _table("configuration", ">time before", "likely, from", ">time after", "likely, from")
    table.title, table.title_justify, table.title_style = Text(f"{step['name']} ({step['kind']})"), "left", "bold"
    for change in step["changes"]:
        name = configuration_text(change["configuration"], emulated)
        table.add_row(Text(name), *_prediction(change["before"]), *_prediction(change["after"]))
    return table


def _prediction(found: Json | None) -> tuple[str, str]:
    if found is None or found["seconds"] is None:
        return "-", "unknown"
    return duration(found["seconds"]), f"{interval(found['low_s'], found['high_s'])}, {found['source']}"


def _table(*columns: str) -> Table:
    """Columns whose name starts with `>` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, expand=False, pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table
