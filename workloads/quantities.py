"""Durations, sizes, counts and dollars as people write them: `10m`, `2h`, `4GiB`, `1..4`, `$5`. Used by `spec` field
types and messages."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_serializer, model_validator

_DURATION_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_MAX_SIZE = 2.0**63
_MAX_CHARS = 1000
_SHOWN_CHARS = 60
_SIZE_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_duration_s(value: object) -> float:
    """Seconds from a number of seconds or a text such as `90s`, `10m`, `1h30m`. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 90s, 10m or 2h")
    if isinstance(value, int | float):
        seconds = float(value) if abs(value) < _MAX_SIZE else math.inf
    else:
        text = str(value)[:_MAX_CHARS].strip().lower().replace(" ", "")
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"expected a duration such as 90s, 10m or 2h, got {_shown(value)}")
        seconds = sum(float(number) * _DURATION_S[unit] for number, unit in parts)
    if not 0 < seconds < 10 * 365 * 86400:
        raise ValueError(
            f"expected a duration above zero{' and below ten years' if seconds > 0 else ''}, got {_shown(value)}"
        )
    return seconds


def parse_bytes(value: object) -> int:
    """Bytes from an integer or a text such as `512MiB`, `4GB`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = float(value) if abs(value) < _MAX_SIZE else math.inf
    else:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value)[:_MAX_CHARS].strip().lower())
        if match is None or match[2] not in _SIZE_BYTES:
            raise ValueError(f"expected a size such as 512MiB or 4GB, got {_shown(value)}")
        size = float(match[1]) * _SIZE_BYTES[match[2]]
    if size < 1:
        raise ValueError(f"expected a size above zero, got {_shown(value)}")
    if size >= _MAX_SIZE:
        raise ValueError(f"expected a size that there is, got {_shown(value)}")
    return int(size)


def usd_text(value: float) -> str:
    """Dollars as people read them, without a power of ten: `$12.35`, `$0.5260`, `<$0.0001`."""
    if value == 0:
        return "$0"
    if 0 < value < 0.00005:
        return "<$0.0001"
    return f"${value:.2f}" if value >= 10 else f"${value:.4f}"


def exact_usd_text(value: float) -> str:
    """Dollars as somebody wrote them, without a power of ten: `$5`, `$0.00001`."""
    return "$" + (f"{value:.12f}".rstrip("0").rstrip(".") if value < 1 else f"{value:.10g}")


def _shown(value: object) -> str:
    """A value as it is quoted in a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


Duration = Annotated[float, BeforeValidator(parse_duration_s)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]


class CountRange(BaseModel):
    """How many devices: `2` or `1..4`, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int
    high: int

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, dict | CountRange):
            return value
        match = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:\.\.\s*([0-9]{1,18})\s*)?", str(value)[:_MAX_CHARS])
        if isinstance(value, bool) or match is None:
            raise ValueError(f"expected a count such as 2 or 1..4, got {_shown(value)}")
        return {"low": int(match[1]), "high": int(match[2] or match[1])}

    @model_validator(mode="after")
    def _check(self) -> CountRange:
        if not 1 <= self.low <= self.high <= 100_000:
            raise ValueError(f"expected 1 <= low <= high, got {self.low}..{self.high}")
        return self

    @model_serializer
    def _as_text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}..{self.high}"

    def __contains__(self, count: int) -> bool:
        return self.low <= count <= self.high
