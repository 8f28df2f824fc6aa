"""What the API tells of calibration, and its reset."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from cluster.fake import Script
from cluster.types import Snapshot
from fake_service import HOST, FakeRuntime
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.device_rates import DeviceRates
from scheduler.estimate.step_time import PARTS
from scheduler.service import calibration_views

RATES: dict[str, Any] = {
    "kind": "rates",
    "device_type": "T4",
    "shards": 2,
    "flops": {"fp32": 20e9},
    "bandwidth_bytes_s": 4e9,
    "launch_s": 3e-6,
    "reduce_bytes_s": 1e9,
}
BENCHMARK = "{kind: benchmark, name: measure, resources: {devices: [T4], count: 2}}"
SUBJECT = Subject("train", "bert-2x32", "T4", "fp32")
NOTHING = Snapshot(0.0, (), {})


def measured(api: TestClient, runtime: FakeRuntime) -> None:
    """Run a benchmark of two T4 through the API."""
    runtime.script = Script(records=[(2.0, RATES)])
    assert api.post("/api/v1/workloads", json={"text": BENCHMARK, "base": "/"}).status_code == 201
    for _ in range(20):
        runtime.cycle()


def test_at_first_it_tells_what_the_catalog_and_the_host_say(api: TestClient) -> None:
    found = api.get("/api/v1/calibration").json()
    assert (found["subjects"], found["overheads"], found["history"]) == ([], [], [])
    types = {kind["name"]: kind for kind in found["device_types"]}
    assert types["cpu"]["catalog"]["flops"] == {"fp32": HOST.core_flops}
    assert types["T4"]["known_as"] == "T4~emulated@0.5"
    assert types["T4"]["catalog"]["bandwidth_bytes_s"] == HOST.core_bandwidth_bytes_s / 2
    assert {kind["measured"] for kind in types.values()} == {None}


def test_a_benchmark_is_told_of_and_planned_with(api: TestClient, runtime: FakeRuntime) -> None:
    measured(api, runtime)
    types = {kind["name"]: kind for kind in api.get("/api/v1/calibration").json()["device_types"]}
    found = types["T4"]["measured"]
    assert (found["flops"], found["shards"], found["reduce_bytes_s"]) == ({"fp32": 20e9}, 2, 1e9)
    assert found["measured_at_s"] == pytest.approx(runtime.clock(), abs=60)
    assert types["A100-SXM4-40GB"]["measured"] is None
    assert runtime.engine.as_measured(runtime.cluster.snapshot()).device_types["T4"].peak_flops["fp32"] == 20e9


def test_a_reset_forgets_and_says_how_much(api: TestClient, runtime: FakeRuntime) -> None:
    measured(api, runtime)
    assert runtime.engine.calibration.observe_overhead("train", "bert", 1, 9.0)
    assert runtime.engine.calibration.observe(SUBJECT, 1, "b4", 2.0, [1.0, *[0.0] * (len(PARTS) - 1)])
    forgotten = api.delete("/api/v1/calibration").json()["forgotten"]
    assert forgotten == {"points": 1, "times": 3, "device_types": 1}
    left = api.get("/api/v1/calibration").json()
    assert (left["subjects"], left["overheads"], left["history"]) == ([], [], [])
    assert {kind["measured"] for kind in left["device_types"]} == {None}
    assert runtime.store.events(limit=10_000)[-1].kind == "calibration-reset"
    assert runtime.store.load_device_rates() == {}
    assert api.delete("/api/v1/calibration").json()["forgotten"] == {"points": 0, "times": 0, "device_types": 0}


def test_the_factors_of_a_subject_come_with_their_interval_and_points() -> None:
    known = Calibration()
    parts = [1.0, *[0.0] * (len(PARTS) - 1)]
    for _ in range(4):
        assert known.observe(SUBJECT, 2, "b8 t12", 1.5, parts)
    assert known.observe(SUBJECT, 1, "b8 t12", 1.5, parts)
    (found,) = calibration_views.calibration(known, {}, NOTHING)["subjects"]
    assert {name: found[name] for name in ("kind", "family", "device", "precision")} == {
        "kind": "train",
        "family": "bert-2x32",
        "device": "T4",
        "precision": "fp32",
    }
    assert list(found["factors"]) == list(PARTS)
    compute, between = found["factors"]["compute"], found["factors"]["between"]
    assert 1.3 < compute["mean"] < 1.55
    assert compute["low"] < compute["mean"] < compute["high"]
    assert between["mean"] == pytest.approx(1.0)
    assert between["high"] / between["low"] > compute["high"] / compute["low"]
    assert [(each["shards"], each["count"], each["ratio"]) for each in found["points"]] == [
        (2, 4, pytest.approx(1.5)),
        (1, 1, pytest.approx(1.5)),
    ]


def test_times_are_told_with_what_they_are_of() -> None:
    known = Calibration()
    assert known.observe_overhead("train", "bert", 2, 12.0)
    assert known.observe_history("command", "clean-1", "cpux1", 30.0)
    found = calibration_views.calibration(known, {}, NOTHING)
    assert [(each["family"], each["devices"]) for each in found["overheads"]] == [
        ("*", "*"),
        ("bert", "*"),
        ("bert", "2"),
    ]
    assert known.observe_history("command", "clean-1", "cpux1", 30.0, 1234.0)
    sizes = [each["size"] for each in calibration_views.calibration(known, {}, NOTHING)["history"]]
    assert sizes == [None, 1200.0]
    (history,) = found["history"]
    assert history["seconds"] == pytest.approx(30.0)
    assert history["low_s"] < 30 < history["high_s"]
    assert history["configuration"] == "cpux1"


def test_a_type_that_has_gone_is_told_of_without_the_catalogs_rates() -> None:
    known = {"T4~emulated@0.5": DeviceRates("T4", {"fp32": 1e9})}
    (found,) = calibration_views.calibration(Calibration(), known, NOTHING)["device_types"]
    assert (found["name"], found["catalog"], found["total"]) == ("T4", None, 0)
