"""A user's code as each run gets it: whole, its own, and what was packed."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.own_code import own_package, unpacked
from scheduler.admission.code import pack_code


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A packed code folder with a module, a package and a script."""
    source = tmp_path / "source"
    (source / "pkg").mkdir(parents=True)
    (source / "mine.py").write_text("X = 1\n")
    (source / "pkg" / "deep.py").write_text("Y = 2\n")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    pack_code(source, tmp_path / "code.zip")
    return tmp_path / "code.zip"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_is_what_was_packed_and_scripts_can_be_run(code: Path, tmp_path: Path) -> None:
    folder = unpacked(code, tmp_path / "run", "w")
    assert folder == tmp_path / "run" / "code" / "w"
    assert files(folder) == ["mine.py", "pkg/deep.py", "run.sh"]
    assert os.access(folder / "run.sh", os.X_OK)
    assert not os.access(folder / "mine.py", os.X_OK)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_folder_is_copied(code: Path, tmp_path: Path) -> None:
    assert files(unpacked(tmp_path / "source", tmp_path / "run", "w")) == ["mine.py", "pkg/deep.py", "run.sh"]


def test_a_run_that_is_submitted_again_keeps_its_folder_and_the_next_attempt_has_a_fresh_one(
    code: Path, tmp_path: Path
) -> None:
    first = unpacked(code, tmp_path / "run", "w")
    (first / "mine.py").write_text("changed while it ran\n")
    assert unpacked(code, tmp_path / "run", "w") == first
    assert (first / "mine.py").read_text() == "changed while it ran\n"
    assert (unpacked(code, tmp_path / "run", "w.r2") / "mine.py").read_text() == "X = 1\n"


def test_many_at_once_make_one(code: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: unpacked(code, tmp_path / "run", "w"), range(16)))
    assert found == {tmp_path / "run" / "code" / "w"}
    assert [path.name for path in (tmp_path / "run" / "code").iterdir()] == ["w"], "no draft is left"


def test_what_is_no_zip_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(b"no zip")
    with pytest.raises(zipfile.BadZipFile):
        unpacked(tmp_path / "code.zip", tmp_path / "run", "w")
    assert list((tmp_path / "run" / "code").iterdir()) == []
    assert own_package(tmp_path / "code.zip", tmp_path / "run", "w") == tmp_path / "code.zip"


def test_packages_of_two_runs_differ_and_hold_the_same(code: Path, tmp_path: Path) -> None:
    one, two = (own_package(code, tmp_path / "run", run_id) for run_id in ("w", "w.r2"))
    assert one.read_bytes() != two.read_bytes()
    names = [zipfile.ZipFile(each).namelist() for each in (code, one, two)]
    assert names[0] == names[1] == names[2]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["w.r2.zip", "w.zip"]
