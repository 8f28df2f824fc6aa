"""Money that is never passed: budgets of workloads and monthly limits of queues. Pure, but for the sums it keeps.

What a stop takes (a checkpoint within the grace, a cycle to see it) is paid as well, so it is counted before: a
workload is stopped while what it may still hold until its processes are gone is within its budget.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..store import Charge, Record
from ..types import QueueRules
from .charges import charges_of, month_of
from .progress import Progress
from .resuming import resumes

BUDGET_SPENT = "its budget is spent"
"""Why a workload is paused; a larger budget lets it go on."""
STOP_S = 3.0
"""Seconds from the end of the grace until the processes are gone."""
LONGEST_CYCLE_S = 60.0
WORTH_A_START_S = 60.0
"""What goes on later is begun where the money is enough for its start, its stop and so much work."""


def forced_stop_s(cycle_s: float) -> float:
    """Seconds that a workload may still hold its devices if it is stopped by force in the next cycle: one until then,
    and one to see that it is gone. `cycle_s` is the distance of the last two cycles."""
    return STOP_S + 2 * min(cycle_s, LONGEST_CYCLE_S)


def stop_takes_s(record: Record, cycle_s: float) -> float:
    """As `forced_stop_s`, with its grace before."""
    return forced_stop_s(cycle_s) + record.grace_s


def over_budget(record: Record, progress: Progress, now_s: float, cycle_s: float) -> bool:
    """Whether a workload that runs must be stopped now to stay within its budget. While there is time to save, what
    will end within its budget, by its own progress, goes on."""
    if record.budget_usd is None or record.state not in ("starting", "running"):
        return False
    if _passes(record, now_s + forced_stop_s(cycle_s)):
        return True
    if not resumes(record) or not _passes(record, now_s + stop_takes_s(record, cycle_s)):
        return False
    left_s = _left_s(record, progress, now_s)
    return left_s is None or _passes(record, now_s + left_s)


def grace_s(record: Record, now_s: float, cycle_s: float) -> float:
    """Seconds that a run which is being stopped may take to save and end: none where the user wants it gone, and no
    more than its budget can pay for."""
    if record.cancel_requested:
        return 0.0
    if record.budget_usd is None or not record.price_usd_h:
        return record.grace_s
    left_usd = record.budget_usd - (record.cost_usd(now_s) or 0.0)
    paid_s = left_usd / record.price_usd_h * 3600 - forced_stop_s(cycle_s)
    return max(0.0, min(record.grace_s, paid_s))


def _passes(record: Record, until_s: float) -> bool:
    usd = record.cost_usd(until_s)
    return usd is not None and record.budget_usd is not None and usd > record.budget_usd


def _left_s(record: Record, progress: Progress, now_s: float) -> float | None:
    """Seconds until it ends, by how fast this attempt was so far; before it has said anything, as was predicted."""
    done = progress.fraction - record.fraction
    if progress.running_since_s is not None and done > 0:
        return (now_s - progress.running_since_s) * (1.0 - progress.fraction) / done
    if record.predicted is None or record.predicted.seconds is None or record.started_s is None:
        return None
    startup_s = record.predicted.startup_s
    work_s = (record.predicted.seconds - startup_s) * (1.0 - record.fraction)
    return max(0.0, startup_s + work_s - (now_s - record.started_s))


@dataclass
class MonthlySpending:
    """Dollars of this month (UTC) by queue: of ended attempts as they are charged, of those that run by the clock."""

    month: str = ""
    ended_usd: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    closed_at_usd: dict[str, float] = field(default_factory=dict)
    """Queues that were closed, with their limit then: what a stop left of it is not worth another start."""

    def begin(self, month: str, charges: Iterable[Charge]) -> None:
        """Another month, with what is charged to it already."""
        self.month, self.ended_usd, self.closed_at_usd = month, defaultdict(float), {}
        self.add(charges)

    def add(self, charges: Iterable[Charge]) -> None:
        """Attempts that ended."""
        for charge in charges:
            if charge.day.startswith(self.month):
                self.ended_usd[charge.queue] += charge.usd or 0.0

    def once_stopped(self, holding: Sequence[Record], now_s: float, cycle_s: float) -> Mapping[str, float]:
        """What it will be by queue if all that holds devices is stopped in the next cycle."""
        spent = defaultdict(float, self.ended_usd)
        for record in holding:
            for charge in charges_of(record, now_s + stop_takes_s(record, cycle_s)):
                if charge.day.startswith(self.month):
                    spent[record.queue] += charge.usd or 0.0
        return spent


@dataclass(frozen=True)
class Closed:
    """Queues that hold nothing more this month, and why."""

    why: Mapping[str, str] = field(default_factory=dict)
    left_usd: Mapping[str, float] = field(default_factory=dict)
    """Of the queues with a limit that are not closed: what they may still spend, without what is promised to runs that
    cannot be stopped and go on."""


def closed_queues(
    queues: Mapping[str, QueueRules],
    spending: MonthlySpending,
    holding: Sequence[Record],
    now_s: float,
    cycle_s: float,
) -> Closed:
    """Which queues have spent their month. Where none has a limit, nothing is added up."""
    limits = {name: rules.limit_usd_month for name, rules in queues.items() if rules.limit_usd_month is not None}
    if not limits:
        return Closed()
    spent = spending.once_stopped(holding, now_s, cycle_s)
    why = {}
    for name, limit in limits.items():
        if spent.get(name, 0.0) < limit and spending.closed_at_usd.get(name, -1.0) < limit:
            continue
        spending.closed_at_usd[name] = limit
        until = "it goes on next month, or with a larger limit_usd_month"
        why[name] = f"queue {name} has spent its ${limit:.2f} of {spending.month}: {until}"
    left = {name: limit - spent.get(name, 0.0) for name, limit in limits.items() if name not in why}
    for record in holding:
        if record.queue in left:
            left[record.queue] -= _promised_usd(record, now_s, cycle_s)
    return Closed(why, left)


def _promised_usd(record: Record, now_s: float, cycle_s: float) -> float:
    """What a run that cannot be stopped and go on later will still need, by its prediction, after what it will have
    cost once stopped."""
    if resumes(record) or record.predicted is None or record.predicted.seconds is None or not record.price_usd_h:
        return 0.0
    held_s = now_s - (now_s if record.started_s is None else record.started_s) + stop_takes_s(record, cycle_s)
    return max(0.0, record.predicted.seconds - held_s) / 3600 * record.price_usd_h


def same_month(spending: MonthlySpending, now_s: float) -> bool:
    """Whether the sums are of the month of this Unix time."""
    return spending.month == month_of(now_s)
