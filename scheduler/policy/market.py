"""The cost-aware policy: every workload takes the configuration of least `money(c)`, at prices that include what others
would pay for the same devices.

Every cycle the devices are given out anew, except to what would begin again if it were stopped, and to what has hardly
begun: first to who is overdue, in the order they came; then priority by priority, to the largest sum of bids
(`bidding`, `auction`). Gangs are placed whole, the best bid for a device first, and stay on their nodes where they
can. Who would pay less in all by waiting for something better waits for it; what is free of the devices of a gang that
waits is kept for it, and others go ahead on them only where they cannot delay it (backfill).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..collecting import without_collector
from ..types import Placement, Plan, Situation, WorkloadView
from . import market_words as words
from .auction import Lots, Outcome, auction, weigh_the_end
from .bidding import SETTLING_S, Bidder, Bids
from .board import NONE, Board, Flags, Floats, Ints, Tables
from .candidates import Supply, hopeless, resting, vacated
from .explaining import Said
from .renting import with_nodes
from .speeds import Corrected, Speeds
from .stays import Stays, numbers
from .timeline import Floor
from .turns import DETAILED, Far, Turns

AUCTIONS = 3
"""So often at most is an auction held again without what was declined, ..."""

REPEATED_TO = 300
"""... if no more than so many take part."""
LAPS = 4
"""So often at most it is found out for all that are far behind who gains from what is free."""
DECLINED = 0.01
"""It is not held again among many for less than this share of them."""
FORESEES = 10
"""Of more than so many, who could wait is told how long those before it will take."""


class Market:
    """Least money, congestion prices, preemption that pays, backfill behind reservations."""

    name = "market"

    def __init__(self) -> None:
        self._tables = Tables()
        self._far: dict[str, Far] = {}
        self._corrected = Corrected()

    def plan(self, situation: Situation) -> Plan:
        """Devices for everybody who can use them best now; a reason for everybody. What this object remembers are
        tables that it has read; the same situation gives the same plan."""
        with without_collector():
            speeds = Speeds.of(situation)
            seen = self._corrected.of(situation.workloads, speeds.known)
            cycle = _Cycle(replace(situation, workloads=tuple(seen)), self._tables, self._far, speeds)
            cycle.overdue()
            for priority in cycle.priorities():
                cycle.level(priority)
            self._far = cycle.far
            return cycle.plan()


class _Cycle(Turns):
    """One plan in the making: who takes part, and who gets what."""

    def __init__(self, situation: Situation, tables: Tables, far: Mapping[str, Far], speeds: Speeds) -> None:
        super().__init__(situation, far)
        self.stays, self.speeds = Stays.of(situation), speeds
        self.prices: dict[str, dict[str, float]] = {}
        views = sorted(situation.workloads, key=lambda view: (view.submitted_s, view.queued_s, view.id))
        supply = Supply(situation.snapshot)
        self.quiet_s = max(0.0, self.now_s - max((view.submitted_s for view in views), default=self.now_s))
        self.bids = Bids(Board.of(views, tables, self.now_s), supply, self.now_s, self.stays.seconds, self.quotas)
        self._sort_out()
        self._divide(supply)
        self.floor = Floor(vacated(situation, self.placements))
        self.lent = {each.view.id: each.view.placement for each in self.bidders.values() if each.view.placement}
        for placement in self.lent.values():
            self._lend(placement, 1)

    # Who takes part

    def _sort_out(self) -> None:
        """What runs and is left alone keeps its place; who may not run yet, or never, gets the reason."""
        bids, board = self.bids, self.bids.board
        listed = board.first_row(board.place == board.held[board.owner])
        kept, settles_s = _kept(board, listed)
        for index, view in enumerate(board.views):
            if kept[index]:
                assert view.placement is not None
                self._keeps(view)
                free_s = _free_again_s(bids, index, int(listed[index]), float(settles_s[index]))
                self.timeline.gives_back(view.placement.configuration, free_s)
                continue
            rests = resting(view, self.now_s)
            if rests is None and bids.cheapest[index] != NONE:
                self.bidders[index] = Bidder(bids, index)
            elif view.placement is not None and not view.stopping:
                self._keeps(view)
            else:
                self.explanations[view.id] = rests or hopeless(bids.refused(index))

    def _divide(self, supply: Supply) -> None:
        """What each queue is entitled to, if there are rules."""
        if not self.situation.queues:
            return
        board, price = self.bids.board, self.quotas.price_usd_h
        wanted: dict[str, float] = {}
        for view in board.views:
            if view.id in self.placements:
                wanted[view.queue] = self.quotas.usd_h(view.queue)
        for index, each in self.bidders.items():
            dearest = max(float(self.bids.price_usd_h[row]) for row in board.rows(index) if self.bids.usable[row])
            wanted[each.view.queue] = wanted.get(each.view.queue, 0.0) + dearest
        self.quotas.divide(wanted, sum(count * price.get(name, 0.0) for name, count in supply.total.items()))

    def _keeps(self, view: WorkloadView) -> None:
        assert view.placement is not None
        self.quotas.take(view.queue, view.placement.configuration)
        self.placements[view.id] = view.placement
        self.explanations[view.id] = words.keeps(view)

    def priorities(self) -> list[int]:
        """Of those that are not overdue, the highest first."""
        return sorted({each.view.priority for each in self.bidders.values() if not each.overdue}, reverse=True)

    # Giving out

    def overdue(self) -> None:
        """Who has waited far too long goes first, whatever its size and priority."""
        self._serve([each for each in self.bidders.values() if each.overdue])

    def _serve(self, late: Sequence[Bidder]) -> None:
        """What runs of these is not stopped; the others take the best that is free, in the order they came. Then those
        that run may move to what is free and better."""
        order = sorted(late, key=lambda each: each.view.submitted_s)
        holding = {each.view.id: each.view.placement for each in order if self._hold(each)}
        for each in order:
            if each.view.id not in holding and not self._fill(each):
                self._wait(each, keep=True)
        for each in order:
            there = holding.get(each.view.id)
            if there is None:
                continue
            self.floor.release(there)
            bid = self.bids.bid
            best = max(each.rows, key=lambda row: (bid[row] * self._fits(each, row), row == each.here))
            self.quotas.take(each.view.queue, there.configuration, -1)
            if best == each.here or not self._takes_now(each, best):
                self._stay(each)

    def _hold(self, each: Bidder) -> bool:
        """Take what it runs on, for now; False where it does not run, or somebody has it."""
        there = each.view.placement
        if there is None or each.here is None or not self.floor.open.holds(there):
            return False
        if self.quotas.refusal(each.view.queue, there.configuration) is not None:
            return False
        self.floor.take(there)
        self.quotas.take(each.view.queue, there.configuration)
        return True

    def _takes_now(self, each: Bidder, row: int) -> bool:
        return not self._better_to_wait(each, row) and self._take(each, row)

    def _fits(self, each: Bidder, row: int) -> bool:
        return self.floor.open.fits(self.bids.board.configuration(row), one_node=each.view.one_node)

    def level(self, priority: int) -> None:
        """All of one priority. Whose bid wins something that it would rather wait than take, does not bid for that: the
        auction is held again without, some times at most, and the outcome of least predicted money counts."""
        same = [each for each in self.bidders.values() if not each.overdue and each.view.priority == priority]
        self._serve([each for each in same if each.late])
        level = [each for each in same if not each.late]
        if not level:
            return
        lots = self._lots(level)
        weigh_the_end(self.bids, lots, self.quiet_s)
        declined = np.zeros(len(self.bids.usable), dtype=bool)
        if len(level) > REPEATED_TO:
            self._give_out_to_many(level, lots, priority, declined)
            return
        best: dict[str, Any] | None = None
        for _ in range(AUCTIONS):
            before, known = self._saved(), int(declined.sum())
            self._give_out(level, lots, priority, declined)
            if best is None or self.predicted_usd < best["predicted_usd"] - 1e-12:
                best = self.__dict__
            if int(declined.sum()) == known:
                break
            self.__dict__ = before
        if best is not None:
            self.__dict__ = best

    def _lots(self, level: Sequence[Bidder]) -> Lots:
        """The rows of these, and what is there for them."""
        board = self.bids.board
        places = np.unique(board.place[self._rows(level)])
        types = np.flatnonzero(board.configurations.use[places].any(axis=0))
        names = [board.configurations.types[number] for number in types]
        members = np.array([each.index for each in level], dtype=np.int64)
        return Lots.of(self.bids, members, {name: self.floor.open.free(name) for name in names})

    def _give_out(self, level: Sequence[Bidder], lots: Lots, priority: int, declined: Flags) -> None:
        """Whose bids win take what they won; who can win nothing that is there has what is free kept; the others take
        what is left. What is won and not taken, since waiting is less money, is added to `declined`."""
        found = self._auction(lots, priority, declined)
        order = np.argsort(-found.density(), kind="stable").tolist()
        self.backlog = found.backlog() if len(level) > FORESEES else None
        won, possible = found.won.tolist(), self._possible(lots)
        self._stay_all([level[n] for n in order if won[n] != NONE and self._is_here(won[n])])
        later = []
        for n in order:
            each, row = level[n], won[n]
            if each.view.id in self.placements:
                continue
            if row != NONE:
                if not self._take(each, row):
                    later.append(each)
                elif each.view.id not in self.placements:
                    declined[row] = True
            elif not possible[n] and not self._free_rows(each):
                self._wait(each, keep=True)
            elif not self._declines_again(each, declined):
                later.append(each)
        self._give_what_is_left(level, later, found)

    def _is_here(self, row: int) -> bool:
        """Whether it runs on just this."""
        return int(self.bids.here[self.bids.board.owner[row]]) == row

    def _give_out_to_many(self, level: Sequence[Bidder], lots: Lots, priority: int, declined: Flags) -> None:
        """As before, for many. Who would rather wait is found out for all at once, by what all others won; they bid no
        more for that, and for nothing dearer, and the auction is held again."""
        for turn in range(AUCTIONS):
            found = self._auction(lots, priority, declined)
            self.backlog = found.backlog()
            outlook = self.timeline.copy()
            now = np.full(len(self.bids.board.views), NONE, dtype=np.int64)
            won = found.won[found.won != NONE]
            now[self.bids.board.owner[won]] = won
            for row in won.tolist():
                outlook.gives_back(self.bids.board.configuration(row), self.bids.left_of(row))
            waits = self._waiting_pays(now, lots.rows, outlook, found.remains())
            if turn == AUCTIONS - 1 or waits.sum() <= DECLINED * len(level):
                break
            owner = self.bids.board.owner
            least = np.where(waits, self.bids.money_usd[np.maximum(now, 0)], np.inf)
            declined |= (self.bids.money_usd >= least[owner]) & (np.arange(len(owner)) != self.bids.here[owner])
        order = np.argsort(-found.density(), kind="stable").tolist()
        rows, possible = found.won.tolist(), self._possible(lots)
        self._stay_all([level[n] for n in order if rows[n] != NONE and self._is_here(rows[n])])
        for n in order:
            each, row = level[n], rows[n]
            if row != NONE and each.view.id not in self.placements and not waits[each.index]:
                self._start(each, row)
            elif row == NONE and not possible[n] and not self._free_rows(each):
                self._wait(each, keep=True)
        self._give_what_is_left(level, [level[n] for n in order if level[n].view.id not in self.placements], found)

    def _possible(self, lots: Lots) -> list[bool]:
        """By place in the level: whether there are enough devices for any of its configurations, whoever has them."""
        types = lots.device_types
        fits = np.asarray((lots.use[:, :types] <= lots.supply[:types]).all(axis=1))
        return [count > 0 for count in np.bincount(lots.member[fits[lots.column]], minlength=len(lots.level)).tolist()]

    def _give_what_is_left(self, level: Sequence[Bidder], later: Sequence[Bidder], found: Outcome) -> None:
        won = bool((found.won != NONE).any())
        left = [each for each in later if each.view.id not in self.explanations]
        self.backlog = self.backlog if len(level) > DETAILED else None
        for number, each in enumerate(left):
            if self.waiting >= self.detailed:
                self._give_the_rest(left[number:])
                return
            if not self._fill(each):
                self._wait(each, keep=not each.view.resumes or not won, found=found)

    def _give_the_rest(self, left: Sequence[Bidder]) -> None:
        """As before, for those that are far behind: what each would start in is found out for all at once, and again
        after that was given out, as long as it goes on."""
        for each in left:
            if each.here is not None:
                self._stay(each)
        rest = [each for each in left if each.view.id not in self.placements]
        for _ in range(LAPS):
            if not rest or not self.floor.actual.any_free:
                break
            given = [
                self._start(each, row) for each, row in zip(rest, self._may_start(rest), strict=True) if row != NONE
            ]
            if not any(given):
                break
            rest = [each for each in rest if each.view.id not in self.placements]
        for each in rest:
            self.explanations[each.view.id] = self._far_behind(each, self.waiting)

    def _start(self, each: Bidder, row: int) -> bool:
        """Give it this, if it is free still."""
        if not self.floor.actual.has(self.bids.board.configuration(row)):
            return False
        self._give_up(each)
        placement = self._nodes(each, row)
        if placement is not None:
            self._place(each, row, placement)
        return placement is not None

    def _declines_again(self, each: Bidder, declined: Flags) -> bool:
        """Whether it still waits rather than take what it could have won."""
        rows = [row for row in self.bids.board.rows(each.index) if declined[row]]
        if not rows or not self._better_to_wait(each, min(rows, key=lambda row: self.bids.money_usd[row])):
            return False
        self._wait(each, keep=True)
        return True

    def _auction(self, lots: Lots, priority: int, declined: Flags) -> Outcome:
        """What each wins of what is there, beginning with the prices of the last plan."""
        noted = self.prices if str(priority) in self.prices else self.situation.memory.get("prices")
        before = numbers(noted.get(str(priority)) if isinstance(noted, Mapping) else None)
        found = auction(self.bids, lots, declined, before or None)
        self.prices[str(priority)] = {name: value for name, value in found.price.items() if value > 0}
        for name, value in found.price.items():
            if name in self.congestion_usd_h:
                self.congestion_usd_h[name] = max(self.congestion_usd_h[name], round(value * found.usd_per_bid, 4))
        return found

    def _stay_all(self, those: Sequence[Bidder]) -> None:
        """They keep their devices, if nobody has them: all at once where that is so for all."""
        placements = [each.view.placement for each in those if each.view.placement is not None]
        lent = all(each.view.id in self.lent for each in those)
        if not lent or not self.floor.open.take_all(placements):
            for each in those:
                self._stay(each)
            return
        self.floor.actual.take_all(placements)
        bids = self.bids
        rows = bids.here[[each.index for each in those]]
        for each, row in zip(those, rows.tolist(), strict=True):
            placement = each.view.placement
            assert placement is not None
            del self.lent[each.view.id]
            self.timeline.gives_back(placement.configuration, bids.left_of(row))
            self.quotas.take(each.view.queue, placement.configuration)
            self.placements[each.view.id] = placement
            self.explanations[each.view.id] = words.keeps(each.view)
        self.predicted_usd += float(bids.money_usd[rows].sum())

    def _stay(self, each: Bidder) -> None:
        """It keeps its devices, if nobody has them."""
        there, row = each.view.placement, each.here
        if row is None or there is None:
            return
        if self.quotas.refusal(each.view.queue, there.configuration) is not None:
            return
        lends = self.floor.lends(there.configuration, self._ends_s(each, row), stoppable=each.view.resumes)
        if self.floor.open.holds(there) or (lends and self.floor.actual.holds(there)):
            self._place(each, row, there)

    def _take(self, each: Bidder, row: int) -> bool:
        """What it won, unless waiting for something better is less money. False where no nodes have it."""
        self._give_up(each)
        wanted = self.bids.board.configuration(row)
        if self.quotas.refusal(each.view.queue, wanted) is not None:
            return False
        placement = self.floor.open.place(wanted, one_node=each.view.one_node)
        if placement is None:
            return False
        if self._better_to_wait(each, row):
            self._wait(each, keep=True)
            return True
        self._place(each, row, placement)
        return True

    def _fill(self, each: Bidder) -> bool:
        """The best for it of what is left, unless waiting is less money."""
        self._stay(each)
        if each.view.id in self.placements:
            return True
        self._give_up(each)
        for row in self._free_rows(each):
            placement = self._nodes(each, row)
            if placement is not None:
                if self._better_to_wait(each, row):
                    return False
                self._place(each, row, placement)
                return True
        return False

    def _free_rows(self, each: Bidder) -> list[int]:
        """Its rows for which as many devices are free as are wanted, on whatever nodes, the least money first."""
        if not self.floor.actual.any_free:
            return []
        board, rows = self.bids.board, self.bids.board.rows(each.index)
        part = slice(rows.start, rows.stop)
        fits = self.bids.usable[part] & self.floor.actual.enough(board.configurations)[board.place[part]]
        found = (rows.start + np.flatnonzero(fits)).tolist()
        return sorted(found, key=lambda row: (self.bids.money_usd[row], board.configuration(row)))

    def _place(self, each: Bidder, row: int, placement: Placement) -> None:
        why = self._why(each, row, placement)
        self._give_up(each)
        self.floor.take(placement)
        self._note(each, row, placement, why)

    def _note(self, each: Bidder, row: int, placement: Placement, why: Said | None = None) -> None:
        """It has these now."""
        self.quotas.take(each.view.queue, placement.configuration)
        self.timeline.gives_back(placement.configuration, self.bids.left_of(row))
        self.placements[each.view.id] = placement
        self.explanations[each.view.id] = why or self._why(each, row, placement)
        self.predicted_usd += float(self.bids.money_usd[row])

    def _why(self, each: Bidder, row: int, placement: Placement) -> Said:
        """Among many it is put into words when somebody asks: then what is said of the other configurations is how
        things stand when all is given out."""
        if each.running is not None and placement == each.view.placement:
            return words.keeps(each.view)
        if each.running is not None:
            return lambda: words.moves(each, each.of(row))
        if len(self.bidders) > DETAILED:
            return lambda: words.taken(each.of(row), self._options_then(each, row, placement))
        return words.taken(each.of(row), self._options(each))

    def plan(self) -> Plan:
        """What was decided."""
        moved = sum(
            each.running is not None and self.placements.get(each.view.id) != each.view.placement
            for each in self.bidders.values()
        )
        running = sum(each.running is not None for each in self.bidders.values())
        patience = {
            each.view.id: self.patience[each.view.id]
            for each in self.bidders.values()
            if each.view.id in self.patience and each.view.id not in self.placements
        }
        memory = {
            "prices": self.prices,
            "stays": self.stays.after(self.now_s, running, moved),
            "patience": patience,
        }
        memory |= {name: notes for name, notes in self._notes().items() if notes}
        congestion = dict(sorted(self.congestion_usd_h.items()))
        plan = Plan(self.situation.cycle, self.placements, self.explanations, congestion, memory)
        return with_nodes(self.situation, plan, {each.view.id: each.time_usd_h for each in self.bidders.values()})

    def _notes(self) -> dict[str, Any]:
        """What is only noted where there is something to note."""
        return {"shares": self.quotas.after(self.now_s), "speeds": self.speeds.noted()}


def _kept(board: Board, listed: Ints) -> tuple[Flags, Floats]:
    """Which workloads are left alone where they run: they would begin again, or have hardly begun; and the seconds
    until what has started may be moved. `listed`: the row of what each holds, or `NONE`."""
    runs = np.array([view.placement is not None for view in board.views], dtype=bool)
    if not runs.any():
        return runs, np.zeros(len(runs))
    startup_s = np.where(listed == NONE, 0.0, board.startup_s[np.maximum(listed, 0)] if len(board.startup_s) else 0.0)
    settles_s = startup_s + SETTLING_S - board.held_s
    alone = ~board.resumes | (listed == NONE) | (settles_s > 0)
    return runs & alone & ~(board.stopping & board.resumes), settles_s


def _free_again_s(bids: Bids, index: int, row: int, settles_s: float) -> float | None:
    """When what is left alone ends, or may be moved."""
    ends_s = None if row == NONE else bids.left_of(row)
    if not bids.board.resumes[index]:
        return ends_s
    return max(1.0, settles_s) if ends_s is None else min(ends_s, max(1.0, settles_s))
