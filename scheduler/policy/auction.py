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


@dataclass(frozen=True)
class Lots:
    """What is auctioned: the rows of those that take part, as a matrix."""

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
        bounds = bids.quotas.bounds([board.views[index].queue for index in level.tolist()], types)
        bounded = sorted({queue for queue, *_ in bounds})
        group = np.zeros(len(board.views), dtype=np.int64)
        for index in level.tolist() if bounded else ():
            queue = board.views[index].queue
            group[index] = 1 + bounded.index(queue) if queue in bounded else 0
        # A queue that is bounded has configurations of its own, which hold of what bounds it besides.
        known = len(board.configurations.known)
        key = group[board.owner[rows]] * known + board.place[rows]
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
        found[self.member, self.column] = values
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

    def density(self) -> Floats:
        """By place in the level: what is bid for a device, for what it won or else at best."""
        lots = self.lots
        per_device = self.bids.bid[lots.rows] / np.maximum(lots.devices, 1)[lots.column]
        best = np.zeros(len(lots.level))
        np.maximum.at(best, lots.member, per_device)
        won = self.won[lots.member] == lots.rows
        best[lots.member[won]] = per_device[won]
        return best

    def remains(self) -> Remains:
        """What nobody won."""
        lots = self.lots
        left = lots.supply - lots.use[lots.columns_of(self.won[self.won != NONE])].sum(axis=0)
        return Remains(dict(zip(lots.types, left.tolist(), strict=True)))

    def backlog(self) -> Backlog:
        """What those that won nothing will take, by what they bid: each what is the least money behind those before it.
        As they do not know of each other, that is found by turns, and the mean of what they would take counts."""
        lots, bids = self.lots, self.bids
        density = self.density()
        lost = np.flatnonzero(self.won == NONE)
        lost = lost[np.argsort(-density[lost], kind="stable")]
        possible = np.asarray((lots.use <= lots.supply).all(axis=1))
        money = np.where(possible, lots.matrix(bids.money_usd[lots.rows], np.inf)[lost], np.inf)
        seconds = lots.matrix(bids.seconds[lots.rows], 0.0)[lost]
        share = lots.use / np.maximum(lots.supply, 1)
        an_hour, turn = bids.time_usd_h[lots.level[lost]], np.arange(len(lost))
        work, ahead_s = np.zeros((len(lost), len(lots.types))), np.zeros((len(lost) + 1, len(lots.types)))
        for number in range(1, FORESEEN + 1):
            wait_s = np.zeros(money.shape)
            for column in range(len(lots.types)):
                held = np.flatnonzero(lots.use[:, column])
                wait_s[:, held] = np.maximum(wait_s[:, held], ahead_s[:-1, column, None])
            best = (money + wait_s * (an_hour[:, None] / 3600)).argmin(axis=1)
            work += (seconds[turn, best][:, None] * share[best] - work) / number
            ahead_s[1:] = np.cumsum(work, axis=0)
        of_view = np.zeros(len(bids.board.views))
        of_view[lots.level] = density
        return Backlog(-density[lost], ahead_s, lots.types, of_view)


@dataclass(frozen=True)
class Backlog:
    """How long the devices of each type are busy with what others want that bid more and won nothing."""

    bids_less: Floats
    """Minus what each of these bids for a device, the most first."""
    ahead_s: Floats
    """So many of these ahead x types: seconds."""
    types: list[str]
    density: Floats
    """By workload: what it bids for a device."""

    @cached_property
    def turn(self) -> Ints:
        """By workload: how many of these are before it."""
        return np.searchsorted(self.bids_less, -self.density)

    def seconds(self, index: int, configuration: Configuration) -> float:
        """Until it is somebody's turn who wants this."""
        ahead_s = self.ahead_s[self.turn[index]]
        return max(float(ahead_s[self.types.index(name)]) for name, _ in configuration.groups)

    def table(self, configurations: Configurations) -> Floats:
        """As `seconds`, of all: workloads x configurations by number."""
        found = np.zeros((len(self.turn), len(configurations.known)))
        for column, name in enumerate(self.types):
            number = configurations.type_number(name)
            if number == NONE:
                continue  # what bounds a queue
            held = np.flatnonzero(configurations.use[:, number])
            found[:, held] = np.maximum(found[:, held], self.ahead_s[self.turn, column, None])
        return found


def auction(
    bids: Bids, lots: Lots, declined: Flags | None = None, prices: Mapping[str, float] | None = None
) -> Outcome:
    """`declined`: rows that are not bid for. `prices`: of an earlier auction."""
    cost = lots.matrix(-bids.bid[lots.rows], np.inf)
    if declined is not None:
        away = declined[lots.rows]
        cost[lots.member[away], lots.column[away]] = np.inf
    start = None if prices is None else np.array([float(prices.get(name, 0.0)) for name in lots.types])
    incumbent = np.full(len(lots.level), WAIT, dtype=np.int64)
    runs = bids.board.here[lots.rows] & np.isfinite(cost[lots.member, lots.column])
    incumbent[lots.member[runs]] = lots.column[runs]
    found = solve(cost, np.zeros(len(lots.level)), lots.use, lots.supply, start, incumbent)
    row_of = np.full(cost.shape, NONE, dtype=np.int64)
    row_of[lots.member, lots.column] = lots.rows
    taken = found.choice != WAIT
    won = np.full(len(lots.level), NONE, dtype=np.int64)
    won[taken] = row_of[taken, found.choice[taken]]
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
