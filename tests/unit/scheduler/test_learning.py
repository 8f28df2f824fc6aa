"""What a finished run teaches, and that the next prediction is better for it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.fake import Script
from making import PROFILE, TYPES, configuration, inference, standard, training
from scheduler.engine.learn import learn
from scheduler.engine.progress import Progress, Timing
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import link_of
from scheduler.estimate.cost_model import estimate, predicted_work_s
from scheduler.estimate.work import Work
from scheduler.types import Configuration
from world import World

LINK = link_of(standard())


def teach(
    work: Work, counts: dict[str, int], run_s: float, *timings: Timing, calibration: Calibration | None = None
) -> tuple[Calibration, list[str]]:
    calibration = calibration or Calibration()
    progress = Progress(timings=timings)
    return calibration, learn(calibration, work, Configuration.of(counts), progress, run_s, TYPES, LINK)


def predicted(work: Work, calibration: Calibration, **counts: int) -> float:
    found = estimate(work, configuration(**counts), TYPES, LINK, calibration).seconds
    assert found is not None
    return found


def slow(work: Work, factor: float, device: str, count: int, samples: float = 500.0) -> Timing:
    """A timing of `samples` of the work at `factor` times the predicted seconds."""
    part = Work(
        work.kind, work.family, work.precision, samples, 0.0, work.tokens_per_sample, work.batch_size, work.profile
    )
    seconds = predicted_work_s(part, configuration(**{device: count}), TYPES, LINK)
    assert seconds is not None
    return Timing(device, count, seconds * factor, samples, samples * (work.tokens_per_sample or 0.0))


def test_a_gang_teaches_its_speed_and_its_overhead() -> None:
    work = training(samples=1e6)
    raw = predicted_work_s(work, configuration(T4=2), TYPES, LINK)
    assert raw is not None
    calibration, refused = teach(work, {"T4": 2}, 3 * raw + 40.0, slow(work, 3.0, "T4", 2))
    assert refused == []
    assert calibration.correction("train", PROFILE.family, "T4", "fp32", 2).mean == pytest.approx(3.0)
    assert calibration.overhead_s("train", PROFILE.family, 2, 16.0).mean == pytest.approx(40.0)
    assert predicted(work, calibration, T4=2) == pytest.approx(3 * raw + 40.0)


def test_replicas_teach_one_by_one_and_their_rates_add_up() -> None:
    work = inference(samples=1e8)
    timings = (slow(work, 2.0, "T4", 1), slow(work, 4.0, "A100", 1))
    rate = 2 * timings[0].samples / timings[0].seconds + timings[1].samples / timings[1].seconds
    calibration, _ = teach(work, {"T4": 2, "A100": 1}, 1e8 / rate + 25.0, *timings)
    assert calibration.correction("batch-infer", PROFILE.family, "T4", "fp32", 1).mean == pytest.approx(2.0)
    assert calibration.correction("batch-infer", PROFILE.family, "A100", "fp32", 1).mean == pytest.approx(4.0)
    assert calibration.overhead_s("batch-infer", PROFILE.family, 3, 10.0).mean == pytest.approx(25.0, rel=1e-3)
    assert predicted(work, calibration, T4=2, A100=1) == pytest.approx(1e8 / rate + 25.0, rel=1e-3)


def test_preprocessing_teaches_the_cores() -> None:
    work = Work("preprocess", "tokenise", samples=1000.0, rows_per_core_s=100.0)
    calibration, _ = teach(work, {"cpu": 2}, 30.0, Timing("cpu", 2, 10.0, 1000.0))
    assert calibration.correction("preprocess", "tokenise", "cpu", "fp32", 2).mean == pytest.approx(2.0)
    assert predicted(work, calibration, cpu=2) == pytest.approx(30.0)


def test_a_command_teaches_its_history() -> None:
    work = Work("command", "mine")
    calibration, _ = teach(work, {"cpu": 1}, 40.0)
    found = estimate(work, configuration(cpu=1), TYPES, LINK, calibration)
    assert (found.seconds, found.source) == (pytest.approx(40.0), "measured")
    assert estimate(work, configuration(T4=1), TYPES, LINK, calibration).seconds is None


def test_the_absurd_is_refused_and_said() -> None:
    work = training()
    calibration, refused = teach(work, {"T4": 1}, 60.0, slow(work, 5000.0, "T4", 1))
    assert len(refused) == 1
    assert refused[0].endswith("s were predicted: not believed")
    assert not calibration.correction("train", PROFILE.family, "T4", "fp32", 1).known


def test_a_device_that_is_gone_teaches_nothing() -> None:
    calibration, refused = teach(training(), {"T4": 1}, 60.0, Timing("Gone", 1, 1.0, 10.0))
    assert refused == []
    assert not calibration.correction("train", PROFILE.family, "Gone", "fp32", 1).known


def _script(work: Work, factor: float, overhead_s: float) -> Script:
    raw = predicted_work_s(work, configuration(A100=1), TYPES, link_of(standard()))
    assert raw is not None
    half = slow(work, factor, "A100", 1, (work.samples or 0.0) / 2)
    record: dict[str, Any] = {"kind": "timing", "device_type": "A100", "count": 1, "seconds": half.seconds, "samples": half.samples, "tokens": half.tokens}  # fmt: skip
    run_s = raw * factor
    return Script(startup_s=overhead_s, run_s=run_s, records=[(run_s / 2, record), (run_s * 0.9, record)])


def test_the_second_run_is_predicted_better_and_the_interval_holds(world: World) -> None:
    work = inference(samples=2e7)
    errors = []
    for number in range(4):
        name = world.submit(f"w{number}", work=work, resources={"devices": ["A100"]}, script=_script(work, 2.5, 33.0))
        world.run_until_ended(cycles=5000)
        record = world.get(name)
        assert record.predicted is not None and record.predicted.seconds is not None
        errors.append(abs(record.predicted.seconds - record.spent_s) / record.spent_s)
    assert errors[0] > 0.5
    assert max(errors[1:]) < 0.02
    assert record.predicted.source == "calibrated"
    assert record.predicted.low_s < record.spent_s < record.predicted.high_s  # type: ignore[operator]


def test_what_was_learnt_survives_a_restart(world: World) -> None:
    work = inference(samples=2e7)
    world.submit("a", work=work, resources={"devices": ["A100"]}, script=_script(work, 2.5, 33.0))
    world.run_until_ended(cycles=5000)
    learnt = world.engine.calibration
    assert learnt.entries
    world.restart()
    assert world.engine.calibration == learnt
    assert world.store.load_calibration() == learnt


@pytest.mark.parametrize(
    "scripts",
    [
        [Script(fail_at_s=3.0), _script(inference(2e6), 9.0, 50.0)],
        [Script(run_s=20.0, records=[(1.0, {"kind": "resumed", "rows": 3}), (2.0, {"kind": "timing", "device_type": "A100", "count": 1, "seconds": 1.0, "samples": 10, "tokens": 500})])],
    ],
    ids=["a second attempt", "a run that was resumed"],
)  # fmt: skip
def test_an_interrupted_run_teaches_nothing(world: World, scripts: list[Script]) -> None:
    world.submit("a", work=inference(2e6), resources={"devices": ["A100"]}, script=scripts)
    world.run_until_ended()
    assert world.get("a").state == "succeeded"
    assert world.engine.calibration.entries == {}


def test_a_measurement_that_is_refused_leaves_an_event(world: World) -> None:
    work = inference(2e6)
    world.submit("a", work=work, resources={"devices": ["A100"]}, script=_script(work, 5000.0, 1.0))
    world.run_until_ended(cycles=100, advance_s=2000.0)
    assert world.kinds("a")[-1] == "measurement-refused"
    assert "not believed" in world.event("a", "measurement-refused").cause
