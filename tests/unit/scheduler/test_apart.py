"""A workload that cannot be brought up to date leaves the others alone."""

from __future__ import annotations

import pytest

from cluster.fake import Script
from world import World


def test_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    stray = ({"kind": "failed", "message": "no caf\udce9", "retryable": True},)
    world.submit("bad", script=Script(run_s=5.0, records=[(1.0, stray[0])], fail_at_s=5.0, message="no caf\udce9"))
    world.submit("good", script=Script(run_s=5.0))
    for _ in range(6):
        world.cycle(5.0)
    assert world.get("good").state == "succeeded"
    assert caplog.text.count("workload bad could not be brought up to date: the others go on") == 1
