"""What is known of many workloads and their configurations, as arrays: what bids are computed with. Pure.

A *row* is one configuration of one workload; the rows of a workload follow each other, in the order of its estimates.
Tables of estimates hardly change from cycle to cycle, so what was read of one is kept (`Tables`); all that time changes
is read anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Configuration, Estimate, Money, WorkloadView
from .candidates import Supply

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]

NONE = -1
"""Instead of a number, where there is none."""
LEAST_S = 1.0
"""What has less to do than this is taken to have this."""
LOST_TIMES = 2.0
"""Nobody knows when something ends that takes so many times as long as was thought likely, whatever it reports."""
_CONFIGURATIONS_KEPT = 20_000
_TABLES_KEPT = 1000
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

    def numbers(self, estimates: Sequence[Estimate]) -> Ints:
        """Those of many."""
        wanted = [each.configuration for each in estimates]
        found = list(map(self._by_object.get, map(id, wanted)))
        if None in found:
            found = [self.number(each) for each in wanted]
        return np.array(found, dtype=np.int64)

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


class Tables:
    """Tables of estimates that were read: each has a number and its rows. Known by the tuple of estimates that it was
    read from, which most workloads keep from cycle to cycle."""

    def __init__(self) -> None:
        self.configurations = Configurations()
        self.generation = 0
        """Another one, once tables have other numbers than before."""
        self._forget()

    def _forget(self) -> None:
        self.generation += 1
        self._seen: Sequence[WorkloadView] = ()
        self._columns: dict[str, Any] = {}
        self._numbers: dict[int, int] = {}
        self._estimates: list[Sequence[Estimate]] = []
        self._begin: Ints = np.zeros(1, dtype=np.int64)
        # With space for more: what was given out of them before is never written again.
        self._place: Ints = np.zeros(0, dtype=np.int64)
        self._values: Floats = np.zeros((len(_VALUES), 0))

    def columns(self, views: Sequence[WorkloadView]) -> dict[str, Any]:
        """What is read of each workload, by name, the numbers of its table and of the configuration that it holds
        among it. Of the very same object, what was read before."""
        if self.configurations.full:
            self.configurations = Configurations()
            self._forget()
        if len(self._estimates) > 2 * len(views) + _TABLES_KEPT:
            self._forget()
        ids = np.fromiter(map(id, views), dtype=np.int64, count=len(views))
        was = self._place_of(ids)
        same, new = np.flatnonzero(was != NONE), np.flatnonzero(was == NONE)
        found = self._columns_of([views[n] for n in new.tolist()])
        for name, values in found.items() if len(same) else ():
            column = np.empty(len(views), dtype=values.dtype)
            column[same], column[new] = self._columns[name][was[same]], values
            found[name] = column
        self._seen, self._columns = views, {**found, "id of the object": ids}
        return found

    def _place_of(self, ids: Ints) -> Ints:
        """Of each of these objects, its place among those that were read before, or `NONE`."""
        if not len(self._seen):
            return np.full(len(ids), NONE, dtype=np.int64)
        before = self._columns["id of the object"]
        order = np.argsort(before, kind="stable")
        at = order[np.minimum(np.searchsorted(before[order], ids), len(before) - 1)]
        return np.where(before[at] == ids, at, NONE)

    def _columns_of(self, views: Sequence[WorkloadView]) -> dict[str, Any]:
        read = (
            dict(zip(_READ, zip(*map(_read, views), strict=True), strict=True)) if views else dict.fromkeys(_READ, ())
        )
        number = self.configurations.number
        held = [NONE if each is None else number(each.configuration) for each in read["placement"]]
        return {
            **{name: np.array(read[name], dtype=float) for name in _NUMBERS},
            **{name: np.array(read[name], dtype=bool) for name in _FLAGS},
            **{name: np.array(read[name], dtype=object) for name in _TEXTS},
            "priority": np.array(read["priority"], dtype=np.int64),
            "held": np.array(held, dtype=np.int64),
            "table": self._tables_of(views),
        }

    def _tables_of(self, views: Sequence[WorkloadView]) -> Ints:
        ids = [id(view.estimates) for view in views]
        new = {key: view.estimates for key, view in zip(ids, views, strict=True) if key not in self._numbers}
        if new:
            self._read(list(new.values()))
        return np.fromiter(map(self._numbers.__getitem__, ids), dtype=np.int64, count=len(ids))

    def rows(self, numbers: Ints) -> tuple[Ints, Ints, Floats]:
        """The rows of these tables, one table after the other: how many each has; their configurations; their values as
        `_VALUES` has them."""
        first, counts = self._begin[numbers], np.diff(self._begin)[numbers]
        if (numbers == np.arange(len(numbers))).all():
            end = int(self._begin[len(numbers)])
            return counts, self._place[:end], self._values[:, :end]
        rows = ranges(first, counts)
        return counts, self._place[rows], self._values[:, rows]

    def _read(self, new: Sequence[Sequence[Estimate]]) -> None:
        flat = list(chain.from_iterable(new))
        begin, end = int(self._begin[-1]), int(self._begin[-1]) + len(flat)
        if end > len(self._place):
            place, stored = np.empty(end + end // 4, dtype=np.int64), np.empty((len(_VALUES), end + end // 4))
            place[:begin], stored[:, :begin] = self._place[:begin], self._values[:, :begin]
            self._place, self._values = place, stored
        values = self._values[:, begin:end]
        for column, name in ((0, "seconds"), (1, "startup_s"), (2, "high_s"), (5, "price_usd_h")):
            values[column] = _numbers(name, flat)
        money = [each.money or _UNKNOWN for each in flat]
        values[4] = _numbers("compute_usd", money)
        values[3] = values[4] + (_numbers("storage_usd", money) + _numbers("communication_usd", money))
        values[6] = [each.infeasible is not None for each in flat]
        self._place[begin:end] = self.configurations.numbers(flat)
        self._begin = np.append(self._begin, begin + np.cumsum([len(each) for each in new], dtype=np.int64))
        for estimates in new:
            self._numbers[id(estimates)] = len(self._estimates)
            self._estimates.append(estimates)  # so that its id stays its own


_TIMES = ("held_s", "unsaved_s", "waited_s", "deadline_s", "not_before_s", "queued_s", "submitted_s")
_NUMBERS = ("remaining", "budget_usd", *_TIMES)
_FLAGS = ("stopping", "one_node", "resumes", "interrupted")
_TEXTS = ("id", "objective", "queue")
_READ = (*_NUMBERS, *_FLAGS, *_TEXTS, "priority", "placement")
_read = attrgetter(*_READ)
_VALUES = ("seconds", "startup_s", "high_s", "usd", "compute_usd", "price_usd_h", "infeasible")


def _numbers(name: str, those: Sequence[object]) -> Floats:
    """What each of these has by this name, as an array; nan for None."""
    read = attrgetter(name)
    try:
        return np.fromiter(map(read, those), dtype=float, count=len(those))
    except TypeError:
        return np.array(list(map(read, those)), dtype=float)


def ranges(first: Ints, counts: Ints) -> Ints:
    """So many numbers from each of these on, one range after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(first - before, counts) + np.arange(int(counts.sum()))


@dataclass(frozen=True)
class Board:
    """Workloads and their rows as arrays. Of workloads where not said otherwise."""

    views: Sequence[WorkloadView]
    id: Texts
    objective: Texts
    queue: Texts
    priority: Ints
    configurations: Configurations
    table: Ints
    """Number of its table of estimates, ..."""
    generation: int
    """... as long as this is the same."""
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
    interrupted: Flags
    remaining: Floats
    held_s: Floats
    unsaved_s: Floats
    waited_s: Floats
    """In all, the present wait included."""
    budget_usd: Floats
    """nan: none, as of the deadline."""
    deadline_s: Floats
    not_before_s: Floats

    @classmethod
    def of(cls, workloads: Sequence[WorkloadView], tables: Tables, now_s: float) -> Board:
        """The workloads in the order in which they came."""
        columns = tables.columns(workloads)
        order = _as_they_came(columns)
        columns = {name: values[order] for name, values in columns.items()}
        counts, place, values = tables.rows(columns["table"])
        queued_s, waited_s = columns.pop("queued_s"), columns.pop("waited_s")
        del columns["submitted_s"]
        rows = dict(zip(_VALUES[:-1], values, strict=False))
        return cls(
            views=[workloads[n] for n in order.tolist()],
            configurations=tables.configurations,
            generation=tables.generation,
            start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            owner=np.repeat(np.arange(len(workloads)), counts),
            place=place,
            infeasible=values[-1] > 0,
            waited_s=np.where(columns["held"] != NONE, waited_s, np.maximum(waited_s, now_s - queued_s)),
            **rows,
            **columns,
        )

    def part(self, those: Ints) -> Board:
        """Some of the workloads, with their rows."""
        rows, owner = self.rows_of(those)
        by_row, other = ("place", *_VALUES), ("views", "configurations", "generation", "start", "owner")
        by_workload = [each.name for each in fields(self) if each.name not in (*by_row, *other)]
        return replace(
            self,
            views=[self.views[n] for n in those.tolist()],
            start=np.concatenate([[0], np.cumsum(np.diff(self.start)[those])]).astype(np.int64),
            owner=owner,
            **{name: getattr(self, name)[rows] for name in by_row},
            **{name: getattr(self, name)[those] for name in by_workload},
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
        return ranges(first, counts), np.repeat(np.arange(len(those)), counts)

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
        return np.select([self.infeasible & ~holds, too_many, over], [INFEASIBLE, COUNT, BUDGET], OK).astype(np.int8)


def _as_they_came(columns: Mapping[str, Any]) -> Ints:
    """Places in the order of submission, of what came at once in that of readiness, then by id."""
    submitted_s, queued_s = columns["submitted_s"], columns["queued_s"]
    order = np.lexsort((queued_s, submitted_s))
    equal = (np.diff(submitted_s[order]) == 0) & (np.diff(queued_s[order]) == 0)
    if not equal.any():
        return order
    keys = list(zip(submitted_s.tolist(), queued_s.tolist(), columns["id"].tolist(), strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
