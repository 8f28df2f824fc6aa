"""Reads device and instance tables (CSV or YAML) and turns every row into SI units; a bad row is refused with its file,
line and column."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workloads.errors import Problem, SpecError

GIGA = 1e9
TERA = 1e12
GIB = 2.0**30
BITS_PER_BYTE = 8

KINDS = ("cpu", "gpu", "tpu", "asic", "fpga")
_TEXT = None
PRECISIONS = {"fp32": "fp32_tflops", "tf32": "tf32_tflops", "fp16": "fp16_tflops", "bf16": "bf16_tflops"}
PRECISIONS |= {"fp8": "fp8_tflops", "int8": "int8_tops"}

# Column -> what one unit of it is in SI; None is text.
DEVICE_COLUMNS: Mapping[str, float | None] = {
    "name": _TEXT,
    "kind": _TEXT,
    "vendor": _TEXT,
    "memory_gb": GIGA,
    "memory_bandwidth_gb_s": GIGA,
    **dict.fromkeys(PRECISIONS.values(), TERA),
    "interconnect_gb_s": GIGA,
    "power_watts": 1.0,
    "year": 1.0,
    "price_usd_h": 1.0,
    "spot_price_usd_h": 1.0,
    "interruptions_per_h": 1.0,
    "source": _TEXT,
    "as_of": _TEXT,
}
INSTANCE_COLUMNS: Mapping[str, float | None] = {
    "cloud": _TEXT,
    "instance_type": _TEXT,
    "region": _TEXT,
    "vcpus": 1.0,
    "memory_gib": GIB,
    "device": _TEXT,
    "device_count": 1.0,
    "network_gbit_s": GIGA / BITS_PER_BYTE,
    "price_on_demand_usd_h": 1.0,
    "price_spot_usd_h": 1.0,
    "interruptions_per_h": 1.0,
    "source": _TEXT,
    "as_of": _TEXT,
}

# Least and most that a column may hold, in its own unit. Generous: they catch a slipped unit (bytes for GB, FLOP/s for
# TFLOP/s, cents for dollars) and the zero that was written for "not known".
_RATE = (1e-6, 1e8)
LIMITS: Mapping[str, tuple[float, float]] = {
    "memory_gb": (1e-3, 1e5),
    "memory_bandwidth_gb_s": _RATE,
    **dict.fromkeys(PRECISIONS.values(), _RATE),
    "interconnect_gb_s": _RATE,
    "power_watts": (0.1, 1e5),
    "year": (1970, 2100),
    "price_usd_h": (0, 1000),
    "spot_price_usd_h": (0, 1000),
    "interruptions_per_h": (0, 60),
    "vcpus": (0.01, 1e5),
    "memory_gib": (1e-3, 1e6),
    "device_count": (0, 1e5),
    "network_gbit_s": (1e-3, 1e6),
    "price_on_demand_usd_h": (0, 10_000),
    "price_spot_usd_h": (0, 10_000),
}
WHOLE = ("device_count", "year")

Cells = dict[str, str]


@dataclass(frozen=True)
class InstanceType:
    """A machine a cloud rents. `device_count` is 0 where it has no accelerator; `device` is then its CPU."""

    cloud: str
    instance_type: str
    device: str
    device_count: int
    region: str = ""
    vcpus: float | None = None
    memory_bytes: float | None = None
    network_bytes_s: float | None = None
    price_on_demand_usd_h: float | None = None
    price_spot_usd_h: float | None = None
    interruptions_per_h: float | None = None
    """How often one of them on spot is taken back in an hour."""
    source: str = ""
    as_of: str = ""

    @property
    def name(self) -> str:
        """How it is named in files: `aws/g4dn.xlarge`."""
        return f"{self.cloud}/{self.instance_type}"


@dataclass(frozen=True)
class Row:
    """One row of a table, values in SI units. Columns that were left empty are absent."""

    file: str
    line: int
    values: Mapping[str, Any]

    def problem(self, column: str, message: str, hint: str = "") -> Problem:
        """A problem with one cell of this row."""
        return Problem(message, field=f"line {self.line}, column {column}", hint=hint, file=self.file)

    def required(self, column: str) -> Any:
        """The value of a column that must not be empty. Raises SpecError."""
        if column not in self.values:
            raise SpecError(self.problem(column, "is empty", f"give {column}"))
        return self.values[column]


def read_tables(path: Path) -> tuple[list[Row], list[Row]]:
    """Device rows and instance rows of a CSV file (one table, told by its header) or a YAML file with lists under
    `devices` and `instances`. Raises SpecError with every bad cell."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(f"cannot be read: {error}", file=str(path))) from error
    problems: list[Problem] = []
    devices: list[Row] = []
    instances: list[Row] = []
    raw = _yaml_rows(path, text) if path.suffix in (".yaml", ".yml") else _csv_rows(path, text)
    for table, line, cells in raw:
        columns = INSTANCE_COLUMNS if table == "instances" else DEVICE_COLUMNS
        row = _convert(str(path), line, cells, columns, problems)
        (instances if table == "instances" else devices).append(row)
    if problems:
        raise SpecError(problems)
    return devices, instances


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, int, Cells]]:
    reader = csv.DictReader(text.splitlines(keepends=True), restkey="(more cells than columns)", strict=True)
    header = [name.strip() for name in reader.fieldnames or []]
    if "instance_type" not in header and "name" not in header:
        hint = f"the header of devices starts with name,kind; of instances with cloud,instance_type; got {header}"
        raise SpecError(Problem("is neither a device nor an instance table", file=str(path), field="line 1", hint=hint))
    table = "instances" if "instance_type" in header else "devices"
    try:
        for cells in reader:
            yield table, reader.line_num, {(name or "").strip(): _text(value) for name, value in cells.items()}
    except csv.Error as error:
        raise SpecError(Problem(f"is not CSV: {error}", file=str(path), field=f"line {reader.line_num}")) from error


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else (value or "").strip()


def _yaml_rows(path: Path, text: str) -> Iterator[tuple[str, int, Cells]]:
    hint = "write lists of rows under devices: and instances:"
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SpecError(Problem(f"is not YAML: {error}", file=str(path), hint=hint)) from error
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(Problem("holds no devices or instances", file=str(path), hint=hint))
    for key, table in root.value:
        line = key.start_mark.line + 1
        if key.value not in ("devices", "instances") or not isinstance(table, yaml.SequenceNode):
            raise SpecError(Problem(f"unknown entry {key.value!r}", file=str(path), field=f"line {line}", hint=hint))
        for row in table.value:
            yield key.value, row.start_mark.line + 1, _yaml_cells(path, row)


def _yaml_cells(path: Path, row: yaml.Node) -> Cells:
    where = f"line {row.start_mark.line + 1}"
    if not isinstance(row, yaml.MappingNode):
        raise SpecError(Problem("a row is a mapping of columns to values", file=str(path), field=where))
    cells = {}
    for key, value in row.value:
        if not isinstance(value, yaml.ScalarNode):
            raise SpecError(Problem("expected one value", file=str(path), field=f"{where}, column {key.value}"))
        cells[str(key.value)] = "" if value.tag == "tag:yaml.org,2002:null" else value.value.strip()
    return cells


def _convert(file: str, line: int, cells: Cells, columns: Mapping[str, float | None], problems: list[Problem]) -> Row:
    values: dict[str, Any] = {}
    row = Row(file, line, values)
    for column, cell in cells.items():
        if column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            hint = f"did you mean {near[0]}?" if near else f"columns are {', '.join(columns)}"
            problems.append(row.problem(column, "unknown column", hint))
        elif cell:
            unit = columns[column]
            number = None if unit is None else _number(cell)
            wrong = None if unit is None else _wrong(column, cell, number)
            if wrong is not None:
                problems.append(row.problem(column, wrong, "leave unknown values empty"))
            elif number is None or unit is None:
                values[column] = cell
            else:
                values[column] = number * unit
    return row


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _wrong(column: str, cell: str, number: float | None) -> str | None:
    """Why a number cannot be what its column says it is."""
    if number is None or number < 0:
        return f"expected a number of zero or more, got {cell!r}"
    low, high = LIMITS[column]
    if not low <= number <= high:
        return f"{cell} cannot be: {column} is from {low:g} to {high:g}"
    if column in WHOLE and not number.is_integer():
        return f"expected a whole number, got {cell!r}"
    return None
