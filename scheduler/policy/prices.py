"""What time is worth, and what holding devices costs at given prices. Pure.

Congestion prices are what one device of a type is worth right now to those who wait for it, in dollars an hour on top
of its real price: the dual variables of "demand <= devices, per type" (Agrawal et al., 2021, use the same for fungible
resources). `allocation.solve` finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types import Configuration


def value_of_time_usd_h(objective: str) -> float:
    """What an hour of waiting is worth to a workload, in dollars, by its objective."""
    return {"cost": 2.0, "balanced": 6.0, "time": 40.0}[objective]


def held_usd_h(configuration: Configuration, price_usd_h: Mapping[str, float]) -> float:
    """Dollars an hour for holding a configuration at these prices per device."""
    return sum(count * price_usd_h.get(name, 0.0) for name, count in configuration.groups)
