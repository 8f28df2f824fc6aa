"""`raywise calibrate` as a user runs it, on a real local cluster with two emulated types and the host's cores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
RAYWISE = str(Path(sys.executable).with_name("raywise"))
A100 = "A100-SXM4-40GB"


def run(home: Path, *arguments: str) -> str:
    env = {**os.environ, "RAYWISE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([RAYWISE, *arguments], env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rw-cal-"))
    run(folder, "up", "--detach")
    yield folder
    run(folder, "down")
    log = (folder / "service.log").read_text()
    shutil.rmtree(folder)
    assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def answer(home: Path) -> Any:
    """What `calibrate --json` says."""
    return json.loads(run(home, "calibrate", "--json"))


def test_every_device_type_is_measured(answer: Any) -> None:
    measured = {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    assert set(measured) == {"cpu", "T4", A100}
    assert [each["state"] for each in answer["workloads"]] == ["succeeded"] * 3
    for found in measured.values():
        assert set(found["flops"]) == {"fp32", "bf16"}
        numbers = [*found["flops"].values(), found["bandwidth_bytes_s"], found["launch_s"]]
        assert all(number > 0 for number in numbers)
    assert measured["T4"]["reduce_bytes_s"] > 0
    assert measured[A100]["reduce_bytes_s"] is None


def test_the_t4_emulated_at_half_speed_measures_as_half_the_a100(answer: Any) -> None:
    measured = {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    fast, slow = measured[A100], measured["T4"]
    assert 1.3 < fast["flops"]["fp32"] / slow["flops"]["fp32"] < 3
    assert 1.3 < fast["bandwidth_bytes_s"] / slow["bandwidth_bytes_s"] < 3


def test_what_was_measured_is_kept_until_it_is_reset(home: Path, answer: Any) -> None:
    def kept() -> dict[str, Any]:
        types = json.loads(run(home, "calibrate", "--show", "--json"))["device_types"]
        return {kind["name"]: kind["measured"] for kind in types}

    assert kept() == {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    assert json.loads(run(home, "calibrate", "--reset", "--json"))["forgotten"]["device_types"] == 3
    assert set(kept().values()) == {None}
