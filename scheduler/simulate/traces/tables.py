"""Reads the files of traces line by line; what is wrong is refused with file, line, column and a hint, all of it at
once."""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads.errors import Problem, SpecError

MOST_PROBLEMS = 20
"""So many are told; a file of the wrong kind is wrong in every line."""


@dataclass
class Problems:
    """What is wrong with one file."""

    file: str
    found: list[Problem] = field(default_factory=list)
    more: int = 0

    def add(self, line: int | None, column: str, message: str, hint: str = "") -> None:
        """One more; `line` counts from 1."""
        where = ", ".join(part for part in ("" if line is None else f"line {line}", column) if part)
        if len(self.found) < MOST_PROBLEMS:
            self.found.append(Problem(message, field=where, hint=hint, file=self.file))
        else:
            self.more += 1

    def check(self) -> None:
        """Raises SpecError if anything was wrong."""
        if self.more:
            self.found.append(Problem(f"{self.more} more problems like these", file=self.file))
        if self.found:
            raise SpecError(self.found)


@dataclass(frozen=True)
class Row:
    """One line of a table. Values that are wrong are noted, and come back as None."""

    line: int
    cells: dict[str, str]
    problems: Problems

    def text(self, column: str) -> str:
        """A cell; empty where the table has no such column."""
        return self.cells.get(column, "")

    def number(self, column: str, low: float = 0.0, *, whole: bool = False, above: bool = False) -> float | None:
        """A cell as a number of `low` or more, or `above` it."""
        cell = self.text(column)
        wanted = f"{'a whole number' if whole else 'a number'} {'above' if above else 'of at least'} {low:g}"
        try:
            value = float(cell)
        except ValueError:
            self.wrong(column, f"expected {wanted}, got {cell!r}")
            return None
        if not math.isfinite(value) or value < low or (above and value == low) or (whole and value != int(value)):
            hint = "times are seconds and never negative" if value < 0 and "time" in column else ""
            self.wrong(column, f"expected {wanted}, got {cell}", hint)
            return None
        return value

    def wrong(self, column: str, message: str, hint: str = "") -> None:
        """Note that this line is wrong."""
        self.problems.add(self.line, column, message, hint)


def read_text(path: Path) -> str:
    """The text of a file that has some. Raises SpecError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise refused(path, "there is no such file", "give the path of a trace") from None
    except IsADirectoryError:
        raise refused(path, "is a folder", "give one file of it") from None
    except UnicodeDecodeError:
        raise refused(path, "is not text", "traces are text, or the service's raywise.db") from None
    except OSError as error:
        raise refused(path, f"cannot be read: {error.strerror}") from None
    if not text.strip():
        raise refused(path, "is empty", "was it written to the end?")
    return text


def read_csv(path: Path, needed: Sequence[str], what: str) -> list[Row]:
    """The rows of a table with a header that has at least the columns needed. Raises SpecError."""
    text = read_text(path)
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    problems, rows = Problems(str(path)), list[Row]()
    header = [name.strip() for name in next(reader)]
    _check_header(header, needed, what, problems)
    try:
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                cut = reader.line_num == text.count("\n") + (not text.endswith("\n")) and len(cells) < len(header)
                message = f"has {len(cells)} cells, the header has {len(header)}"
                problems.add(reader.line_num, "", message, "the file looks cut off" if cut else "")
                continue
            named = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            rows.append(Row(reader.line_num, named, problems))
    except csv.Error as error:
        problems.add(reader.line_num, "", f"is not CSV: {error}", "the file looks cut off or is not a table")
    problems.check()
    if not rows:
        raise refused(path, f"has a header and no {what}", "was it written to the end?")
    return rows


def _check_header(header: Sequence[str], needed: Sequence[str], what: str, problems: Problems) -> None:
    for column in needed:
        if column not in header:
            near = difflib.get_close_matches(column, header, 1)
            hint = f"is it {near[0]!r}?" if near else f"a table of {what} has the columns {','.join(needed)}"
            problems.add(1, f"column {column}", "is missing", hint)
    problems.check()


def read_json(path: Path) -> Any:
    """A JSON file. Raises SpecError."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "the file looks cut off" if error.pos >= len(text.rstrip()) - 1 else ""
        problem = Problem(f"is not JSON: {error.msg}", field=f"line {error.lineno}", hint=hint, file=str(path))
        raise SpecError(problem) from None


def refused(path: Path, message: str, hint: str = "") -> SpecError:
    """The error of a file that is wrong as a whole."""
    return SpecError(Problem(message, hint=hint, file=str(path)))


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """A hint that names the known name that looks most like it, or all."""
    names = sorted(known)
    lower = {each.lower(): each for each in reversed(names)}
    match = difflib.get_close_matches(name.lower(), lower, 1, cutoff=0.4)
    if match:
        return f"did you mean {lower[match[0]]!r}?"
    return f"known {what}: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, counted from 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line
