"""What a queue costs on a fleet, to the cent where it can be worked out by hand; and how good the search over fleets is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from cluster.types import NodeType
from making import TYPES, est, node, situation, snapshot, view
from scheduler.policy.fleet import LATE_USD_H, NEVER_S, Job, Machine, job, predict, there
from scheduler.policy.renting import Wait, decide
from scheduler.policy.renting_queue import waiting
from scheduler.types import Breakdown

HOUR = 3600.0
T4 = NodeType("t4", (("T4", 1),), 0.5, most=3, launch_s=360.0)
A100 = NodeType("a100", (("A100", 1),), 4.0, most=3, launch_s=360.0)
TAIL = {"t4": HOUR, "a100": HOUR}
OWN = there(snapshot(node("own", ("T4", 2))), node("own", ("T4", 2)), {"T4": [HOUR]})
"""Two T4, one of them busy for an hour."""


def one(name: str, hours: float = 1.0, total_usd: float | None = None, **fields: Any) -> Job:
    """An hour on a T4, or on two in half of it; its time is worth $2 an hour."""
    estimates = fields.pop("estimates", (est(hours * HOUR, T4=1), est(hours * HOUR / 2, T4=2)))
    return job(view(name, *estimates, **fields), estimates, 2.0, (total_usd, None), 0.0)


def usd(fleet: Sequence[Machine], *jobs: Job) -> float:
    return round(predict(fleet, jobs, TAIL).usd, 6)


NEW, COMING = Machine.rented(T4, 360.0), Machine.rented(T4, 360.0, "launching-t4-1")
CASES = {
    "nobody costs nothing": ([OWN], [], 0.0),
    "on the device that is free: an hour at $2.50": ([OWN], [one("a")], 2.5),
    "the second waits for both, and is done in half the time": ([OWN], [one("a"), one("b")], 2.5 + 1.5 * 2 + 0.5),
    "or pays what somebody knows better": ([OWN], [one("a"), one("b", total_usd=3.0)], 2.5 + 3.0),
    "what nothing can hold waits for ever": ([OWN], [one("a", estimates=(est(HOUR, A100=1),))], NEVER_S / HOUR * 2),
    "a new node that nobody needs is paid for all the same": ([OWN, NEW], [], 0.5 * 1.1),
    "one that is coming is paid for by its use": ([OWN, COMING], [], 0.0),
    "who is before the queue's turn has the new one: its boot, the hour, and the idle tail": (
        [NEW],
        [one("a")],
        1.1 * 2 + 0.5 * (1.1 + 1),
    ),
    "two after each other on it pay one boot and one tail": (
        [NEW],
        [one("a"), one("b")],
        (1.1 + 2.1) * 2 + 0.5 * (2.1 + 1),
    ),
    "a deadline that is missed": (
        [OWN],
        [one("a", estimates=(est(HOUR, T4=1),), deadline_s=0.75 * HOUR)],
        2.5 + 0.25 * LATE_USD_H,
    ),
    "half of the work is left": ([OWN], [one("a", remaining=0.5)], 1.25),
    "on one node only where it has so many": (
        [replace(OWN, devices=(("T4", 1),), busy_s={}), replace(OWN, devices=(("T4", 1),), busy_s={})],
        [one("a", estimates=(est(HOUR, T4=2),), one_node=True)],
        NEVER_S / HOUR * 2,
    ),
    "what waiting costs less is not rented for": ([OWN, NEW], [one("a", total_usd=0.1), one("b", total_usd=0.1)], 0.75),
}


@pytest.mark.parametrize(("fleet", "jobs", "expected"), CASES.values(), ids=CASES)
def test_the_money_of_a_queue(fleet: list[Machine], jobs: list[Job], expected: float) -> None:
    assert usd(fleet, *jobs) == pytest.approx(expected, abs=1e-5)


def test_spot_costs_what_is_repeated_and_the_wait_for_another_node() -> None:
    def alone(per_h: float, **fields: Any) -> float:
        spot = replace(T4, market="spot", interruptions_per_h=per_h)
        return usd([Machine.rented(spot, 0.0, "s")], one("a", estimates=(est(HOUR, T4=1),), **fields))

    sure = alone(0.0)
    assert sure == 2.5
    assert sure < alone(0.1, resumes=True) < alone(0.1, resumes=False) < alone(1.0, resumes=False)
    assert alone(0.1, resumes=True) == pytest.approx(2.5 * (1 + 0.1 * (360 + 300) / HOUR), rel=0.01)
    assert alone(500.0, resumes=False) == NEVER_S / HOUR * 2, "it would not end"


def test_the_rework_of_an_estimate_is_not_counted_twice() -> None:
    """An estimate on spot holds its rework; on a node on demand there is none."""
    raw = replace(est(HOUR, T4=1), market="spot", breakdown=Breakdown(compute_s=3000.0, rework_s=600.0))
    sure = Machine.rented(T4, 0.0, "t4-1")
    assert usd([sure], one("a", estimates=(raw,))) == pytest.approx(3000 / HOUR * 2.5, abs=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_no_other_nodes_would_be_much_less_money(seed: int) -> None:
    """All numbers of two types are tried, for a queue of random jobs on a small cluster."""
    draw = random.Random(seed)
    waits = []
    for number in range(draw.randint(1, 7)):
        hours, count = draw.uniform(0.05, 4.0), draw.choice([1, 1, 2])
        estimates = [est(hours * HOUR, T4=count)] + [est(hours * HOUR / 4, A100=count)] * draw.randint(0, 1)
        waits.append(Wait(view(f"w{number}", *estimates), draw.choice([0.5, 2.5, 40.0]), None, None))
    kinds = {name: TYPES[name] for name in ("A100", "T4")}
    at = replace(snapshot(node("own", ("T4", 1))), device_types=kinds, node_types=(T4, A100))
    asked = situation(at, *(each.view for each in waits))
    found = {each.node_type: each.count for each in decide(asked, waits, {}).requests}
    jobs, own = waiting(asked, waits), there(at, at.nodes[0], {})
    # `decide` keeps an idle node for as long as a launch costs at what an hour of `balanced` is worth
    tails = {kind.name: min(HOUR, kind.launch_s * (1 + 2.5 / kind.price_usd_h)) for kind in (T4, A100)}

    def with_new(t4: int, a100: int) -> float:
        new = [Machine.rented(A100, A100.launch_s)] * a100 + [Machine.rented(T4, T4.launch_s)] * t4
        return predict([own, *new], jobs, tails).usd

    best = min(with_new(*counts) for counts in product(range(4), range(4)))
    assert with_new(found.get("t4", 0), found.get("a100", 0)) <= 1.06 * best
