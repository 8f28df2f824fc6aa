"""Bids from cycle to cycle: those of who waits as before are not found out anew. Pure, but for what it keeps.

What a workload bids that holds nothing and has no deadline depends on its estimates, its few own numbers and what
there is in the cluster, and not on the time. Where all that is the same, so are its bids, to the last bit: a plan never
depends on whether they were kept.
"""

from __future__ import annotations

import copy

import numpy as np

from .bidding import Bids
from .board import NONE, Board, Flags, Ints
from .candidates import Supply
from .quotas import Quotas


class Ledger:
    """What was bid in the last plan."""

    def __init__(self) -> None:
        self._last: Bids | None = None
        self._scene: object = None

    def bids(self, board: Board, supply: Supply, now_s: float, stay_s: float, quotas: Quotas, scene: object) -> Bids:
        """The bids of all. `scene`: what there is in the cluster and the rules of its queues: the same object as long
        as it is equal."""
        last = self._last if scene is self._scene else None
        was = np.full(len(board.views), NONE, dtype=np.int64) if last is None else _known(board, last.board)
        same, others = np.flatnonzero(was != NONE), np.flatnonzero(was == NONE)
        if last is None or not len(same):
            found = Bids(board, supply, now_s, stay_s, quotas)
        else:
            part = Bids(board.part(others), supply, now_s, stay_s, quotas)
            parts = (last, was[same], same), (part, np.arange(len(others)), others)
            found = Bids.joined(board, supply, now_s, stay_s, quotas, parts)
        self._last, self._scene = copy.copy(found), scene
        self._last.bid = found.bid.copy()  # others are raised for what they weigh on the end
        return found


def _known(board: Board, last: Board) -> Ints:
    """Of each workload that bids as one of the last board did, the place of that one; else `NONE`."""
    was = np.full(len(board.views), NONE, dtype=np.int64)
    if board.generation != last.generation:
        return was
    place = np.full(1 + max(board.table.max(initial=0), last.table.max(initial=0)), NONE, dtype=np.int64)
    place[last.table] = np.arange(len(last.table))
    was = place[board.table]
    here = np.flatnonzero(was != NONE)
    there = was[here]
    same = _rests(board)[here] & _rests(last)[there]
    for name in ("remaining", "held_s", "budget_usd", "one_node", "resumes"):
        now, before = getattr(board, name)[here], getattr(last, name)[there]
        same &= (now == before) | (np.isnan(now) & np.isnan(before))
    for name in ("objective", "queue"):
        same &= np.asarray(getattr(board, name)[here] == getattr(last, name)[there], dtype=bool)
    was[here[~same]] = NONE
    return was


def _rests(board: Board) -> Flags:
    """Which hold nothing and have no deadline: time changes nothing about them."""
    return np.asarray((board.held == NONE) & ~board.stopping & np.isnan(board.deadline_s))
