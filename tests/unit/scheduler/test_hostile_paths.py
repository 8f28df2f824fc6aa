"""Paths that were chosen to do harm: the service's own folder, links that lead out of a code folder, what is no file,
archives that unpack elsewhere or without end."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cluster import own_code
from cluster.own_code import unpacked
from fake_service import FakeRuntime
from scheduler.admission import code
from scheduler.admission.code import code_files, pack_code
from workloads.errors import SpecError

COMMAND = "kind: command\nname: hello\ncommand: echo\nresources: {devices: cpu}\nexpected_runtime: 10s\n"
OWN = "kind: train\nname: own\nentrypoint: main:loop\nexpected_runtime: 10s\n"


def asked(api: TestClient, base: Path, text: str, path: str = "workloads") -> Any:
    return api.post(f"/api/v1/{path}", json={"text": text, "base": str(base), "file": "f.yaml"})


def refused(api: TestClient, base: Path, text: str) -> Any:
    """Refused at submission and in a plan alike."""
    answers = [asked(api, base, text, path) for path in ("workloads", "plan")]
    assert [answer.status_code for answer in answers] == [422, 422], answers[0].text
    found = [answer.json()["problems"][0] for answer in answers]
    assert found[0]["field"] == found[1]["field"]
    return found[0]


@pytest.mark.parametrize(
    "output",
    [
        "home",
        "home/new",
        "home/runs/other/output",
        "home/token",
        ".",
        "link",
        "link/new",
        "file://{}/home/new",
        "local://{}/home/new",
        "local://{}/x/../home",
        "x/../home/y",
    ],
)
def test_nothing_is_written_into_the_services_own_folder(
    api: TestClient, runtime: FakeRuntime, tmp_path: Path, output: str
) -> None:
    (tmp_path / "link").symlink_to(runtime.home.path)
    problem = refused(api, tmp_path, COMMAND + f"output: '{output.format(tmp_path)}'\n")
    assert problem["field"] == "output"
    assert "the service's own folder" in problem["message"]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("input", "home/raywise.db"),
        ("input", "link"),
        ("input", "home/runs/../token"),
        ("input", "local://{}/home/token"),
        ("code", "home"),
        ("code", "home/stage"),
    ],
)
def test_nothing_is_read_from_there(
    api: TestClient, runtime: FakeRuntime, tmp_path: Path, field: str, path: str
) -> None:
    (runtime.home.path / "stage").mkdir()
    (tmp_path / "link").symlink_to(runtime.home.path / "token")
    problem = refused(api, tmp_path, COMMAND + f"{field}: '{path.format(tmp_path)}'\n")
    assert (problem["field"], "is the service's own" in problem["message"]) == (field, True)


def test_what_a_workload_left_there_is_read(api: TestClient, runtime: FakeRuntime, tmp_path: Path) -> None:
    folder = runtime.home.runs / "earlier" / "output"
    folder.mkdir(parents=True)
    (folder / "part.csv").write_text("text\nx\n")
    assert asked(api, tmp_path, COMMAND + f"input: {folder}\n").status_code == 201


def test_a_code_folder_with_the_services_folder_in_it_ships_neither_token_nor_database(
    api: TestClient, runtime: FakeRuntime, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("def loop(config): ...")
    assert asked(api, tmp_path, OWN).status_code == 201
    (record,) = runtime.store.select()
    assert zipfile.ZipFile(str(record.code_path)).namelist() == ["main.py"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside.py", "../"], ids=["absolute", "relative", "a folder"])
def test_a_link_that_leads_out_of_the_code_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (tmp_path / "outside.py").write_text("SECRET = 1")
    (folder / "main.py").write_text("")
    (folder / "link.py").symlink_to(target)
    if target == "../":
        assert [path.name for path, _ in code_files(folder)] == ["main.py"], "links to folders are not followed"
        return
    for ask in (lambda: code_files(folder), lambda: pack_code(folder, tmp_path / "code.zip")):
        with pytest.raises(SpecError, match=r"link\.py is a link to .*, which is not in the code folder"):
            ask()
    assert not (tmp_path / "code.zip").exists()


def test_a_link_within_the_code_is_packed_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "main.py").write_text("X = 1")
    (folder / "same.py").symlink_to("main.py")
    pack_code(folder, tmp_path / "code.zip")
    assert zipfile.ZipFile(tmp_path / "code.zip").read("same.py") == b"X = 1"


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "main.py").write_text("")
    os.mkfifo(folder / "pipe")
    (folder / "null").symlink_to("/dev/zero")
    (folder / "nowhere").symlink_to("missing")
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)
    assert [path.name for path, _ in code_files(folder)] == ["main.py"]


def test_a_file_that_becomes_something_else_while_it_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    os.mkfifo(folder / "main.py")
    for swapped in (folder / "main.py", folder / "gone.py"):
        monkeypatch.setattr(code, "code_files", lambda _, swapped=swapped: [(swapped, 1)])
        with pytest.raises(SpecError, match=r"changed while it was packed|cannot be read"):
            pack_code(folder, tmp_path / "code.zip")


def test_a_file_that_grows_and_folders_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    for number in range(5):
        (folder / f"f{number}").mkdir(parents=True)
    (folder / "main.py").write_text("x" * 100)
    found = code_files(folder)
    monkeypatch.setattr(code, "MAX_FILES", 3)
    with pytest.raises(SpecError, match="more than 3 folders"):
        code_files(folder)
    monkeypatch.setattr(code, "MAX_BYTES", 99)
    monkeypatch.setattr(code, "code_files", lambda _: found)
    with pytest.raises(SpecError, match="changed while it was packed"):
        pack_code(folder, tmp_path / "code.zip")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.py")).write_text("")
    with pytest.raises(SpecError, match="is no UTF-8 text"):
        pack_code(folder, tmp_path / "code.zip")


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, "x" * 100)
    return path


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "..\\evil.py"])
def test_an_archive_that_unpacks_elsewhere(tmp_path: Path, name: str) -> None:
    packed = archive(tmp_path / "code.zip", "main.py", name)
    with pytest.raises(zipfile.BadZipFile, match="leads out of the folder"):
        unpacked(packed, tmp_path / "run", "w")
    assert list((tmp_path / "run" / "code").iterdir()) == []
    assert not list(tmp_path.rglob("evil.py"))


def test_an_archive_with_a_link_in_it_unpacks_a_file(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    link = unpacked(tmp_path / "code.zip", tmp_path / "run", "w") / "link"
    assert (link.is_symlink(), link.read_text()) == (False, "/etc/passwd")


def test_an_archive_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(tmp_path / "code.zip", *(f"f{i}" for i in range(10)))
    for limit, value in (("MAX_BYTES", 999), ("MAX_FILES", 9)):
        with monkeypatch.context() as patch:
            patch.setattr(own_code, limit, value)
            with pytest.raises(zipfile.BadZipFile, match="more than"):
                unpacked(packed, tmp_path / "run", "w")
    assert len(list(unpacked(packed, tmp_path / "run", "w").iterdir())) == 10


@pytest.mark.parametrize("asked_id", ["..", "../x", "%2e%2e", "..%2f..%2ftoken", "%00", "x%0ay", "-rf", "*", "%"])
@pytest.mark.parametrize("what", ["", "/logs", "/events", "/explain"])
def test_an_id_is_looked_up_and_is_never_a_path(api: TestClient, asked_id: str, what: str) -> None:
    answer = api.get(f"/api/v1/workloads/{asked_id}{what}")
    # A client takes `..` out of a path by itself: then it has asked for a list.
    assert answer.status_code in (400, 404) or [] in (answer.json().get("workloads"), answer.json().get("events"))
