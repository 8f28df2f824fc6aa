"""What `${...}` means where a shell reads it too, and which paths `--set` sees from the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scheduler.client._calls import seen_from_here as _seen_from_here
from workloads.errors import SpecError
from workloads.loading import load_data, load_file, load_text, seen_from_here
from workloads.models import is_hub_id, resolve_model


def command(**fields: Any) -> Any:
    step = {"name": "a", "kind": "command", "command": "true"} | fields
    return load_data({"kind": "pipeline", "name": "p", "params": {"n": 5}, "steps": [step]}, base=Path("/p")).steps[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("echo ${n}", "echo 5"),
        ("echo ${HOME} ${n}", "echo ${HOME} 5"),
        ("echo $${HOME}", "echo ${HOME}"),
        ("echo $${n} ${n}", "echo ${n} 5"),
        ("$${n}", "${n}"),
        ("${HOME}", "${HOME}"),
    ],
)
def test_variables_of_the_shell(written: str, meant: str) -> None:
    found = command(command=written, env={"X": written})
    assert (found.command, found.env["X"]) == (meant, meant)


def test_elsewhere_an_unknown_parameter_is_refused_and_can_be_escaped() -> None:
    with pytest.raises(SpecError, match=r"unknown parameter \$\{HOME\}"):
        command(input="data/${HOME}")
    assert command(input="data/$${HOME}").input == "/p/data/${HOME}"


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("queue=home", "queue=home"),
        ("data=./home", "data={}/home"),
        ("data=home/rows.csv", "data={}/home/rows.csv"),
        ("data=none/rows.csv", "data=none/rows.csv"),
        ("data=..", "data={}/.."),
        ("data=s3://home/rows.csv", "data=s3://home/rows.csv"),
        ("data=~nobody-of-that-name/x", "data=~nobody-of-that-name/x"),
        ("data=./" + "x" * 5000, "data=./" + "x" * 5000),
        ("epochs=5", "epochs=5"),
        ("data", "data"),
    ],
)
def test_set_sees_paths_from_here_the_same_in_the_client_and_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, meant: str
) -> None:
    (tmp_path / "here" / "home").mkdir(parents=True)
    (tmp_path / "here" / "home" / "rows.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    expected = meant.replace("{}/..", str(tmp_path)).replace("{}", str(tmp_path / "here"))
    assert seen_from_here(override) == _seen_from_here(override) == expected


def test_the_service_does_not_see_paths_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = "kind: command\nname: a\ncommand: x\ninput: rows\n"
    found = load_text(text, base=tmp_path, overrides=["queue=tmp", "input=./tmp"]).steps[0]
    assert (found.queue, found.input) == ("tmp", str(tmp_path / "tmp"))  # type: ignore[union-attr]
    (tmp_path / "a.yaml").write_text(text)
    assert load_file(tmp_path / "a.yaml", ["input=./tmp"]).steps[0].input == "/tmp"  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["input", "output", "code", "model"])
@pytest.mark.parametrize("value", ["x" * 300, "x/" * 3000, "/a/" + "é" * 200], ids=["a name", "a path", "in bytes"])
def test_a_name_that_no_file_system_takes(field: str, value: str) -> None:
    data = {"kind": "batch-infer", "name": "a", "input": "rows.csv", "model": "package:m"} | {field: value}
    with pytest.raises(SpecError) as caught:
        load_data(data, base=Path("/p"), file="f.yaml")
    (found,) = caught.value.problems
    assert (found.field, found.file) == (field, "f.yaml")
    assert "is too long for a path" in found.message


def test_a_hub_id_is_one_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/name")
    assert is_hub_id("x" * 300)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resolve_model("./" + "x" * 300)
