"""What one cycle saw, decided and did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..store import Record
from ..types import Explanation, Plan, Situation
from .limits import Closed
from .reconcile import Action, NodeAction, Refusal


@dataclass(frozen=True)
class CycleReport:
    """What one cycle saw and did; `situation` replays it."""

    cycle: int
    situation: Situation
    plan: Plan
    actions: Sequence[Action]
    refusals: Sequence[Refusal]
    node_actions: Sequence[NodeAction] = ()
    closed: Closed = field(default_factory=Closed)
    """Queues that have spent their month."""

    def explanation_of(self, record: Record) -> Explanation | None:
        """Why a workload runs where it does, or why it waits: what this cycle found, else what was found before."""
        if record.state != "queued":
            return record.explanation
        if record.queue in self.closed.why:
            return Explanation(None, f"waits: {self.closed.why[record.queue]}")
        planned = self.plan.explanations.get(record.id) or record.explanation
        refused = next((each.message for each in self.refusals if each.workload_id == record.id), None)
        if refused is None:
            return planned
        return Explanation(None, f"waits: {refused}", planned.options if planned is not None else ())
