"""Policies: `plan(Situation) -> Plan`, pure. `create` gives one by name; `names()` lists them."""

from __future__ import annotations

from typing import Protocol

from ..types import Plan, Situation
from .first_fit import FirstFit
from .market import Market


class Policy(Protocol):
    """Decides where every workload should run now."""

    name: str

    def plan(self, situation: Situation) -> Plan:
        """All of this cycle's decisions, with their reasons. Never raises for a situation that cannot be satisfied."""
        ...


_POLICIES: dict[str, type[Policy]] = {FirstFit.name: FirstFit, Market.name: Market}


def names() -> list[str]:
    """The policies that `create` knows."""
    return sorted(_POLICIES)


def create(name: str) -> Policy:
    """A policy by name. Raises KeyError."""
    return _POLICIES[name]()
