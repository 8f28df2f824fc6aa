"""The table of configurations that were weighed: prediction, where it is from, price, money, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from .sheet import Column, Row, Sheet
from .text import configuration_text, digits, dollars, duration, interval, size

Json = Mapping[str, Any]


def options_table(title: str, explanation: Json, emulated: Iterable[str] = ()) -> Sheet:
    """One row a configuration: the one taken first, then by total money. Columns that no row fills are left out."""
    chosen, marked = explanation.get("chosen"), set(emulated)
    options = sorted(explanation["options"], key=lambda option: _order(option, chosen))
    notes = list(dict.fromkeys(option["note"] for option in options if option.get("note")))
    numbers = [each for each in _NUMBERS if not each.optional or any(each.cell(row) != "-" for row in options)]
    columns = [Column("configuration", "left"), *(_headed(each, options) for each in numbers)]
    rows = [_row(option, chosen, marked, notes, numbers) for option in options]
    caption = [explanation["summary"], *(f"({number}) {note}" for number, note in enumerate(notes, 1))]
    return Sheet(columns, rows, "why not", title, [line for line in caption if line])


def _row(option: Json, chosen: object, marked: set[str], notes: Sequence[str], numbers: Sequence[_Number]) -> Row:
    taken = chosen is not None and option["configuration"] == chosen
    remark = Text("taken", style="green") if taken else Text((option["reason"] or {}).get("message", ""))
    if option.get("note"):
        remark.append(f" ({notes.index(option['note']) + 1})" if remark else f"({notes.index(option['note']) + 1})")
    cells = [_configuration(option, marked), *(each.cell(option) for each in numbers)]
    return Row(cells, remark, "bold" if taken else "dim")


def _headed(number: _Number, options: Sequence[Json]) -> Column:
    return number.column if number.column.name != "energy" else Column(_energy_header(options), rank=number.column.rank)


def _configuration(option: Json, emulated: set[str]) -> str:
    """One device type a line, as names such as `A100-SXM4-40GB x2` are long."""
    lines = configuration_text(option["configuration"], emulated).replace(" + ", "\n+ ").replace(", ", "\n")
    parts = (line.replace(" (", "\n(") if len(line) > _NAME_WIDTH else line for line in lines.split("\n"))
    return "\n".join([*parts, *(["on spot"] if option.get("market") == "spot" else [])])


def _price(option: Json) -> str:
    if option["price_usd_h"] is not None:
        return f"{option['price_usd_h']:.3f}"
    return "-" if (option["reason"] or {}).get("code") == "count" else "unpriced"


def _order(option: Json, chosen: Mapping[str, int] | None) -> tuple[int, float, str]:
    """What was taken, then what has a total, then the rest by the price of an hour."""
    taken = chosen is not None and option["configuration"] == chosen
    total = option["total_usd"]
    key = (option["price_usd_h"] or 0.0) if total is None else total
    return (0 if taken else 1 if total is not None else 2, key, str(option["configuration"]))


def _interval(option: Json) -> str:
    if option["low_s"] is None or option["seconds"] is None:
        return "-"
    return interval(option["low_s"], option["high_s"])


def _source(option: Json) -> str:
    """Where the number is from, and below it what binds."""
    bound = "" if option["bound"] in _NO_BOUNDS else option["bound"]
    return "\n".join(part for part in (option["source"], _SHORT.get(bound, bound)) if part)


def _dollars(option: Json, name: str) -> str:
    return "-" if option[name] is None else dollars(option[name])


def _energy(option: Json) -> str:
    """kWh; below it dollars and grams of CO2 equivalent, where their rates are known."""
    energy = option.get("energy")
    if energy is None:
        return "-"
    usd, gco2e = energy["usd"], energy["gco2e"]
    lines = [digits(energy["kwh"]), None if usd is None else dollars(usd), None if gco2e is None else digits(gco2e)]
    return "\n".join(line for line in lines if line is not None)


def _energy_header(options: Iterable[Json]) -> str:
    """The units of the lines of `_energy`."""
    found = [option["energy"] for option in options if option.get("energy")]
    extra = [unit for key, unit in (("usd", "$"), ("gco2e", "g CO2e")) if any(each[key] is not None for each in found)]
    return "\n".join(["energy", ", ".join(["kWh", *extra][:2]), *extra[1:]])


@dataclass(frozen=True)
class _Number:
    """One column of numbers; `optional` ones are left out where every cell is `-`."""

    column: Column
    cell: Callable[[Json], str]
    optional: bool = False


_NAME_WIDTH = 18
_SHORT: Mapping[str, str] = {"communication": "comms"}
# What calls itself so has its source said already.
_NO_BOUNDS = ("declared", "history")
_NUMBERS = (
    _Number(Column("time"), lambda option: duration(option["seconds"])),
    _Number(Column("likely", rank=3), _interval),
    _Number(Column("from\nbound by", "left", 4), _source),
    _Number(
        Column("memory\n/device", rank=6),
        lambda option: size(option["memory_bytes"]) if option["memory_bytes"] else "-",
        optional=True,
    ),
    _Number(Column("$/h", rank=5), _price),
    _Number(Column("dollars", rank=2), lambda option: _dollars(option, "money_usd")),
    _Number(Column("total\nmoney", rank=1), lambda option: _dollars(option, "total_usd")),
    _Number(Column("energy", rank=7), _energy, optional=True),
)
