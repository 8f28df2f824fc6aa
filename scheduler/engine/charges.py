"""What an attempt held and what that cost, by day (UTC) and device type. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ..store import Charge, Record


def charges_of(record: Record, until_s: float) -> list[Charge]:
    """Of the present attempt, from its start to `until_s`; empty where it holds nothing."""
    if record.placement is None or record.started_s is None:
        return []
    groups = record.placement.configuration.groups
    return [
        Charge(
            record.id,
            record.attempt,
            day,
            device_type,
            record.owner,
            record.queue,
            device_s=count * seconds,
            usd=None if (usd_h := record.price_of(device_type)) is None else count * seconds / 3600 * usd_h,
        )
        for day, seconds in days_of(record.started_s, max(record.started_s, until_s))
        for device_type, count in groups
    ]


def days_of(start_s: float, end_s: float) -> Iterator[tuple[str, float]]:
    """Each day (UTC) between two Unix times, with the seconds that fall on it."""
    while True:
        day = datetime.fromtimestamp(start_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        midnight_s = (day + timedelta(days=1)).timestamp()
        yield f"{day:%Y-%m-%d}", min(end_s, midnight_s) - start_s
        if end_s <= midnight_s:
            return
        start_s = midnight_s


def month_start_s(at_s: float) -> float:
    """When the month (UTC) of a Unix time began."""
    at = datetime.fromtimestamp(at_s, UTC)
    return datetime(at.year, at.month, 1, tzinfo=UTC).timestamp()


def month_end_s(at_s: float) -> float:
    """When the next month (UTC) begins."""
    at = datetime.fromtimestamp(at_s, UTC)
    return datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC).timestamp()


def month_of(at_s: float) -> str:
    """The month (UTC) of a Unix time, as in 2026-11."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m}"
