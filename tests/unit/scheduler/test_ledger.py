"""What is kept of bids from plan to plan is what would be found out anew, to the last bit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from making import node, placed, situation, snapshot
from scheduler.policy.bidding import Bids
from scheduler.policy.board import Board, Tables
from scheduler.policy.candidates import Supply
from scheduler.policy.ledger import Ledger
from scheduler.policy.quotas import Quotas
from scheduler.types import QueueRules, WorkloadView
from test_market_situations import workload

BY_ROW = ("code", "free", "usable", "price_usd_h", "seconds", "money_usd", "stays", "bid")
BY_WORKLOAD = ("misses", "time_usd_h", "cheapest", "here", "late", "overdue", "overdue_s")
WHERE = snapshot(node("a", ("T4", 4)), node("b", ("A100", 2)), node("c", ("cpu", 4)))
RULES = {"x": QueueRules(quota={"T4": 1})}


def waiting(rng: random.Random, count: int, prefix: str) -> list[WorkloadView]:
    return [workload(rng, f"{prefix}{number}", Counter()) for number in range(count)]


def same(found: Bids, fresh: Bids) -> None:
    for name in (*BY_ROW, *BY_WORKLOAD):
        np.testing.assert_array_equal(getattr(found, name), getattr(fresh, name), err_msg=name)
    everything = np.arange(len(fresh.usable))
    np.testing.assert_array_equal(found.lefts_of(everything), fresh.lefts_of(everything))


@pytest.mark.parametrize("seed", range(10))
def test_what_waits_as_before_bids_as_before(seed: int) -> None:
    rng = random.Random(seed)
    views, tables, ledger = waiting(rng, 60, "w"), Tables(), Ledger()
    supply, quotas = Supply(WHERE), Quotas.of(situation(WHERE, queues=RULES))
    for cycle in range(4):
        now_s = 1e4 + 600.0 * cycle
        found = ledger.bids(Board.of(views, tables, now_s), supply, now_s, 500.0 + cycle, quotas, "here")
        same(found, Bids(Board.of(views, Tables(), now_s), supply, now_s, 500.0 + cycle, quotas))
        found.bid[:] = -1.0  # what is done with bids does not change what is kept
        views = [replace(view) if rng.random() < 0.3 else view for view in views]
        views[cycle] = replace(views[cycle], remaining=0.5)
        views[cycle + 10] = replace(views[cycle + 10], placement=placed(("T4", "a")), held_s=100.0)
        views[cycle + 20] = replace(views[cycle + 20], deadline_s=now_s + 900.0, objective="time")
        views = [*views[:30], *views[31:], *waiting(rng, 2, f"{cycle}-")]


def test_what_there_is_matters() -> None:
    views, tables, ledger = waiting(random.Random(1), 60, "w"), Tables(), Ledger()
    for where in (WHERE, snapshot(node("a", ("T4", 1)))):
        quotas = Quotas.of(situation(where))
        found = ledger.bids(Board.of(views, tables, 1e4), Supply(where), 1e4, 600.0, quotas, where)
        same(found, Bids(Board.of(views, Tables(), 1e4), Supply(where), 1e4, 600.0, quotas))


def test_a_board_is_the_same_whatever_was_read_before() -> None:
    rng = random.Random(3)
    views, tables = waiting(rng, 1500, "w"), Tables()
    for cycle in range(3):
        found, fresh = Board.of(views, tables, 1e4), Board.of(views, Tables(), 1e4)
        numbered = ("views", "configurations", "generation", "table", "place", "held")
        for name in (each.name for each in fields(Board) if each.name not in numbered):
            np.testing.assert_array_equal(getattr(found, name), getattr(fresh, name), err_msg=name)
        assert [view.id for view in found.views] == [view.id for view in fresh.views]
        assert [found.configuration(n) for n in range(99)] == [fresh.configuration(n) for n in range(99)]
        views = [*views[500:], *waiting(rng, 900 * (1 + cycle), f"{cycle}-")]


def test_what_came_at_once_is_in_the_order_of_ids() -> None:
    views = [WorkloadView(name, name, submitted_s=5.0, queued_s=7.0) for name in ("b", "c", "a")]
    views.append(WorkloadView("z", "z", submitted_s=4.0))
    assert [view.id for view in Board.of(views, Tables(), 10.0).views] == ["z", "a", "b", "c"]
