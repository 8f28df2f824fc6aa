"""An attempt's copy of the user's code goes when the attempt has ended; what was submitted stays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cluster.own_code import CODE_FOLDER, own_package, remove_copy, unpacked


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """The zip of a submission."""
    path = tmp_path / "code.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mine.py", "def loop(config): ...")
    return path


def test_the_copy_of_one_attempt_goes_and_the_others_stay(submitted: Path, tmp_path: Path) -> None:
    first, second = (unpacked(submitted, tmp_path, run) for run in ("w", "w.r2"))
    package = own_package(submitted, tmp_path, "w")
    remove_copy(tmp_path, "w")
    assert not first.exists() and not package.exists()
    assert (second / "mine.py").is_file() and submitted.is_file()
    assert second.parent == tmp_path / CODE_FOLDER


def test_a_copy_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_copy(tmp_path, "never")
    assert list(tmp_path.iterdir()) == []
