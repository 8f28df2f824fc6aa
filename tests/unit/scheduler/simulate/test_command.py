"""`raywise simulate` from the command line, on a store and on a cluster of a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from making import est, training
from scheduler.cli import app
from scheduler.store import Record, Store
from scheduler.types import Estimate

CLUSTER = "nodes:\n  - {name: gpu, device: T4}\n  - {name: host, device: cpu, count: 2}\n"


def stored(folder: Path, *records: Record) -> Path:
    store = Store(folder / "raywise.db")
    store.add(records, [])
    store.close()
    return folder / "raywise.db"


def ran(name: str, predicted: Estimate, kind: str = "train", **fields: Any) -> Record:
    """It took as long as was predicted."""
    assert predicted.seconds is not None
    known = {"attempt": 1, "queued_s": 10.0, "first_started_s": 10.0, "ended_s": 10.0 + predicted.seconds}
    known |= {"spent_s": predicted.seconds, "estimates": (predicted,), "predicted": predicted, "work": training()}
    return Record(name, name, kind, {}, "succeeded", 10.0, "/out", "/run", **(known | fields))  # type: ignore[arg-type]


def simulated(folder: Path, trace: Path, *flags: str, cluster: str = CLUSTER) -> Any:
    path = folder / "cluster.yaml"
    path.write_text(cluster)
    arguments = ["simulate", str(trace), "--cluster", str(path), "--policy", "first-fit", "--json", *flags]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_cores_are_kept_where_a_job_ran_on_them(tmp_path: Path) -> None:
    records = ran("prepare", est(50, cpu=2), "preprocess"), ran("train", est(100, T4=1), needs=("prepare",))
    found = simulated(tmp_path, stored(tmp_path, *records))
    jobs = {each["id"]: each for each in found["policies"][0]["jobs"]}
    assert {name: each["state"] for name, each in jobs.items()} == {"prepare": "succeeded", "train": "succeeded"}
    assert jobs["train"]["arrived_s"] == jobs["prepare"]["ended_s"]


def test_learning_is_told(tmp_path: Path) -> None:
    trace = stored(tmp_path, ran("train", est(100, T4=1)))
    assert simulated(tmp_path, trace, "--noise", "0.3", "--learns")["policies"][0]["options"] == {
        "noise": "0.3",
        "learns": "yes",
    }
    assert simulated(tmp_path, trace)["policies"][0]["options"] == {}


RENTED = "nodes:\n  - {name: g4, device: T4, price_usd_h: 0.5, rent: {most: 2, launch_s: 60}}\n" + (
    "  - {name: cores, device: cpu, count: 8, price_usd_h: 0.2, rent: {most: 2}}\n"
)


def test_nodes_are_rented_as_the_cluster_says(tmp_path: Path) -> None:
    trace = stored(tmp_path, ran("train", est(100, T4=1)))
    found = simulated(tmp_path, trace, "--policy", "market", cluster=RENTED)["policies"][0]
    assert [each["state"] for each in found["jobs"]] == ["succeeded"]
    assert (found["summary"]["launches"], found["summary"]["failed_launches"]) == (1, 0)
    assert found["jobs"][0]["ended_s"] - found["jobs"][0]["arrived_s"] == 160.0
    none = simulated(tmp_path, trace, "--policy", "market")["policies"][0]["summary"]
    assert (none["launches"], none["rented_usd"]) == (None, None)
