"""The pieces of the benchmark of policies that rent: what is offered, how large a fixed cluster is, what users name."""

from __future__ import annotations

import pytest

from benchmarks.autoscaling.need import Need, need_of, owned_nodes
from benchmarks.autoscaling.work import INSTANCES, least_usd, named, offers
from scheduler.simulate.types import JobResult, NodeRental, Phase, SimulationResult, Trace, TraceJob
from scheduler.types import Configuration

V100, T4, A100 = "V100-SXM2-16GB", "T4", "A100-SXM4-40GB"


def job(name: str, count: int, **seconds: float) -> TraceJob:
    """`T4=..., V100=..., A100=...` in seconds of the whole job."""
    names = {"T4": T4, "V100": V100, "A100": A100}
    rates = {Configuration.of({names[kind]: count}): 1.0 / each for kind, each in seconds.items()}
    return TraceJob(name, "f", 0.0, 1.0, (Phase(0.0, rates),))


def trace(*jobs: TraceJob) -> Trace:
    return Trace("by hand", jobs)


def rental(node_type: str, joined_s: float | None, ended_s: float) -> NodeRental:
    return NodeRental("n", node_type, 8, 1.0, 0.0, joined_s, ended_s, failed=joined_s is None)


def ended(at_s: float) -> JobResult:
    return JobResult("j", "f", 0.0, 0.0, at_s, "succeeded", None, 1, 0, 0, None, None)


@pytest.mark.parametrize("name", INSTANCES)
def test_what_is_offered_has_the_prices_of_its_market(name: str) -> None:
    for market, price in (("on-demand", 21.9576), ("spot", 9.8979)):
        kinds = {each.name.removesuffix("-spot"): each for each in offers(name, (market,), 0.05).node_types}
        assert list(kinds) == sorted(each.replace(".", "-") for each in INSTANCES[name]), "in the order of their names"
        assert kinds["p4d-24xlarge"].price_usd_h == pytest.approx(price)
        assert kinds["p4d-24xlarge"].interruptions_per_h == (0.05 if market == "spot" else None)
    assert len(offers(name, ("on-demand", "spot")).node_types) == 2 * len(INSTANCES[name])


def test_a_cluster_that_is_always_there_rents_nothing() -> None:
    there = offers("philly", owned={"p4d-24xlarge": 2, "g4dn-12xlarge": 1})
    assert there.node_types == ()
    assert (there.total(A100), there.total(T4), there.total(V100)) == (16, 4, 0)
    need = Need.of({"p4d-24xlarge": 2, "g4dn-12xlarge": 1}, offers("philly"))
    assert (need.nodes, need.devices) == (3, 20)
    assert need.usd_h == pytest.approx(2 * 21.9576 + 3.912)


def test_the_mean_and_the_peak_of_what_was_rented() -> None:
    rentals = [
        rental("p4d-24xlarge", 0.0, 100.0),
        rental("p4d-24xlarge", 50.0, 300.0),
        rental("p4d-24xlarge", 60.0, 90.0),
        rental("p3-16xlarge", None, 50.0),
        rental("g4dn-12xlarge", 210.0, 300.0),
    ]
    result = SimulationResult("p", "t", 0, [ended(200.0)], [], rentals=rentals)
    assert need_of(result, offers("philly"), "peak") == {"p4d-24xlarge": 3}
    assert need_of(result, offers("philly"), "mean") == {"p4d-24xlarge": 2}, "280 of 200 node-seconds, rounded up"


def test_every_job_has_room_for_one_of_its_configurations() -> None:
    wide = job("wide", 16, A100=100.0, T4=100.0)
    assert owned_nodes({"p4d-24xlarge": 2}, trace(wide), offers("philly")) == {"p4d-24xlarge": 2}
    assert owned_nodes({"p4d-24xlarge": 1}, trace(wide), offers("philly")) == {"p4d-24xlarge": 2}, "one more is fewest"


def test_who_names_a_type_has_no_other() -> None:
    jobs = trace(job("a", 1, T4=300.0, V100=200.0, A100=100.0), job("b", 1, T4=300.0, A100=400.0))
    kept = {how: [str(each.configurations[0]) for each in named(jobs, how).jobs] for how in ("V100", "fastest")}
    assert kept == {"V100": [f"{V100} x1", "T4 x1"], "fastest": [f"{A100} x1", "T4 x1"]}
    assert all(len(each.configurations) == 1 for each in named(jobs, "V100").jobs)


def test_no_policy_can_be_cheaper_than_full_nodes_without_boots() -> None:
    jobs = trace(job("a", 4, T4=7200.0, A100=3600.0), job("b", 8, A100=3600.0))
    assert least_usd("philly", jobs) == pytest.approx(2 * 3.912 + 21.9576)
    assert least_usd("philly", jobs, ("spot",)) == pytest.approx(2 * 1.4083 + 9.8979)
