"""Device seconds and dollars by whatever they are asked for: what ended attempts were charged, added up by the store,
and what still runs, up to now."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from ..client import types
from ..engine.charges import charges_of
from ..store import Charge, Record, Spending, Store

GROUPS = {"owner": "owner", "queue": "queue", "workload": "workload_id", "day": "day", "device_type": "device_type"}
"""What can be asked for, and its column of a charge."""


def day_of(at_s: float) -> str:
    """The UTC day of a moment, as in 2026-11-27."""
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).date().isoformat()


def usage(
    store: Store,
    holding: Sequence[Record],
    by: Sequence[str],
    *,
    since: str,
    until: str,
    until_s: float,
    only: Mapping[str, str | None],
) -> types.UsageView:
    """What was held from one day to another, both included, for each combination of `by`; `only` are groups that must
    have a value (None: whatever)."""
    columns = [GROUPS[name] for name in by]
    wanted = {GROUPS[name]: value for name, value in only.items()}
    ended = store.spending(columns, since=since, until=until, **wanted)
    fresh = [
        _spending(charge, columns)
        for record in holding
        for charge in charges_of(record, until_s)
        if since <= charge.day <= until
        and all(value is None or getattr(charge, name) == value for name, value in wanted.items())
    ]
    rows = _added((*ended, *fresh))
    total = _added(Spending((), each.device_s, each.usd, each.unpriced_s) for each in rows)
    return {
        "by": list(by),
        "since": since,
        "until": until,
        "until_s": until_s,
        "rows": [_row(by, each) for each in rows],
        "total": _sums(total[0] if total else Spending((), 0.0, 0.0, 0.0)),
    }


def _spending(charge: Charge, columns: Sequence[str]) -> Spending:
    of = tuple(getattr(charge, name) for name in columns)
    unpriced_s = charge.device_s if charge.usd is None else 0.0
    return Spending(of, charge.device_s, charge.usd or 0.0, unpriced_s)


def _added(parts: Iterable[Spending]) -> list[Spending]:
    """One for each group, in their order."""
    sums: dict[tuple[str, ...], Spending] = {}
    for each in parts:
        known = sums.get(each.of, Spending(each.of, 0.0, 0.0, 0.0))
        sums[each.of] = Spending(
            each.of, known.device_s + each.device_s, known.usd + each.usd, known.unpriced_s + each.unpriced_s
        )
    return [sums[of] for of in sorted(sums)]


def _sums(value: Spending) -> types.UsageTotal:
    return {"device_s": value.device_s, "usd": value.usd, "unpriced_s": value.unpriced_s}


def _row(by: Sequence[str], value: Spending) -> types.UsageRow:
    return cast(types.UsageRow, dict(zip(by, value.of, strict=True)) | _sums(value))
