"""What Ray alone would do: first come, first served, the first configuration that fits, no price, no prediction.

The baseline that ships, so that everyone can see what deciding is worth.
"""

from __future__ import annotations

from ..types import Explanation, Option, Placement, Plan, Reason, Situation, WorkloadView
from .capacity import Capacity


class FirstFit:
    """FIFO over the queue, first fit over the configurations in the order in which they are listed."""

    name = "first-fit"

    def plan(self, situation: Situation) -> Plan:
        """Keep what runs; start what fits, oldest first; a workload that does not fit is passed over."""
        running = {w.id: w.placement for w in situation.workloads if w.placement is not None}
        capacity = Capacity(situation.snapshot, running.values())
        placements: dict[str, Placement] = dict(running)
        explanations = {
            w.id: Explanation(w.placement.configuration, "runs on") for w in situation.workloads if w.placement
        }
        waiting = [w for w in situation.workloads if w.placement is None]
        for workload in sorted(
            waiting, key=lambda w: (not w.interrupted, w.submitted_s if w.interrupted else w.queued_s, w.id)
        ):
            if workload.not_before_s is not None and workload.not_before_s > situation.now_s:
                seconds = workload.not_before_s - situation.now_s
                summary = f"waits after a failed attempt: tries again in {seconds:.0f} s"
                explanations[workload.id] = Explanation(None, summary)
                continue
            placement, explanations[workload.id] = _first(workload, capacity)
            if placement is not None:
                capacity.take(placement)
                placements[workload.id] = placement
        return Plan(situation.cycle, placements, explanations)


def _first(workload: WorkloadView, capacity: Capacity) -> tuple[Placement | None, Explanation]:
    options = []
    for estimate in workload.estimates:
        placement = None if estimate.infeasible else capacity.place(estimate.configuration, one_node=workload.one_node)
        if placement is not None:
            summary = f"{estimate.configuration} is the first configuration that fits"
            return placement, Explanation(estimate.configuration, summary, (Option(estimate),))
        reason = estimate.infeasible or Reason("capacity", "not enough devices are free")
        options.append(Option(estimate, reason=reason))
    return None, Explanation(None, "no configuration fits into what is free", tuple(options))
