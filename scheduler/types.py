"""The words of the scheduler as types: configuration, estimate, situation, plan. All frozen, no I/O; see README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.types import Market, Snapshot

EstimateSource = Literal["roofline", "calibrated", "measured", "declared", "unknown"]
ReasonCode = Literal[
    "device",
    "memory",
    "count",
    "capacity",
    "budget",
    "deadline",
    "unpriced",
    "dearer",
    "quota",
    "unavailable",
]


@dataclass(frozen=True, order=True)
class Configuration:
    """A candidate: how many devices of which types, together. `groups` is sorted by device type."""

    groups: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Configuration:
        """The configuration with these counts per device type."""
        return cls(tuple(sorted((name, count) for name, count in counts.items() if count > 0)))

    @property
    def devices(self) -> int:
        """Devices in all."""
        return sum(count for _, count in self.groups)

    def __str__(self) -> str:
        return " + ".join(f"{name} x{count}" for name, count in self.groups)


@dataclass(frozen=True)
class Reason:
    """Why a configuration was not taken, or a workload does not run: a code for machines, a sentence for people."""

    code: ReasonCode
    message: str


@dataclass(frozen=True, slots=True)
class Money:
    """Predicted dollars by what they are spent on."""

    compute_usd: float
    """Holding the devices, start-up, checkpoints and expected rework included."""
    storage_usd: float = 0.0
    communication_usd: float = 0.0
    """Traffic that the cloud charges for (egress)."""

    @property
    def total_usd(self) -> float:
        """The sum that is minimised."""
        return self.compute_usd + self.storage_usd + self.communication_usd


@dataclass(frozen=True, slots=True)
class Energy:
    """Predicted energy of the devices held. A column of its own: a rented device's price already has it."""

    kwh: float
    usd: float | None = None
    gco2e: float | None = None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the seconds of an estimate go. They add up to its `seconds`."""

    compute_s: float = 0.0
    """Operators bound by arithmetic."""
    memory_s: float = 0.0
    """Operators bound by memory traffic."""
    launch_s: float = 0.0
    """Starting kernels that are too short to hide it, and what shards on one host cost each other."""
    communication_s: float = 0.0
    """Between shards, not hidden behind the backward pass."""
    startup_s: float = 0.0
    checkpoint_s: float = 0.0
    rework_s: float = 0.0
    """Expected repeats of lost work and restarts on interruptible devices."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one configuration would take. `seconds` None: not known; `money` None: not known or unpriced."""

    configuration: Configuration
    seconds: float | None
    startup_s: float = 0.0
    low_s: float | None = None
    high_s: float | None = None
    memory_bytes: float | None = None
    """Peak of one device, for the shard that needs the most."""
    money: Money | None = None
    price_usd_h: float | None = None
    """Dollars an hour for holding the whole configuration."""
    source: EstimateSource = "unknown"
    bound: str = ""
    """What binds a step: `compute`, `memory`, `launch` or `communication`."""
    infeasible: Reason | None = None
    breakdown: Breakdown | None = None
    energy: Energy | None = None
    market: Market = "on-demand"
    """`spot` where any device of it may be taken away."""
    note: str = ""
    """What a person should know of the number: a fallback taken, a speed that is unknown."""


@dataclass(frozen=True)
class Placement:
    """A configuration with its nodes: one `(device type, node id)` for each device held."""

    configuration: Configuration
    devices: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WorkloadView:
    """What a policy may know of one workload that is queued or holds devices."""

    id: str
    name: str
    queue: str = "default"
    priority: int = 0
    objective: str = "balanced"
    queued_s: float = 0.0
    """When it became ready to run; after a stop, to go on."""
    submitted_s: float = 0.0
    """When it came."""
    family: str = ""
    """What its speeds are learnt under: workloads of one family are equally fast."""
    deadline_s: float | None = None
    """Absolute time by which it must be done."""
    budget_usd: float | None = None
    """What it may still spend."""
    remaining: float = 1.0
    """Share of the work still to do."""
    units: float | None = None
    """The whole work in steps or rows, where it is known."""
    estimates: tuple[Estimate, ...] = ()
    placement: Placement | None = None
    """Where it runs now, if it does."""
    held_s: float = 0.0
    """Seconds since the present attempt started."""
    received_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds that it has held devices of each type, all attempts together."""
    waited_s: float = 0.0
    """Seconds that it was ready to run and held nothing, all waits together, the present one included."""
    interrupted: bool = False
    """Its run was lost with its cluster: it had its turn, and goes before those that waited behind it."""
    unsaved_s: float = 0.0
    """Seconds of the present attempt whose work a stop would lose: since its last checkpoint."""
    resumes: bool = False
    """Whether a later attempt goes on where a stopped one was. What begins again is not stopped for a plan."""
    stopping: bool = False
    """It is on its way out of where it runs."""
    one_node: bool = False
    """Whether all its devices must be on one node."""
    not_before_s: float | None = None
    """A failed attempt waits until then."""


@dataclass(frozen=True)
class QueueRules:
    """What the workloads of a queue may hold together."""

    weight: float = 1.0
    """Its share of what the cluster costs, against other queues that have work."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """Devices by type: never more. A type that is not in it is not limited."""
    limit_usd_h: float | None = None
    """Dollars an hour of all that it holds: never more."""
    limit_usd_month: float | None = None
    """Dollars of a calendar month (UTC): then it holds nothing until the next. What would begin again is not stopped
    for it, and only begun where its predicted money is within what is left."""


@dataclass(frozen=True)
class Situation:
    """All that a policy may look at. The same situation gives the same plan."""

    cycle: int
    now_s: float
    seed: int
    snapshot: Snapshot
    workloads: tuple[WorkloadView, ...]
    congestion_usd_h: Mapping[str, float] = field(default_factory=dict)
    """Congestion prices of the last plan, per device type: where the search starts."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the policy said it wants to know of its last plan: plain values."""
    queues: Mapping[str, QueueRules] = field(default_factory=dict)
    """Rules of the queues that have any."""


@dataclass(frozen=True)
class Option:
    """One row of an explanation: a configuration, what it would cost in all, and why it was not taken."""

    estimate: Estimate
    total_usd: float | None = None
    """Money plus the value of the time it takes, congestion and waiting included; None where it cannot be told."""
    congestion_usd: float = 0.0
    wait_s: float | None = 0.0
    """Seconds until its devices are free; None where nobody can say."""
    reason: Reason | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a workload runs where it does, or why it waits."""

    chosen: Configuration | None
    summary: str
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class NodeRequest:
    """Rent so many nodes of a type more than there are and launch."""

    node_type: str
    count: int
    cause: str


@dataclass(frozen=True)
class NodeRelease:
    """Give a rented node back."""

    node_id: str
    cause: str


@dataclass(frozen=True)
class Plan:
    """All of one cycle's decisions: where every workload should run now, and why. A workload without a placement
    waits, or stops if it runs."""

    cycle: int
    placements: Mapping[str, Placement]
    explanations: Mapping[str, Explanation]
    congestion_usd_h: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the policy wants back in the next situation."""
    requests: tuple[NodeRequest, ...] = ()
    releases: tuple[NodeRelease, ...] = ()
