"""Congestion prices: what one device of a type is worth right now to those who wait for it, in dollars an hour on top
of its real price. Pure.

They are the dual variables of "demand <= free devices, per type", found by raising the price of what is asked for more
than there is and lowering it elsewhere until the choices no longer change (Agrawal et al., 2021, do the same for
fungible resources).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..types import Configuration, Estimate

ROUNDS = 80
FIRST_STEP_USD_H = 2.0


def value_of_time_usd_h(objective: str) -> float:
    """What an hour of waiting is worth to a workload, in dollars, by its objective."""
    return {"cost": 0.05, "balanced": 2.0, "time": 40.0}[objective]


def money_usd(
    estimate: Estimate, time_usd_h: float, congestion_usd_h: Mapping[str, float], wait_s: float = 0.0
) -> float | None:
    """`money(c)` of the design: dollars, plus the value of the time until it is done, plus congestion. None where the
    price is not known; time that is not known counts as nothing, for every configuration alike."""
    if estimate.money is None and (estimate.seconds is not None or estimate.price_usd_h is None):
        return None
    if estimate.money is None:
        # Nothing predicts this workload's time: compare the prices of an hour.
        return (estimate.price_usd_h or 0.0) + held_usd_h(estimate.configuration, congestion_usd_h)
    assert estimate.seconds is not None
    time = (estimate.seconds + wait_s) / 3600 * time_usd_h
    return estimate.money.total_usd + time + congestion_usd(estimate, congestion_usd_h)


def congestion_usd(estimate: Estimate, congestion_usd_h: Mapping[str, float]) -> float:
    """The part of `money_usd` that is congestion."""
    hours = 1.0 if estimate.seconds is None else estimate.seconds / 3600
    return hours * held_usd_h(estimate.configuration, congestion_usd_h)


def held_usd_h(configuration: Configuration, price_usd_h: Mapping[str, float]) -> float:
    """Dollars an hour for holding a configuration at these prices per device."""
    return sum(count * price_usd_h.get(name, 0.0) for name, count in configuration.groups)


def find_prices(
    choices: Sequence[tuple[float, Sequence[Estimate]]], free: Mapping[str, int], start: Mapping[str, float]
) -> dict[str, float]:
    """Congestion prices for workloads given as (value of time, feasible estimates), supply `free`, from `start` on."""
    prices = {name: start.get(name, 0.0) for name in free}
    for number in range(ROUNDS):
        demand: Counter[str] = Counter()
        for time_usd_h, estimates in choices:
            priced = [(money_usd(e, time_usd_h, prices), e) for e in estimates]
            known = [(money, e.configuration) for money, e in priced if money is not None]
            if known:
                demand.update(dict(min(known)[1].groups))
        excess = {name: demand[name] - supply for name, supply in free.items()}
        step = FIRST_STEP_USD_H / (1 + number / 4)
        moved = {n: max(0.0, p + step * excess[n] / max(demand[n], free[n], 1)) for n, p in prices.items()}
        if all(abs(moved[name] - prices[name]) < 1e-4 for name in prices):
            break
        prices = moved
    return {name: round(price, 4) for name, price in prices.items()}
