"""Since when rented nodes stand idle, as noted from one plan to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.types import Node

from ..types import Placement, Situation
from .stays import numbers

IDLE = "idle"
"""The note of a plan that says since when rented nodes stand idle."""


def idle_since(situation: Situation, placements: Mapping[str, Placement]) -> dict[str, float]:
    """By id of a rented node that has nothing to do, and gets nothing by these placements: since when, in seconds of
    the situation's clock. What the last plan noted is in `Situation.memory[IDLE]`."""
    noted = numbers(situation.memory.get(IDLE))
    used = {node for placement in placements.values() for _, node in placement.devices}
    used |= {node for view in situation.workloads if view.placement for _, node in view.placement.devices}
    return {
        node.node_id: min(situation.now_s, noted.get(node.node_id, situation.now_s))
        for node in situation.snapshot.nodes
        if situation.snapshot.type_of(node) is not None and node.node_id not in used and is_free(node)
    }


def is_free(node: Node) -> bool:
    """Whether nothing holds any device of it."""
    return all(each.free >= each.total for each in node.devices)
