"""When the next cycle is. Pure.

A policy must be asked whenever something happened, and now and then where nothing did: what waits gets more urgent. The
service asks about once a second. Between two such cycles the answer hardly ever changes, so the simulator asks at
growing intervals for as long as it does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..engine.report import CycleReport
from ..policy.renting import IDLE
from ..store import Record

GROWTH = 2.0


@dataclass
class Pace:
    """Seconds to the next cycle where nothing happens before."""

    shortest_s: float
    longest_s: float
    next_s: float = 0.0
    """As `after` found it last."""

    def after(self, *, changed: bool) -> float:
        """`changed`: something happened, or the plan did something, or might if it is asked soon."""
        self.next_s = max(self.shortest_s, 0.0 if changed else min(GROWTH * self.next_s, self.longest_s))
        return self.next_s


def watched(report: CycleReport, live: Iterable[Record], now_s: float) -> bool:
    """Whether a policy that is asked later might do something else than one that is asked soon: it decides in rounds of
    its own, there are deadlines to meet, or rented nodes stand idle."""
    if "began_s" in report.plan.memory or report.plan.memory.get(IDLE):
        return True
    return any(record.deadline_s is not None and record.deadline_s > now_s for record in live)
