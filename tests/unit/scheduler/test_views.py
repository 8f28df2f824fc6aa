"""What the API says of an estimate and of devices: every part of the numbers, null where it is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from making import placed
from scheduler.admission import StepPlan
from scheduler.engine.progress import Progress
from scheduler.estimate.work import Work
from scheduler.service import cluster_views, views
from scheduler.store import Record
from scheduler.types import Breakdown, Configuration, Energy, Estimate, Explanation, Money, Option
from workloads.loading import load_text

T4 = Configuration.of({"T4": 2})


def test_an_estimate_carries_where_its_seconds_dollars_and_energy_go() -> None:
    estimate = Estimate(
        T4,
        seconds=28.0,
        money=Money(1.0, 0.25, 0.5),
        price_usd_h=1.0,
        breakdown=Breakdown(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
        energy=Energy(0.5, 0.1, None),
        market="spot",
        note="a prior",
    )
    view = views.option(Option(estimate))
    assert view["breakdown"] == {
        "compute_s": 1.0,
        "memory_s": 2.0,
        "launch_s": 3.0,
        "communication_s": 4.0,
        "startup_s": 5.0,
        "checkpoint_s": 6.0,
        "rework_s": 7.0,
    }
    assert sum(view["breakdown"].values()) == view["seconds"]
    assert view["energy"] == {"kwh": 0.5, "usd": 0.1, "gco2e": None}
    assert (view["market"], view["note"]) == ("spot", "a prior")
    money = [view[f"{part}_usd"] for part in ("money", "compute", "storage", "communication")]
    assert money == [1.75, 1.0, 0.25, 0.5]
    assert json.loads(json.dumps(view, allow_nan=False)) == view


def test_what_is_not_known_is_null() -> None:
    view = views.estimate(Estimate(T4, None))
    for name in ("seconds", "breakdown", "energy", "money_usd", "storage_usd", "communication_usd", "price_usd_h"):
        assert view[name] is None
    assert (view["market"], view["note"]) == ("on-demand", "")


def test_devices_say_their_market_and_the_cluster_its_rates(catalog: Catalog, host_rates: HostRates) -> None:
    data = {
        "nodes": [{"name": "a", "device": "T4", "instance": "aws/g4dn.xlarge", "market": "spot"}],
        "energy": {"usd_per_kwh": 0.2},
    }
    view = cluster_views.devices(ClusterDefinition.parse(data, catalog).snapshot(host_rates, catalog))
    (device,) = (kind for kind in view["device_types"] if kind["name"] == "T4")
    assert device["market"] == "spot"
    assert device["price_usd_h"] == device["spot_price_usd_h"] == catalog.instance("aws/g4dn.xlarge").price_spot_usd_h
    assert (device["power_watts"], device["interruptions_per_h"]) == (70, None)
    assert [node["market"] for node in view["nodes"]] == ["on-demand", "spot"]
    assert view["energy"] == {"usd_per_kwh": 0.2, "gco2e_per_kwh": None, "overhead": 1.0}
    assert view["tariff"] == {"storage_usd_gb_month": 0.023, "egress_usd_gb": 0.0}
    assert json.loads(json.dumps(view, allow_nan=False)) == view


def record(**fields: Any) -> Record:
    spec = {"kind": "command", "name": "w", "command": "x"}
    return replace(Record("w", "w", "command", spec, "running", 0.0, "/out", "/run"), **fields)


@pytest.mark.parametrize(
    ("fields", "late_s"),
    [
        ({}, None),
        ({"deadline_s": 90.0}, 10.0),
        ({"deadline_s": 110.0}, None),
        ({"deadline_s": 90.0, "ended_s": 95.0, "state": "succeeded"}, 5.0),
        ({"deadline_s": 90.0, "ended_s": 89.0, "state": "succeeded"}, None),
    ],
    ids=["no deadline", "late already", "not yet", "ended late", "ended in time, long ago"],
)
def test_how_late_it_is(fields: dict[str, Any], late_s: float | None) -> None:
    view = views.workload(record(**fields), Progress(), 100.0)
    assert (view["deadline_s"], view["late_s"]) == (fields.get("deadline_s"), late_s)


@pytest.mark.parametrize(
    ("fields", "attempt_s"),
    [
        ({}, None),
        ({"attempt": 1, "started_s": 40.0, "placement": placed(("T4", "a"))}, 60.0),
        ({"attempt": 3, "started_s": 80.0, "spent_s": 30.0, "placement": placed(("T4", "a"))}, 20.0),
        ({"attempt": 3, "started_s": 80.0, "spent_s": 40.0, "state": "queued"}, None),
        ({"attempt": 3, "started_s": 80.0, "spent_s": 40.0, "ended_s": 90.0, "state": "succeeded"}, 10.0),
        ({"attempt": 3, "started_s": 80.0, "spent_s": 40.0, "ended_s": 90.0, "state": "cancelled"}, None),
    ],
    ids=[
        "not started",
        "the first",
        "the third runs",
        "between two",
        "the third succeeded",
        "cancelled while it waited",
    ],
)
def test_how_long_the_last_attempt_took(fields: dict[str, Any], attempt_s: float | None) -> None:
    assert views.workload(record(**fields), Progress(), 100.0)["attempt_s"] == attempt_s


def test_a_workload_says_which_of_its_devices_are_emulated() -> None:
    held = record(placement=placed(("T4", "a"), ("L4", "b")), attempt=1, started_s=1.0)
    assert views.workload(held, Progress(), 2.0, "boom", {"T4", "A100"})["emulated"] == ["T4"]
    assert views.workload(held, Progress(), 2.0, "boom", {"T4", "A100"})["failure"] == "boom"
    assert views.workload(record(predicted=Estimate(T4, 1.0)), Progress(), 2.0, emulated={"T4"})["emulated"] == ["T4"]


STEP = "  - {{name: {name}, kind: command, command: x{more}}}\n"


@pytest.mark.parametrize(
    ("head", "more", "seconds", "notes"),
    [
        ("", ", deadline: 1s, budget_usd: 0.00001", None, ["the run time of a is not known: it cannot be checked against the deadline of 1 s and the budget of $0.00001"]),
        ("", ", deadline: 1s", 0.5, []),
        ("", "", None, []),
        ("deadline: 10m\n", "", None, ["the run time of a is not known: it cannot be checked against the deadline of 600 s"]),
        ("budget_usd: 5\n", "", 3.0, []),
    ],
    ids=["a step's", "known", "no limits", "the pipeline's", "the pipeline's, known"],
)  # fmt: skip
def test_a_plan_says_which_limits_it_cannot_check(
    head: str, more: str, seconds: float | None, notes: list[str]
) -> None:
    text = f"kind: pipeline\nname: p\n{head}steps:\n" + STEP.format(name="a", more=more)
    submission = load_text(text, base=Path("/"))
    options = (Option(Estimate(T4, seconds)),)
    step = StepPlan("a", "command", (), Work("command", 0.0), (), Explanation(T4, "taken", options))
    view = views.plan(submission, "market", [step])
    assert view["notes"] == notes
    assert (view["name"], view["policy"], [each["name"] for each in view["steps"]]) == ("p", "market", ["a"])
