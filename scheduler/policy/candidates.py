"""Which of a workload's configurations a baseline policy may take at all, what they would take for what is left, and
where chosen ones go when everything may be moved. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from cluster.types import Node, Snapshot
from workloads.quantities import usd_text

from ..types import Configuration, Estimate, Explanation, Option, Placement, Reason, Situation, WorkloadView
from .capacity import Capacity

BUSY = Reason("capacity", "not enough devices are free")


class Supply:
    """How many devices of each type there are, busy or free, in all and on the largest node; and how many there could
    be, with all that may be rented."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.total, self.largest = _counted(snapshot.nodes)
        rentable = snapshot.with_rentable()
        self.most, self.largest_rentable = (
            (self.total, self.largest) if rentable is snapshot else _counted(rentable.nodes)
        )

    def objection(self, workload: WorkloadView, estimate: Estimate) -> Reason | None:
        """Why a workload can never take this configuration here; None where it can. What it runs on already is within
        its budget."""
        runs_there = workload.placement is not None and workload.placement.configuration == estimate.configuration
        if estimate.infeasible is not None and not runs_there:
            return estimate.infeasible
        missing: Reason | None = None
        for name, count in estimate.configuration.groups:
            there = self.largest[name] if workload.one_node else self.total[name]
            if there < count <= (self.largest_rentable[name] if workload.one_node else self.most[name]):
                missing = Reason("unavailable", self._to_rent(name, there, one_node=workload.one_node))
            elif there < count:
                where = "one node has at most" if workload.one_node else "the cluster has"
                return Reason("count", f"{where} {there} {name}")
        if runs_there:
            return missing
        money_usd = remaining_usd(estimate, workload.remaining)
        if money_usd is not None and workload.budget_usd is not None and money_usd > workload.budget_usd:
            over = usd_text(money_usd - workload.budget_usd)
            return Reason("budget", f"would cost {over} more than the budget leaves")
        return missing

    def _to_rent(self, name: str, there: int, *, one_node: bool) -> str:
        """That what is wanted is not there, and how much of it could be rented."""
        if one_node:
            return f"no node has so many: one with {self.largest_rentable[name]} could be rented"
        there_text = f"only {there} {'is' if there == 1 else 'are'} there" if there else "none is there"
        return f"{there_text}; up to {self.most[name] - self.total[name]} could be rented"


def _counted(nodes: Iterable[Node]) -> tuple[Counter[str], Counter[str]]:
    """Devices of each type in all, and on the node that has the most."""
    total: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    for node in nodes:
        for devices in node.devices:
            total[devices.device_type] += devices.total
            largest[devices.device_type] = max(largest[devices.device_type], devices.total)
    return total, largest


def remaining_s(workload: WorkloadView, estimate: Estimate) -> float | None:
    """Seconds to the end of what is left: start-up counts unless it runs on just this already. None: not known."""
    if estimate.seconds is None:
        return None
    here = workload.placement is not None and workload.placement.configuration == estimate.configuration
    work_s = max(estimate.seconds - estimate.startup_s, 0.0) * workload.remaining
    return work_s + (0.0 if here else estimate.startup_s)


def remaining_usd(estimate: Estimate, share: float) -> float | None:
    """Dollars for what is left of the work, start-up paid in full. None: not known."""
    if estimate.money is None or estimate.seconds is None:
        return None
    seconds = estimate.startup_s + max(estimate.seconds - estimate.startup_s, 0.0) * share
    rest_usd = estimate.money.total_usd - estimate.money.compute_usd
    return rest_usd + estimate.money.compute_usd * seconds / max(estimate.seconds, 1e-9)


def resting(workload: WorkloadView, now_s: float) -> Explanation | None:
    """That a workload waits after a failed attempt, if it does."""
    if workload.placement is not None or workload.not_before_s is None or workload.not_before_s <= now_s:
        return None
    return Explanation(None, f"waits after a failed attempt: tries again in {workload.not_before_s - now_s:.0f} s")


def vacated(situation: Situation, kept: Mapping[str, Placement] | None = None) -> Capacity:
    """What would be free if none of the workloads ran, but for those that are kept: what only others hold is still
    taken."""
    kept = kept or {}
    ours = [w.placement for w in situation.workloads if w.placement is not None and w.id not in kept]
    return Capacity(situation.snapshot, kept.values(), ours)


def settle(
    chosen: Mapping[str, Configuration],
    before: Mapping[str, Placement],
    one_node: Collection[str],
    capacity: Capacity,
) -> dict[str, Placement]:
    """Nodes for chosen configurations, the widest gangs first, so that they are not fragmented. Of equally wide ones
    those that were there before stay where they were. What fits nowhere gets no placement. Takes the devices."""
    placed: dict[str, Placement] = {}
    widths = sorted({configuration.devices for configuration in chosen.values()}, reverse=True)
    for width in widths:
        same = [name for name, configuration in chosen.items() if configuration.devices == width]
        for name in same:
            there = before.get(name)
            if there is not None and there.configuration == chosen[name] and capacity.holds(there):
                capacity.take(there)
                placed[name] = there
        for name in same:
            found = None if name in placed else capacity.place(chosen[name], one_node=name in one_node)
            if found is not None:
                capacity.take(found)
                placed[name] = found
    return placed


def refused(workload: WorkloadView, supply: Supply) -> tuple[list[Estimate], list[Option]]:
    """The configurations that may be taken, in the order listed, and the others with their reasons."""
    usable, options = [], []
    for estimate in workload.estimates:
        reason = supply.objection(workload, estimate)
        if reason is None:
            usable.append(estimate)
        else:
            options.append(Option(estimate, reason=reason))
    return usable, options


def hopeless(options: Iterable[Option]) -> Explanation:
    """That no configuration is possible, and why."""
    rows = tuple(options)
    why = sorted({option.reason.message for option in rows if option.reason is not None})
    return Explanation(None, "cannot run: " + ("; ".join(why) or "no configuration"), rows)
