"""What there is, who holds it and what it has cost: nodes, queues, usage; and whether the service works."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from asking import COMMAND, fields, problem, submit
from cluster.fake import Script
from cluster.types import NodeType
from fake_service import FakeRuntime
from making import placed
from scheduler.service import cluster_views, spending
from scheduler.service.spending import day_of
from scheduler.store import Charge, Event, Record
from scheduler.types import QueueRules

DAY_S = 86400.0
MIDNIGHT_S = 1_795_737_600.0  # 2026-11-27
T4_COMMAND = COMMAND.replace("devices: cpu", "devices: [T4]")


def record(name: str, state: str = "queued", **others: Any) -> Record:
    spec = {"kind": "command", "command": "x", "name": name, "queue": others.pop("queue", "default")}
    return Record(name, name, "command", spec, state, 10.0, "/o", "/r", **others)  # type: ignore[arg-type]


def running(name: str, *devices: tuple[str, str], **others: Any) -> Record:
    return record(name, "running", placement=placed(*devices), attempt=1, **others)


def charged(runtime: FakeRuntime, *charges: Charge) -> None:
    ended = record("x", "succeeded")
    runtime.store.add([ended], [])
    runtime.store.put(ended, Event("note", "x", "x"), charges=charges)


def test_nodes_say_what_runs_on_them(api: TestClient, runtime: FakeRuntime) -> None:
    runtime.script = Script(run_s=1e6)
    name = submit(api, T4_COMMAND).json()["id"]
    runtime.cycle()
    body = api.get("/api/v1/nodes").json()
    work = {node["name"]: node["workloads"] for node in body["nodes"]}
    assert work == {"head": [], "a100": [], "t4": [{"id": name, "name": "hello", "devices": {"T4": 1}}]}
    assert (body["rentable"], body["rented_usd_h"], body["rent_cap_usd_h"]) == ([], 0.0, None)


def test_nodes_that_can_be_rented_are_told_of(runtime: FakeRuntime) -> None:
    kind = NodeType("big", (("T4", 4),), 2.5, 3, joins_s=(1.0,))
    snapshot = runtime.cluster.snapshot()
    snapshot = replace(snapshot, nodes=(*snapshot.nodes, kind.node("b-1")), node_types=(kind,), rent_cap_usd_h=9.0)
    view = cluster_views.nodes(snapshot, [running("w", ("T4", "b-1"), ("T4", "b-1"), ("T4", "elsewhere"))])
    assert view["rentable"] == [
        {"name": "big", "devices": {"T4": 4}, "price_usd_h": 2.5, "market": "on-demand", "present": 1, "launching": 1, "most": 3, "unavailable_until_s": None, "unavailable_why": ""}
    ]  # fmt: skip
    assert (view["rented_usd_h"], view["rent_cap_usd_h"]) == (5.0, 9.0)
    assert (view["nodes"][-1]["price_usd_h"], view["nodes"][-1]["workloads"][0]["devices"]) == (2.5, {"T4": 2})


def test_queues_say_what_they_hold_and_have_cost(api: TestClient, runtime: FakeRuntime) -> None:
    today = day_of(time.time())
    earlier = Charge("x", 1, f"{today[:8]}01", "T4", "eve", "night", 60.0, 2.0)
    now = Charge("x", 2, today, "T4", "eve", "night", 60.0, 0.5)
    before = Charge("x", 3, "2020-01-01", "T4", "eve", "night", 60.0, 99.0)
    charged(runtime, earlier, now, before)
    runtime.script = Script(run_s=1e6)
    submit(api, T4_COMMAND + "queue: day\n")
    submit(api, T4_COMMAND + "queue: day\n")
    for _ in range(2):
        runtime.cycle()
    submit(api, COMMAND + "queue: day\n")
    body = api.get("/api/v1/queues").json()
    assert (body["day"], body["month"]) == (today, today[:7])
    found = {queue["name"]: queue for queue in body["queues"]}
    assert set(found) == {"day", "night"}
    assert found["night"]["month_usd"] == pytest.approx(2.5)
    assert found["night"]["today_usd"] == pytest.approx(2.5 if today.endswith("-01") else 0.5)
    day = found["day"]
    assert (day["running"], day["waiting"], day["holds"]) == (2, 1, {"T4": 2})
    assert day["holds_usd_h"] == pytest.approx(2 * 0.526)
    assert day["rules"] == {"weight": 1.0, "quota": {}, "limit_usd_h": None, "limit_usd_month": None}


def test_a_queue_with_rules_is_there_without_work() -> None:
    rules = {"night": QueueRules(2.0, {"T4": 4}, 5.0)}
    (queue,) = cluster_views.queues(rules, [], {}, {}, "2026-11-27")["queues"]
    assert queue["rules"] == {"weight": 2.0, "quota": {"T4": 4}, "limit_usd_h": 5.0, "limit_usd_month": None}
    limited = {"night": QueueRules(limit_usd_month=100.0)}
    (queue,) = cluster_views.queues(limited, [], {}, {"night": 40.0}, "2026-11-27")["queues"]
    assert (queue["limit_usd_month"], queue["month_usd"]) == (100.0, 40.0)
    (paused,) = cluster_views.queues({}, [record("w", paused=True)], {}, {}, "2026-11-27")["queues"]
    assert (paused["paused"], paused["waiting"], paused["running"]) == (1, 0, 0)


def test_usage_adds_up_what_ended_and_what_runs(runtime: FakeRuntime) -> None:
    charged(
        runtime,
        Charge("a", 1, "2026-11-26", "T4", "eve", "night", 100.0, 1.0),
        Charge("a", 1, "2026-11-27", "T4", "eve", "night", 50.0, 0.5),
        Charge("b", 1, "2026-11-27", "FPGA", "bob", "day", 10.0, None),
    )
    held = replace(running("c", ("T4", "n"), started_s=MIDNIGHT_S, owner="eve"), prices_usd_h={"T4": 36.0})
    span = {"since": "2026-11-26", "until": "2026-11-27", "until_s": MIDNIGHT_S + 100}

    def rows(*by: str, **only: str | None) -> list[Any]:
        found = spending.usage(runtime.store, [held], by, only=only, **(span | {}))  # type: ignore[arg-type]
        return [tuple(row.values()) for row in found["rows"]]

    assert rows("owner") == [("bob", 10.0, 0.0, 10.0), ("eve", 250.0, pytest.approx(2.5), 0.0)]
    assert rows("day", "device_type") == [
        ("2026-11-26", "T4", 100.0, 1.0, 0.0),
        ("2026-11-27", "FPGA", 10.0, 0.0, 10.0),
        ("2026-11-27", "T4", 150.0, pytest.approx(1.5), 0.0),
    ]
    assert [row[0] for row in rows("workload")] == ["a", "b", "c"]
    assert rows("queue", owner="eve", queue="default") == [("default", 100.0, pytest.approx(1.0), 0.0)]
    assert rows("workload", device_type="FPGA") == [("b", 10.0, 0.0, 10.0)]
    assert rows() == [(260.0, pytest.approx(2.5), 10.0)]
    span["until"] = "2026-11-26"
    assert rows("workload") == [("a", 100.0, 1.0, 0.0)]
    span["since"] = "2026-12-01"
    assert rows("owner") == []


def test_usage_is_asked_for(api: TestClient, runtime: FakeRuntime) -> None:
    today = day_of(time.time())
    charged(runtime, Charge("x", 1, today, "T4", "eve", "night", 3600.0, 0.5))
    body = api.get("/api/v1/usage", params={"by": "owner,day"}).json()
    assert body["rows"] == [{"owner": "eve", "day": today, "device_s": 3600.0, "usd": 0.5, "unpriced_s": 0.0}]
    assert (body["since"], body["until"], body["total"]["usd"]) == (f"{today[:8]}01", today, 0.5)
    assert api.get("/api/v1/usage", params={"workload": "x"}).json()["rows"][0]["queue"] == "night"
    assert api.get("/api/v1/usage", params={"until": "2020-01-01", "since": "2019-01-01"}).json()["rows"] == []
    for params, field in (
        ({"by": "colour"}, "query.by"),
        ({"since": "x"}, "query.since"),
        ({"until": "x"}, "query.until"),
    ):
        assert fields(problem(api.get("/api/v1/usage", params=params), 422)) == [field]
    problem(api.get("/api/v1/usage", params={"workload": "none"}), 404)


def test_ready_is_a_service_whose_cycles_end(api: TestClient, runtime: FakeRuntime) -> None:
    del api.headers["authorization"]
    answer = api.get("/api/v1/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["last_cycle_age_s"] is None
    assert answer.json()["reasons"][0].startswith("no cycle has come to its end in ")
    runtime.pulse.ended()
    answer = api.get("/api/v1/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": [], "last_cycle_age_s": 0.0})
    runtime.pulse.ended("nothing answers at a:1")
    assert api.get("/api/v1/ready").json()["reasons"] == ["the Ray cluster cannot be reached: nothing answers at a:1"]


def test_a_defect_is_a_problem_and_tells_nothing(
    runtime: FakeRuntime, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(runtime.store, "select", broken)
    quiet = TestClient(api.app, raise_server_exceptions=False, headers=dict(api.headers))
    body = problem(quiet.get("/api/v1/queues"), 500)
    assert "secret" not in str(body)


def test_metrics_read_no_workload(api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(api)
    monkeypatch.setattr("scheduler.store.store._RECORD", None)
    monkeypatch.setattr(runtime.store, "select", None)
    assert 'raywise_workloads{kind="command",queue="default",state="pending"} 1.0' in api.get("/metrics").text
