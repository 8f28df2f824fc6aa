"""What a workload offers for each configuration it may take. Pure.

`money(c)` of the design says which configuration is best for a workload alone: dollars, and the time until it is done
at what its time is worth. Who goes first among several is another question, since summed money is ruled by the longest.
A device is worth the most to who has the least left to do on it, so a workload bids what its time is worth for each
hour that its best configuration would take to the end, and for every other as much less as that is dearer:

    bid(c) = value of time / seconds(best) x money(best) / money(c)

On devices of one type the largest sum of bids is shortest remaining time first; over several, each goes where its money
is least. Moving is charged with what the restart loses, by how long a placement is likely to last.

All bids are computed at once (`Bids`, over a `Board`); a `Bidder` shows those of one workload as offers, with the
reasons for what it may not take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..types import Configuration, Estimate, Money, Option, Reason, WorkloadView
from .board import DEADLINE, LEAST_S, LOST_TIMES, NONE, OK, QUOTA, UNPRICED, Board, Flags, Floats, Ints
from .candidates import Supply
from .prices import value_of_time_usd_h
from .quotas import Quotas

OVERDUE_S = 48 * 3600.0
"""What has waited this long in all goes before everything else, first come, first served."""
SOONER_TIMES = 10.0
"""A short workload is overdue sooner: after so many of its own run times, ..."""
SOONEST_S = 1800.0
"""... though not before this."""
OVERDUE_TIMES = 3.0
"""A very long one is overdue later: after so many of its own run times."""
UNKNOWN_S = 3600.0
"""What nothing is known of is taken to have this much left, or as much again as it has taken."""
STAYS = 1.02
"""What runs is worth this much more where it is, restarts not counted: nothing moves for nothing."""
LATE_USD_H = value_of_time_usd_h("time")
"""What the time of a workload is worth that cannot meet its deadline any more, or has nothing priced to run on."""
URGENT = 20.0
"""What has little time to lose before its deadline bids so many times as much."""
URGENT_S = 600.0
"""Time to spare, beside half of a workload's whole run time, below which a deadline makes it urgent."""
SETTLING_S = 30.0
"""What has started is left alone for its start-up and this long."""
BACKFILLS = 3.0
"""What can be stopped goes ahead on kept devices only if it has so many times its start-up there."""


@dataclass(frozen=True)
class Offer:
    """One configuration that a workload may take."""

    row: int
    """Of the board."""
    view: WorkloadView
    listed: Estimate
    """For the whole work."""
    configuration: Configuration
    left_s: float | None
    """Until it is done, started now; None: not known."""
    seconds: float
    """The same; assumed where it is not known."""
    money_usd: float
    """Dollars and the value of that time."""
    bid: float

    @cached_property
    def estimate(self) -> Estimate:
        """For what is left of the work."""
        return _left(self.view, self.listed)


class Bids:
    """What all workloads of a board bid, and why they do not bid for the rest of their rows."""

    def __init__(self, board: Board, supply: Supply, now_s: float, stay_s: float, quotas: Quotas) -> None:
        """`stay_s` is how long a placement is likely to last."""
        self.board, self.supply, self.now_s, self.quotas = board, supply, now_s, quotas
        owner = board.owner
        self._left_s = board.left_s()
        objectives = board.objective.tolist()
        values = {name: value_of_time_usd_h(name) for name in set(objectives)}
        worth = np.array([values[name] for name in objectives], dtype=float)
        self.code = board.hard_objections(supply)
        self._limit()
        in_time = (self.code == OK) & ~(now_s + self._left_s > board.deadline_s[owner])
        self.misses: Flags = ~np.isnan(board.deadline_s) & ~board.any(in_time)
        """By workload: nothing that it may take is done in time. Then it is missed by as little as can be."""
        self.time_usd_h: Floats = np.where(self.misses, LATE_USD_H, worth)
        """By workload: what its time is worth."""
        self._object()
        self.free = self._unpriced()
        self.price_usd_h: Floats = np.where(self.free | np.isnan(board.price_usd_h), 0.0, board.price_usd_h)
        """By row: dollars an hour; 0 where there is no price."""
        self.usable: Flags = self.code == OK
        """By row: whether it may be taken."""
        self.seconds, self.money_usd = self._money()
        self.cheapest: Ints = self._cheapest()
        """By workload: the row of least money, `NONE` where it can take none."""
        self.here: Ints = board.first_row(board.here & self.usable)
        """By workload: the row that it runs on and could go on with, or `NONE`."""
        self._stay_s = stay_s
        self.bid: Floats = self._bid(worth) * self.stays
        fastest_s = board.least(np.where(self.usable, self.seconds, np.nan))
        self.overdue_s = np.maximum(np.clip(SOONER_TIMES * fastest_s, SOONEST_S, OVERDUE_S), OVERDUE_TIMES * fastest_s)
        """By workload: how long it waits at most until it goes before the others of its priority."""

    @classmethod
    def joined(
        cls,
        board: Board,
        supply: Supply,
        now_s: float,
        stay_s: float,
        quotas: Quotas,
        parts: Sequence[tuple[Bids, Ints, Ints]],
    ) -> Bids:
        """Those of a board whose workloads are all known, each with the same rows: bids, workloads of their board, and
        their places on this one."""
        found = cls.__new__(cls)
        found.board, found.supply, found.now_s, found.quotas = board, supply, now_s, quotas
        pairs = [(bids, bids.board.rows_of(there)[0], board.rows_of(here)[0]) for bids, there, here in parts]
        found._stay_s = stay_s
        for name in ("_left_s", "code", "free", "price_usd_h", "seconds", "money_usd", "bid"):
            values = np.empty(len(board.owner), dtype=getattr(parts[0][0], name).dtype)
            for bids, rows, place in pairs:
                values[place] = getattr(bids, name)[rows]
            setattr(found, name, values)
        found.usable = found.code == OK
        for name in ("misses", "time_usd_h", "cheapest", "here", "overdue_s"):
            values = np.empty(len(board.views), dtype=getattr(parts[0][0], name).dtype)
            for bids, there, here in parts:
                part = getattr(bids, name)[there]
                if name in ("cheapest", "here"):  # numbers of rows
                    part = np.where(part == NONE, NONE, part - bids.board.start[there] + board.start[here])
                values[here] = part
            setattr(found, name, values)
        return found

    @cached_property
    def late(self) -> Flags:
        """By workload: whether it goes before the others of its priority."""
        return np.asarray((self.cheapest != NONE) & (self.board.waited_s > self.overdue_s))

    @cached_property
    def overdue(self) -> Flags:
        """By workload: whether it goes before all others, of whatever priority: it has waited so long, or had its turn
        already."""
        return self.board.interrupted | (self.late & (self.board.waited_s > OVERDUE_S))

    def _limit(self) -> None:
        """What a queue may never hold."""
        board, known = self.board, self.board.configurations.known
        for queue in self.quotas.rules:
            mine = np.asarray(board.queue == queue, dtype=bool)
            never = np.array([self.quotas.never(queue, each) is not None for each in known], dtype=bool)
            self.code[mine[board.owner] & never[board.place] & (self.code == OK)] = QUOTA

    def _object(self) -> None:
        """Prices that are not known, and deadlines. What it runs on is within both."""
        board, open_ = self.board, (self.code == OK) & ~self.board.here
        self.code = np.where(open_ & np.isnan(board.price_usd_h), UNPRICED, self.code)
        done_s = self.now_s + self._left_s
        late = (board.deadline_s[board.owner] < done_s) & (done_s < math.inf) & ~self.misses[board.owner]
        self.code = np.where(open_ & (self.code == OK) & late, DEADLINE, self.code)

    def _unpriced(self) -> Flags:
        """By row: nothing priced is possible, so this, which has no price, may run for nothing."""
        nothing = ~self.board.any(self.code == OK)
        free = np.asarray(nothing[self.board.owner] & (self.code == UNPRICED))
        self.code = np.where(free, OK, self.code)
        return free

    def _money(self) -> tuple[Floats, Floats]:
        """By row: seconds to the end, assumed where they are not known, and dollars with the value of that time."""
        board, owner = self.board, self.board.owner
        fastest_s = board.least(np.where(self.usable, self._left_s, np.nan))
        fastest_s = np.where(np.isinf(fastest_s), np.maximum(UNKNOWN_S, board.held_s), fastest_s)
        seconds = np.where(np.isnan(self._left_s), fastest_s[owner], np.maximum(LEAST_S, self._left_s))
        usd = np.where(self.free, 0.0, board.usd)
        compute = np.where(self.free, 0.0, board.compute_usd)
        times = np.where(np.isnan(board.seconds), 1.0, seconds / np.maximum(board.seconds, 1e-9))
        dollars = np.where(np.isnan(usd), seconds / 3600 * self.price_usd_h, usd + compute * (times - 1.0))
        return seconds, dollars + seconds / 3600 * self.time_usd_h[owner]

    def _cheapest(self) -> Ints:
        board = self.board
        least = board.least(np.where(self.usable, self.money_usd, np.nan))
        rows = np.flatnonzero(self.usable & (self.money_usd == least[board.owner]))
        numbers, which = np.unique(board.place[rows], return_inverse=True)
        rank = board.configurations.order(numbers)[which]
        found = np.full(len(board.views), NONE, dtype=np.int64)
        rows = rows[np.argsort(-rank, kind="stable")]  # of equal ones the first configuration comes last, and stays
        found[board.owner[rows]] = rows
        return found

    @cached_property
    def stays(self) -> Floats:
        """By row: what is bid more for where it runs, and less for where it does not."""
        board = self.board
        lost = (board.startup_s + board.unsaved_s[board.owner]) / self._stay_s
        runs = board.running[board.owner] != NONE
        return np.where(runs, np.where(board.here, STAYS + lost, np.maximum(0.0, 1.0 - lost)), 1.0)

    def _bid(self, worth: Floats) -> Floats:
        board, rows = self.board, np.maximum(self.cheapest, 0)
        if not len(board.owner):
            return np.zeros(0)
        least_s, listed_s = self.seconds[rows], board.seconds[rows]
        weight = worth / value_of_time_usd_h("balanced")
        spare_s = board.deadline_s - self.now_s - least_s
        near_s = 0.5 * np.where(np.isnan(listed_s) | (listed_s == 0), least_s, listed_s) + URGENT_S
        # A step, of what is to spare against the whole run time: neither changes while it runs, so two that are urgent
        # do not take turns.
        weight = np.where((spare_s >= 0) & (spare_s < near_s), URGENT * weight, weight)
        best = weight * 3600.0 / least_s
        bid = best[board.owner] * self.money_usd[rows][board.owner] / self.money_usd
        return np.where(self.usable, bid, 0.0)

    def time_share(self) -> Floats:
        """By workload: what its time is worth of that and one device of its cheapest configuration together."""
        rows = np.maximum(self.cheapest, 0)
        devices = self.board.configurations.use[self.board.place[rows]].sum(axis=1)
        return np.asarray(self.time_usd_h / (self.time_usd_h + self.price_usd_h[rows] / np.maximum(devices, 1)))

    def left_of(self, row: int) -> float | None:
        """Seconds to the end there, started now; None: not known."""
        return None if math.isnan(self._left_s[row]) else float(self._left_s[row])

    def lefts_of(self, rows: Ints) -> Floats:
        """As `left_of`, of many; nan: not known."""
        return self._left_s[rows]

    def likely_s(self, row: int) -> float | None:
        """Seconds after which it has most likely ended there; None: not known."""
        seconds, high_s, left_s = (float(each[row]) for each in (self.board.seconds, self.board.high_s, self._left_s))
        listed = high_s if high_s > 0 else seconds
        if math.isnan(listed):
            return None
        return listed if math.isnan(left_s) or math.isnan(seconds) else listed * left_s / max(seconds, 1e-9)

    def least_usd(self, now: Ints, later: Ints, wait_s: Floats) -> Floats:
        """Money of starting in the rows `now`: to the end or, for what can be moved, until the better `later` is free
        in so many seconds. Arrays of one length."""
        board, owner = self.board, self.board.owner[now]
        starts_s, seconds, now_usd = board.startup_s[now], self.seconds[now], self.money_usd[now]
        price, an_hour = self.price_usd_h, self.time_usd_h[owner]
        meanwhile = wait_s / 3600 * (an_hour + price[now])
        rest = (1.0 - (wait_s - starts_s) / seconds) * self.money_usd[later]
        moved_usd = meanwhile + rest + board.startup_s[later] / 3600 * (an_hour + price[later])
        moves = board.resumes[owner] & (BACKFILLS * (starts_s + SETTLING_S) < wait_s) & (wait_s < seconds)
        return np.where(moves, np.minimum(now_usd, moved_usd), now_usd)

    def cheaper(self, index: int, row: int) -> list[int]:
        """Rows of a workload that are less money than this one."""
        rows = self.board.rows(index)
        if row == self.cheapest[index]:
            return []
        part = slice(rows.start, rows.stop)
        found = np.flatnonzero(self.usable[part] & (self.money_usd[part] < self.money_usd[row]))
        return (rows.start + found).tolist()

    def offer(self, row: int) -> Offer:
        """One usable row, to be spoken of."""
        board, view = self.board, self.board.views[self.board.owner[row]]
        listed = board.estimate(row)
        if self.free[row]:
            listed = replace(listed, money=Money(0.0), price_usd_h=0.0)
        numbers = float(self.seconds[row]), float(self.money_usd[row]), float(self.bid[row])
        return Offer(row, view, listed, listed.configuration, self.left_of(row), *numbers)

    def offers(self, index: int) -> tuple[Offer, ...]:
        """What one workload may take."""
        return tuple(self.offer(row) for row in self.board.rows(index) if self.usable[row])

    def refused(self, index: int) -> tuple[Option, ...]:
        """What it may not take, and why."""
        view, board = self.board.views[index], self.board
        running = None if view.placement is None or view.stopping else view.placement.configuration
        now_s = math.inf if self.misses[index] else self.now_s
        found = []
        for row in board.rows(index):
            if not self.usable[row]:
                listed = board.estimate(row)
                reason = self.supply.objection(view, listed) or self.quotas.never(view.queue, listed.configuration)
                reason = reason or _objection(view, listed, now_s, running)
                assert reason is not None, f"{view.id} {listed.configuration}: refused for nothing"
                found.append(Option(_left(view, listed), reason=reason))
        return tuple(found)


class Bidder:
    """A workload with all that it may take."""

    def __init__(self, bids: Bids, index: int) -> None:
        self.bids, self.index = bids, index
        self.view = bids.board.views[index]

    @cached_property
    def offers(self) -> tuple[Offer, ...]:
        """What it may take."""
        return self.bids.offers(self.index)

    @cached_property
    def refused(self) -> tuple[Option, ...]:
        """What it may not take, and why."""
        return self.bids.refused(self.index)

    @property
    def time_usd_h(self) -> float:
        """What its time is worth."""
        return float(self.bids.time_usd_h[self.index])

    @property
    def running(self) -> Configuration | None:
        """What it runs on and could go on with."""
        view = self.view
        return None if view.placement is None or view.stopping else view.placement.configuration

    def offer(self, configuration: Configuration | None) -> Offer | None:
        """Its offer for this configuration."""
        return next((each for each in self.offers if each.configuration == configuration), None)

    @property
    def rows(self) -> list[int]:
        """Those of its rows that it may take."""
        return [row for row in self.bids.board.rows(self.index) if self.bids.usable[row]]

    @property
    def here(self) -> int | None:
        """The row that it runs on and could go on with."""
        row = int(self.bids.here[self.index])
        return None if row == NONE else row

    def of(self, row: int) -> Offer:
        """Its offer of this row."""
        return self.bids.offer(row)

    @property
    def overdue(self) -> bool:
        """Whether it goes before all others, of whatever priority."""
        return bool(self.bids.overdue[self.index])

    @property
    def late(self) -> bool:
        """Whether it goes before the others of its priority."""
        return bool(self.bids.late[self.index])

    @property
    def cheapest_usd(self) -> float:
        """The least money of its offers."""
        return float(self.bids.money_usd[self.bids.cheapest[self.index]])


class Bidders(Mapping[int, Bidder]):
    """Those that take part, by workload. Of most in a crowd nobody asks."""

    def __init__(self, bids: Bids | None = None, taking_part: Ints | None = None) -> None:
        self._bids = bids
        self._made: dict[int, Bidder | None] = {} if taking_part is None else dict.fromkeys(taking_part.tolist())

    def __getitem__(self, index: int) -> Bidder:
        found = self._made[index]
        if found is None:
            assert self._bids is not None
            found = self._made[index] = Bidder(self._bids, index)
        return found

    def __contains__(self, index: object) -> bool:
        return index in self._made

    def __iter__(self) -> Iterator[int]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def overdue_s(seconds: float) -> float:
    """How long a workload of so many seconds waits at most until it goes before the others of its priority."""
    return max(min(OVERDUE_S, max(SOONEST_S, SOONER_TIMES * seconds)), OVERDUE_TIMES * seconds)


def left_s(view: WorkloadView, estimate: Estimate) -> float | None:
    """Seconds to the end of what is left: start-up counts unless it runs on just this already. None: not known.

    What reports no progress is judged by the clock; once it has outlasted all that was thought likely, nobody knows."""
    if estimate.seconds is None:
        return None
    work_s = max(estimate.seconds - estimate.startup_s, 0.0) * view.remaining
    if view.placement is None or view.stopping or view.placement.configuration != estimate.configuration:
        return max(LEAST_S, work_s + estimate.startup_s)
    likely_s = estimate.high_s or 2 * estimate.seconds
    if view.remaining < 1.0 and view.held_s <= LOST_TIMES * likely_s:
        return max(LEAST_S, work_s + max(0.0, estimate.startup_s - view.held_s))
    if view.held_s > likely_s:
        return None
    return max(LEAST_S, estimate.seconds - view.held_s)


def _left(view: WorkloadView, estimate: Estimate) -> Estimate:
    """The estimate for what is left of the work."""
    seconds = estimate.seconds if view.remaining >= 1.0 and view.placement is None else left_s(view, estimate)
    if seconds is None or seconds == estimate.seconds or estimate.seconds is None:
        return estimate
    money = estimate.money
    if money is not None:
        money = replace(money, compute_usd=money.compute_usd * seconds / max(estimate.seconds, 1e-9))
    high_s = None if estimate.high_s is None else estimate.high_s * seconds / max(estimate.seconds, 1e-9)
    return replace(estimate, seconds=seconds, high_s=high_s, money=money)


def _objection(view: WorkloadView, estimate: Estimate, now_s: float, running: Configuration | None) -> Reason | None:
    """`now_s` of infinity: deadlines do not count any more."""
    if estimate.configuration == running:
        return None
    if estimate.price_usd_h is None:
        return Reason("unpriced", "no price is known for it")
    seconds = left_s(view, estimate)
    if seconds is not None and view.deadline_s is not None and view.deadline_s < now_s + seconds < math.inf:
        return Reason("deadline", f"would be done {now_s + seconds - view.deadline_s:.0f} s after the deadline")
    return None
