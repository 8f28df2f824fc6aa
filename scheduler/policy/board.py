"""What is known of many workloads and their configurations, as arrays: what bids are computed with. Pure.

A *row* is one configuration of one workload; the rows of a workload follow each other, in the order of its estimates.
Tables of estimates hardly change from cycle to cycle, so what was read of one is kept (`Tables`); all that time changes
is read anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..types import Configuration, Estimate, Money, WorkloadView
from .candidates import Supply

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NONE = -1
"""Instead of a number, where there is none."""
LEAST_S = 1.0
"""What has less to do than this is taken to have this."""
LOST_TIMES = 2.0
"""Nobody knows when something ends that takes so many times as long as was thought likely, whatever it reports."""
_CONFIGURATIONS_KEPT = 20_000
_UNKNOWN = Money(math.nan)

OK, INFEASIBLE, COUNT, BUDGET, UNPRICED, DEADLINE, QUOTA = range(7)
"""Why a row may not be taken, or that it may."""


class Configurations:
    """Gives every configuration a number, and knows what it holds by device type."""

    def __init__(self) -> None:
        self.known: list[Configuration] = []
        self.types: list[str] = []
        self._numbers: dict[Configuration, int] = {}
        self._by_object: dict[int, int] = {}
        self._objects: list[Configuration] = []
        self._type_numbers: dict[str, int] = {}
        self._use = np.zeros((0, 0), dtype=np.int64)

    def number(self, configuration: Configuration) -> int:
        """Its number. The very same object, which most tables share, is found without a look at what it holds."""
        found = self._by_object.get(id(configuration))
        if found is None:
            found = self._numbers.get(configuration)
            if found is None:
                found = self._numbers[configuration] = len(self.known)
                self.known.append(configuration)
                for name, _ in configuration.groups:
                    if name not in self._type_numbers:
                        self._type_numbers[name] = len(self.types)
                        self.types.append(name)
            self._by_object[id(configuration)] = found
            self._objects.append(configuration)  # so that its id stays its own
        return found

    @property
    def full(self) -> bool:
        """Whether so many were seen that it is time to forget them."""
        return len(self._objects) > _CONFIGURATIONS_KEPT

    def type_number(self, name: str) -> int:
        """The column of a device type; `NONE` for one that no configuration has."""
        return self._type_numbers.get(name, NONE)

    @property
    def use(self) -> Ints:
        """Devices that each configuration holds: configurations x types."""
        if self._use.shape != (len(self.known), len(self.types)):
            self._use = np.zeros((len(self.known), len(self.types)), dtype=np.int64)
            for row, configuration in enumerate(self.known):
                for name, count in configuration.groups:
                    self._use[row, self._type_numbers[name]] = count
        return self._use

    def order(self, numbers: Ints) -> Ints:
        """Places of these configurations in their own order, the first 0."""
        rank = sorted(range(len(numbers)), key=lambda n: self.known[numbers[n]])
        found = np.empty(len(numbers), dtype=np.int64)
        found[rank] = np.arange(len(numbers))
        return found


@dataclass(frozen=True)
class Table:
    """One workload's estimates as arrays. What is not known is nan."""

    estimates: Sequence[Estimate]
    place: Ints
    """Number of each configuration."""
    values: Floats
    """By estimate: seconds, start-up, upper end of the interval, dollars, those of them for compute, dollars an hour,
    and whether it is infeasible."""


@dataclass
class Tables:
    """Tables that were read, by the tuple of estimates they were read from."""

    configurations: Configurations = field(default_factory=Configurations)
    _known: dict[int, Table] = field(default_factory=dict)

    def of(self, views: Iterable[WorkloadView]) -> list[Table]:
        """The tables of these workloads. Those of others are forgotten."""
        if self.configurations.full:
            self.configurations, self._known = Configurations(), {}
        known = self._known
        self._read([v.estimates for v in views if id(v.estimates) not in known])
        found = [known[id(view.estimates)] for view in views]
        self._known = {id(table.estimates): table for table in found}
        return found

    def _read(self, new: Sequence[Sequence[Estimate]]) -> None:
        number = self.configurations.number
        flat = [each for estimates in new for each in estimates]
        money = [each.money or _UNKNOWN for each in flat]
        place = np.array([number(each.configuration) for each in flat], dtype=np.int64)
        values = np.empty((len(flat), 7))
        values[:, 0] = np.array([each.seconds for each in flat], dtype=float)
        values[:, 1] = [each.startup_s for each in flat]
        values[:, 2] = np.array([each.high_s for each in flat], dtype=float)
        values[:, 4] = [each.compute_usd for each in money]
        values[:, 3] = values[:, 4] + [each.storage_usd + each.communication_usd for each in money]
        values[:, 5] = np.array([each.price_usd_h for each in flat], dtype=float)
        values[:, 6] = [each.infeasible is not None for each in flat]
        begin = 0
        for estimates in new:
            end = begin + len(estimates)
            self._known[id(estimates)] = Table(estimates, place[begin:end], values[begin:end])
            begin = end


@dataclass(frozen=True)
class Board:
    """Workloads and their rows as arrays. Of workloads where not said otherwise."""

    views: Sequence[WorkloadView]
    configurations: Configurations
    start: Ints
    """First row of each workload, and the number of rows."""
    owner: Ints
    """By row: the workload."""
    place: Ints
    """By row: number of the configuration."""
    seconds: Floats
    """By row, as the next five."""
    startup_s: Floats
    high_s: Floats
    usd: Floats
    compute_usd: Floats
    price_usd_h: Floats
    infeasible: Flags
    """By row."""
    held: Ints
    """Number of the configuration that it holds, or `NONE`."""
    stopping: Flags
    one_node: Flags
    resumes: Flags
    remaining: Floats
    held_s: Floats
    unsaved_s: Floats
    waited_s: Floats
    """In all, the present wait included."""
    budget_usd: Floats
    """nan: none, as of the deadline."""
    deadline_s: Floats

    @classmethod
    def of(cls, views: Sequence[WorkloadView], tables: Tables, now_s: float) -> Board:
        """The workloads in this order."""
        read = tables.of(views)
        start = np.concatenate([[0], np.cumsum([len(table.place) for table in read], dtype=np.int64)]).astype(np.int64)
        values = np.concatenate([table.values for table in read]) if read else np.zeros((0, 7))
        place = np.concatenate([table.place for table in read]) if read else np.zeros(0, dtype=np.int64)
        number = tables.configurations.number
        seconds, startup_s, high_s, usd, compute_usd, price_usd_h, infeasible = values.T
        remaining, held_s, unsaved_s, waited_s, budget_usd, deadline_s = _columns(views, now_s)
        held = [NONE if v.placement is None else number(v.placement.configuration) for v in views]
        return cls(
            views=views,
            configurations=tables.configurations,
            start=start,
            owner=np.repeat(np.arange(len(read)), np.diff(start)),
            place=place,
            seconds=seconds,
            startup_s=startup_s,
            high_s=high_s,
            usd=usd,
            compute_usd=compute_usd,
            price_usd_h=price_usd_h,
            infeasible=infeasible > 0,
            held=np.array(held, dtype=np.int64),
            stopping=np.array([v.stopping for v in views], dtype=bool),
            one_node=np.array([v.one_node for v in views], dtype=bool),
            resumes=np.array([v.resumes for v in views], dtype=bool),
            remaining=remaining,
            held_s=held_s,
            unsaved_s=unsaved_s,
            waited_s=waited_s,
            budget_usd=budget_usd,
            deadline_s=deadline_s,
        )

    @property
    def running(self) -> Ints:
        """Number of the configuration that it runs on and could go on with, or `NONE`."""
        return np.where(self.stopping, NONE, self.held)

    @property
    def here(self) -> Flags:
        """By row: whether the workload runs on just this."""
        return np.asarray(self.place == self.running[self.owner])

    def rows(self, index: int) -> range:
        """The rows of a workload."""
        return range(int(self.start[index]), int(self.start[index + 1]))

    def rows_of(self, those: Ints) -> tuple[Ints, Ints]:
        """The rows of several workloads, one workload after the other, and of each row its place in `those`."""
        first = self.start[those]
        counts = self.start[those + 1] - first
        before = np.cumsum(counts) - counts
        return np.repeat(first - before, counts) + np.arange(int(counts.sum())), np.repeat(np.arange(len(those)), counts)

    def configuration(self, row: int) -> Configuration:
        """Of a row."""
        return self.configurations.known[int(self.place[row])]

    def estimate(self, row: int) -> Estimate:
        """What a row was read from."""
        index = int(self.owner[row])
        return self.views[index].estimates[row - int(self.start[index])]

    def first_row(self, which: Flags) -> Ints:
        """By workload: its first row for which this is so, or `NONE`."""
        found = np.full(len(self.views), NONE, dtype=np.int64)
        rows = np.flatnonzero(which)[::-1]
        found[self.owner[rows]] = rows
        return found

    def any(self, which: Flags) -> Flags:
        """By workload: whether it is so for any of its rows."""
        return np.asarray(np.bincount(self.owner[which], minlength=len(self.views)) > 0)

    def least(self, values: Floats) -> Floats:
        """By workload: the least of its rows, nan left out; inf where there is none."""
        found = np.full(len(self.views), np.inf)
        np.fmin.at(found, self.owner, values)
        return found

    def left_s(self) -> Floats:
        """By row: seconds to the end of what is left, as `bidding.left_s`; nan: not known."""
        owner = self.owner
        work_s = np.maximum(self.seconds - self.startup_s, 0.0) * self.remaining[owner]
        found = np.maximum(LEAST_S, work_s + self.startup_s)
        here = np.flatnonzero(self.here)
        held_s, seconds, starts_s = self.held_s[owner[here]], self.seconds[here], self.startup_s[here]
        high_s = self.high_s[here]
        likely_s = np.where(np.isnan(high_s) | (high_s == 0), 2 * seconds, high_s)
        goes_on_s = np.maximum(LEAST_S, work_s[here] + np.maximum(0.0, starts_s - held_s))
        by_clock_s = np.where(held_s > likely_s, np.nan, np.maximum(LEAST_S, seconds - held_s))
        reports = (self.remaining[owner[here]] < 1.0) & (held_s <= LOST_TIMES * likely_s)
        found[here] = np.where(np.isnan(seconds), np.nan, np.where(reports, goes_on_s, by_clock_s))
        return found

    def hard_objections(self, supply: Supply) -> Ints:
        """By row: why it can never be taken here, as `Supply.objection`."""
        types = self.configurations.types
        total = np.array([supply.total[name] for name in types], dtype=np.int64)
        largest = np.array([supply.largest[name] for name in types], dtype=np.int64)
        use = self.configurations.use
        whole, alone = np.asarray((use > total).any(axis=1)), np.asarray((use > largest).any(axis=1))
        too_many = np.where(self.one_node[self.owner], alone[self.place], whole[self.place])
        holds = self.place == self.held[self.owner]
        work_s = np.maximum(self.seconds - self.startup_s, 0.0) * self.remaining[self.owner]
        rest_usd = self.usd - self.compute_usd
        usd = rest_usd + self.compute_usd * (self.startup_s + work_s) / np.maximum(self.seconds, 1e-9)
        over = ~holds & (usd > self.budget_usd[self.owner])
        return np.select([self.infeasible & ~holds, too_many, over], [INFEASIBLE, COUNT, BUDGET], OK)


def _columns(views: Sequence[WorkloadView], now_s: float) -> tuple[Floats, ...]:
    rows = [
        (
            v.remaining,
            v.held_s,
            v.unsaved_s,
            v.waited_s if v.placement is not None else max(v.waited_s, now_s - v.queued_s),
            math.nan if v.budget_usd is None else v.budget_usd,
            math.nan if v.deadline_s is None else v.deadline_s,
        )
        for v in views
    ]
    return tuple(np.array(rows, dtype=float).reshape(len(rows), 6).T)
