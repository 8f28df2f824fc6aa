"""Validation against a fresh snapshot, and the actions that bring desired and observed together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import Snapshot
from making import est, node, placed, snapshot, standard
from scheduler.engine.launch import progress_path, run_request
from scheduler.engine.reconcile import Action, Drop, Refusal, Start, Stop, reconcile, validate
from scheduler.states import State
from scheduler.store import Record
from scheduler.types import Placement, Plan
from workloads.job import Shard

ONE, TWO = placed(("T4", "t4-a")), placed(("T4", "t4-a"), ("T4", "t4-a"))


def record(name: str, state: State, placement: Placement | None = None, **fields: Any) -> Record:
    spec = {"kind": "command", "name": name, "command": "x", **fields.pop("spec", {})}
    return Record(
        name, name, "command", spec, state, 0.0, f"/out/{name}", f"/run/{name}", placement=placement, **fields
    )


def trained(name: str, state: State, placement: Placement) -> Record:
    """One whose next attempt goes on where this one is."""
    spec = {"kind": "train", "name": name, "entrypoint": "mine:loop"}
    return Record(name, name, "train", spec, state, 0.0, f"/out/{name}", f"/run/{name}", placement=placement)


VALIDATED = [
    ("what is free holds", {"a": TWO}, [record("a", "queued")], standard(), {"a"}, []),
    ("a device is not given twice", {"a": TWO, "b": ONE}, [], standard(), {"a"}, ["b"]),
    ("what runs is kept as it is", {"a": TWO}, [record("a", "running", TWO)], standard(), {"a"}, []),
    ("what runs keeps its devices", {"a": TWO, "b": ONE}, [record("a", "running", TWO)], standard(), {"a"}, ["b"]),
    ("what is being stopped keeps them too", {"b": ONE}, [record("a", "stopping", TWO)], standard(), set(), ["b"]),
    ("a node is gone", {"a": ONE}, [], snapshot(node("t4-b", ("T4", 2))), set(), ["a"]),
    ("somebody else took a device", {"a": TWO}, [], snapshot(node("t4-a", ("T4", 2, 1))), set(), ["a"]),
    ("a gang is whole or not at all", {"a": placed(("T4", "t4-a"), ("A100", "a100"))}, [], snapshot(node("t4-a", ("T4", 2))), set(), ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("placements", "records", "fresh", "kept", "refused"),
    [row[1:] for row in VALIDATED],
    ids=[row[0] for row in VALIDATED],
)
def test_validate(
    placements: dict[str, Placement], records: list[Record], fresh: Snapshot, kept: set[str], refused: list[str]
) -> None:
    valid, refusals = validate(placements, records, fresh)
    assert valid == {name: placements[name] for name in kept}
    assert refusals == [Refusal(name, f"{placements[name].configuration} is no longer free") for name in refused]


CANCEL = {"cancel_requested": True}
RECONCILED: list[tuple[str, list[Record], dict[str, Placement], list[Action]]] = [
    ("a placed one starts", [record("a", "queued")], {"a": ONE}, [Start("a", ONE)]),
    ("one without a place waits", [record("a", "queued")], {}, []),
    ("a running one goes on", [record("a", "running", ONE)], {"a": ONE}, []),
    ("a running one the plan drops stops", [trained("a", "running", ONE)], {}, [Stop("a", "the plan wants its devices")]),
    ("so does a starting one", [trained("a", "starting", ONE)], {}, [Stop("a", "the plan wants its devices")]),
    ("so does one that the plan moves", [trained("a", "running", ONE)], {"a": TWO}, [Stop("a", "the plan moves it to T4 x2")]),
    ("what would begin again is never stopped for a plan", [record("a", "running", ONE)], {}, []),
    ("nor moved", [record("a", "running", ONE)], {"a": TWO}, []),
    ("a stopping one is left alone", [record("a", "stopping", ONE)], {}, []),
    ("a pending one waits for its needs", [record("a", "pending")], {"a": ONE}, []),
    ("a cancelled pending one is dropped", [record("a", "pending", **CANCEL)], {}, [Drop("a", "cancelled by the user")]),
    ("a cancelled queued one is dropped, placed or not", [record("a", "queued", **CANCEL)], {"a": ONE}, [Drop("a", "cancelled by the user")]),
    ("a cancelled running one stops", [record("a", "running", ONE, **CANCEL)], {"a": ONE}, [Stop("a", "cancelled by the user")]),
    ("a cancelled starting one stops", [record("a", "starting", ONE, **CANCEL)], {"a": ONE}, [Stop("a", "cancelled by the user")]),
    ("a cancelled stopping one is left alone", [record("a", "stopping", ONE, **CANCEL)], {}, []),
    ("stops come before starts", [record("a", "queued"), trained("b", "running", TWO)], {"a": ONE}, [Stop("b", "the plan wants its devices"), Start("a", ONE)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "placements", "actions"), [row[1:] for row in RECONCILED], ids=[row[0] for row in RECONCILED]
)
def test_reconcile(records: list[Record], placements: dict[str, Placement], actions: list[Action]) -> None:
    assert reconcile(Plan(1, placements, {}), placements, records) == actions


def test_a_refused_placement_is_not_started() -> None:
    assert reconcile(Plan(1, {"a": ONE}, {}), {}, [record("a", "queued")]) == []


def test_what_the_executor_is_told() -> None:
    fields: dict[str, Any] = {"spec": {"resources": {"cpus_per_shard": 2}, "env": {"A": "b"}}, "attempt": 2}
    both = placed(("A100", "a100"), ("cpu", "head"))
    request = run_request(record("w", "starting", both, code_path="/run/w/code.zip", **fields), standard())
    job = request.job
    assert (request.name, request.code_path, request.env) == ("w", "/run/w/code.zip", {"A": "b"})
    assert (job.run_id, job.attempt, job.workload_id) == ("w.r2", 2, "w")
    assert job.progress_path == str(progress_path("/run/w", "w.r2")) == "/run/w/w.r2.progress.jsonl"
    assert job.shards == (
        Shard("A100", "a100", {"A100": 1.0, "CPU": 2.0}, None, 2),
        Shard("cpu", "head", {"CPU": 1.0}, None, 2),
    )


def test_shards_of_a_mixed_gang_know_what_was_predicted_of_them() -> None:
    both = placed(("T4", "t4-a"), ("A100", "a100"), ("T4", "t4-b"))
    estimates = [
        replace(est(9.0, T4=2, A100=1), speeds=(("A100", 20.0), ("T4", 6.0))),
        replace(est(9.0, T4=1, A100=1), speeds=(("A100", 24.0), ("T4", 8.0))),
    ]
    for order in (estimates, estimates[::-1]):
        request = run_request(record("w", "starting", both, estimates=tuple(order)), standard())
        assert [shard.speed for shard in request.job.shards] == [6.0, 20.0, 6.0]
    other = run_request(record("w", "starting", both, estimates=(estimates[1],)), standard())
    assert [shard.speed for shard in other.job.shards] == [1.0, 1.0, 1.0], "of this gang nothing was predicted"
