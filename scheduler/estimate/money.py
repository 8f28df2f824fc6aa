"""Dollars, energy and the cost of being interrupted, for one configuration or a column of them. Pure.

Every argument is a float or an array, and they broadcast; the answers have their shape. What is not known is `None` or
NaN going in and NaN coming out, never zero; `as_money` and `as_energy` turn it into None for people.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cluster.types import EnergyRates, Tariff

from ..types import Energy, Money

SPOT_INTERRUPTIONS_PER_H = -math.log(1 - 0.20) / 730
"""Interruptions of one spot node in an hour where the catalog has no figure (prior): a fifth of the nodes lost within a
month of 730 h. AWS's Spot Advisor sorts instance types by how many were interrupted in the last month, below 5%, by
fives, to above 20%; this is the lower edge of the last bucket, where accelerators mostly are (recalled). Crowded pools
lose far more: Bamboo (Thorpe et al., NSDI 2023) replays traces that lose a tenth and more of their nodes an hour
(recalled)."""
SECONDS_H = 3600.0
GIGA = 1e9
JOULES_KWH = 3.6e6

FloatArray = npt.NDArray[np.float64]
Number = float | FloatArray
_SMALL = 1e-6
"""Below this r s, the difference of e^(rs) - 1 and rs loses digits and its series is used."""
_HOPELESS = 300.0
"""Above this r s, numbers no longer fit; it would not end within any time."""
_ENDLESS_S = 1e12


class Dollars(NamedTuple):
    """Dollars by what they are for; NaN where a price is not known."""

    compute_usd: Any
    storage_usd: Any
    communication_usd: Any


class Consumption(NamedTuple):
    """Energy of a run; NaN where the watts, or the rate, are not known."""

    kwh: Any
    usd: Any
    gco2e: Any


def interruption_rate(interruptions_per_h: float | None) -> tuple[float, str]:
    """Interruptions an hour of one spot node, and a sentence to show where it is the prior."""
    if interruptions_per_h is not None:
        return interruptions_per_h, ""
    percent = (1 - math.exp(-SPOT_INTERRUPTIONS_PER_H * 730)) * 100
    return SPOT_INTERRUPTIONS_PER_H, f"how often spot nodes are taken back is not known: {percent:.0f}% a month assumed"


def checkpoints(run_s: Number, every_s: Number | None) -> Any:
    """Checkpoints written in `run_s` of work, one after each `every_s` but at the end; `every_s` None: none."""
    run, every = _known(run_s), np.inf if every_s is None else _known(every_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _plain(np.maximum(np.ceil(run / every) - 1, 0.0))


def checkpoint_s(checkpoint_bytes: Number, every_s: Number | None, run_s: Number, write_bytes_s: Number) -> Any:
    """Seconds that the checkpoints of a run take together, written one at a time at `write_bytes_s` while it waits."""
    return _plain(checkpoints(run_s, every_s) * _known(checkpoint_bytes) / _known(write_bytes_s))


def spot_run_s(
    work_s: Number,
    startup_s: Number,
    checkpoint_every_s: Number | None,
    one_checkpoint_s: Number,
    interruptions_per_h: Number | None,
    nodes: Number = 1,
) -> Any:
    """Expected seconds of rework: what interruptions add to `startup_s`, `work_s` and its checkpoints.

    Nodes are lost one by one at random (Poisson), and the loss of any ends a gang, so its rate r is `nodes` times that
    of one. Work goes on from the last checkpoint; where `checkpoint_every_s` is None it starts from the beginning. A
    start of R seconds can be interrupted as well. A part of s seconds then takes e^(rR) (e^(rs) - 1)/r in the mean
    (Daly, 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps"), and the first
    start (e^(rR) - 1)/r more. Without checkpoints that is (e^(rT) - 1)/r for T = R + work. For small r it is the
    first-order product r x work x (R + s/2) (Young, 1974), which tells ever too little as r s grows.

    Waiting for another node is not in it. Infinite where the run would not end; NaN where the rate is not known.
    """
    rate = _known(interruptions_per_h) * _known(nodes) / SECONDS_H
    work, start = _known(work_s), _known(startup_s)
    every = np.inf if checkpoint_every_s is None else _known(checkpoint_every_s)
    whole = checkpoints(work, every)
    last = work - np.where(whole > 0, whole * np.where(np.isinf(every), 0.0, every), 0.0)
    part = np.where(whole > 0, np.where(np.isinf(every), 0.0, every) + _known(one_checkpoint_s), 0.0)
    repeated = whole * _excess_s(part, rate) + _excess_s(last, rate)
    restarts = np.expm1(np.minimum(rate * start, _HOPELESS)) * (whole * part + last + repeated)
    rework = _excess_s(start, rate) + repeated + restarts
    return _plain(np.where(rework > _ENDLESS_S, np.inf, rework))


def _excess_s(part_s: Any, rate: Any) -> Any:
    """(e^(rs) - 1)/r - s: the mean time until s seconds pass without an interruption, less s."""
    exponent = np.minimum(rate * part_s, _HOPELESS)
    series = exponent * part_s / 2 * (1 + exponent / 3)
    exact = (np.expm1(exponent) - exponent) / np.where(rate == 0, 1.0, rate)
    return np.where(exponent < _SMALL, series, exact)


def money(
    run_s: Number,
    price_usd_h: Number | None,
    stored_bytes: Number = 0.0,
    moved_bytes: Number = 0.0,
    tariff: Tariff | None = None,
) -> Dollars:
    """Dollars for holding devices worth `price_usd_h` together for `run_s`, keeping `stored_bytes` for a month and
    moving `moved_bytes` over links that are charged for."""
    tariff = tariff or Tariff()
    return Dollars(
        _plain(_known(run_s) / SECONDS_H * _known(price_usd_h)),
        _charge(stored_bytes, tariff.storage_usd_gb_month),
        _charge(moved_bytes, tariff.egress_usd_gb),
    )


def _charge(amount_bytes: Number, usd_gb: float | None) -> Any:
    """Nothing costs nothing, also at a price that is not known."""
    amount = _known(amount_bytes)
    return _plain(np.where(amount == 0, 0.0, amount / GIGA * _known(usd_gb)))


def energy(run_s: Number, watts: Number | None, devices: Number = 1, rates: EnergyRates | None = None) -> Consumption:
    """Energy of `devices` that draw `watts` each for `run_s`, with the site's overhead. The catalog's watts are the
    most a device may draw, so this is an upper bound. For several types give the sum of their watts and one device."""
    rates = rates or EnergyRates()
    kwh = _known(run_s) * _known(watts) * _known(devices) * rates.overhead / JOULES_KWH
    return Consumption(_plain(kwh), _plain(kwh * _known(rates.usd_per_kwh)), _plain(kwh * _known(rates.gco2e_per_kwh)))


def as_money(parts: Dollars) -> Money | None:
    """The dollars of one configuration; None where any part of them is not known."""
    return Money(*(float(part) for part in parts)) if all(math.isfinite(part) for part in parts) else None


def as_energy(used: Consumption) -> Energy | None:
    """The energy of one configuration; None where it is not known."""
    kwh, usd, gco2e = (float(part) if math.isfinite(part) else None for part in used)
    return None if kwh is None else Energy(kwh, usd, gco2e)


def _known(value: Number | None) -> FloatArray:
    """As an array; NaN for None."""
    return np.asarray(math.nan if value is None else value, dtype=np.float64)


def _plain(value: Any) -> Any:
    """A float for a single value; an array stays one."""
    return float(value) if np.ndim(value) == 0 else value
