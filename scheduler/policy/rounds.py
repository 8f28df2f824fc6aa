"""Policies that decide in rounds and keep to what they decided in between, whatever the cycles of the engine. Pure.

A cycle within a round repeats its placements: one that could not start yet, because what runs there is still being
stopped, is tried again, and nothing else changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..types import Configuration, Placement
from .capacity import Capacity

_SLACK_S = 1.0
"""A cycle that comes this much too early still begins a round."""

Places = Mapping[str, Sequence[Sequence[str]]]
"""By workload: (device type, node) of every device, as plain values."""


def round_over(since_s: float, round_s: float, places: Places, present: Iterable[str]) -> bool:
    """Whether a round begins now: the last one's time is over, or nothing of it is left (or the clock was set back)."""
    return not 0 <= since_s < round_s - _SLACK_S or not any(name in places for name in present)


def as_places(placements: Mapping[str, Placement]) -> dict[str, list[list[str]]]:
    """Placements as plain values."""
    return {name: [list(device) for device in each.devices] for name, each in placements.items()}


def placement_in(places: Places, name: str) -> Placement | None:
    """The placement that was kept for a workload."""
    if not places.get(name):
        return None
    devices = tuple((device_type, node_id) for device_type, node_id in places[name])
    return Placement(Configuration.of(Counter(device_type for device_type, _ in devices)), devices)


def repeat(places: Places, present: Iterable[str], capacity: Capacity) -> dict[str, Placement]:
    """The placements of a round once more, as far as their nodes are still there. Takes the devices."""
    placements: dict[str, Placement] = {}
    for name in present:
        there = placement_in(places, name)
        if there is not None and capacity.holds(there):
            capacity.take(there)
            placements[name] = there
    return placements
