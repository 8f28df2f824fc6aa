"""Cancelling, pausing, resuming and changing what was submitted, and who may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from asking import COMMAND, PIPELINE, problem, submit
from cluster.fake import Script
from fake_service import FakeRuntime
from scheduler.engine.limits import BUDGET_SPENT
from scheduler.estimate.work import Work
from scheduler.service import users
from scheduler.service.api.problems import ProblemError
from scheduler.service.auth import User
from scheduler.store import Event, Record
from workloads.quantities import CountRange


def stored(runtime: FakeRuntime, name: str, state: str = "queued", **others: Any) -> Record:
    """A workload in any state, without an engine that has brought it there."""
    spec = {"kind": "command", "command": "x"} | {"name": name} | others.pop("spec", {})
    record = Record(name, name, spec["kind"], spec, state, 10.0, "/o", "/r", **others)  # type: ignore[arg-type]
    runtime.store.add([record], [])
    return record


def get(runtime: FakeRuntime, name: str) -> Record:
    found = runtime.store.get(name)
    assert found is not None
    return found


def running(api: TestClient, runtime: FakeRuntime, text: str = COMMAND) -> str:
    runtime.script = Script(run_s=1e6, records=[(0.5, {"kind": "phase", "phase": "running"})])
    name = str(submit(api, text).json()["id"])
    for _ in range(3):
        runtime.cycle()
    assert get(runtime, name).state == "running"
    assert runtime.woken
    return name


def change(api: TestClient, name: str, **body: Any) -> Any:
    return api.patch(f"/api/v1/workloads/{name}", json=body)


def last_event(runtime: FakeRuntime, name: str) -> Event:
    return runtime.store.events(workload_id=name)[-1]


# Pausing.


def test_what_waits_is_paused_and_resumed(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api).json()["id"]
    answer = api.post(f"/api/v1/workloads/{name}/pause")
    assert (answer.status_code, answer.json()) == (202, {"paused": [name]})
    assert (get(runtime, name).paused, get(runtime, name).pause_cause) == (True, "paused by admin")
    assert last_event(runtime, name).kind == "pause-requested"
    assert runtime.woken
    (shown,) = api.get(f"/api/v1/workloads/{name}").json()["workloads"]
    assert (shown["paused"], shown["pause_cause"]) == (True, "paused by admin")
    assert api.post(f"/api/v1/workloads/{name}/pause").json() == {"paused": []}
    assert api.post(f"/api/v1/workloads/{name}/resume").json() == {"resumed": [name]}
    assert (get(runtime, name).paused, get(runtime, name).pause_cause) == (False, "")
    assert last_event(runtime, name).kind == "resume-requested"
    assert api.post(f"/api/v1/workloads/{name}/resume").json() == {"resumed": []}


def test_what_runs_and_would_begin_again_is_not_paused_by_mistake(api: TestClient, runtime: FakeRuntime) -> None:
    name = running(api, runtime)
    body = problem(api.post(f"/api/v1/workloads/{name}/pause"), 409)
    assert body["detail"].startswith(f"{name} (command) runs and would begin again from its start; wait until")
    assert body["problems"][0]["field"] == "query.restart"
    assert not get(runtime, name).paused
    assert api.post(f"/api/v1/workloads/{name}/pause", params={"restart": "true"}).json() == {"paused": [name]}
    assert get(runtime, name).paused


@pytest.mark.parametrize("kind", ["train", "batch-infer"])
def test_what_goes_on_where_it_was_is_paused_while_it_runs(api: TestClient, runtime: FakeRuntime, kind: str) -> None:
    stored(runtime, "w", "running", spec={"kind": kind})
    assert api.post("/api/v1/workloads/w/pause").json() == {"paused": ["w"]}


def test_a_command_over_many_items_is_paused_while_it_runs(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, "w", "running", work=Work("command", "w", items=True))
    assert api.post("/api/v1/workloads/w/pause").json() == {"paused": ["w"]}


def test_a_pipeline_is_paused_whole_or_not_at_all(api: TestClient, runtime: FakeRuntime) -> None:
    for step, state in (("p-a", "succeeded"), ("p-b", "running"), ("p-c", "pending")):
        stored(runtime, step, state, pipeline_id="p")
    problem(api.post("/api/v1/workloads/p/pause"), 409)
    assert not any(get(runtime, step).paused for step in ("p-a", "p-b", "p-c"))
    assert api.post("/api/v1/workloads/p/pause?restart=true").json() == {"paused": ["p-b", "p-c"]}
    assert api.post("/api/v1/workloads/p/resume").json() == {"resumed": ["p-b", "p-c"]}
    assert api.post("/api/v1/workloads/p/cancel").json() == {"cancelled": ["p-b", "p-c"]}
    assert all(get(runtime, step).cancel_requested for step in ("p-b", "p-c"))


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_has_ended_stays_as_it_is(api: TestClient, runtime: FakeRuntime, verb: str) -> None:
    stored(runtime, "w", "succeeded")
    assert problem(api.post(f"/api/v1/workloads/w/{verb}"), 409)["detail"] == "w has ended"
    assert problem(change(api, "w", priority=1), 409)["detail"] == "w has ended"
    problem(api.post(f"/api/v1/workloads/none/{verb}"), 404)


# Changing.


def test_a_workload_is_changed_while_it_waits(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api, COMMAND + "deadline: 1h\n").json()["id"]
    before = get(runtime, name)
    answer = change(api, name, priority=7, objective="time", queue="night", budget_usd=2.5, deadline="2h")
    body = answer.json()
    assert (answer.status_code, body["id"]) == (200, name)
    assert body["changed"] == ["budget_usd", "deadline", "objective", "priority", "queue"]
    (shown,) = body["workloads"]
    assert (shown["priority"], shown["objective"], shown["queue"], shown["budget_usd"]) == (7, "time", "night", 2.5)
    after = get(runtime, name)
    assert after.deadline_s == pytest.approx(runtime.start_s + 7200, abs=60), "from now on"
    spec = after.workload_spec()
    assert (spec.priority, spec.objective, spec.queue, spec.budget_usd) == (7, "time", "night", 2.5)
    assert after.deadline_s == pytest.approx(after.submitted_s + (spec.deadline or 0))
    assert {**after.spec, **dict.fromkeys(body["changed"])} == {
        **before.spec, **dict.fromkeys(body["changed"])
    }, "nothing else is another"  # fmt: skip
    event = last_event(runtime, name)
    assert event.kind == "changed"
    assert event.data["fields"]["priority"] == [0, 7]
    assert "admin: priority 0 -> 7" in event.cause
    assert runtime.woken


def test_limits_are_taken_away_with_null(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api, COMMAND + "deadline: 1h\nbudget_usd: 3\n").json()["id"]
    assert change(api, name, deadline=None, budget_usd=None).status_code == 200
    after = get(runtime, name)
    assert (after.deadline_s, after.budget_usd, after.workload_spec().deadline) == (None, None, None)


def test_what_runs_is_changed_and_planned_with(api: TestClient, runtime: FakeRuntime) -> None:
    name = running(api, runtime)
    assert change(api, name, priority=9, resources={"count": "1..2"}).status_code == 200
    runtime.cycle()
    assert runtime.engine.last_report is not None
    (view,) = runtime.engine.last_report.situation.workloads
    assert view.priority == 9
    assert [str(each.configuration) for each in view.estimates] == ["cpu x1", "cpu x2"]
    assert get(runtime, name).workload_spec().resources.count == CountRange(low=1, high=2)
    assert last_event(runtime, name).data["fields"] == {"priority": [0, 9], "resources.count": [None, "1..2"]}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"priority": "high"}, [("priority", "expected a whole number, got 'high'")]),
        ({"priority": 2000}, [("priority", "must be at most 1000, got 2000")]),
        ({"budget_usd": -1, "objective": "fast"}, [("objective", "expected one of cost, balanced, time, got 'fast'"), ("budget_usd", "must be above 0, got -1")]),
        ({"deadline": "soon"}, [("deadline", "expected a duration such as 90s, 10m or 2h, got 'soon'")]),
        ({"queue": "A b"}, [("queue", "'A b' is not allowed here")]),
        ({"resources": {"count": "4..1"}}, [("resources.count", "expected 1 <= low <= high, got 4..1")]),
        ({"resources": {"count": 1, "mix": True}}, [("resources.mix", "cannot be changed: only count can")]),
        ({"resources": 3}, [("resources", "expected a mapping of fields")]),
        ({"resources": {}}, [("resources", "nothing is to be changed")]),
        ({"command": "y", "priorty": 3}, [("command", "cannot be changed after it was submitted"), ("priorty", "unknown field 'priorty'")]),
        ({}, [("body", "nothing is to be changed")]),
        ({"budget_usd": 1e-9}, [("budget_usd", "no configuration costs $0.000000001 or less")]),
        ({"deadline": "1s"}, [("deadline", "no configuration is done within 1 s")]),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_change_is_refused_field_by_field(
    api: TestClient, runtime: FakeRuntime, body: Any, found: list[tuple[str, str]]
) -> None:
    name = submit(api).json()["id"]
    before = get(runtime, name)
    said = problem(change(api, name, **body), 422)
    assert [(each["field"], each["message"]) for each in said["problems"]] == found
    assert get(runtime, name) == before


def test_more_devices_than_the_cluster_could_ever_have(api: TestClient, runtime: FakeRuntime) -> None:
    name = submit(api, COMMAND.replace("devices: cpu", "devices: [T4]")).json()["id"]
    said = problem(change(api, name, resources={"count": 3}), 422)
    assert said["problems"][0]["field"] == "resources"
    assert "the cluster has" in said["problems"][0]["hint"]


def test_a_budget_that_is_spent_already(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, "w", spent_usd=2.0, attempt=1, price_usd_h=1.0)
    said = problem(change(api, "w", budget_usd=1.5), 422)["problems"][0]
    assert (said["field"], said["hint"]) == ("budget_usd", "give it more, or pause or cancel it")
    assert change(api, "w", budget_usd=2.5).status_code == 200


def test_a_body_that_is_no_change(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, "w")
    for body in (b"[]", b"{", b"3"):
        answer = api.patch("/api/v1/workloads/w", content=body, headers={"content-type": "application/json"})
        assert problem(answer, 422)["problems"][0]["field"].startswith("body")


def test_a_pipeline_is_changed_step_by_step(api: TestClient, runtime: FakeRuntime) -> None:
    pipeline = submit(api, PIPELINE).json()["id"]
    answer = change(api, pipeline, priority=4, deadline="1h").json()
    assert [(each["id"], each["priority"]) for each in answer["workloads"]] == [
        (f"{pipeline}-first", 4),
        (f"{pipeline}-second", 4),
    ]
    said = problem(change(api, pipeline, budget_usd=5), 422)["problems"][0]
    assert (said["field"], said["hint"]) == ("budget_usd", "name one of its steps")


# Budgets that are spent.


def out_of_money(runtime: FakeRuntime, cause: str = BUDGET_SPENT) -> None:
    spent = {"budget_usd": 2.0, "spent_usd": 1.9, "attempt": 1, "price_usd_h": 1.0}
    stored(runtime, "w", "paused", paused=True, pause_cause=cause, **spent)


@pytest.mark.parametrize("budget_usd", [2.5, None])
def test_a_larger_budget_lets_it_go_on(api: TestClient, runtime: FakeRuntime, budget_usd: float | None) -> None:
    out_of_money(runtime)
    assert change(api, "w", budget_usd=budget_usd).status_code == 200
    after = get(runtime, "w")
    assert (after.paused, after.pause_cause, after.budget_usd) == (False, "", budget_usd)
    assert runtime.woken


def test_other_changes_do_not_let_it_go_on(api: TestClient, runtime: FakeRuntime) -> None:
    out_of_money(runtime)
    for body in ({"priority": 3}, {"budget_usd": 2.0}, {"budget_usd": 1.95}):
        assert change(api, "w", **body).status_code == 200
        assert (get(runtime, "w").paused, get(runtime, "w").pause_cause) == (True, BUDGET_SPENT)


def test_a_larger_budget_leaves_what_its_user_paused(api: TestClient, runtime: FakeRuntime) -> None:
    out_of_money(runtime, "paused by admin")
    assert change(api, "w", budget_usd=5).status_code == 200
    assert get(runtime, "w").paused
    assert api.post("/api/v1/workloads/w/resume").json() == {"resumed": ["w"]}


def test_it_is_not_resumed_without_a_larger_budget(api: TestClient, runtime: FakeRuntime) -> None:
    out_of_money(runtime)
    said = problem(api.post("/api/v1/workloads/w/resume"), 409)
    assert said["detail"] == "w is paused: its budget is spent; give it a larger budget_usd: then it goes on"
    assert (said["problems"][0]["field"], said["problems"][0]["hint"]) == (
        "budget_usd",
        "give it a larger budget_usd: then it goes on",
    )
    assert get(runtime, "w").paused


# Who may.


def become(api: TestClient, name: str, role: users.Role) -> None:
    api.app.dependency_overrides[users.current_user] = lambda: User(name, role)  # type: ignore[attr-defined]


def test_a_submitter_owns_what_it_submits(api: TestClient, runtime: FakeRuntime) -> None:
    become(api, "eve", "submitter")
    name = submit(api).json()["id"]
    assert (get(runtime, name).owner, runtime.store.events()[0].data["owner"]) == ("eve", "eve")
    become(api, "bob", "submitter")
    for verb in ("cancel", "pause", "resume"):
        assert problem(api.post(f"/api/v1/workloads/{name}/{verb}"), 403)["detail"] == f"{name} belongs to eve"
    problem(change(api, name, priority=1), 403)
    assert api.get(f"/api/v1/workloads/{name}").status_code == 200
    become(api, "eve", "submitter")
    assert change(api, name, priority=1).status_code == 200
    become(api, "root", "admin")
    assert api.post(f"/api/v1/workloads/{name}/cancel").json() == {"cancelled": [name]}
    assert last_event(runtime, name).cause == "root asked for it"


def test_a_key_is_its_owners(api: TestClient) -> None:
    key = {"Idempotency-Key": "k"}
    become(api, "eve", "submitter")
    first = submit(api, headers=key).json()["id"]
    become(api, "bob", "submitter")
    assert submit(api, headers=key).json()["id"] != first


def test_a_viewer_only_looks(api: TestClient, runtime: FakeRuntime) -> None:
    stored(runtime, "w")
    become(api, "vic", "viewer")
    said = "vic is a viewer: this is for submitters and admins"
    assert problem(submit(api), 403)["detail"] == said
    for verb in ("cancel", "pause", "resume"):
        problem(api.post(f"/api/v1/workloads/w/{verb}"), 403)
    problem(change(api, "w", priority=1), 403)
    assert problem(api.delete("/api/v1/calibration"), 403)["detail"] == "vic is a viewer: this is for admins"
    for path in ("workloads", "workloads/w", "workloads/w/events", "workloads/w/explain", "workloads/w/logs", "events"):
        assert api.get(f"/api/v1/{path}").status_code == 200, path
    for path in ("devices", "nodes", "queues", "usage", "calibration"):
        assert api.get(f"/api/v1/{path}").status_code == 200, path
    assert problem(api.post("/api/v1/plan", json={"text": COMMAND, "base": "/"}), 403)["detail"] == said


def test_a_submitter_does_not_reset_what_was_learnt(api: TestClient) -> None:
    become(api, "eve", "submitter")
    problem(api.delete("/api/v1/calibration"), 403)


def test_the_user_is_who_the_guard_says() -> None:
    class State:
        user = User("eve", "viewer")

    class Asked:
        state = State()

    class Nobody:
        state = object()

    assert users.current_user(Asked()) == User("eve", "viewer")  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match="nobody knows") as raised:
        users.current_user(Nobody())  # type: ignore[arg-type]
    assert raised.value.status == 401


def test_what_holds_devices_stays_in_the_queue_that_is_charged_for_it(api: TestClient, runtime: FakeRuntime) -> None:
    name = running(api, runtime)
    said = problem(change(api, name, queue="night"), 409)
    assert said["detail"].startswith(f"{name} holds devices of queue default; pause it first")
    assert get(runtime, name).queue == "default"
    stored(runtime, "w")
    assert change(api, "w", queue="night").status_code == 200


def test_an_output_belongs_to_one_workload_until_it_has_ended(
    api: TestClient, runtime: FakeRuntime, tmp_path: Path
) -> None:
    out = tmp_path / "mine" / "results"
    first = submit(api, COMMAND + f"output: {out}\n").json()["id"]
    for other in (out, out / "deeper", out.parent):
        said = problem(submit(api, COMMAND + f"output: {other}\n"), 422)
        assert f"{first}, which has not ended, writes to {out}" in said["detail"]
    assert submit(api, COMMAND + f"output: {out}-2\n").status_code == 201
    api.post(f"/api/v1/workloads/{first}/cancel")
    runtime.cycle()
    assert get(runtime, first).state == "cancelled"
    assert submit(api, COMMAND + f"output: {out}\n").status_code == 201


def test_nobody_chooses_the_folder_of_a_workload_though_runs_lie_elsewhere(
    api: TestClient, runtime: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(runtime.home), "runs", tmp_path / "runs")
    victim = submit(api).json()["id"]
    said = problem(submit(api, COMMAND + f"output: {get(runtime, victim).output}\n"), 422)
    assert "is among the folders of workloads" in said["detail"]
