"""Folders on other storage, with fsspec's `local://` in the place of a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads import remote
from workloads.errors import SpecError, WorkloadFailed
from workloads.outputs import MARKER, mark


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    mark(folder, "w")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_is_what_is_fetched(results: Path, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/bucket/out"
    assert remote.may_publish(url)
    remote.publish(results, url)
    assert names(remote.fetch(url, tmp_path / "back")) == names(results)
    assert (tmp_path / "back" / "model" / "model.safetensors").read_bytes() == b"weights"
    assert remote.read_text(f"{url}/model/config.json") == "{}"


def test_publishing_again_leaves_nothing_of_before(results: Path, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/bucket/out"
    remote.publish(results, url)
    (results / "model" / "config.json").unlink()
    assert remote.may_publish(url)
    remote.publish(results, url)
    assert names(tmp_path / "bucket" / "out") == {MARKER, "model/model.safetensors"}


def test_somebody_elses_files_are_never_published_over(results: Path, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "theirs").write_text("x")
    url = f"local://{tmp_path}/bucket"
    assert not remote.may_publish(url)
    with pytest.raises(WorkloadFailed, match="did not write"):
        remote.publish(results, url)
    assert names(tmp_path / "bucket") == {"theirs"}


def test_a_model_is_fetched_without_its_weights_and_once(results: Path, tmp_path: Path) -> None:
    url = f"local://{results}/model"
    folder = remote.fetch(url, tmp_path / "config", skip=remote.is_weights)
    assert names(folder) == {"config.json"}
    (results / "model" / "config.json").unlink()
    assert names(remote.fetch(url, tmp_path / "config")) == {"config.json"}


def test_an_empty_place_and_an_unknown_scheme_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        remote.fetch(f"local://{tmp_path}/nowhere", tmp_path / "x")
    with pytest.raises(SpecError, match="cannot be opened"):
        remote.fetch("nosuch://bucket/x", tmp_path / "x")


@pytest.mark.parametrize(
    ("path", "expected"), [("/a/b", False), ("file:///a", False), ("s3://bucket/a", True), ("package:x", False)]
)
def test_what_is_remote(path: str, expected: bool) -> None:
    assert remote.is_remote(path) == expected
