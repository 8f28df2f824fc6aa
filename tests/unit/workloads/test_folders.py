"""Output folders: replaced whole, and never where the user's own files are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from workloads.bodies.folders import claim, whole
from workloads.errors import WorkloadFailed
from workloads.outputs import MARKER, is_ours


def write(target: Path, text: str, workload_id: str = "w", meanwhile: Callable[[], object] = lambda: None) -> None:
    with whole(target, workload_id) as draft:
        (draft / "split").mkdir()
        (draft / "split" / "rows").write_text(text)
        meanwhile()


def killed() -> None:
    raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_whole_and_carries_the_marker(tmp_path: Path) -> None:
    for workload_id in ("first", "again", "again"):
        write(tmp_path / "out", workload_id, workload_id)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "split" / "rows").read_text() == "again"
    assert json.loads((tmp_path / "out" / MARKER).read_text()) == {"workload_id": "again"}


def test_a_retry_goes_over_what_a_killed_attempt_left(tmp_path: Path) -> None:
    write(tmp_path / "out", "first")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "half", meanwhile=killed)
    (tmp_path / "out").rename(tmp_path / ".out.old")  # and one between the two renames
    assert names(tmp_path) == [".out.old", ".out.partial"]
    write(tmp_path / "out", "second")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["out", ".out.partial", ".out.old"])
def test_a_folder_of_the_user_is_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    with pytest.raises(WorkloadFailed, match="holds what Raywise did not write") as failed:
        write(tmp_path / "out", "x")
    assert not failed.value.retryable
    assert names(tmp_path) == [name]
    assert (tmp_path / name / "thesis.txt").read_text() == "mine"


def test_the_folder_behind_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    for text in ("first", "second"):
        write(tmp_path / "link", text)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "out" / "split" / "rows").read_text() == "second"
    assert names(tmp_path / "disk") == ["out"]


def test_a_folder_that_was_filled_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine").touch()
    with pytest.raises(WorkloadFailed):
        write(tmp_path / "out", "x", meanwhile=lambda: (tmp_path / "mine").rename(tmp_path / "out"))
    assert names(tmp_path / "out") == ["mine"]


def test_a_claimed_folder_may_be_claimed_again_but_not_one_with_files(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b", "w")
    (tmp_path / "a" / "b" / "rows").touch()
    claim(tmp_path / "a" / "b", "v")
    assert names(tmp_path / "a" / "b") == [MARKER, "rows"]
    with pytest.raises(WorkloadFailed):
        claim(tmp_path / "a", "w")
    assert names(tmp_path / "a") == ["b"]


def test_which_folders_are_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert [is_ours(tmp_path / name) for name in ("none", "empty", "file", "dangling", ".")] == [
        True, True, False, False, False,
    ]  # fmt: skip
