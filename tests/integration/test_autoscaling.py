"""Nodes are rented for real: Ray's own autoscaler starts and ends processes on this machine as the plan wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.gcs import ControlService
from cluster.local import LocalCluster
from cluster.local_autoscaling import INSTANCES
from cluster.local_provider import Instances
from cluster.processes import members

from .conftest import Service
from .gangs import make_model, make_tokens

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
PATIENCE_S = 300
# So dear that nothing is kept idle for long.
CLUSTER = """
head: {cpus: 2}
rent_cap_usd_h: 13
nodes:
  - {name: spot, device: T4, emulated_speed: 0.25, market: spot, price_usd_h: 2, rent: {most: 1, launch_s: 2}}
  - {name: demand, device: T4, emulated_speed: 0.25, price_usd_h: 5, rent: {most: 1, launch_s: 2}}
  - {name: large, device: A100-SXM4-40GB, emulated_speed: 1.0, price_usd_h: 40, rent: {most: 1, launch_s: 2}}
"""
COMMAND = "kind: command\nname: {name}\ncommand: {command}\nresources: {{devices: [T4], count: 1}}\n"


@pytest.fixture(scope="module")
def renting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose cluster begins with its head alone."""
    folder = tmp_path_factory.mktemp("renting")
    (folder / "cluster.yaml").write_text(CLUSTER)
    (folder / "scenario.yaml").write_text("types: {spot: {refuse: true}}\n")
    service = Service(folder / "home")
    options = ("--cluster", folder / "cluster.yaml", "--scenario", folder / "scenario.yaml")
    started = service.run("up", "--autoscale", "--detach", *options)
    assert started.returncode == 0, started.stderr
    cluster = cluster_of(service)
    yield service
    assert service.run("down").returncode == 0
    assert not members(cluster.cluster_id), "a rented node is left"


def cluster_of(service: Service) -> LocalCluster:
    cluster = LocalCluster.open(service.home / "cluster")
    assert cluster is not None
    return cluster


def behave(service: Service, script: str) -> None:
    """From now on the nodes do as this script has it."""
    partial = cluster_of(service).scenario.with_suffix(".part")
    partial.write_text(script)
    partial.replace(cluster_of(service).scenario)


def submit(service: Service, folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return service.submit(path)


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.3)
    return found


def cluster_events(service: Service) -> list[dict[str, Any]]:
    with service.client() as client:
        return [dict(each) for each in client.events() if each["workload_id"] is None]


def rented(service: Service) -> list[str]:
    """Types of the rented nodes that are there."""
    return [each["node_type"] for each in service.json("nodes")["nodes"] if not each["is_head"]]


def test_a_type_that_is_not_to_be_had_gives_way_to_the_next_cheapest_and_is_tried_again(
    renting: Service, tmp_path: Path
) -> None:
    first = submit(renting, tmp_path, "first", COMMAND.format(name="first", command="sleep 5"))
    assert renting.until(first, lambda each: each["ended"], PATIENCE_S)["state"] == "succeeded"
    told = cluster_events(renting)
    asked = [each["data"]["node_type"] for each in told if each["kind"] == "node-requested"]
    assert asked[:2] == ["spot", "demand"], "in order of money"
    failed = next(each for each in told if each["kind"] == "node-not-launched")
    second = next(each for each in told if each["kind"] == "node-requested" and each["data"]["node_type"] == "demand")
    assert second["cycle"] - failed["cycle"] <= 2
    (kind,) = [each for each in renting.json("nodes")["rentable"] if each["name"] == "spot"]
    assert "could not launch" in kind["unavailable_why"] or kind["unavailable_until_s"] is None

    behave(renting, "types: {}\n")
    others = [submit(renting, tmp_path, f"w{n}", COMMAND.format(name=f"w{n}", command="sleep 40")) for n in range(2)]
    wait_for(lambda: "spot" in rented(renting))
    for each in others:
        assert renting.until(each, lambda workload: workload["ended"], PATIENCE_S)["state"] == "succeeded"


def test_a_type_beyond_the_cap_is_never_asked_for_and_it_is_said_why(renting: Service, tmp_path: Path) -> None:
    text = COMMAND.format(name="dear", command="echo").replace("T4", "A100-SXM4-40GB")
    dear = submit(renting, tmp_path, "dear", text)
    said = wait_for(lambda: "cap of $13.00" in renting.run("explain", dear).stdout)
    assert said
    assert renting.run("cancel", dear).returncode == 0
    assert not [
        e for e in cluster_events(renting) if e["kind"] == "node-requested" and e["data"]["node_type"] == "large"
    ]


def test_a_node_that_is_taken_back_with_notice_costs_a_training_no_work(renting: Service, tmp_path: Path) -> None:
    tokens, model = make_tokens(tmp_path / "tokens", rows=3200), make_model(tmp_path / "model", hidden=128)
    training = submit(
        renting,
        tmp_path,
        "training",
        f"kind: train\nname: training\ninput: {tokens}\nmodel: {model}\ncheckpoint_every: 1h\n"
        "hyperparameters: {epochs: 3, batch_size: 64, max_length: 16}\nresources: {devices: [T4], count: 1}\n",
    )
    renting.until(training, lambda each: (each["progress"] or {}).get("step", 0) > 20, PATIENCE_S)
    (node,) = [each for each in renting.json("nodes")["nodes"] if each["workloads"]]
    behave(renting, f"types: {{{node['node_type']}: {{interrupt_after_s: 1, notice_s: 20}}}}\n")
    workload = renting.until(training, lambda each: each["ended"], PATIENCE_S * 2)
    assert workload["state"] == "succeeded"
    assert workload["metrics"]["samples"] == 3 * 3200
    events = renting.json("show", training, "--events")["events"]
    stops = [each for each in events if each["kind"] == "stopping"]
    assert stops
    assert "will be gone" in stops[0]["cause"]
    (lost,) = [each["data"] for each in events if each["kind"] == "queued" and "lost_s" in each["data"]]
    assert (lost["lost_fraction"], lost["lost_s"]) == (0.0, 0.0)
    notices = [each for each in cluster_events(renting) if each["kind"] == "node-notice"]
    (notice,) = [each for each in notices if each["data"]["node"] == node["node_id"]]
    assert 10 < notice["data"]["notice_s"] <= 20
    told = [each["kind"] for each in cluster_events(renting) if each["data"].get("node") == node["node_id"]]
    assert told == ["node-joined", "node-notice", "node-left"]


def test_a_node_on_which_something_runs_refuses_to_go_and_can_be_ended(renting: Service, tmp_path: Path) -> None:
    behave(renting, "types: {}\n")
    held = submit(renting, tmp_path, "held", COMMAND.format(name="held", command="sleep 600"))
    renting.until(held, lambda each: each["state"] == "running", PATIENCE_S)
    nodes = renting.json("nodes")["nodes"]
    (node,) = [each["node_id"] for each in nodes if held in [work["id"] for work in each["workloads"]]]
    control = ControlService(cluster_of(renting).address, cluster_of(renting).token_path)
    assert not control.drain(node, "nobody needs it")
    control.end_node(node)
    wait_for(lambda: node not in [each["node_id"] for each in renting.json("nodes")["nodes"]])
    control.close()
    assert renting.run("cancel", held).returncode == 0
    wait_for(lambda: renting.json("show", held)["workloads"][0]["ended"])


def test_what_is_idle_goes_back_and_the_ledger_has_what_the_provider_saw(renting: Service) -> None:
    wait_for(lambda: not rented(renting))
    wait_for(lambda: all(each.ended_s for each in Instances(cluster_of(renting).folder / INSTANCES).all()))
    launched = [each for each in Instances(cluster_of(renting).folder / INSTANCES).all() if each.process is not None]
    wait_for(lambda: len([e for e in cluster_events(renting) if e["kind"] == "node-left"]) == len(launched))
    released = {each["data"]["node"] for each in cluster_events(renting) if each["kind"] == "node-released"}
    assert released, "Raywise gave them back, not Ray's own timeout"
    cluster = cluster_of(renting)
    control = ControlService(cluster.address, cluster.token_path)
    assert not [each for each in control.placement_groups() if each.name.startswith("raywise-seat")]
    control.close()
    headers = {"Authorization": f"Bearer {cluster.token_path.read_text().strip()}"}
    listed = httpx.get(f"{cluster.dashboard_url}/api/jobs/", headers=headers, timeout=30, trust_env=False)
    assert listed.status_code == 200, "what asks for seats must not be in the way of Ray's own lists"
    assert {each["type"] for each in listed.json()} == {"SUBMISSION"}
