"""One line of the doctor's report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
_ORDER: tuple[Level, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, what was found, and what to do about it."""

    subject: str
    level: Level
    found: str
    do: str = ""


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", found)


def warn(subject: str, found: str, do: str) -> Finding:
    """It works, but should be seen to."""
    return Finding(subject, "warn", found, do)


def fail(subject: str, found: str, do: str) -> Finding:
    """It does not work."""
    return Finding(subject, "fail", found, do)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them; `ok` where there are none."""
    return max((each.level for each in findings), key=_ORDER.index, default="ok")


def by_limit(subject: str, found: str, value: float, *, warn_at: float, fail_at: float, do: str) -> Finding:
    """Judged by a number that should be small."""
    if value >= fail_at:
        return fail(subject, found, do)
    return warn(subject, found, do) if value >= warn_at else ok(subject, found)


def short(items: Iterable[str], most: int = 4) -> str:
    """Some of these, and how many more there are."""
    known = list(items)
    more = len(known) - most
    return ", ".join(known[:most]) + (f" and {more} more" if more > 0 else "")
