"""A short torture of a real service on a real cluster of its own: a few kills, one of each kind that matters, and then
every promise is looked at. The long one is `make torture`."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.torture.run import Torture

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
KILLS = ("driver", "service", "worker", "raylet", "service", "supervisor", "head", "worker")
"""In this order; one for which there is no process within some seconds is passed over."""


def test_nothing_is_lost_or_done_twice_whatever_is_killed(tmp_path: Path) -> None:
    torture = Torture(tmp_path / "torture", random.Random(4), trainings=False, pause_s=2.0, script=KILLS)
    report = torture.run(len(KILLS), time.monotonic() + 600)
    assert report["broken"] == []
    assert set(report["kills_by_kind"]) >= {"service", "head", "raylet"}, report
    assert report["kills"] >= len(KILLS) - 2, "there was nothing to kill"
    assert report["accepted"] >= 6
    assert set(report["states"]) == {"succeeded"}
