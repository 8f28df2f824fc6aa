"""Credentials are looked for where the clouds' own tools look, and none is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.credentials import FILES, VARIABLES, missing_credentials


@pytest.mark.parametrize("cloud", FILES)
def test_nothing_is_found_in_an_empty_home(cloud: str, tmp_path: Path) -> None:
    said = missing_credentials(cloud, {"HOME": str(tmp_path)}, tmp_path)
    assert said is not None
    assert said.startswith(f"no credentials for {cloud}: looked at {VARIABLES[cloud][0]}")
    assert str(tmp_path) in said
    assert "\n  hint: " in said


@pytest.mark.parametrize("cloud", FILES)
def test_a_file_or_a_variable_is_enough(cloud: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    path = Path(FILES[cloud][0].replace("~", str(tmp_path)))
    path.parent.mkdir(parents=True)
    path.touch(mode=0o000)
    assert missing_credentials(cloud, environment, tmp_path) is None
    path.unlink()
    assert missing_credentials(cloud, environment | {VARIABLES[cloud][0]: "x"}, tmp_path) is None
    assert missing_credentials(cloud, environment | {VARIABLES[cloud][0]: ""}, tmp_path) is not None


@pytest.mark.parametrize(
    ("cloud", "variable", "name"),
    [
        ("aws", "AWS_SHARED_CREDENTIALS_FILE", "elsewhere"),
        ("gcp", "CLOUDSDK_CONFIG", "elsewhere/application_default_credentials.json"),
        ("azure", "AZURE_CONFIG_DIR", "elsewhere/azureProfile.json"),
    ],
)
def test_a_file_may_be_elsewhere(cloud: str, variable: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    environment = {"HOME": str(tmp_path), variable: str(tmp_path / "elsewhere")}
    assert str(path) in str(missing_credentials(cloud, environment, tmp_path))
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert missing_credentials(cloud, environment, tmp_path) is None


def test_a_machine_of_the_cloud_itself_may_have_an_identity(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert missing_credentials("aws", {"HOME": str(tmp_path)}, tmp_path) is None
    assert missing_credentials("gcp", {"HOME": str(tmp_path)}, tmp_path) is not None
