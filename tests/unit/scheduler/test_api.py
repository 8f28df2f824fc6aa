"""The REST API: who may speak, what is answered, and what is said when it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from asking import COMMAND, PIPELINE, problem, submit
from cluster.fake import Script
from fake_service import FakeRuntime
from scheduler.policy import create
from scheduler.service.api.cluster import SITUATION
from scheduler.service.api.finding import whole_id
from scheduler.service.api.problems import ProblemError
from scheduler.service.guard import Limits
from scheduler.store import Event, StoreError

METRICS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"

ROUTES = [
    ("GET", "/api/v1/workloads"),
    ("POST", "/api/v1/workloads"),
    ("POST", "/api/v1/plan"),
    ("GET", "/api/v1/workloads/x"),
    ("GET", "/api/v1/workloads/x/events"),
    ("GET", "/api/v1/workloads/x/logs"),
    ("GET", "/api/v1/workloads/x/explain"),
    ("POST", "/api/v1/workloads/x/cancel"),
    ("POST", "/api/v1/workloads/x/pause"),
    ("POST", "/api/v1/workloads/x/resume"),
    ("PATCH", "/api/v1/workloads/x"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/events/stream"),
    ("GET", "/api/v1/devices"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/queues"),
    ("GET", "/api/v1/usage"),
    ("GET", "/api/v1/snapshot"),
    ("GET", "/api/v1/calibration"),
    ("DELETE", "/api/v1/calibration"),
    ("GET", "/api/v1/tokens"),
    ("POST", "/api/v1/tokens"),
    ("POST", "/api/v1/tokens/admin/rotate"),
    ("DELETE", "/api/v1/tokens/x"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x"])
def test_without_the_token_nothing_is_told(
    api: TestClient, runtime: FakeRuntime, method: str, path: str, header: str | None
) -> None:
    del api.headers["authorization"]
    headers = {} if header is None else {"authorization": header.format(token=runtime.token)}
    assert problem(api.request(method, path, headers=headers), 401)["detail"] == "a valid bearer token is needed"


def test_every_route_is_guarded_but_the_probes(api: TestClient) -> None:
    known = {
        (method.upper(), path)
        for path, entry in api.get("/api/v1/openapi.json").json()["paths"].items()
        for method in entry
    }
    tested = {
        (method, path.replace("workloads/x", "workloads/{workload_id}").replace("tokens/x", "tokens/{token_id}"))
        for method, path in ROUTES
    }
    assert known - tested == {("GET", "/api/v1/health"), ("GET", "/api/v1/ready")}
    del api.headers["authorization"]
    assert api.get("/api/v1/health").json() == {"status": "ok"}


def test_a_submission_is_accepted_and_stored(api: TestClient, runtime: FakeRuntime) -> None:
    response = submit(api)
    assert response.status_code == 201
    body = response.json()
    assert re.fullmatch(r"hello-\w{5}", body["id"])
    assert [(w["id"], w["state"], w["kind"], w["ended"]) for w in body["workloads"]] == [
        (body["id"], "pending", "command", False)
    ]
    assert runtime.woken
    record = runtime.store.get(body["id"])
    assert record is not None
    assert Path(record.run_dir).is_dir()
    assert runtime.store.events()[0].data == {"file": "f.yaml", "pipeline": None, "owner": "admin"}


@pytest.mark.parametrize("stored", [True, False])
def test_a_commit_whose_answer_was_lost_is_looked_for_before_a_folder_is_removed(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    add = runtime.store.add

    def unclear(*arguments: Any) -> None:
        if stored:
            add(*arguments)
        raise StoreError("the connection was lost")

    monkeypatch.setattr(runtime.store, "add", unclear)
    response = submit(api)
    folders = [path.name for path in runtime.home.runs.iterdir()]
    assert (response.status_code, folders) == ((201, [response.json()["id"]]) if stored else (507, []))
    assert [record.id for record in runtime.store.select(states=["pending"])] == folders


def test_a_store_that_cannot_say_whether_it_is_there_leaves_the_folder(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise StoreError("the server is gone")

    monkeypatch.setattr(runtime.store, "add", gone)
    monkeypatch.setattr(runtime.store, "is_stored", gone)
    said = problem(submit(api), 503)["detail"]
    (folder,) = runtime.home.runs.iterdir()
    assert said == f"the store went away meanwhile: {folder.name} may have been accepted: the server is gone"


def test_code_is_packed_when_it_is_submitted(api: TestClient, runtime: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def loop(config): ...")
    text = "kind: train\nname: own\nentrypoint: main:loop\nexpected_runtime: 10s\n"
    body = submit(api, text, base=str(tmp_path), overrides=["retries=0"]).json()
    record = runtime.store.get(body["id"])
    assert record is not None
    assert record.code_path is not None
    assert Path(record.code_path).is_file()
    assert record.spec["retries"] == 0


def test_a_bad_spec_is_refused_field_by_field(api: TestClient, runtime: FakeRuntime) -> None:
    body = problem(submit(api, COMMAND + "comand: x\nretries: -1\n"), 422)
    assert [(p["file"], p["field"], p["hint"]) for p in body["problems"]] == [
        ("f.yaml", "retries", ""),
        ("f.yaml", "comand", "did you mean 'command'?"),
    ]
    assert body["detail"] == body["problems"][0]["message"]
    assert runtime.store.select() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"text": "x"}, "body.base"),
        ({"text": "x", "base": "/", "more": 1}, "body.more"),
        ([], "body"),
    ],
    ids=["empty", "no base", "an unknown field", "a list"],
)
def test_a_malformed_request(api: TestClient, body: Any, field: str) -> None:
    found = problem(api.post("/api/v1/workloads", json=body), 422)
    assert field in [p["field"] for p in found["problems"]]


def test_a_base_that_is_relative_is_refused(api: TestClient) -> None:
    assert problem(submit(api, base="here"), 422)["problems"][0]["field"] == "body.base"


def test_a_body_that_is_too_large(api: TestClient) -> None:
    problem(submit(api, "#" * (Limits().body_bytes + 1)), 413)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/workloads/none",
        "/api/v1/workloads/none/events",
        "/api/v1/workloads/none/logs",
        "/api/v1/workloads/none/explain",
    ],
)
def test_a_workload_that_is_not_there(api: TestClient, path: str) -> None:
    assert problem(api.get(path), 404)["detail"] == "there is no workload or pipeline 'none'"
    problem(api.post("/api/v1/workloads/none/cancel"), 404)


def test_a_path_or_method_that_is_not_there(api: TestClient) -> None:
    problem(api.get("/nowhere"), 404)
    problem(api.delete("/api/v1/workloads"), 405)


def test_a_pipeline_from_submission_to_the_end(api: TestClient, runtime: FakeRuntime) -> None:
    runtime.script = Script(
        run_s=5.0,
        records=[(1.0, {"kind": "step", "step": 1, "total_steps": 4, "loss": float("nan"), "samples_s": 2.5})],
        logs="printed\n",
    )
    body = submit(api, PIPELINE).json()
    first, second = (w["id"] for w in body["workloads"])
    assert (first, second) == (f"{body['id']}-first", f"{body['id']}-second")
    runtime.cycle()
    runtime.cycle()
    shown = api.get(f"/api/v1/workloads/{body['id']}").json()["workloads"]
    assert [(w["state"], w["placement"], w["needs"]) for w in shown] == [
        ("running", "cpu x1", []),
        ("pending", None, [first]),
    ]
    assert (
        shown[0]["progress"] | {"phase": "running", "fraction": 0.25, "loss": None, "per_second": 2.5}
        == shown[0]["progress"]
    )
    assert shown[0]["options"][0]["reason"] is None
    assert shown[0]["spec"]["command"] == "x"
    for _ in range(15):
        runtime.cycle()
    shown = api.get(f"/api/v1/workloads/{body['id']}").json()["workloads"]
    assert [(w["state"], w["run_s"], w["ended"]) for w in shown] == [("succeeded", pytest.approx(5.0), True)] * 2
    assert shown[1]["cost_usd"] == pytest.approx(5 / 3600 * 0.526)
    assert shown[1]["predicted_usd"] == pytest.approx(13 / 3600 * 0.526)
    assert api.get(f"/api/v1/workloads/{body['id']}/logs").text == f"=== {first}\nprinted\n\n=== {second}\nprinted\n"
    assert api.get(f"/api/v1/workloads/{first}/logs").text == "printed\n"


def test_events_are_in_order_and_can_be_followed(api: TestClient, runtime: FakeRuntime) -> None:
    body = submit(api, PIPELINE).json()
    for _ in range(30):
        runtime.cycle()
    events = api.get(f"/api/v1/workloads/{body['id']}/events").json()["events"]
    numbers = [event["sequence"] for event in events]
    assert numbers == sorted(set(numbers))
    assert {event["workload_id"] for event in events} == {w["id"] for w in body["workloads"]}
    assert [event["kind"] for event in events if event["workload_id"].endswith("first")] == [
        "submitted", "queued", "planned", "starting", "running", "succeeded",
    ]  # fmt: skip
    assert set(events[0]) == {"sequence", "at_s", "cycle", "kind", "workload_id", "cause", "data"}
    later = api.get(f"/api/v1/workloads/{body['id']}/events", params={"after": numbers[4]}).json()["events"]
    assert [event["sequence"] for event in later] == numbers[5:]


def test_events_beyond_the_first_thousand_can_be_followed(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api).json()["id"]
    runtime.store.append(*(Event("note", "x", name) for _ in range(1500)))
    after, seen = 0, 0
    while events := api.get(f"/api/v1/workloads/{name}/events", params={"after": after}).json()["events"]:
        after, seen = events[-1]["sequence"], seen + len(events)
    assert seen == 1501


def test_cancel(api: TestClient, runtime: FakeRuntime) -> None:
    body = submit(api, PIPELINE).json()
    runtime.cycle()
    assert runtime.woken
    response = api.post(f"/api/v1/workloads/{body['id']}/cancel")
    assert (response.status_code, response.json()) == (202, {"cancelled": [w["id"] for w in body["workloads"]]})
    assert runtime.woken
    for _ in range(3):
        runtime.cycle()
    shown = api.get(f"/api/v1/workloads/{body['id']}").json()["workloads"]
    assert [(w["state"], w["cancel_requested"]) for w in shown] == [("cancelled", True)] * 2
    assert api.post(f"/api/v1/workloads/{body['id']}/cancel").json() == {"cancelled": []}


def test_a_list_by_state_and_of_the_newest(api: TestClient, runtime: FakeRuntime) -> None:
    names = [submit(api).json()["id"] for _ in range(3)]
    runtime.cycle()
    for _ in range(14):
        runtime.cycle()
    newest = submit(api).json()["id"]

    def listed(**params: Any) -> list[str]:
        return [w["id"] for w in api.get("/api/v1/workloads", params=params).json()["workloads"]]

    assert listed() == [newest, *reversed(names)]
    assert listed(order="oldest") == [*names, newest]
    assert listed(limit=1) == [newest]
    assert listed(state="pending,failed") == [newest]
    assert listed(state="failed") == []


def test_a_plan_stores_nothing(api: TestClient, runtime: FakeRuntime) -> None:
    body = api.post("/api/v1/plan", json={"text": PIPELINE, "base": "/"}).json()
    assert (body["name"], body["policy"]) == ("two", "market")
    assert [(s["name"], s["chosen"], s["needs"]) for s in body["steps"]] == [
        ("first", {"cpu": 1}, []),
        ("second", {"T4": 1}, ["first"]),
    ]
    assert body["steps"][1]["options"][0]["money_usd"] == pytest.approx(13 / 3600 * 0.526)
    assert runtime.store.select() == []


def test_an_explanation_before_and_after_planning(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api).json()["id"]
    before = api.get(f"/api/v1/workloads/{name}/explain").json()["workloads"][0]
    assert (before["summary"], before["chosen"], before["options"]) == ("not planned yet", None, [])
    runtime.cycle()
    after = api.get(f"/api/v1/workloads/{name}/explain").json()["workloads"][0]
    assert (after["chosen"], after["state"]) == ({"cpu": 1}, "starting")
    assert after["summary"].startswith("cpu x1 is the least money: $")


def test_the_snapshot_is_the_situation_of_the_last_cycle(api: TestClient, runtime: FakeRuntime) -> None:
    assert problem(api.get("/api/v1/snapshot"), 404)["detail"] == "no cycle has been completed yet"
    submit(api, PIPELINE)
    runtime.cycle()
    situation = SITUATION.validate_json(api.get("/api/v1/snapshot").content)
    assert runtime.engine.last_report is not None
    assert situation == runtime.engine.last_report.situation
    assert create("market").plan(situation) == runtime.engine.last_report.plan


def test_devices(api: TestClient, runtime: FakeRuntime) -> None:
    submit(api)
    runtime.cycle()
    body = api.get("/api/v1/devices").json()
    rows = {kind["name"]: (kind["free"], kind["total"], kind["emulated"]) for kind in body["device_types"]}
    cpus = runtime.cluster.snapshot().total("cpu")
    assert rows == {"A100-SXM4-40GB": (1, 1, True), "T4": (2, 2, True), "cpu": (cpus - 1, cpus, False)}
    assert [each["name"] for each in body["nodes"]] == ["head", "a100", "t4"]
    assert body["congestion_usd_h"] == {"A100-SXM4-40GB": 0.0, "T4": 0.0, "cpu": 0.0}


def test_a_cluster_that_cannot_be_reached_is_said(api: TestClient, runtime: FakeRuntime) -> None:
    runtime.cluster.set_reachable(False)
    assert "cannot be reached" in problem(submit(api), 503)["detail"]
    assert problem(api.get("/api/v1/devices"), 503)
    assert runtime.store.select() == []


def test_metrics_can_be_parsed_and_are_documented(api: TestClient, runtime: FakeRuntime) -> None:
    submit(api, PIPELINE)
    for _ in range(12):
        runtime.cycle()
    text = api.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(s.name, *sorted(s.labels.items())): s.value for s in samples}
    cpus = float(runtime.cluster.snapshot().total("cpu"))
    head = (("device_type", "cpu"), ("emulated", "false"))
    assert values["raywise_workloads", ("kind", "command"), ("queue", "default"), ("state", "succeeded")] == 1
    assert values["raywise_spent_usd_total", ("kind", "command"), ("queue", "default")] == pytest.approx(
        10 / 3600 * runtime.store.select()[0].price_usd_h
    )  # type: ignore[operator]
    assert values["raywise_cycles_total",] == 12
    assert values["raywise_devices", *head] == cpus
    assert values["raywise_devices", ("device_type", "T4"), ("emulated", "true")] == 2
    assert ("raywise_devices_free", *head) in values
    assert ("raywise_congestion_price_usd_per_hour", *head) in values
    documented = set(re.findall(r"`(raywise_\w+)`", METRICS.read_text(encoding="utf-8")))
    assert {sample.name for sample in samples} == documented


def test_an_answer_is_json_that_anybody_can_read(api: TestClient, runtime: FakeRuntime) -> None:
    """No NaN, which is no JSON: a loss may be one."""
    runtime.script = Script(
        run_s=3.0, records=[(1.0, {"kind": "step", "step": 1, "total_steps": 2, "loss": float("inf")})]
    )
    name = submit(api).json()["id"]
    runtime.cycle()
    runtime.cycle()
    response = api.get(f"/api/v1/workloads/{name}")
    assert json.loads(response.text, parse_constant=pytest.fail)["workloads"][0]["progress"]["step"] == 1


def test_the_start_of_an_id_is_enough_where_it_fits_only_one(api: TestClient, runtime: FakeRuntime) -> None:
    alone, pipeline = submit(api).json()["id"], submit(api, PIPELINE).json()["id"]
    assert api.get(f"/api/v1/workloads/{alone[:-2]}").json()["id"] == alone
    answer = api.get(f"/api/v1/workloads/{pipeline[:-2]}").json()
    assert (answer["id"], len(answer["workloads"])) == (pipeline, 2)
    assert api.get(f"/api/v1/workloads/{pipeline}-f").json()["workloads"][0]["name"] == "first"
    assert api.post(f"/api/v1/workloads/{alone[:-2]}/cancel").json() == {"cancelled": [alone]}


def test_an_id_that_is_not_there_brings_up_those_that_are_near(api: TestClient, runtime: FakeRuntime) -> None:
    ids = [submit(api).json()["id"] for _ in range(2)]
    said = problem(api.get("/api/v1/workloads/hello"), 404)["detail"]
    assert said == f"'hello' is the start of several ids: {', '.join(ids)}"
    wrong = ids[0].replace("hello", "helo")
    said = problem(api.get(f"/api/v1/workloads/{wrong}"), 404)["detail"]
    assert said.startswith(f"there is no workload or pipeline {wrong!r}; did you mean {ids[0]}")


def test_the_start_of_an_id_is_found_without_reading_the_workloads(
    api: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = submit(api, PIPELINE).json()["id"]
    monkeypatch.setattr("scheduler.store.store._RECORD", None)  # reading one would fail
    assert whole_id(runtime.store, whole[:-2]) == whole
    with pytest.raises(ProblemError, match="there is no workload or pipeline 'tw%'"):
        whole_id(runtime.store, "tw%")


def test_a_failed_attempt_is_told_of_before_and_after_the_next_one(api: TestClient, runtime: FakeRuntime) -> None:
    runtime.script = Script(fail_at_s=1.0, message="boom")
    name = submit(api).json()["id"]
    for _ in range(3):
        runtime.cycle()
    (waiting,) = api.get("/api/v1/workloads").json()["workloads"]
    assert (waiting["state"], waiting["attempt"], waiting["failure"]) == ("queued", 1, "boom")
    runtime.script = Script(run_s=5.0)
    for _ in range(12):
        runtime.cycle()
    (done,) = api.get(f"/api/v1/workloads/{name}").json()["workloads"]
    assert (done["state"], done["attempt"]) == ("succeeded", 2)
    assert done["failure"] == "attempt 1 failed (1 of 3): boom"
    assert done["attempt_s"] == pytest.approx(5.0)
    assert done["run_s"] == pytest.approx(6.0)


def test_a_workload_says_that_its_devices_are_emulated(api: TestClient, runtime: FakeRuntime) -> None:
    submit(api, PIPELINE)
    for _ in range(30):
        runtime.cycle()
    first, second = api.get("/api/v1/workloads", params={"order": "oldest"}).json()["workloads"]
    assert (first["emulated"], second["emulated"]) == ([], ["T4"])
