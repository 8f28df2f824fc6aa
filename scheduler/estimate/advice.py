"""What would help a workload and by how much: every alternative is estimated as a plan estimates it, and compared with
what is done now. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..types import Configuration, Estimate
from .alternatives import Alternative, Variant, alternatives
from .calibration import Calibration
from .cost_model import Facts, estimate_all
from .work import Work

WORTH_PERCENT = 3.0
"""Less than this, of time or of dollars, is no advice: measurements spread by as much."""
AS_GOOD_PERCENT = 1.0
"""Of one change in several sizes the nearest is taken that gains as much as the best, but for this."""


@dataclass(frozen=True)
class Advice:
    """One change, with the estimates before and after it."""

    alternative: Alternative
    before: Estimate
    after: Estimate | None
    """None where there is nothing to estimate; `alternative.refused` then says why."""

    @property
    def available(self) -> bool:
        """Whether a field of the spec asks for it."""
        return bool(self.alternative.setting)

    @property
    def gain_s(self) -> float | None:
        """Seconds before less seconds after; None where one is not known."""
        return _less(self.before.seconds, None if self.after is None else self.after.seconds)

    @property
    def gain_usd(self) -> float | None:
        """Dollars before less dollars after; None where one is not known."""
        return _less(_dollars(self.before), _dollars(self.after))

    @property
    def gain_percent(self) -> float | None:
        """Of the seconds before."""
        return _percent(self.gain_s, self.before.seconds)

    @property
    def step_gain_percent(self) -> float | None:
        """Of the work alone, without start-up, checkpoints and rework: what a longer run would gain."""
        before = _work_s(self.before)
        return _percent(_less(before, None if self.after is None else _work_s(self.after)), before)

    @property
    def gain_usd_percent(self) -> float | None:
        """Of the dollars before."""
        return _percent(self.gain_usd, _dollars(self.before))

    @property
    def fits(self) -> bool:
        """Whether the changed workload is possible at all."""
        return self.after is not None and self.after.infeasible is None

    @property
    def makes_it_fit(self) -> bool:
        """Whether it was too large for the memory before, and no longer is."""
        return self.fits and self.before.infeasible is not None and self.before.infeasible.code == "memory"

    @property
    def benefit_percent(self) -> float:
        """The larger of both gains; 0 where none is known."""
        return max((each for each in (self.gain_percent, self.gain_usd_percent) if each is not None), default=0.0)

    @property
    def trade_off(self) -> bool:
        """Whether it gains time for dollars, or dollars for time."""
        known = [each for each in (self.gain_percent, self.gain_usd_percent) if each is not None]
        return self.benefit_percent > 0 and min(known) <= -WORTH_PERCENT

    @property
    def helps(self) -> bool:
        """Whether it is worth a try."""
        worth = self.makes_it_fit or self.benefit_percent >= WORTH_PERCENT
        return self.fits and worth and not self.alternative.refused

    @property
    def reason(self) -> str:
        """Why it cannot help, where it is not the numbers that say so."""
        if self.alternative.refused:
            return self.alternative.refused
        if self.after is None:
            return ""
        return self.after.infeasible.message if self.after.infeasible is not None else self.after.note


def advise(
    work: Work,
    configuration: Configuration,
    facts: Facts,
    calibration: Calibration,
    variants: Sequence[Variant] = (),
) -> list[Advice]:
    """Everything that could be changed, best first: what makes it fit, what gains without a loss, trade-offs, and then
    what would not help. `facts` must know the device types of `configuration`."""
    groups = [group for group in alternatives(work, configuration, facts, variants) if group]
    every = [alternative for group in groups for alternative in group]
    wanted = [(each.work, [each.configuration]) for each in every if each.work is not None]
    before, *others = estimate_all([(work, [configuration]), *wanted], facts, calibration)
    rest = iter(others)
    found = [[_weighed(each, before[0], rest) for each in group] for group in groups]
    return sorted((_nearest_best(group) for group in found), key=_order)


def _weighed(alternative: Alternative, before: Estimate, rest: Iterator[list[Estimate]]) -> Advice:
    after = None if alternative.work is None else next(rest)[0]
    return Advice(alternative, before, after)


def _nearest_best(group: Sequence[Advice]) -> Advice:
    """Of one change in several sizes: the nearest that fits and gains about as much as the best of them."""
    possible = [each for each in group if each.fits] or list(group)
    most = max(each.benefit_percent for each in possible)
    return next(each for each in possible if each.benefit_percent >= most - AS_GOOD_PERCENT)


def _order(advice: Advice) -> tuple[bool, bool, bool, float]:
    return not advice.helps, not advice.makes_it_fit, advice.trade_off, -advice.benefit_percent


def _dollars(estimate: Estimate | None) -> float | None:
    return None if estimate is None or estimate.money is None else estimate.money.total_usd


def _work_s(estimate: Estimate) -> float | None:
    parts = estimate.breakdown
    return None if parts is None else parts.compute_s + parts.memory_s + parts.launch_s + parts.communication_s


def _less(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _percent(gain: float | None, whole: float | None) -> float | None:
    return None if gain is None or not whole else 100.0 * gain / whole
