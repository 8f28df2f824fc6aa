"""Where a workload could start, and when, if it does not start now: the part of `market` that looks ahead. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..types import Configuration, Explanation, Option, Placement, Situation
from . import market_words as words
from .auction import Backlog, Outcome, extra_usd_h
from .bidding import BACKFILLS, SETTLING_S, Bidder, Bidders, Bids
from .board import BUDGET, DEADLINE, NONE, Flags, Floats, Ints
from .candidates import BUSY
from .explaining import Explanations, Heard, Said
from .prices import held_usd_h
from .quotas import Quotas
from .stays import numbers
from .timeline import SOON_S, Floor, Free, Timeline

Waits = Mapping[int, float | None]
"""By row: seconds until it could start there; None where nobody can say."""
PATIENCE = 3.0
"""For something better that is near, one waits so many times as long as was first said, ..."""
PATIENCE_S = 600.0
"""... and so long."""
DETAILED = 128
"""For so many that wait it is worked out when they start; ..."""
CROWD, DETAILED_IN_CROWD = 1000, 32
"""... where there are more than so many, for fewer."""


class Turns:
    """What is given out and what is promised, and how long it takes until somebody gets what is wanted."""

    bids: Bids
    floor: Floor

    def __init__(self, situation: Situation, heard: Heard) -> None:
        self.situation, self.now_s = situation, situation.now_s
        self.placements: dict[str, Placement] = {}
        self.explanations = Explanations()
        self.timeline = Timeline()
        self.waiting = 0
        self.queued: dict[str, list[tuple[int, int]]] = {}
        self.congestion_usd_h = dict.fromkeys(situation.snapshot.device_types, 0.0)
        self.predicted_usd = 0.0
        self.patience = numbers(situation.memory.get("patience"))
        self.lent: dict[str, Placement] = {}
        self.quotas = Quotas.of(situation)
        self.backlog: Backlog | None = None
        """Where so many wait that promises do not tell how long it takes: how long."""
        self.bidders = Bidders()
        self.heard = heard
        self.scene: object = None
        """What all explanations are about, beside their workload."""
        self._changing: Flags | None = None
        """By workload: whether words about it have numbers that change with time."""

    def _saved(self) -> dict[str, Any]:
        """All that giving out devices changes, as it is now."""
        kept = dict(self.__dict__)
        for name in ("placements", "explanations", "congestion_usd_h", "prices", "timeline", "floor", "quotas"):
            kept[name] = kept[name].copy()
        kept["lent"], kept["patience"] = dict(self.lent), dict(self.patience)
        kept["queued"] = {name: list(rows) for name, rows in self.queued.items()}
        return kept

    @property
    def detailed(self) -> int:
        """For so many that wait it is worked out when they start."""
        return DETAILED if len(self.bidders) <= CROWD else DETAILED_IN_CROWD

    # Where

    def _lend(self, placement: Placement, times: int) -> None:
        self.floor.actual.lend(placement, times)
        self.floor.open.lend(placement, times)

    def _give_up(self, each: Bidder) -> None:
        """Where it runs is as free to it as anything else."""
        placement = self.lent.pop(each.view.id, None)
        if placement is not None:
            self._lend(placement, -1)

    def _nodes(self, each: Bidder, row: int) -> Placement | None:
        """Where this could start now, behind what is kept for others."""
        view, wanted = each.view, self.bids.board.configuration(row)
        if self.quotas.refusal(view.queue, wanted) is not None:
            return None
        found = self.floor.open.place(wanted, one_node=view.one_node)
        if found is not None or not self.floor.actual.has(wanted):
            return found
        if not self.floor.lends(wanted, self._ends_s(each, row), stoppable=view.resumes):
            return None
        return self.floor.actual.place(wanted, one_node=view.one_node)

    def _ends_s(self, each: Bidder, row: int) -> float | None:
        """When it gives back what it borrows: at its end, or as soon as it has done something there."""
        if each.view.resumes:
            return BACKFILLS * (float(self.bids.board.startup_s[row]) + SETTLING_S)
        return self.bids.likely_s(row)

    # When

    def _wait_s(self, each: Bidder, row: int) -> float | None:
        """Seconds until it could start there; None where nobody can say."""
        wanted = self.bids.board.configuration(row)
        if self.quotas.refusal(each.view.queue, wanted) is not None:
            return None
        if self.floor.actual.has(wanted) and self._nodes(each, row) is not None:
            return 0.0
        return self.timeline.free_in_s(wanted, self.floor.open, each.view.one_node)

    def _options(self, each: Bidder, waits: Waits | None = None) -> list[Option]:
        """Every configuration with its money, waiting included, or the reason why it is out of the question. `waits`:
        of rows of which it is known how long they are waited for."""
        known = waits or {}
        found = {option.estimate.configuration: option for option in each.refused}
        for offer in each.offers:
            wait_s = known[offer.row] if offer.row in known else self._wait_s(each, offer.row)
            hours = 1.0 if offer.left_s is None else offer.seconds / 3600
            congestion = hours * held_usd_h(offer.configuration, self.congestion_usd_h)
            if wait_s is None:
                why = self.quotas.refusal(each.view.queue, offer.configuration) or words.UNTIL_WHEN
                option = Option(offer.estimate, None, congestion, None, why)
            elif wait_s > 0:  # what waits does not pay for the congestion of now: the time it waits is its price
                option = Option(offer.estimate, offer.money_usd + wait_s / 3600 * each.time_usd_h, 0.0, wait_s)
            else:
                option = Option(offer.estimate, offer.money_usd + congestion, congestion, 0.0)
            found[offer.configuration] = option
        return [found[estimate.configuration] for estimate in each.view.estimates]

    def _options_then(self, each: Bidder, taken: int, placement: Placement) -> list[Option]:
        """As `_options` of somebody who has got this since: as if it had not."""
        now = self.floor, self.quotas
        self.floor, self.quotas = self.floor.copy(), self.quotas.copy()
        self.floor.release(placement)
        self.quotas.take(each.view.queue, placement.configuration, -1)
        try:
            return self._options(each, {taken: 0.0})
        finally:
            self.floor, self.quotas = now

    def _better_to_wait(self, each: Bidder, row: int) -> bool:
        """Whether to wait for something that is busy, since it is less money in all than this, which is free. Not for
        ever: what was near and does not come is not believed any more."""
        wait_s = self._wait_that_pays(each, row)
        if wait_s is None:
            return False
        until_s = self.patience.setdefault(each.view.id, self.now_s + PATIENCE * wait_s + PATIENCE_S)
        return self.now_s <= until_s

    def _wait_that_pays(self, each: Bidder, row: int) -> float | None:
        """How long the wait is for something that is busy and less money in all than this, which is free; for what can
        be moved then, less than to start here and move. None: there is nothing like that."""
        others, waits_s = [], []
        for other in self.bids.cheaper(each.index, row):
            wait_s = self._wait_s(each, other)
            if wait_s:
                if self.backlog is not None:
                    wait_s += self.backlog.seconds(each.index, self.bids.board.configuration(other))
                others.append(other)
                waits_s.append(wait_s)
        if not others:
            return None
        rows, waits = np.array(others), np.array(waits_s)
        total = self.bids.money_usd[rows] + waits / 3600 * each.time_usd_h
        pays = np.flatnonzero(total < self.bids.least_usd(np.full(len(rows), row), rows, waits) - 1e-9)
        return float(waits[pays[0]]) if len(pays) else None

    # Many at once

    def _may_start(self, those: Ints) -> Ints:
        """Of many, the row that each would start in now: of what is free the least money, if waiting for another is not
        less; else `NONE`. Judged as if the nodes did not matter."""
        bids, board = self.bids, self.bids.board
        rows = self._rows(those)
        there = rows[self.floor.actual.enough(board.configurations)[board.place[rows]]]
        there = there[self.floor.open.enough(board.configurations)[board.place[there]] | self._borrowed(there)]
        first = there[np.argsort(-bids.money_usd[there], kind="stable")]
        now = np.full(len(board.views), NONE, dtype=np.int64)
        now[board.owner[first]] = first  # the least money comes last, and stays
        now[self._waiting_pays(now, self.timeline, self.floor.open)] = NONE
        return now[those]

    def _rows(self, indices: Ints) -> Ints:
        """What these workloads may take."""
        rows, _ = self.bids.board.rows_of(indices)
        return rows[self.bids.usable[rows]]

    def _borrowed(self, rows: Ints) -> Flags:
        """Whether what is kept for others may be lent to these, about as `Floor.lends`."""
        board = self.bids.board
        until_s = self.floor.lending(board.configurations)[board.place[rows]]
        stoppable = board.resumes[board.owner[rows]]
        ends_s = np.where(stoppable, BACKFILLS * (board.startup_s[rows] + SETTLING_S), self.bids.seconds[rows])
        return np.asarray(np.where(until_s == -np.inf, stoppable | (ends_s <= SOON_S), until_s >= ends_s))

    def _waiting_pays(self, now: Ints, timeline: Timeline, free: Free) -> Flags:
        """By workload, whether to wait for another of its rows is less money than what it could have `now` (a row, or
        `NONE`), as `_wait_that_pays`."""
        board = self.bids.board
        found = np.zeros(len(board.views), dtype=bool)
        who = np.flatnonzero(now != NONE)
        # The best first: for whom that pays, the others need not be looked at.
        found[who] = self._pays(now, self.bids.cheapest[who], who, timeline, free)
        who = who[~found[who]]
        rows, which = board.rows_of(who)
        rows, owner = rows[self.bids.usable[rows]], who[which[self.bids.usable[rows]]]
        found[owner[self._pays(now, rows, owner, timeline, free)]] = True
        return found

    def _pays(self, now: Ints, rows: Ints, owner: Ints, timeline: Timeline, free: Free) -> Flags:
        """Of each of these rows, of these workloads, whether to wait for it is less money than what it could have."""
        bids, found = self.bids, np.zeros(len(rows), dtype=bool)
        now_usd = bids.money_usd[now[owner]]
        less = np.flatnonzero(bids.money_usd[rows] < now_usd)  # what is dearer pays for no wait
        rows, owner = rows[less], owner[less]
        wait_s = self._waits_s(rows, owner, timeline, free)
        total = bids.money_usd[rows] + wait_s / 3600 * bids.time_usd_h[owner]
        some = np.flatnonzero(total < now_usd[less] - 1e-9)  # also than to start now, and move
        least = bids.least_usd(now[owner[some]], rows[some], wait_s[some])
        found[less[some]] = total[some] < least - 1e-9
        return found

    def _waits_s(self, rows: Ints, owner: Ints, timeline: Timeline, free: Free) -> Floats:
        """How long each of these rows, of these workloads, is waited for; nan where it is free, or nobody can say."""
        board, known = self.bids.board, self.bids.board.configurations
        place, alone = board.place[rows], board.one_node[owner]
        waits_s = np.full((2, len(known.known)), np.nan)
        enough = np.asarray((known.use <= [free.free(name) for name in known.types]).all(axis=1))
        for number in np.flatnonzero((np.bincount(place, minlength=len(enough)) > 0) & ~enough).tolist():
            for one_node in (False, True) if alone.any() else (False,):
                free_s = timeline.free_in_s(known.known[number], free, one_node)
                waits_s[int(one_node), number] = np.nan if free_s is None else free_s
        found = waits_s[alone.astype(int), place]
        return np.asarray(found if self.backlog is None else found + self.backlog.seconds_of(owner, place, known))

    # Waiting

    def _wait(self, each: Bidder, keep: bool, found: Outcome | None = None) -> None:
        """It gets nothing now. What is free of what it waits for is kept for it, if it must be."""
        if self.waiting >= self.detailed:
            self.explanations[each.view.id] = self._far_behind(each, self.waiting)
            return
        self.predicted_usd += each.cheapest_usd
        waits = {row: self._wait_s(each, row) for row in each.rows}
        best = self._best_wait(each, waits)
        wanted = None if best is None else self.bids.board.configuration(best)
        if wanted is None and keep and (each.overdue or each.late):
            wanted = self._busy(each, waits)
        wait_s = None if best is None else waits[best]
        if wanted is not None:
            if best is not None and wait_s is not None:
                self.predicted_usd += self._usd_then(each, best, wait_s) - each.cheapest_usd
                self.timeline.promise(wanted, wait_s, each.of(best).estimate.seconds, self.floor.open)
            if keep:
                self.floor.keep(wanted, wait_s, one_node=each.view.one_node)
        names = [] if wanted is None else [name for name, _ in wanted.groups]
        before = list({n: priority for name in names for n, priority in self.queued.get(name, ())}.values())
        said = partial(self._say_waits, each, waits, best, before, found)
        self.explanations[each.view.id] = said if len(self.bidders) > DETAILED else said()
        if wanted is not None:
            self.waiting += 1
            for name in names:
                self.queued.setdefault(name, []).append((self.waiting, each.view.priority))

    def _usd_then(self, each: Bidder, row: int, wait_s: float) -> float:
        """Money of a row that is waited for so long."""
        return float(self.bids.money_usd[row]) + wait_s / 3600 * each.time_usd_h

    def _best_wait(self, each: Bidder, waits: Waits) -> int | None:
        """The row of least money of those that are busy, where somebody can say until when."""
        known = {row: wait_s for row, wait_s in waits.items() if wait_s}
        board = self.bids.board
        return min(
            known,
            key=lambda row: (self._usd_then(each, row, known[row]), known[row], str(board.configuration(row))),
            default=None,
        )

    def _busy(self, each: Bidder, waits: Waits) -> Configuration | None:
        """The smallest configuration that is busy, nobody can say until when."""
        busy = [self.bids.board.configuration(row) for row, wait_s in waits.items() if wait_s is None]
        allowed = [each_ for each_ in busy if self.quotas.refusal(each.view.queue, each_) is None]
        return min(allowed, key=lambda c: (c.devices, c), default=None)

    def _say_waits(
        self, each: Bidder, waits: Waits, best: int | None, before: Sequence[int], found: Outcome | None
    ) -> Explanation:
        options = self._options(each, waits)
        wanted = None if best is None else self.bids.board.configuration(best)
        chosen = next((option for option in options if option.estimate.configuration == wanted), None)
        return words.waits(each, chosen, options, before, None if found is None else extra_usd_h(each, found))

    def _far_behind(self, each: Bidder, ahead: int) -> Said:
        """The very same words as in the last plan, where nothing about it has changed."""
        return partial(self._say_far_behind, ahead, each.index)

    def _say_far_behind(self, ahead: int, index: int) -> Explanation:
        each = self.bidders[index]

        def words_now() -> Explanation:
            listed = (*each.refused, *(Option(offer.listed, None, 0.0, None, BUSY) for offer in each.offers))
            return words.far_behind(listed, ahead)

        if self._changing is None:
            codes = self.bids.code  # whose words have numbers that change with time
            self._changing = self.bids.board.any((codes == BUDGET) | (codes == DEADLINE))
        if self._changing[each.index]:
            return words_now()
        rows, view = self.bids.board.rows(each.index), each.view
        codes = self.bids.code[rows.start : rows.stop]
        about = codes.tobytes(), ahead, view.remaining, view.placement, view.stopping, view.queue, view.one_node
        return self.heard.say(view.id, self.scene, view.estimates, about, words_now)
