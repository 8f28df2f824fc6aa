"""Configurations out of very many: the smallest first, few looked at; and cores that an accelerator's node must have."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from typing import Any

import pytest

from cluster.types import Snapshot
from making import est, inference, node, situation, snapshot, view
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import MAX_CONFIGURATIONS, _by_total, estimate_table
from scheduler.policy import create
from scheduler.types import Explanation
from workloads.quantities import CountRange
from workloads.spec import Resources


def table(where: Snapshot, **fields: Any) -> list[tuple[str, str | None]]:
    rows = estimate_table(inference(), Resources.model_validate(fields), where, Calibration())
    return [(str(row.configuration), row.infeasible.message if row.infeasible else None) for row in rows]


@pytest.mark.parametrize("wanted", [None, CountRange(low=4, high=7), CountRange(low=50, high=60)])
def test_all_ways_are_there_once_and_in_order(wanted: CountRange | None) -> None:
    choices = [[0, 1, 2, 8], [1, 3], [0, 5]]
    found = list(_by_total(choices, wanted))
    assert sorted(found) == sorted(c for c in product(*choices) if wanted is None or sum(c) in wanted)
    assert [sum(counts) for counts in found] == sorted(sum(counts) for counts in found)


@pytest.mark.timeout(60)
def test_who_takes_a_few_pays_for_a_few() -> None:
    """All of them would not end within the test's time limit, nor fit into memory."""
    choices = [list(range(17))] * 12  # 6e14 ways, those of a sum of 96 in the middle
    first = list(islice(_by_total(choices, CountRange(low=96, high=96)), MAX_CONFIGURATIONS))
    assert len(first) == MAX_CONFIGURATIONS


def test_small_gangs_come_first() -> None:
    where = snapshot(node("a", ("T4", 64)), node("b", ("A100", 64)))
    rows = table(where, devices={"T4": "1..64", "A100": "1..64"})
    assert [name for name, _ in rows[:3]] == ["A100 x1 + T4 x1", "A100 x2 + T4 x1", "A100 x1 + T4 x2"]
    assert len(rows) == MAX_CONFIGURATIONS


def gpus(*nodes: Any, emulated: bool = False) -> Snapshot:
    made = snapshot(*nodes)
    types = dict(made.device_types)
    types["T4"] = replace(types["T4"], emulated_speed=0.5 if emulated else None)
    return replace(made, device_types=types)


def test_cores_beside_an_accelerator_must_be_on_its_node() -> None:
    where = gpus(node("a", ("T4", 1), ("cpu", 2)), node("b", ("cpu", 64)))
    asked = {"devices": ["T4", "cpu"], "cpus_per_shard": 4}
    assert table(where, **asked) == [
        ("T4 x1", "4 CPU cores wanted beside each T4, its nodes have 2 at most"),
        ("cpu x1", None),
    ]
    assert table(where, **asked | {"cpus_per_shard": 2})[0] == ("T4 x1", None)
    assert table(gpus(node("a", ("T4", 1))), devices=["T4"], cpus_per_shard=0.5)[0][1] is not None


def test_cores_of_an_emulated_accelerator_are_threads() -> None:
    assert table(gpus(node("a", ("T4", 1)), emulated=True), devices=["T4"], cpus_per_shard=4) == [("T4 x1", None)]


def test_first_fit_waits_before_it_tries_again() -> None:
    early = replace(view("w", est(60, T4=1)), not_before_s=107.4)
    where = snapshot(node("a", ("T4", 1)))
    plan = create("first-fit").plan(situation(where, early, now_s=100.0))
    assert plan.placements == {}
    assert plan.explanations == {"w": Explanation(None, "waits after a failed attempt: tries again in 7 s")}
    assert create("first-fit").plan(situation(where, early, now_s=107.4)).placements
