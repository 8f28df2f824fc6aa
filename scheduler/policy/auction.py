"""Who wins what: the largest sum of bids that the devices allow, and the prices that come of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Configuration
from .allocation import WAIT, solve
from .bidding import Bidder

_LONGEST = 1e6
"""Nobody is in more of a hurry than this, however much longer it takes."""


@dataclass(frozen=True)
class Outcome:
    """Of one auction."""

    won: Mapping[str, Configuration]
    """By workload; who wins nothing is not in it."""
    price: Mapping[str, float]
    """Of one device of each type, in bids: what somebody would have to bid more for it."""
    held_at: Mapping[str, Sequence[float]]
    """Of each type: what is bid for each device, the least first; 0 for those that nobody won."""
    hurry: Mapping[str, float]
    """By workload: what its bids were multiplied by."""
    usd_per_bid: float
    """Bids are not dollars: this puts them on the scale of what the time of those that win is worth an hour."""


def auction(
    level: Sequence[Bidder],
    there: Mapping[str, int],
    declined: Collection[tuple[str, Configuration]] = (),
    prices: Mapping[str, float] | None = None,
) -> Outcome:
    """`there` has the devices of each type. `declined`: what who does not bid for. `prices`: of an earlier auction."""
    types = list(there)
    configurations = sorted({offer.configuration for each in level for offer in each.offers})
    place = {configuration: n for n, configuration in enumerate(configurations)}
    cost = np.full((len(level), len(configurations)), np.inf)
    hurries = _hurries(level, there)
    for row, (each, hurry) in enumerate(zip(level, hurries, strict=True)):
        for offer in each.offers:
            if (each.view.id, offer.configuration) not in declined:
                cost[row, place[offer.configuration]] = -offer.bid * hurry
    use = np.zeros((len(configurations), len(types)), dtype=np.int64)
    column = {name: n for n, name in enumerate(types)}
    for configuration, row in place.items():
        for name, count in configuration.groups:
            use[row, column[name]] = count
    start = None if prices is None else np.array([float(prices.get(name, 0.0)) for name in types])
    found = solve(cost, np.zeros(len(level)), use, np.array([there[name] for name in types], dtype=np.int64), start)
    won = {each.view.id: configurations[n] for each, n in zip(level, found.choice.tolist(), strict=True) if n != WAIT}
    price = {name: float(value) for name, value in zip(types, found.prices, strict=True)}
    hurry_of = {each.view.id: hurry for each, hurry in zip(level, hurries, strict=True)}
    return Outcome(won, price, _held_at(level, won, hurry_of, there), hurry_of, _usd_per_bid(level, won))


def _held_at(
    level: Sequence[Bidder], won: Mapping[str, Configuration], hurry_of: Mapping[str, float], there: Mapping[str, int]
) -> dict[str, list[float]]:
    bids: dict[str, list[float]] = {name: [] for name in there}
    for each in level:
        offer = each.offer(won.get(each.view.id))
        for name, count in offer.configuration.groups if offer is not None else ():
            assert offer is not None
            bids[name] += [offer.bid * hurry_of[each.view.id] / offer.configuration.devices] * count
    return {name: sorted([*rows, *[0.0] * (there[name] - len(rows))]) for name, rows in bids.items()}


def density(each: Bidder, won: Configuration | None) -> float:
    """What it bids for a device, with what it won or else at best."""
    offers = each.offers if won is None else [offer for offer in each.offers if offer.configuration == won]
    return max(offer.bid / offer.configuration.devices for offer in offers)


def _hurries(level: Sequence[Bidder], there: Mapping[str, int]) -> list[float]:
    """Those that alone take longer than all work together would, were it a fluid, decide when the last one is done:
    their bids grow with the square of how much longer."""
    fluid_s = 0.0
    for each in level:
        speeds: dict[tuple[str, ...], float] = {}
        for offer in each.offers:
            types = tuple(name for name, _ in offer.configuration.groups)
            gangs = min(there[name] / count for name, count in offer.configuration.groups)
            speeds[types] = max(speeds.get(types, 0.0), gangs / offer.seconds)
        fluid_s += 1.0 / max(sum(speeds.values()), 1e-12)
    shortest = [min(offer.seconds for offer in each.offers) for each in level]
    longer = [min(max(1.0, seconds / max(fluid_s, 1.0)), _LONGEST) for seconds in shortest]
    least = min(longer, default=1.0)
    return [(each / least) ** 2 for each in longer]


def _usd_per_bid(level: Sequence[Bidder], won: Mapping[str, Configuration]) -> float:
    """Bids are not dollars: they are put on the scale of what the time of those that win is worth."""
    worth, bids = 0.0, 0.0
    for each in level:
        offer = each.offer(won.get(each.view.id))
        if offer is not None:
            worth += each.time_usd_h
            bids += offer.bid
    return worth / bids if bids > 0 else 0.0


def extra_usd_h(each: Bidder, found: Outcome) -> tuple[float, Configuration] | None:
    """How much more an hour somebody would have to be worth to start now, and on what, at the prices of now."""
    rows = []
    for offer in each.offers:
        asked = sum(sum(found.held_at.get(name, ())[:count]) for name, count in offer.configuration.groups)
        times = asked / max(offer.bid * found.hurry[each.view.id], 1e-12)
        if times > 1:
            rows.append((each.time_usd_h * (times - 1), offer.configuration))
    return min(rows, default=None)
