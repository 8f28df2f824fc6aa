"""A command over many items, for the scheduler: how long it takes, what a stop keeps, where it may run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from cluster.fake import Script
from making import TYPES, configuration, standard
from scheduler.admission.profiler import FileProfiler
from scheduler.admission.shapes import Promised
from scheduler.engine.learn import FIRST_ITEMS_S, learn, learn_first_items
from scheduler.engine.progress import Progress, Timing
from scheduler.engine.reconcile import resumes
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import facts_of
from scheduler.estimate.cost_model import STARTUP_S, estimate
from scheduler.estimate.work import Work
from scheduler.policy import create
from scheduler.store import Record
from scheduler.types import Plan, Situation, WorkloadView
from workloads.errors import SpecError
from workloads.spec import WorkloadSpec
from world import World

FACTS = replace(facts_of(standard()), device_types=TYPES)
WORK = Work("command", "sweep", samples=1000.0, items=True)
START_S = STARTUP_S["command"]
_SPEC: TypeAdapter[WorkloadSpec] = TypeAdapter(WorkloadSpec)


def predicted(calibration: Calibration, work: Work = WORK, **counts: int) -> float | None:
    return estimate(work, configuration(**counts), FACTS, calibration).seconds


def taught(*timings: Timing, run_s: float = 103.0, **counts: int) -> Calibration:
    calibration = Calibration()
    assert learn(calibration, WORK, configuration(**counts), Progress(timings=timings), run_s, FACTS) == []
    return calibration


def test_what_one_number_of_devices_took_says_it_of_all() -> None:
    calibration = taught(Timing("T4", 1, 200.0, 1000.0), T4=2)
    for count in (1, 2, 4):
        assert predicted(calibration, T4=count) == pytest.approx(200.0 / count + START_S, rel=0.05)
    assert predicted(calibration, replace(WORK, samples=5000.0), T4=2) == pytest.approx(500.0 + START_S, rel=0.05)
    assert predicted(calibration, A100=1) is None


def test_rates_of_several_types_add_up() -> None:
    calibration = taught(Timing("T4", 1, 100.0, 200.0), Timing("A100", 1, 100.0, 800.0), T4=1, A100=1)
    assert predicted(calibration, T4=2, A100=1) == pytest.approx(1000 / (2 * 2 + 8) + START_S, rel=0.05)


def test_the_first_items_are_enough_and_are_learnt_once() -> None:
    calibration = Calibration()
    few = Progress(rows=10, total_rows=1000, timings=(Timing("T4", 1, 2.0, 10.0),))
    assert not learn_first_items(calibration, WORK, few, FACTS)
    assert predicted(calibration, T4=1) is None
    more = Progress(rows=10, total_rows=1000, timings=(Timing("T4", 1, FIRST_ITEMS_S, 10.0),))
    assert learn_first_items(calibration, WORK, more, FACTS)
    assert predicted(calibration, T4=1) == pytest.approx(1000 * FIRST_ITEMS_S / 10 + START_S, rel=0.01)
    assert not learn_first_items(calibration, WORK, more, FACTS)
    assert learn_first_items(calibration, WORK, replace(more, timings=(Timing("A100", 1, 30.0, 99.0),)), FACTS)


def test_it_may_be_spread_over_nodes_and_types() -> None:
    many = configuration(T4=64, A100=8)
    assert estimate(WORK, many, FACTS, Calibration()).infeasible is None
    alone = estimate(replace(WORK, items=False), many, FACTS, Calibration()).infeasible
    assert alone is not None
    assert "one node" in alone.message


def record(work: Work | None, kind: str = "command") -> Record:
    return Record("w", "w", kind, {}, "queued", 0.0, "/out", "/run", work=work)


def test_what_goes_on_where_it_was() -> None:
    assert resumes(record(WORK))
    assert resumes(record(None, "train"))
    assert not resumes(record(replace(WORK, items=False)))
    assert not resumes(record(None))


class Stopping:
    """As another policy, but that nothing runs while `stop` is set."""

    name = "stopping"

    def __init__(self) -> None:
        self.policy, self.stop = create("first-fit"), False

    def plan(self, situation: Situation) -> Plan:
        return Plan(situation.cycle, {}, {}) if self.stop else self.policy.plan(situation)


def view(world: World) -> WorkloadView:
    report = world.engine.last_report
    assert report is not None
    (found,) = report.situation.workloads
    return found


def test_a_plan_may_stop_it_and_it_keeps_what_is_done(world: World) -> None:
    policy = Stopping()
    world.policy = policy
    world.restart()
    timing = {"kind": "timing", "device_type": "cpu", "count": 1, "seconds": 30.0, "samples": 300}
    rows = {"kind": "rows", "rows": 300, "total_rows": 1000, "rows_s": 10.0, "by_device": {"cpu": 300}}
    scripts = [Script(run_s=100.0, records=[(30.0, rows), (30.0, timing)]), Script(run_s=70.0)]
    world.submit("sweep", work=WORK, script=scripts)
    for _ in range(20):
        world.cycle()
    assert (view(world).resumes, view(world).one_node, view(world).remaining) == (True, False, 1.0)
    assert {each.seconds for each in view(world).estimates} == {None}
    for _ in range(20):
        world.cycle()
    assert view(world).remaining == pytest.approx(0.7)
    assert view(world).estimates[0].seconds == pytest.approx(100.0 + START_S, rel=0.05)
    assert world.event("sweep", "items-measured").cause == "its first items say how long all take"
    policy.stop = True
    world.cycle()
    world.cycle()
    assert (world.get("sweep").state, world.get("sweep").fraction) == ("queued", 0.3)
    policy.stop = False
    world.run_until_ended()
    assert world.get("sweep").state == "succeeded"


@pytest.mark.parametrize(
    ("items", "count"),
    [
        pytest.param("1..5000", 5000.0, id="a range"),
        pytest.param(["a", "b"], 2.0, id="a list"),
        pytest.param("{folder}/list", 3.0, id="a file"),
        pytest.param("/made/by/a/step", None, id="a file that a step is going to write"),
    ],
)
def test_admission_counts_the_items(items: Any, count: float | None, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a\nb\nc\n")
    given = items.format(folder=tmp_path) if isinstance(items, str) else items
    spec = _SPEC.validate_python({"kind": "command", "name": "w", "command": "true", "items": given})
    work = FileProfiler(Promised(outputs={"/made/by/a"})).work(spec, {})
    assert work.items
    assert work.samples == count


def test_a_file_of_items_that_is_not_there_is_refused(tmp_path: Path) -> None:
    spec = _SPEC.validate_python({"kind": "command", "name": "w", "command": "true", "items": f"{tmp_path}/no"})
    with pytest.raises(SpecError, match="cannot be read"):
        FileProfiler().work(spec, {})
