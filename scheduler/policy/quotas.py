"""What queues may hold: quotas by device type, a limit in dollars an hour, and weighted shares of what a cluster costs.
Pure.

Quotas and limits are never passed. A share is what a queue gets while others want more than is there: the cluster's
dollars an hour are divided by weight among the queues that have work, and what one cannot use goes to the others. Gangs
are not divided, so what a queue got more or less than its share is kept account of (`credit_usd`) and evened out later;
what was six hours ago counts half. Devices that nobody entitled takes are lent to whoever wants them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..types import Configuration, QueueRules, Reason, Situation
from .board import Floats, Ints
from .stays import numbers

MILLI = 1000.0
"""Dollars an hour are counted in thousandths."""
HALF_LIFE_S = 6 * 3600.0
EVENED_OUT_S = 1800.0
"""Within about so long what a queue has had too little, or too much, is made up for."""
MOST_HOURS = 4.0
"""A queue is owed, or owes, at most its share of so many hours."""
NOTED_EVERY_S = 60.0


@dataclass
class Quotas:
    """What each queue with rules holds and may hold, while a plan is made. Queues without rules are not limited; in a
    cluster without any rules nothing is."""

    rules: Mapping[str, QueueRules]
    price_usd_h: Mapping[str, float]
    """Of one device of each type."""
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """Devices by queue and type."""
    share_usd_h: Mapping[str, float] = field(default_factory=dict)
    """Of each queue that has work, where several do."""
    credit_usd: Mapping[str, float] = field(default_factory=dict)
    noted_s: float | None = None

    @classmethod
    def of(cls, situation: Situation) -> Quotas:
        """Before anything is given out."""
        kinds = situation.snapshot.device_types
        price = {name: kind.price_usd_h or 0.0 for name, kind in kinds.items()}
        noted = situation.memory.get("shares")
        noted = noted if isinstance(noted, Mapping) else {}
        raw = noted.get("credit_usd")
        credit = {
            str(name): float(value)
            for name, value in (raw.items() if isinstance(raw, Mapping) else ())
            if isinstance(value, int | float) and np.isfinite(value)
        }
        return cls(situation.queues, price, credit_usd=credit, noted_s=numbers(noted).get("at_s"))

    def copy(self) -> Quotas:
        """One that changes by itself."""
        return replace(self, held={name: dict(counts) for name, counts in self.held.items()})

    def take(self, queue: str, configuration: Configuration, times: int = 1) -> None:
        """A workload of this queue holds these devices now; -1: no more."""
        if self.rules:
            counts = self.held.setdefault(queue, {})
            for name, count in configuration.groups:
                counts[name] = counts.get(name, 0) + times * count

    def usd_h(self, queue: str) -> float:
        """What it holds costs, in dollars an hour."""
        return sum(count * self.price_usd_h.get(name, 0.0) for name, count in self.held.get(queue, {}).items())

    def never(self, queue: str, configuration: Configuration) -> Reason | None:
        """Why a queue may never hold this, whatever else it holds."""
        return self._refusal(queue, configuration, {}, 0.0)

    def refusal(self, queue: str, configuration: Configuration) -> Reason | None:
        """Why a queue may not hold this beside what it holds."""
        if queue not in self.rules:
            return None
        return self._refusal(queue, configuration, self.held.get(queue, {}), self.usd_h(queue))

    def _refusal(
        self, queue: str, configuration: Configuration, held: Mapping[str, int], usd_h: float
    ) -> Reason | None:
        rules = self.rules.get(queue)
        if rules is None:
            return None
        for name, count in configuration.groups:
            most = rules.quota.get(name)
            if most is not None and held.get(name, 0) + count > most:
                has = f", it has {held[name]}" if held.get(name) else ""
                return Reason("quota", f"queue {queue} may hold {most} {name}{has}")
        if rules.limit_usd_h is not None:
            more = sum(count * self.price_usd_h.get(name, 0.0) for name, count in configuration.groups)
            if usd_h + more > rules.limit_usd_h + 1e-9:
                has = f", it has ${usd_h:.2f}" if usd_h else ""
                return Reason("quota", f"queue {queue} may hold ${rules.limit_usd_h:.2f} an hour{has}")
        return None

    def divide(self, wanted_usd_h: Mapping[str, float], supply_usd_h: float) -> None:
        """Shares by weight of what the cluster costs an hour, none more than its queue could use."""
        left, open_ = supply_usd_h, {name for name, usd_h in wanted_usd_h.items() if usd_h > 0}
        shares: dict[str, float] = {}
        while open_ and left > 1e-9:
            weights = {name: self.weight(name) for name in sorted(open_)}
            part = left / sum(weights.values())
            full = {name for name in open_ if wanted_usd_h[name] <= part * weights[name]}
            if not full:
                shares |= {name: part * weights[name] for name in open_}
                break
            for name in sorted(full):
                shares[name] = wanted_usd_h[name]
                left -= shares[name]
            open_ -= full
        self.share_usd_h = shares if self.rules and len(shares) > 1 else {}

    def weight(self, queue: str) -> float:
        """Of a queue."""
        rules = self.rules.get(queue)
        return 1.0 if rules is None else rules.weight

    def bounds(self, queues: Sequence[str], types: Sequence[str]) -> list[tuple[str, str, float]]:
        """What these queues may hold beside what they hold: (queue, device type or `$`, devices or thousandths of a
        dollar an hour)."""
        found: list[tuple[str, str, float]] = []
        for queue in sorted(set(queues)):
            rules, held = self.rules.get(queue, QueueRules()), self.held.get(queue, {})
            found += [
                (queue, name, max(0, most - held.get(name, 0))) for name, most in rules.quota.items() if name in types
            ]
            limits = [rules.limit_usd_h, self.entitled_usd_h(queue)]
            known = [usd_h for usd_h in limits if usd_h is not None]
            if known:
                found.append((queue, "$", max(0.0, min(known) - self.usd_h(queue)) * MILLI))
        return found

    def entitled_usd_h(self, queue: str) -> float | None:
        """Its share, and what it is owed of earlier ones; None: nobody else wants anything."""
        share = self.share_usd_h.get(queue)
        if share is None:
            return None
        return max(0.0, share + self.credit_usd.get(queue, 0.0) / (EVENED_OUT_S / 3600))

    def after(self, now_s: float) -> dict[str, Any]:
        """What is noted for the next plan: what each queue is owed."""
        past_s = 0.0 if self.noted_s is None else max(0.0, now_s - self.noted_s)
        if not self.rules or (not self.share_usd_h and not self.credit_usd):
            return {}
        if self.noted_s is not None and past_s < NOTED_EVERY_S:
            return {"at_s": self.noted_s, "credit_usd": dict(self.credit_usd)}
        fades = 0.5 ** (past_s / HALF_LIFE_S)
        credit = {}
        for queue in {*self.credit_usd, *self.share_usd_h}:
            share = self.share_usd_h.get(queue)
            usd = self.credit_usd.get(queue, 0.0)
            if share is not None:
                usd += (share - self.usd_h(queue)) * past_s / 3600
                usd = float(np.clip(usd, -MOST_HOURS * share, MOST_HOURS * share))
            if abs(usd := usd * fades) > 1e-6:
                credit[queue] = round(usd, 6)
        return {"at_s": now_s, "credit_usd": dict(sorted(credit.items()))}


def milli_usd_h(use: Ints, types: Sequence[str], price_usd_h: Mapping[str, float]) -> Ints:
    """Thousandths of a dollar an hour that each configuration costs, rounded up."""
    prices: Floats = np.array([price_usd_h.get(name, 0.0) for name in types])
    return np.ceil(np.round(use @ prices * MILLI, 6)).astype(np.int64)
