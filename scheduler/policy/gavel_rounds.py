"""Gavel's mechanism: shares of time become whole jobs on whole devices, round by round. Pure.

Narayanan et al., OSDI 2020, section 5: in each round the job that has received the least of its share on a type goes
first there. Details follow what the authors' simulator does, as its numbers are what these policies are compared with:
shares are computed anew when the jobs changed, but not more often than every 1,920 s; half a round is added to the time
that a job has received; types are filled one after the other; jobs without a claim take what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..types import Estimate, Situation, WorkloadView
from .gavel_lp import Jobs, Matrix, isolated
from .rounds import Places, round_over

ROUND_S = 360.0
RESET_S = 1920.0
"""Shares are not computed more often than this."""

Times = dict[str, dict[str, float]]
"""By job, by device type."""


@dataclass(frozen=True)
class Table:
    """The jobs that may run, in the order they came, with one configuration for each device type at most."""

    views: tuple[WorkloadView, ...]
    types: tuple[str, ...]
    cells: tuple[tuple[Estimate | None, ...], ...]
    """By job and type."""
    supply: tuple[int, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The jobs' names."""
        return tuple(view.id for view in self.views)

    prices_usd_h: tuple[float | None, ...]

    def jobs(self, now_s: float, last: Rounds | None) -> Jobs:
        """As numbers."""
        counts = [[0.0 if e is None else float(e.configuration.devices) for e in row] for row in self.cells]
        prices = [price for price in self.prices_usd_h if price is not None and price > 0]
        return Jobs(
            speeds=np.array([_speeds(row) for row in self.cells]),
            units=np.array([view.units or 1.0 for view in self.views]),
            counts=np.array(counts),
            supply=np.array(self.supply, dtype=np.float64),
            weights=np.array([float(max(1, view.priority)) for view in self.views]),
            remaining=np.array([max(view.remaining, 1e-9) for view in self.views]),
            age_s=np.array([max(0.0, now_s - view.submitted_s) for view in self.views]),
            done_alone_s=np.array([_done_alone_s(view, last) for view in self.views]),
            prices=np.array(prices if len(prices) == len(self.types) else [1.0] * len(self.types)),
        )


@dataclass(frozen=True)
class Rounds:
    """What is kept between cycles, as plain values."""

    policy: str
    number: int = 0
    began_s: float = 0.0
    """When the present round began."""
    resets: int = 0
    reset_s: float = 0.0
    """When shares were computed last."""
    known: Sequence[str] = field(default_factory=list)
    """The jobs they were computed for."""
    supply: Mapping[str, int] = field(default_factory=dict)
    shares: Times = field(default_factory=dict)
    received_s: Times = field(default_factory=dict)
    """What the jobs had received when shares were computed last."""
    deficits_s: Times = field(default_factory=dict)
    """What they should have received by their shares until then, less what they did."""
    places: Places = field(default_factory=dict)
    """Of the present round."""
    alone: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By job: seconds it would have spent so far on its own share of the cluster, what remained when shares were
    computed last, and the part of its work that its own share did in a second then."""

    def plain(self) -> dict[str, Any]:
        """As `Plan.memory`."""
        return asdict(self)

    def over(self, situation: Situation) -> bool:
        """Whether the next round begins now."""
        present = [view.id for view in situation.workloads]
        return round_over(situation.now_s - self.began_s, ROUND_S, self.places, present)

    def stale(self, table: Table, now_s: float) -> bool:
        """Whether shares are to be computed anew."""
        changed = set(self.known) != set(table.ids) or self.supply != dict(zip(table.types, table.supply, strict=True))
        idle = not set(table.ids).intersection(self.places)
        # The first shares are made when hardly anything has arrived: the next may follow at once.
        return changed and (idle or self.resets <= 1 or now_s - self.reset_s >= RESET_S)


def restored(memory: Mapping[str, Any], policy: str) -> Rounds | None:
    """What the same policy kept, or None."""
    return Rounds(**memory) if memory.get("policy") == policy else None


def deficits(last: Rounds, table: Table, now_s: float) -> Times:
    """By how much each job has fallen behind its shares until now."""
    found: Times = {}
    for view in table.views:
        before, had = last.deficits_s.get(view.id, {}), last.received_s.get(view.id, {})
        shares = last.shares.get(view.id)
        found[view.id] = {}
        for name in table.types:
            due_s = 0.0 if shares is None else shares.get(name, 0.0) * (now_s - last.reset_s)
            got_s = 0.0 if shares is None else view.received_s.get(name, 0.0) - had.get(name, 0.0)
            found[view.id][name] = before.get(name, 0.0) + due_s - got_s
    return found


def choose(state: Rounds, table: Table, order: Sequence[str], *, only_with_share: bool) -> dict[str, Estimate]:
    """The jobs of the next round with their configurations: type by type, who has received the least of his share
    first, whole gangs only. Jobs that came after the shares were computed wait for the next ones."""
    chosen: dict[str, Estimate] = {}
    rows = [(index, view) for index, view in enumerate(table.views) if view.id in state.shares]
    for name in order:
        column, left = table.types.index(name), table.supply[table.types.index(name)]
        for index, view in sorted(rows, key=lambda row: _turn(state, row, name)):
            cell = table.cells[index][column]
            if cell is None or view.id in chosen or cell.configuration.devices > left:
                continue
            if only_with_share and state.shares[view.id].get(name, 0.0) <= 0:
                continue
            chosen[view.id] = cell
            left -= cell.configuration.devices
    return chosen


def _turn(state: Rounds, row: tuple[int, WorkloadView], name: str) -> tuple[float, float, float, int]:
    index, view = row
    share = state.shares[view.id].get(name, 0.0)
    had_s = state.received_s.get(view.id, {}).get(name, 0.0)
    received_s = max(0.0, view.received_s.get(name, 0.0) - had_s) + ROUND_S / 2
    return -share / received_s, -state.deficits_s.get(view.id, {}).get(name, 0.0), -share, index


def fastest_first(table: Table, jobs: Jobs) -> tuple[str, ...]:
    """Device types in the order they are filled: where jobs are fastest, relative to their own best, first."""
    relative = jobs.speeds / jobs.speeds.max(axis=1, keepdims=True)
    means = relative.mean(axis=0)
    return tuple(sorted(table.types, key=lambda name: (-means[table.types.index(name)], name)))


def shuffled(table: Table, seed: int, number: int) -> tuple[str, ...]:
    """Device types in an order that differs from round to round."""
    mixed = np.random.default_rng([abs(seed), number]).permutation(len(table.types))
    return tuple(table.types[int(column)] for column in mixed)


def as_alone(table: Table, jobs: Jobs) -> dict[str, list[float]]:
    """See `Rounds.alone`."""
    speeds = (jobs.speeds * isolated(jobs)).sum(axis=1)
    rows = np.stack([jobs.done_alone_s, jobs.remaining, speeds], axis=1).tolist()
    return dict(zip(table.ids, rows, strict=True))


def _done_alone_s(view: WorkloadView, last: Rounds | None) -> float:
    if last is None or view.id not in last.alone:
        return 0.0
    spent_s, remaining, speed = last.alone[view.id]
    return spent_s + max(0.0, remaining - view.remaining) / speed


def as_times(table: Table, shares: Matrix) -> Times:
    """Shares of time by job and type."""
    return {
        view.id: {name: float(shares[i, j]) for j, name in enumerate(table.types) if table.cells[i][j] is not None}
        for i, view in enumerate(table.views)
    }


def _speeds(row: Sequence[Estimate | None]) -> list[float]:
    """Share of the work done in a second on each type. A speed that is not known counts as the fastest that is, so
    that it is tried; where none is known, all are alike."""
    known = [1.0 / max(e.seconds - e.startup_s, 1e-6) if e is not None and e.seconds is not None else None for e in row]
    hopeful = max((speed for speed in known if speed is not None), default=1.0 / 3600)
    return [0.0 if e is None else hopeful if speed is None else speed for e, speed in zip(row, known, strict=True)]
