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
from functools import partial
from typing import Any

import numpy as np

from ..collecting import without_collector
from ..types import Placement, Plan, Situation, WorkloadView
from . import market_words as words
from .auction import Lots, Outcome, auction, weigh_the_end
from .bidding import SETTLING_S, Bidder, Bidders, Bids
from .board import NONE, Board, Flags, Floats, Ints, Tables
from .candidates import Supply, hopeless, resting, vacated
from .explaining import Heard, Said
from .gathering import without_emptied
from .ledger import Ledger
from .renting import with_nodes
from .speeds import Corrected, Speeds
from .stays import Stays, numbers
from .timeline import Floor
from .turns import DETAILED, Turns

AUCTIONS = 3
"""So often at most is an auction held again without what was declined, ..."""
REPEATED_TO = 300
"""... if no more than so many take part."""
LAPS = 4
"""So often at most it is found out for somebody far behind whether what is free is a gain, ..."""
AT_ONCE = 1024
"""... and for so many at once: those before them have had theirs by then."""
DECLINED = 0.01
"""It is not held again among many for less than this share of them."""
FORESEES = 10
"""Of more than so many, who could wait is told how long those before it will take."""


class Market:
    """Least money, congestion prices, preemption that pays, backfill behind reservations."""

    name = "market"

    def __init__(self) -> None:
        self._tables = Tables()
        self._ledger = Ledger()
        self._heard = Heard()
        self._corrected = Corrected()

    def plan(self, situation: Situation) -> Plan:
        """Devices for everybody who can use them best now; a reason for everybody. What this object remembers are
        tables that it has read; the same situation gives the same plan."""
        with without_collector():
            speeds, situation = Speeds.of(situation), without_emptied(situation)
            seen = self._corrected.of(situation.workloads, speeds.known)
            cycle = _Cycle(replace(situation, workloads=tuple(seen)), self._tables, self._ledger, self._heard, speeds)
            cycle.overdue()
            for priority in cycle.priorities():
                cycle.level(priority)
            return cycle.plan()


class _Cycle(Turns):
    """One plan in the making: who takes part, and who gets what."""

    def __init__(self, situation: Situation, tables: Tables, ledger: Ledger, heard: Heard, speeds: Speeds) -> None:
        super().__init__(situation, heard)
        self.stays, self.speeds = Stays.of(situation), speeds
        self.prices: dict[str, dict[str, float]] = {}
        supply = Supply(situation.snapshot)
        there = supply.total, supply.largest, supply.most, supply.largest_rentable
        self.scene = heard.scene((there, situation.queues, self.quotas.price_usd_h), situation.workloads)
        board = Board.of(situation.workloads, tables, self.now_s)
        self.ids: list[str] = board.id.tolist()
        self.quiet_s = max(0.0, self.now_s - board.views[-1].submitted_s) if board.views else 0.0
        self.bids = ledger.bids(board, supply, self.now_s, self.stays.seconds, self.quotas, self.scene)
        self._sort_out()
        self._divide(supply)
        self.floor = Floor(vacated(situation, self.placements))
        runs = np.flatnonzero(board.held != NONE).tolist()
        held = [board.views[n] for n in runs if n in self.bidders]
        self.lent = {view.id: view.placement for view in held if view.placement}
        self.floor.lend_all(self.lent.values())

    # Who takes part

    def _sort_out(self) -> None:
        """What runs and is left alone keeps its place; who may not run yet, or never, gets the reason."""
        bids, board = self.bids, self.bids.board
        listed = board.first_row(board.place == board.held[board.owner])
        kept, settles_s = _kept(board, listed)
        rests = (board.held == NONE) & (board.not_before_s > self.now_s)
        bid = ~kept & (bids.cheapest != NONE) & ~rests
        self.bidders = Bidders(bids, np.flatnonzero(bid))
        for index in np.flatnonzero(~bid).tolist():
            view = board.views[index]
            if kept[index]:
                assert view.placement is not None
                self._keeps(view)
                free_s = _free_again_s(bids, index, int(listed[index]), float(settles_s[index]))
                self.timeline.gives_back(view.placement.configuration, free_s)
            elif view.placement is not None and not view.stopping:
                self._keeps(view)
            else:
                self.explanations[view.id] = resting(view, self.now_s) or hopeless(bids.refused(index))

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
        those = np.fromiter(self.bidders, dtype=np.int64)
        found: list[int] = np.unique(self.bids.board.priority[those[~self.bids.overdue[those]]]).tolist()
        return found[::-1]

    # Giving out

    def overdue(self) -> None:
        """Who has waited far too long goes first, whatever its size and priority."""
        self._serve([self.bidders[n] for n in np.flatnonzero(self.bids.overdue).tolist() if n in self.bidders])

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
        those = np.fromiter(self.bidders, dtype=np.int64)
        same = those[(self.bids.board.priority[those] == priority) & ~self.bids.overdue[those]]
        self._serve([self.bidders[n] for n in same[self.bids.late[same]].tolist()])
        level = same[~self.bids.late[same]]
        if not len(level):
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
            self._give_out([self.bidders[n] for n in level.tolist()], lots, priority, declined)
            if best is None or self.predicted_usd < best["predicted_usd"] - 1e-12:
                best = self.__dict__
            if int(declined.sum()) == known:
                break
            self.__dict__ = before
        if best is not None:
            self.__dict__ = best

    def _lots(self, level: Ints) -> Lots:
        """The rows of these, and what is there for them."""
        board = self.bids.board
        places = np.flatnonzero(np.bincount(board.place[self._rows(level)]))
        types = np.flatnonzero(board.configurations.use[places].any(axis=0))
        names = [board.configurations.types[number] for number in types]
        return Lots.of(self.bids, level, {name: self.floor.open.free(name) for name in names})

    def _give_out(self, level: Sequence[Bidder], lots: Lots, priority: int, declined: Flags) -> None:
        """Whose bids win take what they won; who can win nothing that is there has what is free kept; the others take
        what is left. What is won and not taken, since waiting is less money, is added to `declined`."""
        found = self._auction(lots, priority, declined)
        order = np.argsort(-found.density, kind="stable").tolist()
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
        self._give_what_is_left(len(level), [each.index for each in later], found)

    def _is_here(self, row: int) -> bool:
        """Whether it runs on just this."""
        return int(self.bids.here[self.bids.board.owner[row]]) == row

    def _give_out_to_many(self, level: Ints, lots: Lots, priority: int, declined: Flags) -> None:
        """As before, for many. Who would rather wait is found out for all at once, by what all others won; they bid no
        more for that, and for nothing dearer, and the auction is held again."""
        board = self.bids.board
        for turn in range(AUCTIONS):
            found = self._auction(lots, priority, declined)
            self.backlog = found.backlog()
            outlook = self.timeline.copy()
            now = np.full(len(board.views), NONE, dtype=np.int64)
            won = found.won[found.won != NONE]
            now[board.owner[won]] = won
            outlook.give_back(board.configurations, board.place[won], self.bids.lefts_of(won))
            waits = self._waiting_pays(now, outlook, found.remains())
            if turn == AUCTIONS - 1 or waits.sum() <= DECLINED * len(level):
                break
            who = np.flatnonzero(waits)
            rows, which = board.rows_of(who)
            dearer = self.bids.money_usd[rows] >= self.bids.money_usd[now[who]][which]
            declined[rows[dearer & (rows != self.bids.here[who][which])]] = True
        order = np.argsort(-found.density, kind="stable")
        won, members, possible = found.won[order], level[order], np.array(self._possible(lots))[order]
        self._stay_all([self.bidders[n] for n in members[(won != NONE) & (self.bids.here[members] == won)].tolist()])
        some = np.flatnonzero((won != NONE) | ~possible)
        for n, row in zip(members[some].tolist(), won[some].tolist(), strict=True):
            each = self.bidders[n]
            if row != NONE and each.view.id not in self.placements and not waits[n]:
                self._start(each, row)
            elif row == NONE and not self._free_rows(each):
                self._wait(each, keep=True)
        later = [n for n in members.tolist() if self.ids[n] not in self.placements]
        self._give_what_is_left(len(level), later, found)

    def _possible(self, lots: Lots) -> list[bool]:
        """By place in the level: whether there are enough devices for any of its configurations, whoever has them."""
        types = lots.device_types
        fits = np.asarray((lots.use[:, :types] <= lots.supply[:types]).all(axis=1))
        return [count > 0 for count in np.bincount(lots.member[fits[lots.column]], minlength=len(lots.level)).tolist()]

    def _give_what_is_left(self, level: int, later: Sequence[int], found: Outcome) -> None:
        won = bool((found.won != NONE).any())
        said = self.explanations.keys()
        left = [n for n in later if self.ids[n] not in said]
        self.backlog = self.backlog if level > DETAILED else None
        for number, index in enumerate(left):
            each = self.bidders[index]
            if self.waiting >= self.detailed:
                self._give_the_rest(left[number:])
                return
            if not self._fill(each):
                self._wait(each, keep=not each.view.resumes or not won, found=found)

    def _give_the_rest(self, left: Sequence[int]) -> None:
        """As before, for those that are far behind: what each would start in is found out for all at once, and again
        after that was given out, as long as it goes on."""
        those = np.array(left, dtype=np.int64)
        for n in those[self.bids.here[those] != NONE].tolist():
            self._stay(self.bidders[n])
        rest = [n for n in left if self.ids[n] not in self.placements]
        for begin in range(0, len(rest), AT_ONCE):
            some = rest[begin : begin + AT_ONCE]
            for _ in range(LAPS):
                if not some or not self.floor.actual.any_free:
                    break
                some = self._start_some(some)
        rest = [n for n in rest if self.ids[n] not in self.placements]
        self.explanations.later([self.ids[n] for n in rest], partial(self._say_far_behind, self.waiting), rest)

    def _start_some(self, those: Sequence[int]) -> list[int]:
        """Start who of these gains from what is free. Who of the others would have, before it was taken: if anything
        was."""
        rows, known = self._may_start(np.array(those, dtype=np.int64)), self.bids.board.configurations
        late: list[int] = []
        could = np.flatnonzero(rows != NONE)
        places = self.bids.board.place[rows[could]]
        there = self.floor.actual.enough(known).tolist()
        for n, row, place in zip(could.tolist(), rows[could].tolist(), places.tolist(), strict=True):
            if there[place] and self._start(self.bidders[those[n]], row):
                there = self.floor.actual.enough(known).tolist()
            else:
                late.append(those[n])
        return late if len(late) < len(could) else []

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
        self.timeline.give_back(bids.board.configurations, bids.board.place[rows], bids.lefts_of(rows))
        for each, placement in zip(those, placements, strict=True):
            del self.lent[each.view.id]
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
        runs = np.flatnonzero(self.bids.board.running != NONE).tolist()
        running = [self.bids.board.views[n] for n in runs if n in self.bidders]
        moved = sum(self.placements.get(view.id) != view.placement for view in running)
        bidders = [self.ids[n] for n in self.bidders] if self.patience else []
        patience = {
            name: self.patience[name] for name in bidders if name in self.patience and name not in self.placements
        }
        memory = {
            "prices": self.prices,
            "stays": self.stays.after(self.now_s, len(running), moved),
            "patience": patience,
        }
        memory |= {name: notes for name, notes in self._notes().items() if notes}
        congestion = dict(sorted(self.congestion_usd_h.items()))
        plan = Plan(self.situation.cycle, self.placements, self.explanations, congestion, memory)
        if not self.situation.snapshot.node_types:
            return plan
        worth = self.bids.time_usd_h.tolist()
        return with_nodes(self.situation, plan, {self.ids[n]: worth[n] for n in self.bidders})

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
