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
from typing import Any

from ..types import Configuration, Explanation, Option, Placement, Plan, Situation, WorkloadView
from . import market_words as words
from .auction import Outcome, auction, density, extra_usd_h
from .bidding import Bidder, Offer, bidder, left_s
from .candidates import BUSY, Supply, hopeless, resting, vacated
from .capacity import Capacity
from .prices import held_usd_h
from .renting import with_nodes
from .stays import Stays, numbers
from .timeline import Floor, Timeline

AUCTIONS = 3
"""So often at most is an auction held again without what was declined, ..."""
REPEATED_TO = 300
"""... if no more than so many take part."""
SETTLING_S = 30.0
"""What has started is left alone for its start-up and this long."""
BACKFILLS = 3.0
"""What can be stopped goes ahead on kept devices only if it has so many times its start-up there."""
PATIENCE = 3.0
"""For something better that is near, one waits so many times as long as was first said, ..."""
PATIENCE_S = 600.0
"""... and so long."""
DETAILED = 128
"""For so many that wait it is worked out when they start."""


class Market:
    """Least money, congestion prices, preemption that pays, backfill behind reservations."""

    name = "market"

    def plan(self, situation: Situation) -> Plan:
        """Devices for everybody who can use them best now; a reason for everybody."""
        cycle = _Cycle(situation)
        cycle.overdue()
        for priority in cycle.priorities():
            cycle.level(priority)
        return cycle.plan()


class _Cycle:
    """One plan in the making."""

    def __init__(self, situation: Situation) -> None:
        self.situation, self.now_s = situation, situation.now_s
        self.stays = Stays.of(situation)
        self.placements: dict[str, Placement] = {}
        self.explanations: dict[str, Explanation] = {}
        self.timeline = Timeline()
        self.waiting = 0
        self.queued: dict[str, list[tuple[int, int]]] = {}
        self.congestion_usd_h = dict.fromkeys(situation.snapshot.device_types, 0.0)
        self.prices: dict[str, dict[str, float]] = {}
        self.predicted_usd = 0.0
        self.patience = numbers(situation.memory.get("patience"))
        self.bidders: list[Bidder] = []
        self._sort_out(Supply(situation.snapshot))
        self.floor = Floor(self._capacity(), self._capacity())
        self.lent = {each.view.id: each.view.placement for each in self.bidders if each.view.placement is not None}
        for placement in self.lent.values():
            self._lend(placement, 1)

    # Who takes part

    def _sort_out(self, supply: Supply) -> None:
        """What runs and is left alone keeps its place; who may not run yet, or never, gets the reason."""
        stay_s = self.stays.seconds
        for view in sorted(self.situation.workloads, key=lambda view: (view.submitted_s, view.queued_s, view.id)):
            kept = _kept(view)
            if kept is not None:
                self.placements[view.id] = kept
                self.explanations[view.id] = words.keeps(view)
                self.timeline.gives_back(kept.configuration, _free_again_s(view))
                continue
            rests = resting(view, self.now_s)
            found = None if rests is not None else bidder(view, supply, self.now_s, stay_s)
            if found is not None and found.offers:
                self.bidders.append(found)
            elif view.placement is not None and not view.stopping:
                self.placements[view.id] = view.placement
                self.explanations[view.id] = words.keeps(view)
            else:
                self.explanations[view.id] = rests or hopeless([] if found is None else found.refused)

    def _capacity(self) -> Capacity:
        return vacated(self.situation, self.placements)

    def _lend(self, placement: Placement, times: int) -> None:
        self.floor.actual.lend(placement, times)
        self.floor.open.lend(placement, times)

    def priorities(self) -> list[int]:
        """Of those that are not overdue, the highest first."""
        return sorted({each.view.priority for each in self.bidders if not each.overdue}, reverse=True)

    # Giving out

    def overdue(self) -> None:
        """Who has waited far too long goes first, whatever its size and priority."""
        self._serve([each for each in self.bidders if each.overdue])

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
            best = max(
                each.offers,
                key=lambda offer: (offer.bid * self._fits(each, offer), offer.configuration == each.running),
            )
            if best.configuration == each.running or not self._take(each, best.configuration):
                self._stay(each)

    def _hold(self, each: Bidder) -> bool:
        """Take what it runs on, for now; False where it does not run, or somebody has it."""
        there = each.view.placement
        if there is None or each.offer(each.running) is None or not self.floor.open.holds(there):
            return False
        self.floor.take(there)
        return True

    def _fits(self, each: Bidder, offer: Offer) -> bool:
        return self.floor.open.place(offer.configuration, one_node=each.view.one_node) is not None

    def level(self, priority: int) -> None:
        """All of one priority. Whose bid wins something that it would rather wait than take, does not bid for that: the
        auction is held again without, some times at most, and the outcome of least predicted money counts."""
        same = [each for each in self.bidders if not each.overdue and each.view.priority == priority]
        self._serve([each for each in same if each.late])
        level = [each for each in same if not each.late]
        if not level:
            return
        declined: set[tuple[str, Configuration]] = set()
        best: dict[str, Any] | None = None
        for _ in range(AUCTIONS if len(level) <= REPEATED_TO else 1):
            before, known = self._saved(), len(declined)
            self._give_out(level, priority, declined)
            if best is None or self.predicted_usd < best["predicted_usd"] - 1e-12:
                best = self.__dict__
            if len(declined) == known:
                break
            self.__dict__ = before
        if best is not None:
            self.__dict__ = best

    def _saved(self) -> dict[str, Any]:
        """All that giving out devices changes, as it is now."""
        kept = dict(self.__dict__)
        for name in ("placements", "explanations", "congestion_usd_h", "prices", "timeline", "floor"):
            kept[name] = kept[name].copy()
        kept["lent"], kept["patience"] = dict(self.lent), dict(self.patience)
        kept["queued"] = {name: list(rows) for name, rows in self.queued.items()}
        return kept

    def _give_out(self, level: Sequence[Bidder], priority: int, declined: set[tuple[str, Configuration]]) -> None:
        """Whose bids win take what they won; who can win nothing that is there has what is free kept; the others take
        what is left. What is won and not taken, since waiting is less money, is added to `declined`."""
        found = self._auction(level, priority, declined)
        won = found.won
        order = sorted(level, key=lambda each: -density(each, won.get(each.view.id)))
        for each in order:
            if each.running is not None and won.get(each.view.id) == each.running:
                self._stay(each)
        later = []
        for each in order:
            if each.view.id in self.placements:
                continue
            chosen = won.get(each.view.id)
            if chosen is not None:
                if not self._take(each, chosen):
                    later.append(each)
                elif each.view.id not in self.placements:
                    declined.add((each.view.id, chosen))
            elif not any(self._is_there(offer.configuration) for offer in each.offers):
                self._wait(each, keep=True)
            elif not self._declines_again(each, declined):
                later.append(each)
        for each in later:
            if each.view.id not in self.placements and each.view.id not in self.explanations and not self._fill(each):
                self._wait(each, keep=not each.view.resumes or not won, found=found)

    def _declines_again(self, each: Bidder, declined: set[tuple[str, Configuration]]) -> bool:
        """Whether it still waits rather than take what it could have won."""
        offers = [offer for offer in each.offers if (each.view.id, offer.configuration) in declined]
        if not offers:
            return False
        options = self._options(each)
        if not self._better_to_wait(each, min(offers, key=lambda offer: offer.money_usd), options):
            return False
        self._wait(each, keep=True, options=options)
        return True

    def _is_there(self, configuration: Configuration) -> bool:
        return all(self.there[name] >= count for name, count in configuration.groups)

    def _auction(self, level: Sequence[Bidder], priority: int, declined: set[tuple[str, Configuration]]) -> Outcome:
        """What each wins of what is there, beginning with the prices of the last plan."""
        types = sorted({name for each in level for offer in each.offers for name, _ in offer.configuration.groups})
        self.there = {name: self.floor.open.free(name) for name in types}
        noted = self.situation.memory.get("prices")
        before = numbers(noted.get(str(priority)) if isinstance(noted, Mapping) else None)
        found = auction(level, self.there, declined, before or None)
        self.prices[str(priority)] = {name: value for name, value in found.price.items() if value > 0}
        for name, value in found.price.items():
            self.congestion_usd_h[name] = max(self.congestion_usd_h[name], round(value * found.usd_per_bid, 4))
        return found

    def _stay(self, each: Bidder) -> None:
        """It keeps its devices, if nobody has them."""
        there = each.view.placement
        offer = each.offer(each.running)
        if offer is None or there is None:
            return
        lends = self.floor.lends(offer.configuration, self._ends_s(each, offer), stoppable=each.view.resumes)
        if self.floor.open.holds(there) or (lends and self.floor.actual.holds(there)):
            self._place(each, offer, there, words.keeps(each.view))

    def _take(self, each: Bidder, chosen: Configuration) -> bool:
        """What it won, unless waiting for something better is less money. False where no nodes have it."""
        offer = each.offer(chosen)
        assert offer is not None
        self._give_up(each)
        placement = self.floor.open.place(chosen, one_node=each.view.one_node)
        if placement is None:
            return False
        options = self._options(each)
        if self._better_to_wait(each, offer, options):
            self._wait(each, keep=True, options=options)
            return True
        why = words.taken(offer, options) if each.running is None else words.moves(each, offer)
        self._place(each, offer, placement, why)
        return True

    def _fill(self, each: Bidder) -> bool:
        """The best for it of what is left, unless waiting is less money."""
        self._stay(each)
        if each.view.id in self.placements:
            return True
        self._give_up(each)
        free = self.floor.actual
        if not any(all(free.free(n) >= k for n, k in offer.configuration.groups) for offer in each.offers):
            return False
        found = []
        for offer in each.offers:
            placement = self._nodes(each, offer)
            if placement is not None:
                found.append((offer.money_usd, offer.configuration, offer, placement))
        if not found:
            return False
        _, _, offer, placement = min(found, key=lambda row: row[:2])
        options = self._options(each)
        if self._better_to_wait(each, offer, options):
            return False
        why = words.taken(offer, options) if each.running is None else words.moves(each, offer)
        self._place(each, offer, placement, why)
        return True

    def _nodes(self, each: Bidder, offer: Offer) -> Placement | None:
        """Where this could start now, behind what is kept for others."""
        view, ends_s = each.view, self._ends_s(each, offer)
        return self.floor.place(offer.configuration, one_node=view.one_node, ends_s=ends_s, stoppable=view.resumes)

    @staticmethod
    def _ends_s(each: Bidder, offer: Offer) -> float | None:
        """When it gives back what it borrows: at its end, or as soon as it has done something there."""
        if each.view.resumes:
            return BACKFILLS * (offer.listed.startup_s + SETTLING_S)
        return offer.estimate.high_s or offer.estimate.seconds

    def _give_up(self, each: Bidder) -> None:
        """Where it runs is as free to it as anything else."""
        placement = self.lent.pop(each.view.id, None)
        if placement is not None:
            self._lend(placement, -1)

    def _place(self, each: Bidder, offer: Offer, placement: Placement, why: Explanation) -> None:
        self._give_up(each)
        self.floor.take(placement)
        self.timeline.gives_back(placement.configuration, offer.left_s)
        self.placements[each.view.id] = placement
        self.explanations[each.view.id] = why
        self.predicted_usd += offer.money_usd

    # Waiting

    def _options(self, each: Bidder) -> list[Option]:
        """Every configuration with its money, waiting included, or the reason why it is out of the question."""
        found = {option.estimate.configuration: option for option in each.refused}
        for offer in each.offers:
            here = self._nodes(each, offer) is not None
            wait_s = 0.0 if here else self._free_in_s(each, offer)
            hours = 1.0 if offer.left_s is None else offer.seconds / 3600
            congestion = hours * held_usd_h(offer.configuration, self.congestion_usd_h)
            if wait_s is None:
                option = Option(offer.estimate, None, congestion, None, words.UNTIL_WHEN)
            elif wait_s > 0:  # what waits does not pay for the congestion of now: the time it waits is its price
                option = Option(offer.estimate, offer.money_usd + wait_s / 3600 * each.time_usd_h, 0.0, wait_s)
            else:
                option = Option(offer.estimate, offer.money_usd + congestion, congestion, 0.0)
            found[offer.configuration] = option
        return [found[estimate.configuration] for estimate in each.view.estimates]

    def _free_in_s(self, each: Bidder, offer: Offer) -> float | None:
        return self.timeline.free_in_s(offer.configuration, self.floor.open, each.view.one_node)

    def _better_to_wait(self, each: Bidder, now: Offer, options: Sequence[Option]) -> bool:
        """Whether to wait for something that is busy, since it is less money in all than this, which is free. Not for
        ever: what was near and does not come is not believed any more."""
        wait_s = _wait_that_pays(each, now, options)
        if wait_s is None:
            return False
        until_s = self.patience.setdefault(each.view.id, self.now_s + PATIENCE * wait_s + PATIENCE_S)
        return self.now_s <= until_s

    def _wait(
        self,
        each: Bidder,
        keep: bool,
        options: list[Option] | None = None,
        found: Outcome | None = None,
    ) -> None:
        """It gets nothing now. What is free of what it waits for is kept for it, if it must be."""
        ahead = self.waiting
        if ahead >= DETAILED:
            rows = (*each.refused, *(Option(offer.listed, None, 0.0, None, BUSY) for offer in each.offers))
            self.explanations[each.view.id] = words.far_behind(rows, ahead)
            return
        options = options or self._options(each)
        self.predicted_usd += each.cheapest.money_usd
        known = [o for o in options if o.reason is None and o.total_usd is not None and o.wait_s]
        best = min(known, key=words.cheapest, default=None)
        wanted = best.estimate.configuration if best is not None else None
        if wanted is None and keep and (each.overdue or each.late):
            busy = [o.estimate.configuration for o in options if o.reason is words.UNTIL_WHEN]
            wanted = min(busy, key=lambda c: (c.devices, c), default=None)
        if wanted is not None:
            if best is not None and best.wait_s and best.total_usd is not None:
                self.predicted_usd += best.total_usd - each.cheapest.money_usd
                self.timeline.promise(wanted, best.wait_s, best.estimate.seconds, self.floor.open)
            if keep:
                self.floor.keep(wanted, None if best is None else best.wait_s, one_node=each.view.one_node)
        names = [] if wanted is None else [name for name, _ in wanted.groups]
        before = list({n: priority for name in names for n, priority in self.queued.get(name, ())}.values())
        extra = None if found is None else extra_usd_h(each, found)
        self.explanations[each.view.id] = words.waits(each, best, options, before, extra)
        if wanted is not None:
            self.waiting += 1
            for name in names:
                self.queued.setdefault(name, []).append((self.waiting, each.view.priority))

    def plan(self) -> Plan:
        """What was decided."""
        moved = sum(
            each.running is not None and self.placements.get(each.view.id) != each.view.placement
            for each in self.bidders
        )
        running = sum(each.running is not None for each in self.bidders)
        patience = {
            each.view.id: self.patience[each.view.id]
            for each in self.bidders
            if each.view.id in self.patience and each.view.id not in self.placements
        }
        memory = {
            "prices": self.prices,
            "stays": self.stays.after(self.now_s, running, moved),
            "patience": patience,
        }
        congestion = dict(sorted(self.congestion_usd_h.items()))
        plan = Plan(self.situation.cycle, self.placements, self.explanations, congestion, memory)
        return with_nodes(self.situation, plan, {each.view.id: each.time_usd_h for each in self.bidders})


def _kept(view: WorkloadView) -> Placement | None:
    """The place of what runs and is left alone: it would begin again, or it has hardly begun."""
    if view.placement is None or (view.stopping and view.resumes):
        return None
    listed = any(each.configuration == view.placement.configuration for each in view.estimates)
    if not view.resumes or not listed or _settles_s(view) > 0:
        return view.placement
    return None


def _settles_s(view: WorkloadView) -> float:
    """Seconds until what has started may be moved."""
    assert view.placement is not None
    here = next((e for e in view.estimates if e.configuration == view.placement.configuration), None)
    return (0.0 if here is None else here.startup_s) + SETTLING_S - view.held_s


def _free_again_s(view: WorkloadView) -> float | None:
    """When what is left alone ends, or may be moved."""
    assert view.placement is not None
    here = next((e for e in view.estimates if e.configuration == view.placement.configuration), None)
    ends_s = None if here is None else left_s(view, here)
    if not view.resumes:
        return ends_s
    return max(1.0, _settles_s(view)) if ends_s is None else min(ends_s, max(1.0, _settles_s(view)))


def _wait_that_pays(each: Bidder, now: Offer, options: Sequence[Option]) -> float | None:
    """How long the wait is for something that is busy and less money in all than this, which is free; for what can be
    moved then, less than to start here and move. None: there is nothing like that."""
    money = {offer.configuration: offer.money_usd for offer in each.offers}
    for option in options:
        if not option.wait_s or option.total_usd is None or option.reason is not None:
            continue
        least = now.money_usd
        worked_s = option.wait_s - now.listed.startup_s
        if each.view.resumes and BACKFILLS * (now.listed.startup_s + SETTLING_S) < option.wait_s < now.seconds:
            later = option.estimate
            an_hour = each.time_usd_h + (later.price_usd_h or 0.0)
            meanwhile = option.wait_s / 3600 * (each.time_usd_h + (now.listed.price_usd_h or 0.0))
            rest = (1.0 - worked_s / now.seconds) * money[later.configuration]
            least = min(least, meanwhile + rest + later.startup_s / 3600 * an_hour)
        if option.total_usd < least - 1e-9:
            return option.wait_s
    return None
