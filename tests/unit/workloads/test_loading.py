"""From YAML to a spec: what is read, and how every kind of mistake is refused with file, field and hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workloads.errors import Problem, SpecError
from workloads.loading import Submission, is_url, load_data, load_file, load_text, references, resolve_references
from workloads.quantities import CountRange
from workloads.spec import BatchInfer, Command, Preprocess, Serve, Train

BASE = Path("/project/specs")
COMMAND = "kind: command\nname: a\ncommand: echo\n"
TRAIN = "kind: train\nname: t\ninput: data\nmodel: package:m\n"
PIPELINE = """
kind: pipeline
name: p
params: {data: tables, epochs: 3, rate: 0.5, cased: true}
steps:
  - {name: prepare, kind: preprocess, input: "${data}/train.csv", model: package:m}
  - {name: train, kind: train, needs: [prepare], input: "${prepare.output}", model: package:m,
     hyperparameters: {epochs: "${epochs}", label_smoothing: "${rate}"}}
"""


def load(text: str, *overrides: str) -> Submission:
    return load_text(text, base=BASE, file="f.yaml", overrides=overrides)


def problems(text: str, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load(text, *overrides)
    assert {each.file for each in caught.value.problems} == {"f.yaml"}
    return caught.value.problems


def problem(text: str, *overrides: str) -> Problem:
    found = problems(text, *overrides)
    assert len(found) == 1, found
    return found[0]


def step(text: str, *overrides: str) -> Any:
    return load(text, *overrides).steps[-1]


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("kind: preprocess\nname: a\ninput: x.csv\nmodel: package:m\n", Preprocess),
        (TRAIN, Train),
        ("kind: batch-infer\nname: a\ninput: x.csv\nmodel: package:m\n", BatchInfer),
        ("kind: serve\nname: a\nmodel: package:m\n", Serve),
        (COMMAND, Command),
    ],
    ids=["preprocess", "train", "batch-infer", "serve", "command"],
)
def test_each_kind_becomes_its_class(text: str, model: type) -> None:
    submission = load(text)
    assert type(submission.steps[0]) is model
    assert (submission.is_pipeline, submission.file) == (False, "f.yaml")


def test_a_pipeline_in_the_order_of_its_needs() -> None:
    text = PIPELINE.replace(
        "steps:", "deadline: 10m\nbudget_usd: 2.5\nsteps:\n  - {name: last, kind: command, command: x, needs: [train]}"
    )
    found = load(text)
    assert [each.name for each in found.steps] == ["prepare", "train", "last"]
    assert (found.name, found.is_pipeline, found.deadline, found.budget_usd) == ("p", True, 600.0, 2.5)


def test_parameters_keep_their_type_where_they_are_the_whole_text() -> None:
    prepare, train = load(PIPELINE).steps
    assert prepare.input == "/project/specs/tables/train.csv"  # type: ignore[union-attr]
    assert train.hyperparameters == {"epochs": 3, "label_smoothing": 0.5}  # type: ignore[union-attr]


def test_fields_of_a_pipeline_are_the_defaults_of_its_steps() -> None:
    text = PIPELINE.replace("steps:", "objective: time\npriority: 7\nqueue: night\nsteps:").replace(
        "name: train, kind: train,", "name: train, kind: train, priority: 9,"
    )
    assert [(s.objective, s.priority, s.queue) for s in load(text).steps] == [
        ("time", 7, "night"),
        ("time", 9, "night"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("data/x.csv", "/project/specs/data/x.csv"),
        ("../x.csv", "/project/x.csv"),
        ("/data/x.csv", "/data/x.csv"),
        ("s3://bucket/x.csv", "s3://bucket/x.csv"),
        ("GS://bucket/x.csv", "GS://bucket/x.csv"),
        ("~/x.csv", str(Path("~/x.csv").expanduser().resolve())),
    ],
)
def test_paths_are_seen_from_the_file_and_urls_are_left_alone(written: str, meant: str) -> None:
    text = f"kind: batch-infer\nname: a\nmodel: org/name\ninput: {written}\noutput: {written}\n"
    found = step(text)
    assert (found.input, found.output, found.model) == (meant, meant, "org/name")


def test_every_path_of_a_mapping_is_made_absolute() -> None:
    found = step("kind: preprocess\nname: a\nmodel: package:m\ninput: {train: a.csv, test: s3://b/c.csv}\n")
    assert found.input == {"train": "/project/specs/a.csv", "test": "s3://b/c.csv"}


def test_a_model_beside_the_file_is_a_path_and_a_hub_id_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = "kind: batch-infer\nname: a\ninput: x.csv\nmodel: {}\n"
    found = [load_text(text.format(name), base=tmp_path).steps[0] for name in ("mine", "./other", "other", "package:m")]
    assert [s.model for s in found] == [  # type: ignore[union-attr]
        str(tmp_path / "mine"),
        str(tmp_path / "other"),
        "other",
        "package:m",
    ]


def test_own_code_is_looked_for_beside_the_file() -> None:
    own = "kind: train\nname: a\nentrypoint: my.module:loop\n"
    assert (step(own).code, step(own + "code: src\n").code, step(COMMAND).code) == (
        "/project/specs",
        "/project/specs/src",
        None,
    )


def test_devices_as_a_word_a_list_and_a_mapping() -> None:
    devices = [
        step(COMMAND + f"resources: {{devices: {text}}}\n").resources.devices
        for text in ("cpu", "[T4, A100]", "{T4: 1..2, A100: 1}")
    ]
    assert devices == ["cpu", ["T4", "A100"], {"T4": CountRange(low=1, high=2), "A100": CountRange(low=1, high=1)}]


def test_a_spec_survives_being_stored_as_json() -> None:
    for text in (COMMAND + "resources: {devices: {T4: 1..2}}\ndeadline: 2h\nenv: {A: b}\n", TRAIN + "retries: 0\n"):
        found = step(text)
        assert type(found).model_validate(found.model_dump(mode="json")) == found


def test_serve_is_read() -> None:
    assert load("kind: serve\nname: a\nmodel: ./m\n").steps == (Serve(name="a", model="/project/specs/m"),)


def test_references_are_replaced_by_outputs_everywhere() -> None:
    train = load(PIPELINE).steps[1]
    assert references(train) == {"prepare"}
    resolved = resolve_references(train, {"prepare": "/runs/1"})
    assert resolved == train.model_copy(update={"input": "/runs/1"})
    infer = BatchInfer(
        name="a", input="${prepare.output}/test", model="${train.output}/model", env={"X": "${train.output}"}
    )
    found = resolve_references(infer, {"prepare": "/p", "train": "/t"})
    assert (found.input, found.model, found.env) == ("/p/test", "/t/model", {"X": "/t"})  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("epochs=5", ("hyperparameters", "epochs"), 5),
        ("steps.train.hyperparameters.epochs=7", ("hyperparameters", "epochs"), 7),
        ("steps.train.objective=cost", ("objective",), "cost"),
        ("steps.train.resources.count=1..3", ("resources", "count"), CountRange(low=1, high=3)),
        ("steps.train.deadline=", ("deadline",), None),
    ],
    ids=["a parameter", "a nested field", "a field", "a field in a new mapping", "nothing is not allowed"],
)
def test_set(override: str, path: tuple[str, ...], value: object) -> None:
    if value is None:
        assert problem(PIPELINE, override).field == "steps.train.deadline"
        return
    found = step(PIPELINE, override)
    for name in path:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value


def test_set_on_a_single_workload_and_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").touch()
    (tmp_path / "spec.yaml").write_text(TRAIN)
    assert load_file(Path("spec.yaml"), ["input=./here.csv"]).steps[0].input == str(tmp_path / "here.csv")  # type: ignore[union-attr]
    assert step(TRAIN, "input=./here.csv").input == "/project/specs/here.csv"
    assert step(COMMAND, "command=" + "x" * 5000).command == "x" * 5000
    assert step(COMMAND, "command=~nobody-of-that-name/x").command == "~nobody-of-that-name/x"


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("data", "expected key=value, got 'data'", "e.g. --set data=my/folder"),
        ("=1", "expected key=value, got '=1'", "e.g. --set data=my/folder"),
        ("epoch=1", "there is no parameter or field 'epoch'", "did you mean 'epochs'?"),
        (
            "steps.trian.retries=1",
            "there is no 'retries' in 'steps.trian.retries'",
            None,
        ),
        ("epochs=[", "not YAML: expected the node content, but found '<stream end>'", "check indentation and quotes"),
        ("epochs=2024-13-01", "not YAML: month must be in 1..12", ""),
    ],
)
def test_a_wrong_set_says_so(override: str, message: str, hint: str | None) -> None:
    found = problem(PIPELINE, override)
    if hint is None:
        assert found.field == "--set"
        assert "trian" in found.message
        return
    assert (found.field, found.message, found.hint) == ("--set", message, hint)


REFUSED = [
    ("a kind with a typo", "kind: trian\nname: a\n", "kind", "unknown kind 'trian'", "did you mean 'train'?"),
    ("no kind", "name: a\n", "kind", "kind is missing", "add one of: preprocess, train, batch-infer, serve, command, benchmark, pipeline"),
    ("a kind that is a list", "kind: [train]\n", "kind", "unknown kind ['train']", None),
    ("an unknown field", COMMAND + "comand: x\n", "comand", "unknown field 'comand'", "did you mean 'command'?"),
    ("an unknown field of resources", COMMAND + "resources: {cuont: 2}\n", "resources.cuont", "unknown field 'cuont'", "did you mean 'count'?"),
    ("an unknown hyper-parameter", TRAIN + "hyperparameters: {epoch: 2}\n", "hyperparameters.epoch", "unknown field 'epoch'", "did you mean 'epochs'?"),
    ("an unknown field of a step", PIPELINE.replace("needs:", "retry: 1, needs:"), "steps.train.retry", "unknown field 'retry'", "did you mean 'retries'?"),
    ("an unknown hyper-parameter of a step", PIPELINE.replace("epochs: \"", "epoch: \""), "steps.train.hyperparameters.epoch", "unknown field 'epoch'", "did you mean 'epochs'?"),
    ("a hyper-parameter out of range", TRAIN + "hyperparameters: {epochs: 0}\n", "hyperparameters.epochs", "must be at least 1, got 0", ""),
    ("a missing field", "kind: command\nname: a\n", "command", "is required", ""),
    ("a missing field of a step of the same name", "kind: pipeline\nname: p\nsteps: [{name: a, kind: command}]\n", "steps.a.command", "is required", ""),
    ("a step of unknown kind", "kind: pipeline\nname: p\nsteps: [{name: a, kind: tarin}]\n", "steps.a.kind", "unknown kind tarin", "kinds: preprocess, train, batch-infer, serve, command, benchmark"),
    ("a step without a kind", "kind: pipeline\nname: p\nsteps: [{name: a}]\n", "steps.a.kind", "kind is missing", ""),
    ("a step that is a text", "kind: pipeline\nname: p\nsteps: [a]\n", "steps.0", None, ""),
    ("steps that are a number", "kind: pipeline\nname: p\nsteps: 5\n", "steps", "expected a list, got 5", ""),
    ("no steps", "kind: pipeline\nname: p\nsteps: []\n", "steps", "is empty: at least one is needed", ""),
    ("two steps of one name", "kind: pipeline\nname: p\nsteps: [{name: a, kind: command, command: x}, {name: a, kind: command, command: y}]\n", "steps", "two steps have the same name: a", ""),
    ("a number that is a text", COMMAND + "retries: many\n", "retries", None, ""),
    ("a text that is a list", COMMAND.replace("echo", "[a]"), "command", "expected a text, got ['a']", ""),
    ("a duration nobody can read", COMMAND + "deadline: soon\n", "deadline", "expected a duration such as 90s, 10m or 2h, got 'soon'", ""),
    ("a count that runs backwards", COMMAND + "resources: {count: 3..1}\n", "resources.count", "expected 1 <= low <= high, got 3..1", ""),
    ("a device type as a word", COMMAND + "resources: {devices: T4}\n", "resources.devices", "expected any, accelerator, cpu or a list of device types, got 'T4'", "write [T4]"),
    ("a device count of zero", COMMAND + "resources: {devices: {T4: 0}}\n", "resources.devices.T4", "expected 1 <= low <= high, got 0..0", ""),
    ("an objective with a typo", COMMAND + "objective: costs\n", "objective", "expected one of cost, balanced, time, got 'costs'", "did you mean 'cost'?"),
    ("a name with blanks", COMMAND.replace("name: a", "name: My Job"), "name", "'My Job' is not allowed here", "use lower-case letters, digits and '-', at most 48 characters"),
    ("an entrypoint without a function", "kind: train\nname: a\nentrypoint: module\n", "entrypoint", "'module' is not allowed here", "write package.module:function"),
    ("a train step without a model", "kind: train\nname: a\ninput: x\n", "", "train needs input and model, or an entrypoint of your own", ""),
    ("a parameter nobody declared", PIPELINE.replace("${data}", "${dtaa}"), "steps.0.input", "unknown parameter ${dtaa}", "did you mean 'data'?"),
    ("parameters that are a list", PIPELINE.replace("{data: tables, epochs: 3, rate: 0.5, cased: true}", "[data]"), "steps.0.input", "unknown parameter ${data}", "declare it under params:"),
    ("a parameter that is a list", PIPELINE.replace("data: tables", "data: x, more: [1]"), "params.more", "expected a text, a number or true or false, got [1]", ""),
    ("a need that is no step", PIPELINE.replace("[prepare]", "[prepare, perpare]"), "steps.train.needs", "needs 'perpare', which is no step", "did you mean 'prepare'?"),
    ("a reference to no step", PIPELINE.replace("${prepare.output}", "${prepaer.output}"), "steps.train", "${prepaer.output} names no step", "did you mean 'prepare'?"),
    ("a reference without a need", PIPELINE.replace("needs: [prepare], ", ""), "steps.train.needs", "uses ${prepare.output} but does not need 'prepare'", "add prepare to its needs"),
    ("a circle", PIPELINE.replace("kind: preprocess,", "kind: preprocess, needs: [train],"), "steps", "needs go round in a circle: prepare -> train -> prepare", "remove one of them"),
    ("a step that needs itself", PIPELINE.replace("[prepare]", "[prepare, train]"), "steps", "needs go round in a circle: train -> train", "remove one of them"),
    ("needs without a pipeline", COMMAND + "needs: [b]\n", "needs", "there are no other steps", "use kind: pipeline"),
    ("a reference without a pipeline", COMMAND + "input: ${b.output}\n", "", "${b.output} names no step", "use kind: pipeline"),
    ("an empty file", "", "", "expected a mapping of fields, the file is empty", "see examples/ for a spec"),
    ("only a comment", "# nothing\n", "", "expected a mapping of fields, the file is empty", "see examples/ for a spec"),
    ("a list", "- a\n", "", "expected a mapping of fields, the file is a list", "see examples/ for a spec"),
    ("a tab", "kind: command\n\tname: a\n", "line 2, column 1", "not YAML: found character '\\t' that cannot start any token", "use spaces, not tabs"),
    ("a quote that is not closed", 'kind: command\nname: "a\n', "line 3, column 1", "not YAML: found unexpected end of stream", "check indentation and quotes"),
    ("a field given twice", COMMAND + "name: b\n", "line 4, column 1", "not YAML: field 'name' twice", "check indentation and quotes"),
    ("a nested field given twice", COMMAND + "env:\n  A: x\n  A: y\n", "line 6, column 3", "not YAML: field 'A' twice", "check indentation and quotes"),
    ("an alias of nothing", "kind: *a\n", "line 1, column 7", "not YAML: found undefined alias 'a'", "check indentation and quotes"),
    ("a Python object", "kind: !!python/object/apply:os.system [ls]\n", "line 1, column 7", None, "check indentation and quotes"),
    ("a key that is a list", "? [a, b]\n: c\n", "line 1, column 3", "not YAML: found unhashable key", "check indentation and quotes"),
    ("a list tagged as a mapping", "kind: !!map [a]\n", "line 1, column 7", "not YAML: expected a mapping node, but found sequence", "check indentation and quotes"),
    ("a date of month 13", COMMAND + "deadline: 2024-13-01\n", "", "not YAML: month must be in 1..12", ""),
    ("brackets a thousand deep", "kind: " + "[" * 3000, "", None, ""),
    ("a list within itself", COMMAND + "env: &e {A: *e}\n", "", "not YAML: nested more than 100 deep", ""),
    ("half of a surrogate pair", COMMAND + 'env: {A: "\\ud800"}\n', "line 4, column 13", None, "check indentation and quotes"),
    ("a NUL byte in a path", 'kind: batch-infer\nname: a\nmodel: m\ninput: "a\\0b"\n', "input", "a text has no NUL character", ""),
    ("too much text", "# " + "x" * (1 << 20), "", "1,048,578 characters; a spec has at most 1,048,576", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "field", "message", "hint"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_refused(text: str, field: str, message: str | None, hint: str | None) -> None:
    found = problem(text)
    assert found.field == field
    assert message is None or found.message == message
    assert hint is None or found.hint == hint
    assert str(found).startswith("f.yaml: ")


def test_a_word_like_accelerator_may_also_be_a_device_type() -> None:
    found = problem(COMMAND + "resources: {devices: acelerator}\n")
    assert found.hint == "did you mean 'accelerator'? A device type is written [acelerator]"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("budget_usd: $5", "expected a number, got '$5'", "write 5, without the $"),
        ("budget_usd: cheap", "expected a number, got 'cheap'", ""),
        ("budget_usd: 0", "must be above 0, got 0", ""),
        ("budget_usd: .nan", "must be a finite number, got nan", ""),
        ("retries: many", "expected a whole number, got 'many'", ""),
        ("retries: 1.5", "expected a whole number, got 1.5", ""),
        ("retries: 101", "must be at most 100, got 101", ""),
        ("resources: {mix: perhaps}", "expected true or false, got 'perhaps'", ""),
        ("resources: T4", "expected a mapping of fields, got 'T4'", ""),
        ("env: [a]", "expected a mapping, got ['a']", ""),
        ("needs: a", "expected a list, got 'a'", ""),
    ],
)
def test_a_value_that_does_not_fit_is_said_in_plain_words(line: str, message: str, hint: str) -> None:
    found = problem(COMMAND + line + "\n")
    assert (found.message, found.hint) == (message, hint)


def test_a_wrong_set_is_said_in_plain_words_too() -> None:
    found = problem(PIPELINE, "epochs=many")
    assert (found.field, found.message) == (
        "steps.train.hyperparameters.epochs",
        "expected a whole number, got 'many'",
    )


def test_an_alias_bomb_is_defused() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    assert problem("\n".join(lines)).message == "not YAML: too many nodes (aliases within aliases?)"
    text = "a: &a '" + "x" * 500_000 + "'\nb: [" + "*a," * 200 + "]\n"
    assert problem(text).message == "not YAML: too many nodes (aliases within aliases?)"


def test_aliases_that_are_no_bomb_are_fine() -> None:
    text = PIPELINE + "  - &c {name: c, kind: command, command: x}\n  - {<<: *c, name: d}\n"
    assert [s.name for s in load(text).steps] == ["prepare", "c", "d", "train"]


def test_all_problems_are_said_at_once() -> None:
    text = PIPELINE.replace("needs: [prepare],", "needs: [prepare], retries: -1, cout: 3,")
    assert [each.field for each in problems(text)] == ["steps.train.retries", "steps.train.cout"]
    text = PIPELINE.replace("needs: [prepare]", "needs: [a1, b2]")
    assert len(problems(text)) == 3


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(COMMAND)
    (tmp_path / "big.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "folder").mkdir()
    found = {}
    for name in (
        "godo.yaml",
        "big.yaml",
        "latin.yaml",
        "folder",
        ".",
        "/dev/null",
        "x" * 300,
        "none/x.yaml",
        "folder/x.yaml",
    ):
        with pytest.raises(SpecError) as caught:
            load_file(tmp_path / name)
        found[name] = [(p.message, p.hint, p.file) for p in caught.value.problems]
    assert found == {
        name: [(message, hint, str(tmp_path / name))]
        for name, message, hint in [
            ("godo.yaml", "file does not exist", "did you mean 'good.yaml'?"),
            ("big.yaml", "file has 1,048,577 bytes; a spec has at most 1,048,576", ""),
            ("latin.yaml", "not UTF-8 text (byte 9)", "not YAML?"),
            ("folder", "is a folder, not a file", f"there is no YAML file in {tmp_path / 'folder'}"),
            (".", "is a folder, not a file", "name the file: big.yaml, good.yaml, latin.yaml"),
            ("/dev/null", "is not a regular file", "a spec is a YAML file"),
            ("x" * 300, "file cannot be read: File name too long", ""),
            ("none/x.yaml", "file does not exist", f"there is no folder {tmp_path / 'none'}"),
            ("folder/x.yaml", "file does not exist", f"no YAML file in {tmp_path / 'folder'}"),
        ]
    }


def test_a_file_is_read_with_its_folder_as_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "a.yaml").write_text(TRAIN)
    monkeypatch.chdir(tmp_path)
    found = load_file(Path("specs/a.yaml"), ["retries=0"])
    assert (found.file, found.steps[0].input, found.steps[0].retries) == (  # type: ignore[union-attr]
        "specs/a.yaml",
        str(tmp_path / "specs" / "data"),
        0,
    )


def test_data_that_is_already_parsed() -> None:
    data = {"kind": "command", "name": "a", "command": "x", "input": "t.csv"}
    assert load_data(data, base=BASE).steps == (Command(name="a", command="x", input="/project/specs/t.csv"),)


def test_what_is_a_url() -> None:
    assert [is_url(text) for text in ("s3://a", "file:///a", "/a", "a://", "C:/x", "a b://c")] == [
        True, True, False, True, False, False,
    ]  # fmt: skip
