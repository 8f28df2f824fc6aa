"""Tables of estimates from cycle to cycle: only what changed is estimated again. Pure but for what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.types import Snapshot
from workloads.spec import WorkloadSpec

from ..estimate.calibration import Calibration
from ..estimate.candidates import estimate_tables
from ..estimate.work import Work
from ..store import Record
from ..types import Estimate


@dataclass(frozen=True)
class Known:
    """A workload's spec as its class, and the estimates of all its configurations."""

    raw: Mapping[str, Any]
    work: Work
    spec: WorkloadSpec
    table: tuple[Estimate, ...]


@dataclass
class EstimateCache:
    """What is known of the workloads that live. Estimates hold as long as nothing was learnt and the cluster has the
    same nodes, whatever is free on them."""

    _world: tuple[Any, ...] = ()
    _known: dict[str, Known] = field(default_factory=dict)

    def of(self, records: Sequence[Record], snapshot: Snapshot, calibration: Calibration) -> list[Known]:
        """In the order of `records`, all of which have their work."""
        world = (_whole(snapshot), calibration, calibration.version)
        if not self._world or self._world[1] is not calibration or self._world[::2] != world[::2]:
            self._world, self._known = world, {}
        known = {record.id: self._kept(record) for record in records}
        fresh = [record for record in records if known[record.id] is None]
        specs = [record.workload_spec() for record in fresh]
        works = [record.work for record in fresh if record.work is not None]
        requests = [(work, spec.resources) for work, spec in zip(works, specs, strict=True)]
        tables = estimate_tables(requests, snapshot, calibration) if requests else []
        for record, work, spec, table in zip(fresh, works, specs, tables, strict=True):
            known[record.id] = Known(record.spec, work, spec, table)
        self._known = {name: each for name, each in known.items() if each is not None}
        return [self._known[record.id] for record in records]

    def _kept(self, record: Record) -> Known | None:
        kept = self._known.get(record.id)
        if kept is None or (kept.work is not record.work and kept.work != record.work):
            return None
        return kept if kept.raw is record.spec or kept.raw == record.spec else None


def _whole(snapshot: Snapshot) -> Snapshot:
    """The snapshot as if all of it were free, at no time, with nothing on its way: what estimates depend on."""
    nodes = tuple(
        replace(node, devices=tuple(replace(each, free=each.total) for each in node.devices)) for node in snapshot.nodes
    )
    types = tuple(replace(each, joins_s=(), unavailable_until_s=None) for each in snapshot.node_types)
    return replace(snapshot, at_s=0.0, nodes=nodes, node_types=types)
