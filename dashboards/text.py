"""Numbers as people read them. Pure."""

from __future__ import annotations


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
    """Dollars with enough digits to tell small amounts apart; `unpriced` where it is not known."""
    if value is None:
        return "?"
    if value == 0:
        return "$0"
    return f"${value:.2f}" if value >= 10 else f"${value:.4f}"


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
