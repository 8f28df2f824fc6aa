"""Rented nodes from their request to their end: what the log is told of them, what they have cost, and what they may
still cost this month."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from cluster.protocols import ClusterUnreachable, Provider
from cluster.types import NO_DEADLINE_S, Node, NodeType, Snapshot
from workloads.quantities import usd_text

from ..store import EngineStore, Event, Record, Rental
from .charges import month_end_s, month_start_s
from .looks import Looks
from .reconcile import NodeAction, Rent

log = logging.getLogger(__name__)

AHEAD_S = 3600.0
"""A node is rented where the month's cap would pay for it, beside all others, for so long."""
NOTICE_S = 120.0
"""What the month's cap cannot pay for any longer is given so much notice: what runs there saves and goes."""
LONGEST_CYCLE_S = 60.0
"""Two cycles may lie so far apart: the month's cap holds where they do not lie further."""
BEFORE_GONE_S = 1.0
"""A run that must save has ended so long before its node."""
REFUSED_WITHIN, REFUSED_S = 1.5, 20.0
"""A launch that ended without a node within so many times its launch time, or so many seconds, was refused: it cost
nothing. After that there was a machine, and it did."""
MET = 1e-9
"""Of dollars: a cap that is met exactly is not passed."""


class Rentals:
    """The ledger of rented nodes of one store, and the provider that rents them."""

    def __init__(self, store: EngineStore, provider: Provider, looks: Looks) -> None:
        self._store, self._provider, self._looks = store, provider, looks
        self._open = {each.id: each for each in store.rentals(ended=False)}
        self._month, self._ended_usd = "", 0.0
        self._before = set(self._open)
        """What was rented when this service began, until it has looked itself."""
        self.must_go: set[str] = set()
        """Nodes that the month cannot pay for: nothing stays there, whether it can go on elsewhere or not."""
        self._why: dict[str, str] = {}
        """Why nodes leave, by their id."""

    def observed(self, snapshot: Snapshot, cycle: int) -> Snapshot:
        """Bring the ledger in line with what is there. The snapshot comes back with what may be rented of it within the
        month; what the month cannot pay for any longer is given notice."""
        settled = chain.from_iterable(self._settled(kind, snapshot) for kind in snapshot.node_types)
        happened = [*self._of_no_type(snapshot), *settled]
        events = [*(event for _, event in happened), *self._notices(snapshot)]
        if events:
            self._put(
                [rental for rental, _ in happened], *(replace(e, cycle=cycle, at_s=snapshot.at_s) for e in events)
            )
        if self._open:
            self._looks.note(snapshot.at_s)
        self._before.clear()
        self.must_go &= {node.node_id for node in snapshot.nodes}
        snapshot = self.limited(snapshot)
        self._close(snapshot, cycle)
        return snapshot

    def limited(self, snapshot: Snapshot) -> Snapshot:
        """With the dollars an hour that the rest of the month can pay for as a cap, where that is less."""
        month_usd = snapshot.rent_cap_usd_month
        if month_usd is None or not snapshot.node_types:
            return snapshot
        left_usd = max(0.0, month_usd - self.month_usd(snapshot.at_s) - _kept_usd(snapshot))
        ahead_s = min(AHEAD_S, month_end_s(snapshot.at_s) - snapshot.at_s)
        usd_h = left_usd / max(ahead_s, 1.0) * 3600
        caps = [cap for cap in (snapshot.rent_cap_usd_h, usd_h) if cap is not None]
        return replace(snapshot, rent_cap_usd_h=min(caps))

    def month_usd(self, now_s: float) -> float:
        """Dollars that rented nodes have cost this month (UTC), by now."""
        month_s = month_start_s(now_s)
        if (month := f"{month_s:.0f}") != self._month:
            ended = self._store.rentals(ended=True, since_s=month_s)
            self._month, self._ended_usd = month, sum(each.usd(now_s, month_s) for each in ended)
        return self._ended_usd + sum(each.usd(now_s, month_s) for each in tuple(self._open.values()))

    def saved_usd(self, now_s: float) -> float:
        """Dollars that nodes on spot would have cost more on demand this month (UTC), where that is known."""
        month_s = month_start_s(now_s)
        return sum(
            each.hours(now_s, month_s) * (each.on_demand_usd_h - each.usd_h)
            for each in self._store.rentals(since_s=month_s)
            if each.market == "spot" and each.on_demand_usd_h is not None
        )

    def change(self, action: NodeAction, snapshot: Snapshot, cycle: int) -> None:
        """Rent or give back. What the provider refuses is planned anew in the next cycle; the others go on. Raises
        ClusterUnreachable."""
        try:
            if isinstance(action, Rent):
                self._rent(action, snapshot, cycle)
                return
            if self._provider.release(action.node_id) and action.node_id not in self._why:
                self._why[action.node_id] = action.cause
                data = {"node": action.node_id}
                self._store.append(Event("node-released", action.cause, None, cycle, snapshot.at_s, data))
        except ClusterUnreachable:
            raise
        except Exception:
            log.exception("cycle %d: the provider refused %s", cycle, action)

    def _rent(self, action: Rent, snapshot: Snapshot, cycle: int) -> None:
        """Written down before it is asked for: what is on its way counts against every limit, whatever ends us."""
        kind = next(each for each in snapshot.node_types if each.name == action.node_type)
        asked = [_rental(kind, snapshot.at_s) for _ in range(action.more)]
        what = {"node_type": action.node_type, "count": action.more, "total": action.total}
        cause = f"{action.more} {action.node_type}: {action.cause}"
        event = Event("node-requested", cause, None, cycle, snapshot.at_s, what)
        self._put(asked, event)
        try:
            self._provider.request(action.node_type, action.total)
        except ClusterUnreachable:  # it may have been heard: what is on its way will be seen
            raise
        except Exception as error:
            why = f"the provider refused: {error}"
            ended = [replace(each, ended_s=snapshot.at_s, end=why, refused=True) for each in asked]
            self._put(ended, Event("node-not-launched", why, None, cycle, snapshot.at_s, what))
            raise

    def _of_no_type(self, snapshot: Snapshot) -> Iterator[tuple[Rental, Event]]:
        """Rentals of types that are offered no more end with their nodes."""
        known, here = {each.name for each in snapshot.node_types}, {node.node_id for node in snapshot.nodes}
        for each in self._open.values():
            if each.node_type not in known and each.node_id not in here:
                why = f"{each.node_type} is rented no more"
                ended = replace(each, ended_s=self._left_s(each, snapshot.at_s), end=why)
                yield ended, Event("node-left", why, data=_told(ended, snapshot.at_s))

    def _left_s(self, rental: Rental, now_s: float) -> float:
        """When a node that is not there any more was seen last: before this service began, as far as that is known."""
        if rental.id not in self._before or self._looks.before_s is None:
            return now_s
        return min(now_s, max(self._looks.before_s, rental.joined_s or rental.asked_s))

    def _settled(self, kind: NodeType, snapshot: Snapshot) -> Iterator[tuple[Rental, Event]]:
        """What has happened to the rentals of one type."""
        now_s = snapshot.at_s
        here = {node.node_id: node for node in snapshot.rented(kind.name)}
        theirs = [each for each in self._open.values() if each.node_type == kind.name]
        for each in theirs:
            if each.node_id is not None and each.node_id not in here:
                why = self._why.pop(each.node_id, "it left the cluster")
                ended = replace(each, ended_s=self._left_s(each, now_s), end=why)
                yield ended, Event("node-left", why, data=_told(ended, now_s))
        waiting = sorted((each for each in theirs if each.node_id is None), key=lambda each: each.asked_s)
        known = {each.node_id for each in theirs}
        for node in here.values():
            if node.node_id in known:
                continue
            asked = waiting.pop(0) if waiting else _rental(kind, now_s)
            joined = replace(asked, node_id=node.node_id, joined_s=now_s)
            cause = f"{node.name} is there, {now_s - joined.asked_s:.0f} s after it was asked for"
            yield joined, Event("node-joined", cause, data=_told(joined, now_s))
        surplus = len(waiting) - kind.launching
        for each in waiting[len(waiting) - surplus :] if surplus > 0 else ():
            refused = now_s - each.asked_s <= max(REFUSED_WITHIN * kind.launch_s, REFUSED_S)
            why = f"{kind.name}: {kind.unavailable_why or 'its launch failed'}"
            ended = replace(each, ended_s=now_s, end=why, refused=refused)
            yield ended, Event("node-not-launched", why, data=_told(ended, now_s))
        for _ in range(-surplus):  # somebody else asked for it: it costs no less
            more = _rental(kind, now_s)
            cause = f"Ray launches a {kind.name} that nobody asks for any more"
            yield more, Event("node-unasked", cause, data=_told(more, now_s))

    def _notices(self, snapshot: Snapshot) -> Iterator[Event]:
        """Of nodes that will leave, once for each."""
        for node in snapshot.nodes:
            if node.leaves_s is None or node.node_id in self._why:
                continue
            self._why[node.node_id] = "its cloud took it back" if node.market == "spot" else "it was drained"
            left_s = round(max(0.0, node.leaves_s - snapshot.at_s), 3) if node.leaves_s < NO_DEADLINE_S else None
            data = {"node": node.node_id, "node_type": node.node_type, "notice_s": left_s}
            yield Event("node-notice", f"{node.name} {_goes(node.leaves_s, snapshot.at_s)}", data=data)

    def _put(self, rentals: Sequence[Rental], *events: Event) -> None:
        """Write down, then go on from that."""
        self._store.put_rentals(rentals, *events)
        for each in rentals:
            self._follow(each)

    def _follow(self, rental: Rental) -> None:
        if rental.ended_s is None:
            self._open[rental.id] = rental
            return
        self._open.pop(rental.id, None)
        if self._month:
            self._ended_usd += rental.usd(rental.ended_s, float(self._month))

    def _close(self, snapshot: Snapshot, cycle: int) -> None:
        """Give notice to all rented nodes where the month's cap would else be passed before they could be gone. Those
        that are on their way still cost until they have joined, and are given notice then."""
        month_usd = snapshot.rent_cap_usd_month
        if month_usd is None:
            return
        left_usd = month_usd - self.month_usd(snapshot.at_s) - _kept_usd(snapshot)
        longest_s = max((each.launch_s for each in snapshot.node_types if each.launching), default=0.0)
        stop_s = longest_s + NOTICE_S + 2 * LONGEST_CYCLE_S
        kept_usd_h = sum(each.least * each.price_usd_h for each in snapshot.node_types)
        if (snapshot.rented_usd_h() - kept_usd_h) * stop_s / 3600 < left_usd - MET or not self._open:
            return
        why = f"the month's {usd_text(month_usd)} for rented nodes are spent"
        kept = {each.name: each.least for each in snapshot.node_types}
        for node in snapshot.nodes:
            if snapshot.type_of(node) is None or node.leaves_s is not None:
                continue
            if kept[node.node_type] > 0:  # Ray would launch another at once
                kept[node.node_type] -= 1
                continue
            try:
                self._provider.drain(node.node_id, snapshot.at_s + NOTICE_S, why)
            except ClusterUnreachable as error:  # it is tried again; the others must not wait for it
                log.warning("node %s cannot be given notice: %s", node.node_id, error)
                continue
            self.must_go.add(node.node_id)
            self._why[node.node_id] = why
            data = {"node": node.node_id, "notice_s": NOTICE_S}
            self._store.append(Event("node-notice", why, None, cycle, snapshot.at_s, data))


def leaving(records: Sequence[Record], snapshot: Snapshot) -> dict[str, tuple[Node, float]]:
    """Workloads that hold devices of a node that will be gone: of which, and when (Unix seconds)."""
    nodes = {node.node_id: node for node in snapshot.nodes if node.leaves_s is not None}
    if not nodes:
        return {}
    found: dict[str, tuple[Node, float]] = {}
    for record in records:
        held = (
            [] if record.placement is None else [nodes[name] for _, name in record.placement.devices if name in nodes]
        )
        if held:
            first = min(held, key=lambda node: node.leaves_s or 0.0)
            found[record.id] = first, first.leaves_s or 0.0
    return found


def why_leaving(gone: Mapping[str, tuple[Node, float]], now_s: float) -> dict[str, str]:
    """As they are told why they are stopped."""
    return {name: f"node {node.name} {_goes(at_s, now_s)}" for name, (node, at_s) in gone.items()}


def _goes(at_s: float, now_s: float) -> str:
    """What is said of a node that will be gone at a time."""
    if at_s >= NO_DEADLINE_S:
        return "is drained, and goes when nothing runs there"
    return f"will be gone in {max(0.0, at_s - now_s):.0f} s"


def _rental(kind: NodeType, now_s: float) -> Rental:
    return Rental(
        id=secrets.token_hex(8),
        node_type=kind.name,
        market=kind.market,
        usd_h=kind.price_usd_h,
        on_demand_usd_h=kind.on_demand_usd_h,
        asked_s=now_s,
    )


def _told(rental: Rental, now_s: float) -> dict[str, object]:
    data: dict[str, object] = {"node_type": rental.node_type, "node": rental.node_id, "usd": rental.usd(now_s)}
    if rental.joined_s is not None:
        data["launch_s"] = round(rental.joined_s - rental.asked_s, 3)
    if rental.ended_s is not None:
        data["held_s"] = round(rental.ended_s - rental.asked_s, 3)
    return data


def _kept_usd(snapshot: Snapshot) -> float:
    """What the nodes that are always there will still cost this month."""
    left_h = (month_end_s(snapshot.at_s) - snapshot.at_s) / 3600
    return sum(each.least * each.price_usd_h for each in snapshot.node_types) * left_h
