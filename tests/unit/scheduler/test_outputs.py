"""Where a step may write: nowhere that somebody else's files are, and nowhere that it reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from scheduler.admission import admit
from scheduler.admission.checks import disk
from scheduler.admission.code import code_files
from scheduler.admission.outputs import taken
from scheduler.estimate.calibration import Calibration
from scheduler.store import Record
from workloads.errors import Problem, SpecError
from workloads.loading import load_data
from workloads.outputs import mark
from workloads.spec import Train

Admit = Callable[..., list[Record]]


@pytest.fixture
def submit(tmp_path: Path, definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog) -> Admit:
    """Admit commands that lie in `tmp_path`: one alone, or several as a pipeline."""
    for name in ("data", "full", "src", "kept", "empty"):
        (tmp_path / name).mkdir()
    for name in ("data/rows.csv", "full/thesis.txt", "src/main.py", "file"):
        (tmp_path / name).write_text("text\n")
    mark(tmp_path / "kept", "an-earlier-run")
    (tmp_path / "kept" / "part").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    snapshot = definition.snapshot(host_rates, catalog)

    def run(*steps: dict[str, Any]) -> list[Record]:
        made = [
            {"kind": "command", "name": f"s{n}", "command": "true", "resources": {"devices": "cpu"}} | step
            for n, step in enumerate(steps)
        ]
        data = made[0] if len(made) == 1 else {"kind": "pipeline", "name": "p", "steps": made}
        runs = tmp_path / "runs"
        loaded = load_data(data, base=tmp_path, file="f.yaml")
        return admit(loaded, runs=runs, catalog=catalog, snapshot=snapshot, calibration=Calibration(), now_s=0.0)

    return run


def refused(submit: Admit, *steps: dict[str, Any]) -> Problem:
    with pytest.raises(SpecError) as caught:
        submit(*steps)
    (found,) = caught.value.problems
    return found


REFUSED = [
    ("the input", {"input": "data", "output": "data"}, "is the input"),
    ("the input over a link", {"input": "link", "output": "data"}, "is the input"),
    ("the folder of the input file", {"input": "data/rows.csv", "output": "data"}, "contains the input"),
    ("a folder in the input", {"input": "data", "output": "data/out"}, "lies inside the input"),
    ("one of several inputs", {"input": {"a": "full", "b": "data"}, "output": "data"}, "is the input.b"),
    ("an input as a URL", {"input": "file://{}/data", "output": "data"}, "is the input"),
    ("the code folder", {"code": "src", "output": "src"}, "is the code folder"),
    ("above the code folder", {"code": "src", "output": "."}, "contains the code folder"),
    ("a folder with other files", {"output": "full"}, "holds what Raywise did not write"),
    ("a file", {"output": "file"}, "holds what Raywise did not write"),
    ("the spec's own folder", {"output": ""}, "holds what Raywise did not write"),
    ("a storage nobody knows", {"output": "nosuch://bucket/out"}, "nosuch://bucket/out cannot be opened"),
    ("a storage with other files", {"output": "local://{}/full"}, "holds what Raywise did not write"),
    ("another host", {"output": "file://host/out"}, "is no folder of a file system"),
    ("links in a circle", {"output": "file://{}/circle"}, "is no path: Symlink loop"),
    ("a zero byte", {"output": "file:///x\0y"}, "is no path: embedded null byte"),
    ("a name that is too long", {"output": "x" * 300}, "is too long for a path"),
]


@pytest.mark.parametrize(("fields", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_output(submit: Admit, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    found = refused(submit, json.loads(json.dumps(fields).replace("{}/", f"{tmp_path}/")))
    assert (found.field, found.file) == ("output", "f.yaml")
    assert message in found.message
    assert found.hint


@pytest.mark.parametrize(("model", "refused"), [("/m/best", True), ("file:///m/best", True), ("m/best", False)])
def test_a_local_model_folder_is_no_output(model: str, refused: bool) -> None:
    spec = Train(name="w", input="/data", model=model, output="/m/best/out")
    messages = [each.message for each in taken(spec, {})]
    assert messages == (["/m/best/out lies inside the model folder /m/best"] if refused else [])


@pytest.mark.parametrize("output", ["new/deep", "empty", "kept", "file://{}/new"])
def test_what_is_an_output(submit: Admit, tmp_path: Path, output: str) -> None:
    record = submit({"input": "data", "code": "src", "output": output.replace("{}", str(tmp_path))})[0]
    assert record.output == record.spec["output"] == str(tmp_path / output.removeprefix("file://{}/"))
    assert not (tmp_path / "new").exists(), "admission writes nothing"


def test_an_own_output_may_lie_below_the_code(submit: Admit, tmp_path: Path) -> None:
    assert submit({"code": "."})[0].output.startswith(str(tmp_path / "runs"))


def test_steps_do_not_share_an_output(submit: Admit) -> None:
    found = refused(submit, {"output": "out"}, {"output": "x/../out"})
    assert (found.field, found.hint) == ("steps.s1.output", "choose another folder")
    assert "step 's0' writes to" in found.message


def test_what_an_earlier_step_wrote_is_an_input_but_no_output(submit: Admit) -> None:
    first = {"output": "kept"}
    later = {"needs": ["s0"], "input": "${s0.output}/test"}
    assert submit(first, later | {"output": "kept/test2"})[1].spec["input"].endswith("/kept/test")
    assert "lies inside the input" in refused(submit, first, later | {"output": "kept/test/x"}).message
    assert "writes to" in refused(submit, first, later | {"output": "${s0.output}"}).message


def test_a_name_that_became_too_long_is_refused(submit: Admit) -> None:
    found = refused(submit, {}, {"needs": ["s0"], "input": "${s0.output}/" + "x" * 300})
    assert (found.field, found.hint) == ("steps.s1.input", "a name has at most 255 bytes")


def test_output_and_checkpoints_share_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = SimpleNamespace(parameters=1_000_000)
    work = SimpleNamespace(profile=profile, training=True, output_bytes=4e6)
    folders = {"output": str(tmp_path / "out"), "checkpoints": str(tmp_path / "run")}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=39e6))
    (found,) = disk(work, folders)  # type: ignore[arg-type]
    assert (
        found.message == f"not enough disk for output and checkpoints: about 40.0 MB needed, 39.0 MB free at {tmp_path}"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=41e6))
    assert disk(work, folders) == []  # type: ignore[arg-type]


def test_results_below_the_code_are_accepted_and_never_shipped(submit: Admit, tmp_path: Path) -> None:
    record = submit({"code": "src", "output": "src/results"})[0]
    assert record.output == str(tmp_path / "src" / "results")
    results = tmp_path / "src" / "results"
    results.mkdir()
    (results / "big.bin").write_bytes(b"x")
    mark(results, "w")
    assert "big.bin" not in [path.name for path, _ in code_files(tmp_path / "src")]
