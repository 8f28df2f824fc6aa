"""What a simulation is of and what comes out of it. All frozen, no I/O. Times are seconds from the start of the
trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..types import Configuration

Ending = Literal["succeeded", "stopped", "failed", "running"]
"""What ended an attempt: its own success, the plan, its node or itself. `running`: nothing yet."""


@dataclass(frozen=True)
class Phase:
    """How fast a job is from some share of its work on: units a second by configuration. What is not there is
    impossible."""

    begins: float
    """Share of the work that is done when it begins; 0 for the first."""
    rates: Mapping[Configuration, float]
    """With the devices on as few nodes as can hold them."""
    spread_rates: Mapping[Configuration, float] = field(default_factory=dict)
    """With the devices on more nodes than that; as in `rates` where a configuration is missing."""


@dataclass(frozen=True)
class TraceJob:
    """One job of a trace."""

    id: str
    family: str
    """Jobs of one family are equally fast: what is learnt of one helps the others."""
    arrives_s: float
    work: float
    """Units to do: steps, or device-seconds."""
    phases: tuple[Phase, ...]
    """At least one; in the order they begin."""
    priority: int = 0
    queue: str = "default"
    objective: str = "balanced"
    deadline_s: float | None = None
    """Absolute."""
    budget_usd: float | None = None
    startup_s: float = 0.0
    """Of every attempt: until it goes on where it was."""
    kind: str = "train"
    """Of workload. A `command` has all its devices on one node; `train` and `batch-infer` go on where they were
    stopped, all others begin again."""
    needs: tuple[str, ...] = ()
    """Ids of the jobs that must have succeeded before it arrives. One that the trace does not have is met."""

    def seconds(self, configuration: Configuration, done: float = 0.0) -> float | None:
        """Seconds from a share of the work to its end on one configuration, packed; None where it is impossible."""
        total = 0.0
        for phase, end in zip(self.phases, [*(p.begins for p in self.phases[1:]), 1.0], strict=True):
            share = max(0.0, end - max(phase.begins, done))
            rate = phase.rates.get(configuration, 0.0)
            if share > 0 and rate <= 0:
                return None
            total += share * self.work / rate if share > 0 else 0.0
        return total

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """All that are possible from the first phase on, in order."""
        return tuple(sorted(self.phases[0].rates))


@dataclass(frozen=True)
class Trace:
    """Jobs in the order they arrive."""

    name: str
    jobs: tuple[TraceJob, ...]


@dataclass(frozen=True)
class Span:
    """Devices that one attempt of a job held on one node, from placement to release."""

    node: str
    device_type: str
    count: int
    began_s: float
    ended_s: float
    ended: Ending = "succeeded"
    """What ended the attempt."""


@dataclass(frozen=True)
class JobResult:
    """What became of a job."""

    id: str
    family: str
    arrived_s: float
    """And everything it needs had succeeded."""
    started_s: float | None
    """First placed; None: never."""
    ended_s: float | None
    """None: not finished."""
    state: str
    """`succeeded`, `failed`, `cancelled`, or the state it was left in."""
    spent_usd: float | None
    """None where a price is not known."""
    attempts: int
    preemptions: int
    """Attempts that the plan ended, to move it or for others."""
    failures: int
    """Attempts that ended with their node, or by themselves."""
    alone_s: float | None
    """Seconds on its fastest configuration on an empty cluster, with one start-up; None where none can hold it."""
    fair_s: float | None
    """Seconds with an equal share of the cluster among the jobs there were on average while it was there
    (finish-time fairness compares with it)."""
    deadline_s: float | None = None
    budget_usd: float | None = None
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class Sample:
    """The cluster after the cycles of one moment."""

    at_s: float
    queued: int
    running: int
    busy: Mapping[str, int]
    """Devices held, by type."""
    total: Mapping[str, int]
    """Devices there are, by type."""
    usd_h: float | None
    """Dollars an hour of what is held."""
    congestion_usd_h: Mapping[str, float]
    decisions_s: Sequence[float]
    """Real seconds of each plan of this moment: several where what one stops lets the next start something."""

    @property
    def cycles(self) -> int:
        """How many there were."""
        return len(self.decisions_s)

    @property
    def decision_s(self) -> float:
        """Real seconds of the longest plan."""
        return max(self.decisions_s, default=0.0)


@dataclass(frozen=True)
class NodeRental:
    """A rented node, or the try to have one. It is paid for from when it was asked for, as clouds charge for the boot;
    a launch that failed costs nothing."""

    node: str
    node_type: str
    devices: int
    usd_h: float
    asked_s: float
    """Or when the simulation began, of one that was there from the start."""
    joined_s: float | None
    """None: its launch failed, or was still going on at the end."""
    ended_s: float
    """Given back, taken back, failed, or the end of the simulation."""
    failed: bool = False
    launched: bool = True
    """Whether it was asked for; else it was there from the start."""

    @property
    def usd(self) -> float:
        """What it cost."""
        return 0.0 if self.failed else max(0.0, self.ended_s - self.asked_s) / 3600 * self.usd_h


@dataclass(frozen=True)
class SimulationResult:
    """One policy on one trace."""

    policy: str
    trace: str
    seed: int
    jobs: Sequence[JobResult]
    samples: Sequence[Sample]
    options: Mapping[str, str] = field(default_factory=dict)
    """What was simulated besides: rounds, noise, failures; for the reader."""
    notes: Sequence[str] = ()
    """What a reader must know: jobs that never fit, a run that was cut off."""
    rentals: Sequence[NodeRental] | None = None
    """Nodes that were rented; None where there was nothing to rent."""
