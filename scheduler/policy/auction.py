"""Who wins what: the largest sum of bids that the devices allow, and the prices that come of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..types import Configuration
from .allocation import WAIT, solve
from .bidding import Bidder, Bids
from .board import NONE, Configurations, Flags, Floats, Ints
from .horizon import CELLS, weights_s
from .quotas import milli_usd_h
from .timeline import Remains

LAST = 1.0
"""What it is worth to be done with everything sooner: as much as all that is bid for the devices, ..."""
LAST_QUIET = 60.0
"""... and so many times more when nothing new has come for long, by the square of that time ..."""
QUIET = 0.5
"""... up to this share of how long all takes that is there."""
FEW, CROWD = 4, 32
"""Of so few the end is nobody's concern but their own; of so many it counts in full, and in between in part."""
FORESEEN = 5
"""Turns in which those that wait find out about each other."""
ASKED = 1000
"""Of many times more that wait, about so many speak for those beside them."""


@dataclass(frozen=True)
class Lots:
    """What is auctioned: the rows of those that take part, as a matrix."""

    bids: Bids
    level: Ints
    """Workloads of the board that take part."""
    rows: Ints
    """Their usable rows, ..."""
    member: Ints
    """... whose each is (its place in `level`), ..."""
    column: Ints
    """... and of which configuration."""
    use: Ints
    """Configurations x types."""
    types: list[str]
    """Device types; after them what bounds a queue, as if it were a type (`queue: T4`, `queue: $`)."""
    devices: Ints
    """Of each configuration, in all."""
    supply: Ints
    """Devices of each type."""
    device_types: int
    """So many of `types` are types of devices."""

    @classmethod
    def of(cls, bids: Bids, level: Ints, there: Mapping[str, int]) -> Lots:
        """`there` has the devices of each type."""
        board = bids.board
        place = np.full(len(board.views), NONE, dtype=np.int64)
        place[level] = np.arange(len(level))
        rows = np.flatnonzero((place[board.owner] != NONE) & bids.usable)
        types = sorted(there)
        bounds = (
            bids.quotas.bounds([board.queue[index] for index in level.tolist()], types) if bids.quotas.rules else []
        )
        bounded = sorted({queue for queue, *_ in bounds})
        group = np.zeros(len(board.views), dtype=np.int64)
        for index in level.tolist() if bounded else ():
            queue = board.queue[index]
            group[index] = 1 + bounded.index(queue) if queue in bounded else 0
        # A queue that is bounded has configurations of its own, which hold of what bounds it besides.
        known = len(board.configurations.known)
        key = group[board.owner[rows]] * known + board.place[rows] if bounded else board.place[rows]
        present = np.bincount(key, minlength=known * (1 + len(bounded))) > 0
        keys = np.flatnonzero(present)
        keys = keys[np.lexsort((board.configurations.order(keys % known), keys // known))] if len(keys) else keys
        at = np.zeros(len(present), dtype=np.int64)
        at[keys] = np.arange(len(keys))
        column = at[key]
        numbers = [board.configurations.type_number(name) for name in types]
        use = (
            board.configurations.use[keys % known][:, numbers] if numbers else np.zeros((len(keys), 0), dtype=np.int64)
        )
        held = [use]
        for queue, name, _ in bounds:
            mine = keys // known == 1 + bounded.index(queue)
            counts = milli_usd_h(use, types, bids.quotas.price_usd_h) if name == "$" else use[:, types.index(name)]
            held.append(np.where(mine, counts, 0)[:, None])
        return cls(
            bids=bids,
            level=level,
            rows=rows,
            member=place[board.owner[rows]],
            column=column,
            use=np.hstack(held),
            device_types=len(types),
            types=[*types, *(f"{queue}: {name}" for queue, name, _ in bounds)],
            devices=use.sum(axis=1),
            supply=np.array(
                [*(there[name] for name in types), *(int(most + 1e-6) for *_, most in bounds)], dtype=np.int64
            ),
        )

    def columns_of(self, rows: Ints) -> Ints:
        """Of which configuration some of `rows` are, which are in ascending order."""
        return self.column[np.searchsorted(self.rows, rows)]

    def matrix(self, values: Floats, otherwise: float) -> Floats:
        """Values of `rows`: those that take part x configurations."""
        found = np.full((len(self.level), len(self.use)), otherwise)
        found.reshape(-1)[self._cell] = values
        return found

    @cached_property
    def _cell(self) -> Ints:
        """Of each of `rows`: where it is in the matrix."""
        return self.member * len(self.use) + self.column

    @cached_property
    def row_of(self) -> Ints:
        """The row of each cell of the matrix, or `NONE`."""
        found = np.full((len(self.level), len(self.use)), NONE, dtype=np.int64)
        found.reshape(-1)[self._cell] = self.rows
        return found

    @cached_property
    def money_usd(self) -> Floats:
        """Of each cell of the matrix; inf where there is no row."""
        return self.matrix(self.bids.money_usd[self.rows], np.inf)

    @cached_property
    def density(self) -> Floats:
        """By place in the level: what is bid for a device at best, once the bids are final."""
        per_device = self.bids.bid[self.rows] / np.maximum(self.devices, 1)[self.column]
        found = np.zeros(len(self.level))
        first = np.flatnonzero(np.diff(self.member, prepend=NONE))
        if len(first):
            found[self.member[first]] = np.maximum.reduceat(per_device, first)
        return found


@dataclass(frozen=True)
class Outcome:
    """Of one auction."""

    bids: Bids
    lots: Lots
    won: Ints
    """By place in the level: the row that it won, or `NONE`."""
    price: Mapping[str, float]
    """Of one device of each type, in bids: what somebody would have to bid more for it."""

    @cached_property
    def usd_per_bid(self) -> float:
        """Bids are not dollars: this puts them on the scale of what the time of those that win is worth an hour."""
        rows = self.won[self.won != NONE]
        paid = float(self.bids.bid[rows].sum())
        return float(self.bids.time_usd_h[self.lots.level[self.won != NONE]].sum()) / paid if paid > 0 else 0.0

    @cached_property
    def held_at(self) -> Mapping[str, Floats]:
        """Of each type: what is bid for each device, the least first; 0 for those that nobody won."""
        rows = self.won[self.won != NONE]
        columns = self.lots.columns_of(rows)
        use, each = self.lots.use[columns], self.bids.bid[rows] / np.maximum(self.lots.devices[columns], 1)
        found = {}
        for number, (name, supply) in enumerate(zip(self.lots.types, self.lots.supply.tolist(), strict=True)):
            paid = np.sort(np.repeat(each, use[:, number]))
            found[name] = np.concatenate([np.zeros(max(0, supply - len(paid))), paid])
        return found

    @cached_property
    def density(self) -> Floats:
        """By place in the level: what is bid for a device, for what it won or else at best."""
        found, winners = self.lots.density.copy(), np.flatnonzero(self.won != NONE)
        rows = self.won[winners]
        found[winners] = self.bids.bid[rows] / np.maximum(self.lots.devices, 1)[self.lots.columns_of(rows)]
        return found

    def remains(self) -> Remains:
        """What nobody won."""
        lots = self.lots
        left = lots.supply - lots.use[lots.columns_of(self.won[self.won != NONE])].sum(axis=0)
        return Remains(dict(zip(lots.types, left.tolist(), strict=True)))

    def backlog(self) -> Backlog:
        """What those that won nothing will take, by what they bid: each what is the least money behind those before it.
        As they do not know of each other, that is found by turns, and the mean of what they would take counts."""
        lots, bids = self.lots, self.bids
        lost = np.flatnonzero(self.won == NONE)
        lost = lost[np.argsort(-self.density[lost], kind="stable")]
        each = max(1, len(lost) // ASKED)
        lost = lost[each // 2 :: each]
        possible = np.flatnonzero((lots.use <= lots.supply).all(axis=1))
        money = np.ascontiguousarray(lots.money_usd[lost].T)
        share = (lots.use / np.maximum(lots.supply, 1)).T
        usd_s = bids.time_usd_h[lots.level[lost]] / 3600
        work, ahead_s = np.zeros((len(lots.types), len(lost))), np.zeros((len(lots.types), len(lost) + 1))
        for number in range(1, FORESEEN + 1):
            best = _cheapest_behind(money, ahead_s[:, :-1] * usd_s, lots.use, possible)
            rows = lots.row_of[lost, best]
            seconds = np.where(rows == NONE, 0.0, bids.seconds[rows]) if len(rows) else np.zeros(0)
            work += (each * seconds * share[:, best] - work) / number
            np.cumsum(work, axis=1, out=ahead_s[:, 1:])
        of_view = np.zeros(len(bids.board.views))
        of_view[lots.level] = self.density
        return Backlog(-self.density[lost], ahead_s, lots.types, of_view)


def _cheapest_behind(money: Floats, wait_usd: Floats, use: Ints, possible: Ints) -> Ints:
    """By column of `money` (configurations x workloads): the configuration of least money behind what is ahead on its
    device types (`wait_usd`: types x workloads)."""
    least, best = np.full(money.shape[1], np.inf), np.zeros(money.shape[1], dtype=np.int64)
    for number in possible.tolist():
        total = money[number] + wait_usd[use[number] > 0].max(axis=0, initial=0.0)
        np.copyto(best, number, where=total < least)
        np.minimum(least, total, out=least)
    return best


@dataclass(frozen=True)
class Backlog:
    """How long the devices of each type are busy with what others want that bid more and won nothing."""

    bids_less: Floats
    """Minus what each of these bids for a device, the most first."""
    ahead_s: Floats
    """Types x so many of these ahead: seconds."""
    types: list[str]
    density: Floats
    """By workload: what it bids for a device."""

    @cached_property
    def turn(self) -> Ints:
        """By workload: how many of these are before it."""
        return np.searchsorted(self.bids_less, -self.density)

    def seconds(self, index: int, configuration: Configuration) -> float:
        """Until it is somebody's turn who wants this."""
        turn = self.turn[index]
        return max(float(self.ahead_s[self.types.index(name), turn]) for name, _ in configuration.groups)

    def seconds_of(self, owner: Ints, place: Ints, configurations: Configurations) -> Floats:
        """As `seconds`, of many: each a workload and the number of a configuration."""
        turn = self.turn[owner]
        numbers = np.array([configurations.type_number(name) for name in self.types])
        column = np.flatnonzero(numbers != NONE)  # the others are what bounds a queue
        holds = configurations.use[:, numbers[column]] > 0
        first = column[holds.argmax(axis=1)] if len(column) else np.zeros(len(holds), dtype=np.int64)
        found = self.ahead_s[first[place], turn]
        for number in np.flatnonzero(holds.sum(axis=1) > 1).tolist():  # several types: the longest wait
            mine = np.flatnonzero(place == number)
            found[mine] = self.ahead_s[column[holds[number]]][:, turn[mine]].max(axis=0)
        return np.asarray(found)


def auction(
    bids: Bids, lots: Lots, declined: Flags | None = None, prices: Mapping[str, float] | None = None
) -> Outcome:
    """`declined`: rows that are not bid for. `prices`: of an earlier auction."""
    bid = bids.bid[lots.rows]
    cost = lots.matrix(-bid if declined is None else np.where(declined[lots.rows], np.inf, -bid), np.inf)
    start = None if prices is None else np.array([float(prices.get(name, 0.0)) for name in lots.types])
    incumbent = np.full(len(lots.level), WAIT, dtype=np.int64)
    here = bids.here[lots.level]
    runs = np.flatnonzero(here != NONE)
    runs = runs[~declined[here[runs]]] if declined is not None else runs
    incumbent[runs] = lots.columns_of(here[runs])
    found = solve(cost, np.zeros(len(lots.level)), lots.use, lots.supply, start, incumbent)
    taken = np.flatnonzero(found.choice != WAIT)
    won = np.full(len(lots.level), NONE, dtype=np.int64)
    won[taken] = lots.row_of[taken, found.choice[taken]]
    price = {name: float(value) for name, value in zip(lots.types, found.prices, strict=True)}
    return Outcome(bids, lots, won, price)


def weigh_the_end(bids: Bids, lots: Lots, quiet_s: float) -> None:
    """Raise the bids of those that would decide when everything is done (`horizon`), as far as time matters to them.
    `quiet_s`: for how long nothing new has come. What comes later fills the devices that stand idle at the end; once
    nothing comes any more, the end is near."""
    if len(lots.level) <= FEW or len(lots.level) * len(lots.use) > CELLS:
        return
    mu_s = weights_s(lots.matrix(bids.seconds[lots.rows], np.inf), lots.use, lots.supply)
    if not mu_s.any():
        return
    quiet = min(1.0, quiet_s / max(QUIET * float(mu_s.sum()), 1.0)) ** 2
    crowd = min(1.0, max(0, len(lots.level) - FEW) / (CROWD - FEW))
    worth = (LAST + LAST_QUIET * quiet) * crowd * _sum_that_wins(bids, lots)
    matters = bids.time_share()[lots.level][lots.member] ** 2
    extra = mu_s[lots.member] / bids.seconds[lots.rows] * matters
    bids.bid[lots.rows] += worth * extra * bids.stays[lots.rows]


def _sum_that_wins(bids: Bids, lots: Lots) -> float:
    """About how much is bid in all by those that win: the best bids for their shares of the devices."""
    share = (lots.use / np.maximum(lots.supply, 1)).sum(axis=1)[lots.column]
    possible = np.asarray((lots.use <= lots.supply).all(axis=1))[lots.column]
    bid = np.where(possible, bids.bid[lots.rows], 0.0)
    density = bid / np.maximum(share, 1e-12)
    order = np.lexsort((-density, lots.member))
    first = np.unique(lots.member[order], return_index=True)[1]
    best = order[first]
    best = best[np.argsort(-density[best], kind="stable")]
    fits = np.cumsum(share[best]) <= max(1, len(lots.types))
    fits[:1] = True
    return float(bid[best][fits].sum())


def extra_usd_h(each: Bidder, found: Outcome) -> tuple[float, Configuration] | None:
    """How much more an hour somebody would have to be worth to start now, and on what, at the prices of now."""
    rows = []
    for offer in each.offers:
        asked = sum(float(found.held_at[name][:count].sum()) for name, count in offer.configuration.groups)
        times = asked / max(offer.bid, 1e-12)
        if times > 1:
            rows.append((each.time_usd_h * (times - 1), offer.configuration))
    return min(rows, default=None)
