"""A running training gives devices up to what is more urgent, saves first, and goes on with what is left; it is paused,
changed and resumed by its user, and loses nothing by that either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .gangs import make_model, make_tokens

if TYPE_CHECKING:
    from .conftest import Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
PATIENCE_S = 500
EPOCHS, STEPS = 30, 30 * 100
"""A minute and a half on two devices of a quick machine: what has started is left alone for its start-up and 30 s, and what
is nearly done is not moved for anybody."""


def submit(service: Service, folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return service.submit(path)


def events(service: Service, workload_id: str, kind: str) -> list[dict[str, Any]]:
    found = service.json("show", workload_id, "--events")["events"]
    return [event for event in found if event["kind"] == kind]


def test_a_training_that_is_shrunk_for_an_urgent_arrival_and_then_paused_and_changed_loses_nothing(
    service: Service, tmp_path: Path
) -> None:
    tokens, model = make_tokens(tmp_path / "tokens", rows=6400), make_model(tmp_path / "model", hidden=128)
    elastic = submit(
        service,
        tmp_path,
        "elastic",
        f"kind: train\nname: elastic\ninput: {tokens}\nmodel: {model}\ncheckpoint_every: 1h\ngrace: 5m\n"
        f"hyperparameters: {{epochs: {EPOCHS}, batch_size: 64, max_length: 16}}\nobjective: time\n"
        "resources: {devices: [T4], count: 1..2}\n",
    )
    service.until(elastic, lambda workload: (workload["progress"] or {}).get("step", 0) > 10, PATIENCE_S)
    (first,) = events(service, elastic, "starting")
    assert first["data"]["configuration"] == "T4 x2", "two are faster"
    urgent = submit(
        service,
        tmp_path,
        "urgent",
        f"kind: command\nname: urgent\ncommand: for i in $(seq 1500); do [ -e {tmp_path}/go ] && break; sleep 0.2; done\n"
        "priority: 10\n"
        "resources: {devices: [T4], count: 1}\n",
    )
    service.until(urgent, lambda workload: workload["state"] == "running", PATIENCE_S)
    (stopped,) = events(service, elastic, "stopping")
    (queued,) = [event for event in events(service, elastic, "queued") if "stopped" in event["cause"]]
    assert (queued["data"]["lost_fraction"], queued["data"]["lost_s"]) == (0.0, 0.0)
    assert stopped["cause"]
    service.until(elastic, lambda workload: workload["state"] == "running" and workload["attempt"] == 2, PATIENCE_S)
    (tmp_path / "go").touch()
    assert service.until(urgent, lambda workload: workload["ended"], PATIENCE_S)["state"] == "succeeded"

    service.until(elastic, lambda workload: (workload["progress"] or {}).get("step", 0) > 0, PATIENCE_S)
    assert service.run("pause", elastic).returncode == 0
    service.until(elastic, lambda workload: workload["state"] == "paused", PATIENCE_S)
    (paused,) = events(service, elastic, "paused")
    assert (paused["data"]["lost_fraction"], paused["data"]["lost_s"]) == (0.0, 0.0)
    assert service.run("change", elastic, "--count", "1", "--priority", "3").returncode == 0
    assert service.run("resume", elastic).returncode == 0

    workload = service.until(elastic, lambda workload: workload["ended"], PATIENCE_S)
    assert workload["state"] == "succeeded"
    assert [event["data"]["configuration"] for event in events(service, elastic, "starting")][1:] == ["T4 x1", "T4 x1"]
    assert (workload["attempt"], workload["priority"]) == (3, 3)
    assert workload["progress"]["step"] == workload["progress"]["total_steps"] == STEPS
    assert workload["metrics"]["samples"] == EPOCHS * 6400
    assert not events(service, elastic, "retry")
