"""Policies: `plan(Situation) -> Plan`, pure. `create` gives one by name; `names()` lists them."""

from __future__ import annotations

from typing import Protocol

from ..types import Plan, Situation
from .baselines import Cheapest, Fifo, LeastLoaded, Srtf
from .first_fit import FirstFit
from .gavel import (
    GavelFifo,
    GavelFinishTimeFairness,
    GavelLas,
    GavelLasHet,
    GavelMakespan,
    GavelThroughputPerCost,
)
from .market import Market
from .ray_autoscaler import RayAutoscaler
from .rental_baselines import CheapestFit, NoPacking
from .sia import Sia


class Policy(Protocol):
    """Decides where every workload should run now."""

    name: str

    def plan(self, situation: Situation) -> Plan:
        """All of this cycle's decisions, with their reasons. Never raises for a situation that cannot be satisfied."""
        ...


_ALL: tuple[type[Policy], ...] = (
    Cheapest,
    CheapestFit,
    Fifo,
    FirstFit,
    GavelFifo,
    GavelFinishTimeFairness,
    GavelLas,
    GavelLasHet,
    GavelMakespan,
    GavelThroughputPerCost,
    LeastLoaded,
    Market,
    NoPacking,
    RayAutoscaler,
    Sia,
    Srtf,
)
_POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _ALL}


def names() -> list[str]:
    """The policies that `create` knows."""
    return sorted(_POLICIES)


def create(name: str) -> Policy:
    """A policy by name. Raises KeyError."""
    return _POLICIES[name]()
