"""Numbers as people read them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from workloads.quantities import usd_text


def duration(seconds: float | None) -> str:
    """`8.2 s`, `3m 05s`, `2h 10m`; `?` where it is not known."""
    if seconds is None:
        return "?"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def dollars(value: float | None) -> str:
    """Dollars with enough digits to tell small amounts apart; `?` where they are not known."""
    return "?" if value is None else usd_text(value)


def interval(low_s: float, high_s: float) -> str:
    """`5.5..22 s`, `40 s..1m 31s`, `1h 30m..2h 12m`: both ends as durations are written."""
    if round(high_s, 1) < 60:
        return f"{_short(low_s)}..{_short(high_s)} s"
    low = f"{low_s:.0f} s" if 9.95 <= low_s < 59.5 else duration(low_s)
    return f"{low}..{duration(high_s)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def configuration_text(counts: Mapping[str, int] | None, emulated: Iterable[str] = ()) -> str:
    """`T4 x2 (emulated) + A100 x1`."""
    if not counts:
        return "-"
    return marked_text([f"{name} x{n}" for name, n in counts.items()], set(emulated))


def marked_text(parts: Sequence[str], emulated: set[str]) -> str:
    """Parts such as `T4 x2`, each said to be emulated where it is; once where all of several are."""
    marks = [part.rsplit(" x", 1)[0] in emulated for part in parts]
    if all(marks) and len(parts) > 1:
        return " + ".join(parts) + ", all emulated"
    return " + ".join(f"{part} (emulated)" if mark else part for part, mark in zip(parts, marks, strict=True))


def digits(value: float) -> str:
    """Two digits at least, without a power of ten for what people meet: `0.0012`, `4.2`, `1600`."""
    if value == 0:
        return "0"
    places = min(max(1 - math.floor(math.log10(abs(value))), 0), 6)
    return f"{value:.{places}f}"


def size(value: float | None) -> str:
    """Bytes in GB or MB (powers of ten)."""
    if value is None:
        return "?"
    return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"


def error_percent(measured: float | None, predicted: float | None) -> float | None:
    """How far the prediction was off, in percent of what was measured."""
    if not measured or predicted is None:
        return None
    return abs(predicted - measured) / measured * 100


def percent(value: float | None) -> str:
    """A percentage; `?` where it is not known."""
    return "?" if value is None else f"{value:.0f}%"
