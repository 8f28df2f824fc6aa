"""One workload as it is stored, and one event of the log. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from workloads.spec import WorkloadSpec

from ..estimate.work import Work
from ..states import State
from ..types import Estimate, Explanation, Placement

_SPEC: TypeAdapter[WorkloadSpec] = TypeAdapter(WorkloadSpec)
GRACE_S = 30.0
"""Of a workload that was stored before `grace` was a field: the field's default."""
OWNED_BY_USER = frozenset({"spec", "deadline_s", "budget_usd", "cancel_requested", "paused", "pause_cause"})
"""Fields of a record that only `Store.change` sets: what the engine writes leaves them as they are."""


@dataclass(frozen=True)
class Rental:
    """One node that was rented, or asked for. Times are Unix seconds."""

    id: str
    node_type: str
    market: str
    usd_h: float
    on_demand_usd_h: float | None
    """What it would have cost on demand; None is not known."""
    asked_s: float
    """From here on it is paid for."""
    node_id: str | None = None
    joined_s: float | None = None
    ended_s: float | None = None
    end: str = ""
    """Why it ended."""
    refused: bool = False
    """There never was a machine: it costs nothing."""

    def hours(self, now_s: float, since_s: float = 0.0) -> float:
        """Hours that it was paid for, from one time to another."""
        if self.refused:
            return 0.0
        until_s = now_s if self.ended_s is None else min(now_s, self.ended_s)
        return max(0.0, until_s - max(self.asked_s, since_s)) / 3600

    def usd(self, now_s: float, since_s: float = 0.0) -> float:
        """What that has cost."""
        return self.hours(now_s, since_s) * self.usd_h


@dataclass(frozen=True)
class Record:
    """A workload with all that is known of it. Times are Unix seconds."""

    id: str
    name: str
    kind: str
    spec: Mapping[str, Any]
    """The spec as JSON; references to other steps' outputs are already resolved to their paths."""
    state: State
    submitted_s: float
    output: str
    run_dir: str
    publish: str | None = None
    """URL that the output is copied to at the end."""
    pipeline_id: str | None = None
    needs: tuple[str, ...] = ()
    """Ids of the workloads it needs."""
    code_path: str | None = None
    attempt: int = 0
    queued_s: float | None = None
    started_s: float | None = None
    """Start of the present or last attempt."""
    first_started_s: float | None = None
    ended_s: float | None = None
    not_before_s: float | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    work: Work | None = None
    placement: Placement | None = None
    estimates: tuple[Estimate, ...] = ()
    predicted: Estimate | None = None
    """What was believed of the chosen configuration when the first attempt started."""
    explanation: Explanation | None = None
    price_usd_h: float | None = None
    failures: int = 0
    """Attempts that failed by themselves: these are counted against `retries`."""
    losses: int = 0
    """Attempts that ended because the cluster went away."""
    fraction: float = 0.0
    """Share of the work that ended attempts have left in checkpoints or finished blocks."""
    spent_usd: float = 0.0
    """Dollars of ended attempts."""
    spent_s: float = 0.0
    """Seconds of ended attempts."""
    interrupted: bool = False
    """Its last run was lost with its cluster, and no other has started since."""
    waited_s: float = 0.0
    """Seconds of ended waits: ready to run, and nothing held."""
    received_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of ended attempts on each device type."""
    owner: str = "admin"
    """The user who submitted it."""
    prices_usd_h: Mapping[str, float | None] = field(default_factory=dict)
    """Dollars an hour of one device of each type it holds, or held last: as they were when the attempt began."""
    cancel_requested: bool = False
    paused: bool = False
    """It shall hold nothing until the user says otherwise."""
    pause_cause: str = ""
    """Why it is paused."""
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    """The body's `done` record: outputs, metrics, rows; and the rows by device type."""

    @property
    def queue(self) -> str:
        """The queue it waits in."""
        return str(self.spec.get("queue") or "default")

    @property
    def grace_s(self) -> float:
        """Seconds it has to save its work when it is stopped."""
        return float(self.spec.get("grace", GRACE_S))

    def price_of(self, device_type: str) -> float | None:
        """Dollars an hour of one device of a type that it holds; None where that is not known."""
        if device_type in self.prices_usd_h or self.price_usd_h is None or self.placement is None:
            return self.prices_usd_h.get(device_type)
        return self.price_usd_h / self.placement.configuration.devices  # begun before prices were kept by type

    @property
    def run_id(self) -> str:
        """Ray's `submission_id` of the present attempt."""
        return self.id if self.attempt <= 1 else f"{self.id}.r{self.attempt}"  # no id has a dot

    def workload_spec(self) -> WorkloadSpec:
        """The spec as its class."""
        return _SPEC.validate_python(self.spec)

    def cost_usd(self, now_s: float) -> float | None:
        """Dollars so far: None where what it holds, or held last, has no price."""
        if self.attempt and self.price_usd_h is None:
            return None
        if self.placement is None or self.started_s is None or self.price_usd_h is None:
            return self.spent_usd
        return self.spent_usd + max(0.0, now_s - self.started_s) / 3600 * self.price_usd_h

    def run_s(self, now_s: float) -> float:
        """Seconds it has held devices, all attempts together."""
        running = max(0.0, now_s - self.started_s) if self.placement is not None and self.started_s is not None else 0.0
        return self.spent_s + running


def keeping_the_users(record: Record, stored: Record) -> Record:
    """`record` with what belongs to the user as it is stored: a change that came while the engine was at work stays."""
    changed = {name: getattr(stored, name) for name in OWNED_BY_USER if getattr(record, name) != getattr(stored, name)}
    return replace(record, **changed) if changed else record


@dataclass(frozen=True)
class Event:
    """One line of the log: what happened, to which workload, in which cycle, and because of what."""

    kind: str
    cause: str
    workload_id: str | None = None
    cycle: int | None = None
    at_s: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0


@dataclass(frozen=True)
class Charge:
    """What one attempt held of one device type on one day (UTC)."""

    workload_id: str
    attempt: int
    day: str
    """As in 2026-11-27."""
    device_type: str
    owner: str
    queue: str
    device_s: float
    usd: float | None
    """None where the type has no price."""
