"""Queues with rules in a simulated cluster: the same rules that the service's engine hands to the policy."""

from __future__ import annotations

from making import configuration, node, snapshot
from scheduler.policy import create
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import Phase, SimulationResult, Trace, TraceJob
from scheduler.types import QueueRules

FOUR = snapshot(node("a", ("T4", 4)))
HOUR = 3600.0


def run(rules: dict[str, QueueRules], jobs: int, limit_s: float) -> SimulationResult:
    """So many jobs of an hour in each queue, all there from the start."""
    phases = (Phase(0.0, {configuration(T4=1): 1.0}),)
    wanted = tuple(
        TraceJob(f"{queue}-{number}", "bert", 0.0, HOUR, phases, queue=queue)
        for queue in ("big", "small")
        for number in range(jobs)
    )
    return simulate(Trace("two queues", wanted), FOUR, create("market"), Options(limit_s=limit_s), queues=rules)


def device_hours(result: SimulationResult, queue: str) -> float:
    spans = [span for each in result.jobs if each.id.startswith(queue) for span in each.spans]
    return sum((span.ended_s - span.began_s) * span.count for span in spans) / HOUR


def test_queues_that_always_want_more_share_by_weight() -> None:
    result = run({"big": QueueRules(weight=3.0), "small": QueueRules()}, jobs=20, limit_s=6 * HOUR)
    big, small = device_hours(result, "big"), device_hours(result, "small")
    assert big + small > 0.98 * 4 * 6
    assert 2.4 <= big / small <= 3.6


def test_a_quota_holds_all_the_time() -> None:
    result = run({"small": QueueRules(quota={"T4": 1})}, jobs=3, limit_s=100 * HOUR)
    assert {each.state for each in result.jobs} == {"succeeded"}
    changes = sorted(
        change
        for each in result.jobs
        if each.id.startswith("small")
        for span in each.spans
        for change in ((span.began_s, span.count), (span.ended_s, -span.count))
    )
    held = 0
    for _, change in sorted(changes):
        held += change
        assert held <= 1
