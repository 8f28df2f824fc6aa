"""The items of a command that runs once for each of them: a range, a list, or a file with one a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, overload

from pydantic import BeforeValidator

from .errors import Problem, SpecError

MOST = 10_000_000
"""Items of one workload: their results and their state are held in the memory of its driver."""
_RANGE = re.compile(r"\s*(-?\d{1,18})\s*\.\.\s*(-?\d{1,18})\s*")


def parse_items(value: Any) -> Any:
    """A range `1..5000` as it is written, a list as texts, a path. Raises ValueError."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("items is an empty list")
        wrong = [each for each in value if isinstance(each, bool) or not isinstance(each, str | int | float)]
        if wrong:
            raise ValueError(f"items are texts or numbers, not {wrong[0]!r}")
        broken = [each for each in value if "\n" in str(each) or "\0" in str(each)]
        if broken:
            raise ValueError(f"an item is one line of text, not {broken[0]!r}")
        return tuple(str(each) for each in value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a range such as 1..5000, a list, or a file with one item a line, got {value!r}")
    if is_range(value):
        low, high = _bounds(value)
        if not low <= high < low + MOST:
            raise ValueError(f"expected low <= high and at most {MOST:,} items, got {value}")
    return value


Items = Annotated[str | tuple[str, ...], BeforeValidator(parse_items)]


def is_range(items: object) -> bool:
    """Whether this is written as a range, with both ends."""
    return isinstance(items, str) and _RANGE.fullmatch(items) is not None


def read_items(items: str | Sequence[str]) -> Sequence[str]:
    """All of them, in order. Raises SpecError where a file cannot be read, is empty or has too many."""
    if not isinstance(items, str):
        return list(items)
    if is_range(items):
        return Range(*_bounds(items))
    return _lines(items)


def _bounds(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    assert match is not None
    return int(match[1]), int(match[2])


def _lines(path: str) -> list[str]:
    found: list[str] = []
    if "://" in path and not path.startswith("file://"):
        hint = "make the file the input of a step that writes it to a folder"
        raise SpecError(Problem(f"{path} is on other storage: items are read from a file", "items", hint))
    try:
        with open(Path(path.removeprefix("file://")), encoding="utf-8") as file:
            for line in file:
                if text := line.rstrip("\r\n"):
                    found.append(text)
                if len(found) > MOST:
                    raise SpecError(Problem(f"{path} has more than {MOST:,} items", "items", "use several workloads"))
    except UnicodeDecodeError as error:
        raise SpecError(Problem(f"{path} is not UTF-8 text (byte {error.start})", "items")) from None
    except OSError as error:
        hint = "a range is written 1..5000, a list [a, b]; anything else is a file with one item a line"
        raise SpecError(Problem(f"{path} cannot be read: {error.strerror}", "items", hint)) from None
    if not found:
        raise SpecError(Problem(f"{path} has no items", "items", "one a line; empty lines are left out"))
    return found


class Range(Sequence[str]):
    """The numbers from `low` to `high` as texts, made when they are asked for."""

    def __init__(self, low: int, high: int) -> None:
        self._numbers = range(low, high + 1)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [str(number) for number in self._numbers[index]]
        return str(self._numbers[index])
