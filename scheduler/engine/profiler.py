"""The door to whoever turns a spec into `Work`: the real one reads files and models (`scheduler.admission`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from workloads.spec import WorkloadSpec

from ..estimate.work import Work


@dataclass(frozen=True)
class Upstream:
    """A finished workload that another one needs: its output folder and the body's `done` record."""

    name: str
    kind: str
    output: str
    result: Mapping[str, Any] = field(default_factory=dict)


class Profiler(Protocol):
    """Says what a workload's work is, now that everything it needs has succeeded."""

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        """The work in numbers. Raises SpecError where the input is not what was promised."""
        ...
