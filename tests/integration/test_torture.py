"""A seeded, bounded run of the torture (`make torture` is the long one): a cluster of its own, killed part by part."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.torture.run import Torture

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

KINDS = ["worker", "service", "driver", "node", "head"]


def test_nothing_that_was_accepted_is_lost(tmp_path: Path) -> None:
    torture = Torture(tmp_path / "torture", random.Random(7), trainings=False, pause_s=2.0, script=KINDS)
    report = torture.run(len(KINDS), time.monotonic() + 300)
    assert not report["broken"], report
    assert sum(report["kills_by_kind"].values()) >= len(KINDS) - 1, "there was nothing to kill"
    assert report["kills_by_kind"]["service"] == report["kills_by_kind"]["head"] == 1
    assert report["states"] == {"succeeded": report["accepted"]} and report["accepted"] >= 6
