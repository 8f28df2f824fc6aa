"""Nodes that come and go while a trace runs: what renting costs and saves, and what failures do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.types import Node, NodeType, Snapshot
from dashboards.simulation_tables import comparison_table, to_json
from making import TYPES, configuration, node, snapshot
from scheduler.policy import create
from scheduler.policy.prices import value_of_time_usd_h
from scheduler.simulate.metrics import Summary, summary
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import NodeRental, Phase, SimulationResult, Trace, TraceJob

T4 = NodeType("t4", (("T4", 1),), 0.5, most=8)
A100 = NodeType("a100", (("A100", 1),), 4.0, most=4)
OWN = node("own", ("T4", 1))


def where(*nodes: Node, types: Sequence[NodeType] = (), cap: float | None = None) -> Snapshot:
    kinds = {name: TYPES[name] for name in ("A100", "T4")}
    return replace(snapshot(*nodes), device_types=kinds, node_types=tuple(types), rent_cap_usd_h=cap)


def job(name: str, arrives_s: float = 0.0, work: float = 1800.0, **fields: Any) -> TraceJob:
    """1 a second on a T4, 4 on an A100."""
    rates = fields.pop("rates", {configuration(T4=1): 1.0, configuration(A100=1): 4.0})
    return TraceJob(name, "bert", arrives_s, work, (Phase(0.0, rates),), startup_s=20.0, **fields)


def bursty(bursts: int = 4, each: int = 10, every_s: float = 4 * 3600.0, seed: int = 0) -> Trace:
    """Ten jobs of 5 to 60 minutes within 5 minutes, then nothing for hours."""
    random = np.random.default_rng(seed)
    jobs = [
        job(f"{burst}-{n}", burst * every_s + float(random.uniform(0, 300)), float(random.uniform(300, 3600)))
        for burst in range(bursts)
        for n in range(each)
    ]
    return Trace("bursty", tuple(sorted(jobs, key=lambda one: one.arrives_s)))


def run(trace: Trace | TraceJob, at: Snapshot, policy: str = "market", **options: Any) -> SimulationResult:
    wanted = Trace("by hand", (trace,)) if isinstance(trace, TraceJob) else trace
    return simulate(wanted, at, create(policy), Options(**options))


def money(result: SimulationResult, at: Snapshot) -> float:
    """What everybody's time until the end is worth, what was held of nodes that stay, and all that rented ones cost."""
    stays = {each.node_id for each in at.nodes if at.type_of(each) is None}
    usd = sum(each.usd for each in result.rentals or ())
    for each in result.jobs:
        assert each.ended_s is not None, f"{each.id} did not end"
        usd += (each.ended_s - each.arrived_s) / 3600 * value_of_time_usd_h("balanced")
        for span in each.spans:
            price = at.device_types[span.device_type].price_usd_h or 0.0
            usd += price * span.count * (span.ended_s - span.began_s) / 3600 if span.node in stays else 0.0
    return usd


def states(result: SimulationResult) -> set[str]:
    return {each.state for each in result.jobs}


def test_one_job_on_an_empty_cluster_to_the_second() -> None:
    """Asked for at once, there after 180 s, 20 s of start-up, 1800 s of work; idle for 2340 s, then given back."""
    result = run(job("a"), where(types=(T4,)))
    assert [each.ended_s for each in result.jobs] == [180.0 + 20.0 + 1800.0]
    assert result.rentals is not None
    (rental,) = result.rentals
    assert (rental.node, rental.node_type, rental.asked_s, rental.joined_s) == ("t4-1", "t4", 0.0, 180.0)
    assert 2000.0 + 2340.0 <= rental.ended_s <= 2000.0 + 2340.0 + 60.0, "to the next plan: one a minute"
    one = summary(result)
    assert one.rented_usd == pytest.approx(rental.ended_s / 3600 * 0.5)
    assert one.idle_usd == pytest.approx((rental.ended_s - 1820.0) / 3600 * 0.5)
    assert (one.node_hours, one.launches, one.failed_launches) == (pytest.approx(rental.ended_s / 3600), 1, 0)
    assert one.usd == pytest.approx(1820.0 / 3600 * 0.5), "what the job held is told beside it"


def test_an_empty_cluster_with_nodes_to_rent_finishes_everything() -> None:
    result = run(bursty(), where(types=(T4, A100)))
    assert states(result) == {"succeeded"}
    assert all(each.ended_s < result.samples[-1].at_s + 1 for each in result.rentals or ())
    assert sum(result.samples[-1].total.values()) == 0, "and everything went back"


def test_on_a_bursty_trace_renting_is_less_money_than_not_renting_and_than_always_keeping_the_most() -> None:
    rents, none = where(OWN, types=(T4,)), where(OWN)
    kept = run(bursty(), where(OWN, *(T4.node(f"kept-{number}") for number in range(T4.most))))
    hours = max(each.ended_s or 0.0 for each in kept.jobs) / 3600
    kept_usd = money(kept, none) + T4.most * T4.price_usd_h * hours
    renting = money(run(bursty(), rents), rents)
    assert renting < 0.75 * money(run(bursty(), none), none)
    assert renting < 0.9 * kept_usd


def test_no_more_than_the_cap_at_any_time() -> None:
    result = run(bursty(2), where(types=(T4, A100), cap=2.0))
    assert states(result) == {"succeeded"}
    assert result.rentals is not None
    for moment in sorted(each.asked_s for each in result.rentals):
        there = [each for each in result.rentals if each.asked_s <= moment < each.ended_s]
        assert sum(each.usd_h for each in there) <= 2.0 + 1e-9


def test_launches_that_fail_are_counted_and_tried_again() -> None:
    one = summary(run(bursty(2), where(types=(T4,)), launch_failures=0.5))
    assert (one.finished, one.failed_launches or 0) == (20, pytest.approx((one.launches or 0) / 2, rel=0.6))
    assert one.failed_launches


def test_a_type_whose_launches_always_fail_does_not_stop_the_queue() -> None:
    never = run(bursty(1), where(OWN, types=(T4,)), launch_failures=1.0)
    without = run(bursty(1), where(OWN))
    assert states(never) == {"succeeded"}
    one, other = summary(never), summary(without)
    assert one.launches == one.failed_launches
    assert (one.rented_usd, one.node_hours) == (0.0, 0.0)
    assert one.mean_jct_s == pytest.approx(other.mean_jct_s, rel=0.02)


def test_where_nothing_ever_joins_it_ends_and_says_so() -> None:
    result = run(job("a"), where(types=(replace(T4, launch_s=10.0),)), launch_failures=1.0)
    assert states(result) == {"queued"}
    assert result.notes == ["1 jobs never ran: nothing that is there or joins can hold them"]


def test_where_renting_is_dearer_than_its_cap_it_ends_as_well() -> None:
    result = run(job("a"), where(types=(T4,), cap=0.1))
    assert (states(result), len(result.notes), result.rentals) == ({"queued"}, 1, [])


def test_a_spot_node_that_is_taken_back_is_rented_anew() -> None:
    spot = replace(T4, market="spot", price_usd_h=0.1, interruptions_per_h=2.0)
    result = run(job("a", work=20_000.0), where(types=(spot,)))
    one = summary(result)
    assert states(result) == {"succeeded"}
    assert result.jobs[0].failures >= 1
    assert one.launches == result.jobs[0].failures + 1


def test_nodes_that_are_there_from_the_start_are_given_back_too_and_are_no_launches() -> None:
    result = run(Trace("two", (job("a", work=300.0), job("b", 7200.0))), where(T4.node("t4-1"), types=(T4,)))
    assert result.rentals is not None
    assert [(each.node, each.launched) for each in result.rentals] == [("t4-1", False), ("t4-2", True)]
    assert result.rentals[0].ended_s < 7200.0


def test_what_runs_on_something_slow_moves_to_a_rented_node() -> None:
    result = run(job("a", work=40_000.0), where(OWN, types=(A100,)))
    one = summary(result)
    assert (one.launches, one.preemptions) == (1, 1)
    assert one.makespan_s is not None
    assert one.makespan_s < 40_000 / 3


@pytest.mark.parametrize(("failures", "ends_s"), [(0.0, 180 + 20 + 3600), (1.0, 20 + 14_400)])
def test_what_would_begin_again_waits_for_the_better_node_if_it_comes(failures: float, ends_s: float) -> None:
    wanted = job("a", work=14_400.0, kind="command", objective="time")
    result = run(wanted, where(OWN, types=(A100,)), launch_failures=failures)
    assert result.jobs[0].preemptions == 0
    assert result.jobs[0].ended_s == pytest.approx(ends_s + (180.0 if failures else 0.0), abs=60.0)


def test_a_policy_that_rents_nothing_leaves_what_it_has() -> None:
    result = run(job("a"), where(T4.node("t4-1"), types=(T4,)), "fifo")
    assert states(result) == {"succeeded"}
    assert [each.ended_s for each in result.rentals or ()] == [1820.0]


def test_the_same_seed_is_the_same_run() -> None:
    spot = replace(T4, market="spot", price_usd_h=0.1, interruptions_per_h=1.0)
    first, again = (run(bursty(1), where(types=(spot,)), launch_failures=0.3) for _ in range(2))
    assert first.rentals == again.rentals
    assert first.jobs == again.jobs


def rented(**fields: Any) -> tuple[list[SimulationResult], list[Summary]]:
    rentals = [
        NodeRental("n-1", "n", 2, 2.0, 0.0, 100.0, 3600.0),
        NodeRental("n-2", "n", 2, 2.0, 0.0, None, 50.0, True),
    ]
    result = SimulationResult("market", "made", 0, [], [], rentals=fields.get("rentals", rentals))
    return [result], [summary(result)]


def test_the_table_and_the_json_have_the_numbers_of_renting_only_where_something_may_be_rented() -> None:
    results, summaries = rented()
    heads = [column.name for column in comparison_table(results, summaries).columns]
    for part in ("rented\n$", "idle\nrented", "node\nhours", "launches", "failed\nlaunches"):
        assert any(part in head for head in heads), part
    told = to_json(results, summaries)["policies"][0]["summary"]
    names = ("rented_usd", "idle_usd", "node_hours", "launches", "failed_launches")
    assert [told[name] for name in names] == [2.0, 2.0, 1.0, 2, 1]
    results, summaries = rented(rentals=None)
    assert not any("rented" in column.name for column in comparison_table(results, summaries).columns)
    assert {to_json(results, summaries)["policies"][0]["summary"][name] for name in names} == {None}
