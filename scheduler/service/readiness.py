"""Whether the service does its work: cycles end, the cluster answers, the store takes what is written. Pure; asked by
`/api/v1/ready` and by `raywise doctor`."""

from __future__ import annotations

from dataclasses import dataclass

SLOW_CYCLES = 10
"""A cycle may be so many times as late as it should come, at the least `MIN_PATIENCE_S`."""
MIN_PATIENCE_S = 60.0


@dataclass(frozen=True)
class ReadinessFacts:
    """What is known of a running service. Times are Unix seconds."""

    now_s: float
    started_s: float
    cycle_s: float
    """Seconds between two cycles, as configured."""
    last_cycle_s: float | None = None
    """When the last cycle came to its end; None before the first."""
    cycle_error: str | None = None
    """What the last cycle failed with, a defect or the store; None where it did not."""
    cluster_error: str | None = None
    """Why the cluster could not be reached in the last cycle; None where it could."""
    store_error: str | None = None
    """Why the store could not be written just now; None where it could."""

    @property
    def patience_s(self) -> float:
        """A cycle that is older than this is too old."""
        return max(MIN_PATIENCE_S, SLOW_CYCLES * self.cycle_s)

    @property
    def age_s(self) -> float | None:
        """Seconds since a cycle came to its end."""
        return None if self.last_cycle_s is None else max(0.0, self.now_s - self.last_cycle_s)


def readiness(facts: ReadinessFacts) -> tuple[bool, list[str]]:
    """Whether new work may be sent to the service, and each reason why not, as a sentence."""
    reasons = [_late(facts)]
    if facts.cycle_error is not None:
        reasons.append(f"the last cycle failed: {facts.cycle_error}")
    if facts.cluster_error is not None:
        reasons.append(f"the Ray cluster cannot be reached: {facts.cluster_error}")
    if facts.store_error is not None:
        reasons.append(f"the store cannot be written: {facts.store_error}")
    found = [reason for reason in reasons if reason]
    return not found, found


def _late(facts: ReadinessFacts) -> str:
    if facts.age_s is None:
        return f"no cycle has come to its end in {facts.now_s - facts.started_s:.0f} s since the start"
    if facts.age_s > facts.patience_s:
        return f"the last cycle ended {facts.age_s:.0f} s ago, more than {facts.patience_s:.0f} s"
    return ""
