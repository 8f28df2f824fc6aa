"""How large a cluster would have to be that is always there: for the mean and for the peak of what was rented."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.types import NodeType, Snapshot
from scheduler.simulate.types import SimulationResult, Trace
from scheduler.types import Configuration


@dataclass(frozen=True)
class Need:
    """A cluster that is always there."""

    nodes: int
    devices: int
    usd_h: float

    @classmethod
    def of(cls, counts: Mapping[str, int], offered: Snapshot) -> Need:
        """So many nodes of each type, at what they cost if they are rented."""
        kinds = {kind.name: kind for kind in offered.node_types}
        return cls(
            nodes=sum(counts.values()),
            devices=sum(size * n for name, n in counts.items() for _, size in kinds[name].devices),
            usd_h=sum(kinds[name].price_usd_h * n for name, n in counts.items()),
        )


def need_of(result: SimulationResult, offered: Snapshot, size: str) -> dict[str, int]:
    """Nodes of each type that a run had at once: in the mean until its last job ended, rounded up, or at its peak."""
    end_s = max((job.ended_s for job in result.jobs if job.ended_s is not None), default=0.0)
    found = {}
    for kind in offered.node_types:
        spans = [
            (each.joined_s, min(each.ended_s, end_s))
            for each in result.rentals or ()
            if each.node_type == kind.name and each.joined_s is not None and each.joined_s < end_s
        ]
        found[kind.name] = _peak(spans) if size == "peak" else math.ceil(sum(b - a for a, b in spans) / max(1.0, end_s))
    return {name: count for name, count in found.items() if count}


def _peak(spans: list[tuple[float, float]]) -> int:
    changes = sorted([*((begin, 1) for begin, _ in spans), *((end, -1) for _, end in spans)])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def owned_nodes(need: Mapping[str, int], work: Trace, offered: Snapshot) -> dict[str, int]:
    """As many more as it takes for every job to have room for one of its configurations."""
    found, kinds = Counter(need), list(offered.node_types)
    for job in work.jobs:
        if any(_holds(found, kinds, each) for each in job.configurations):
            continue
        rows = [(more, sum(more.values())) for each in job.configurations for more in _more(found, kinds, each)]
        found |= min(rows, key=lambda row: row[1])[0]
    return dict(found)


def _holds(found: Mapping[str, int], kinds: list[NodeType], wanted: Configuration) -> bool:
    have: Counter[str] = Counter()
    for kind in kinds:
        have.update({name: size * found.get(kind.name, 0) for name, size in kind.devices})
    return all(have[name] >= count for name, count in wanted.groups)


def _more(found: Counter[str], kinds: list[NodeType], wanted: Configuration) -> list[Counter[str]]:
    """With enough nodes of one type for a gang of one device type."""
    name, count = wanted.groups[0]
    return [
        found | Counter({kind.name: -(-count // size)}) for kind in kinds for held, size in kind.devices if held == name
    ]
