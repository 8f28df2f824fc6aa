"""What a finished run teaches, and that the next prediction is better for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from cluster.fake import Script
from making import PROFILE, TYPES, configuration, inference, products, standard, training
from scheduler.engine.learn import learn
from scheduler.engine.progress import Progress, Timing
from scheduler.estimate.calibration import Calibration, Subject, operating_point
from scheduler.estimate.candidates import facts_of
from scheduler.estimate.cost_model import CHECKPOINT_BYTES_S, MOMENT_BYTES, STARTUP_S, WEIGHT_BYTES, Facts, estimate
from scheduler.estimate.expectation import expectation, expected_work_s
from scheduler.estimate.work import Work
from scheduler.types import Configuration
from world import World

FACTS = replace(facts_of(standard()), device_types=TYPES)


def teach(
    work: Work, counts: dict[str, int], run_s: float, *timings: Timing, calibration: Calibration | None = None
) -> tuple[Calibration, list[str]]:
    calibration = calibration or Calibration()
    progress = Progress(timings=timings)
    return calibration, learn(calibration, work, Configuration.of(counts), progress, run_s, FACTS)


def predicted(work: Work, calibration: Calibration, facts: Facts = FACTS, **counts: int) -> float:
    found = estimate(work, configuration(**counts), facts, calibration).seconds
    assert found is not None
    return found


def raw_s(work: Work, **counts: int) -> float:
    """The uncalibrated seconds of all the work."""
    found = expected_work_s(work, configuration(**counts), FACTS)
    assert found is not None
    return found


def slow(work: Work, factor: float, device: str, count: int, samples: float = 500.0) -> Timing:
    """A timing of `samples` of the work at `factor` times the predicted seconds."""
    expected = expectation(work, device, count, samples, FACTS)
    assert expected is not None
    return Timing(device, count, expected.seconds * factor, samples, samples * (work.tokens_per_sample or 0.0))


def test_a_gang_teaches_its_speed_and_its_overhead() -> None:
    work = training(samples=1e6)
    raw = raw_s(work, T4=2)
    calibration, refused = teach(work, {"T4": 2}, 3 * raw + 40.0, slow(work, 3.0, "T4", 2))
    assert refused == []
    assert [(subject, shards) for subject, shards, _ in calibration.points] == [
        (Subject("train", PROFILE.family, "T4", "fp32"), 2)
    ]
    assert calibration.overhead_s("train", PROFILE.family, 2, 16.0).mean == pytest.approx(40.0)
    assert predicted(work, calibration, T4=2) == pytest.approx(3 * raw + 40.0, rel=0.15)


def test_repeated_runs_are_predicted_ever_better() -> None:
    work = training(samples=1e6)
    raw = raw_s(work, T4=2)
    calibration = Calibration()
    errors = []
    for _ in range(5):
        teach(work, {"T4": 2}, 3 * raw + 40.0, slow(work, 3.0, "T4", 2), calibration=calibration)
        errors.append(abs(predicted(work, calibration, T4=2) / (3 * raw + 40.0) - 1))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_one_shard_teaches_two() -> None:
    work = training(samples=1e6)
    calibration, _ = teach(work, {"T4": 1}, 1e5, slow(work, 3.0, "T4", 1))
    plain, taught = (
        predicted(work, each, T4=2) - each.overhead_s("train", PROFILE.family, 2, STARTUP_S["train"]).mean
        for each in (Calibration(), calibration)
    )
    assert 1.2 * plain < taught <= 3.0 * plain


def test_replicas_teach_one_by_one_and_their_rates_add_up() -> None:
    work = inference(samples=1e7)
    timings = (slow(work, 2.0, "T4", 1), slow(work, 4.0, "A100", 1))
    rate = 2 * timings[0].samples / timings[0].seconds + timings[1].samples / timings[1].seconds
    calibration, _ = teach(work, {"T4": 2, "A100": 1}, 1e7 / rate + 25.0, *timings)
    assert [subject.device for subject, _, _ in calibration.points] == ["T4", "A100"]
    assert calibration.overhead_s("batch-infer", PROFILE.family, 3, 10.0).mean == pytest.approx(25.0, rel=1e-3)
    assert predicted(work, calibration, T4=2, A100=1) == pytest.approx(1e7 / rate + 25.0, rel=0.15)


def test_preprocessing_teaches_the_cores() -> None:
    work = Work("preprocess", "tokenise", samples=1000.0, rows_per_core_s=100.0)
    calibration, _ = teach(work, {"cpu": 2}, 30.0, Timing("cpu", 2, 10.0, 1000.0))
    assert [subject.device for subject, _, _ in calibration.points] == ["cpu~rows"]
    assert calibration.overhead_s("preprocess", "tokenise", 2, 10.0).mean == pytest.approx(20.0)
    assert predicted(work, calibration, cpu=2) == pytest.approx(30.0, rel=0.1)


OWN = [
    ("own code over ten times the rows", Work("batch-infer", "mine", samples=100.0), {"samples": 1000.0}),
    ("a command over ten times the bytes", Work("command", "mine", input_bytes=5e6), {"input_bytes": 5e7}),
]


@pytest.mark.parametrize(("work", "larger"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
def test_a_run_over_more_data_is_predicted_to_take_longer(work: Work, larger: dict[str, float]) -> None:
    start_s = STARTUP_S[work.kind]
    calibration, _ = teach(work, {"T4": 1}, start_s + 40.0)
    assert predicted(work, calibration, T4=1) == pytest.approx(start_s + 40.0)
    assert predicted(replace(work, **larger), calibration, T4=1) == pytest.approx(start_s + 400.0)
    same, more = (estimate(each, configuration(T4=1), FACTS, calibration) for each in (work, replace(work, **larger)))
    assert same.low_s and same.high_s and more.low_s and more.high_s
    assert more.high_s / more.low_s > 2 * same.high_s / same.low_s
    assert (
        estimate(replace(work, samples=None, input_bytes=0.0), configuration(T4=1), FACTS, calibration).seconds is None
    )


def test_checkpoints_are_no_overhead() -> None:
    work = training(samples=1e6, checkpoint_every_s=10.0)
    raw = raw_s(work, T4=1)
    written_s = (math.ceil(raw / 10.0) - 1) * PROFILE.parameters * (WEIGHT_BYTES + MOMENT_BYTES) / CHECKPOINT_BYTES_S
    assert written_s > 0
    calibration, _ = teach(work, {"T4": 1}, raw + written_s + 40.0, slow(work, 1.0, "T4", 1))
    assert calibration.overhead_s("train", PROFILE.family, 1, 16.0).mean == pytest.approx(40.0)


def test_a_long_run_says_nothing_of_its_start() -> None:
    """Five in a hundred of ten hours are half an hour, whatever the start took."""
    work = training(samples=1e8)
    assert raw_s(work, T4=1) > 1000
    calibration, _ = teach(work, {"T4": 1}, 1.05 * raw_s(work, T4=1), slow(work, 1.0, "T4", 1))
    assert not calibration.overhead_s("train", PROFILE.family, 1, 16.0).known
    assert calibration.points


def test_evaluation_is_no_overhead() -> None:
    work = training(samples=1e6, evaluation_samples=1e5)
    raw = raw_s(work, T4=1)
    assert raw > raw_s(training(samples=1e6), T4=1)
    calibration, _ = teach(work, {"T4": 1}, 2 * raw + 40.0, slow(work, 2.0, "T4", 1))
    assert calibration.overhead_s("train", PROFILE.family, 1, 16.0).mean == pytest.approx(40.0)


def test_a_command_teaches_its_history() -> None:
    work = Work("command", "mine")
    calibration, _ = teach(work, {"cpu": 1}, 40.0)
    found = estimate(work, configuration(cpu=1), FACTS, calibration)
    assert found.seconds == pytest.approx(40.0)
    assert found.source == "measured"
    assert estimate(work, configuration(T4=1), FACTS, calibration).seconds is None


def test_the_absurd_is_refused_and_said_and_its_overhead_is_not_believed_either() -> None:
    work = training()
    calibration, refused = teach(work, {"T4": 1}, 60.0, slow(work, 5000.0, "T4", 1))
    assert len(refused) == 1
    assert refused[0].endswith("s were predicted: not believed")
    assert calibration == Calibration()


@pytest.mark.parametrize("run_s", [-1.0, math.nan, 31 * 86400.0])
def test_an_absurd_run_time_of_a_command_is_refused_and_said(run_s: float) -> None:
    calibration, refused = teach(Work("command", "mine"), {"cpu": 1}, run_s)
    assert refused == [f"a run of {run_s:.3g} s: not believed"]
    assert calibration == Calibration()


def test_a_device_that_is_gone_teaches_nothing() -> None:
    calibration, refused = teach(training(), {"T4": 1}, 60.0, Timing("Gone", 1, 1.0, 10.0))
    assert (refused, calibration) == ([], Calibration())
    assert teach(Work("command", "mine"), {"Gone": 1}, 60.0) == (Calibration(), [])


def test_a_run_without_timings_teaches_nothing() -> None:
    assert teach(training(), {"T4": 1}, 60.0) == (Calibration(), [])
    assert teach(inference(), {"T4": 1, "A100": 1}, 60.0, slow(inference(), 1.0, "T4", 1))[0].entries == {}


def _script(work: Work, factor: float, overhead_s: float) -> Script:
    raw = expected_work_s(work, configuration(A100=1), facts_of(standard()))
    assert raw is not None
    half = slow(work, factor, "A100", 1, (work.samples or 0.0) / 2)
    record: dict[str, Any] = {"kind": "timing", "device_type": "A100", "count": 1, "seconds": half.seconds, "samples": half.samples, "tokens": half.tokens}  # fmt: skip
    run_s = raw * factor
    return Script(startup_s=overhead_s, run_s=run_s, records=[(run_s / 2, record), (run_s * 0.9, record)])


def test_the_second_run_is_predicted_better_and_the_interval_holds(world: World) -> None:
    work = inference(samples=4e6)
    errors = []
    for number in range(4):
        name = world.submit(f"w{number}", work=work, resources={"devices": ["A100"]}, script=_script(work, 2.5, 33.0))
        world.run_until_ended(cycles=5000)
        record = world.get(name)
        assert record.predicted is not None and record.predicted.seconds is not None
        errors.append(abs(record.predicted.seconds - record.spent_s) / record.spent_s)
    assert errors[0] > 0.5
    assert max(errors[1:]) < 0.12
    assert errors[-1] < 0.05
    last = record.predicted
    assert last is not None and last.low_s is not None and last.high_s is not None
    assert last.source == "measured"
    assert last.low_s < record.spent_s < last.high_s


def test_what_was_learnt_survives_a_restart(world: World) -> None:
    work = inference(samples=4e6)
    world.submit("a", work=work, resources={"devices": ["A100"]}, script=_script(work, 2.5, 33.0))
    world.run_until_ended(cycles=5000)
    learnt = world.engine.calibration
    assert learnt.entries and learnt.points
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
    assert world.engine.calibration == Calibration()


def test_a_measurement_that_is_refused_leaves_an_event(world: World) -> None:
    work = inference(2e6)
    world.submit("a", work=work, resources={"devices": ["A100"]}, script=_script(work, 5000.0, 1.0))
    world.run_until_ended(cycles=100, advance_s=2000.0)
    assert world.kinds("a")[-1] == "measurement-refused"
    assert "not believed" in world.event("a", "measurement-refused").cause


def test_what_a_cycle_still_learns_beside_a_reset_is_forgotten_too(world: World) -> None:
    world.engine.reset_calibration()
    world.engine.calibration.observe_history("command", "mine", "T4x1", 40.0)
    world.store.save_calibration(world.engine.calibration, {})
    world.cycle()
    assert world.engine.calibration == Calibration()
    assert world.store.load_calibration() == Calibration()


def in_a_gang(work: Work, factor: float, device: str, rows: int, steps: int, gang: int = 2) -> Timing:
    """A shard's own compute of `rows` of each batch at `factor` times the predicted seconds."""
    part = replace(work, batch_size=rows)
    expected = expectation(part, device, 1, rows * steps, FACTS)
    assert expected is not None
    samples = float(rows * steps)
    return Timing(device, 1, factor * expected.seconds, samples, steps=float(steps), gang=gang)


def test_a_gang_of_several_types_teaches_each_type_what_its_own_shards_computed() -> None:
    heavy = replace(PROFILE, forward=products(2e9), backward=products(4e9))  # type: ignore[arg-type]
    work = training(samples=1e6, batch_size=64, profile=heavy)
    timings = (in_a_gang(work, 2.0, "T4", 14, 50), in_a_gang(work, 3.0, "A100", 50, 50))
    calibration, refused = teach(work, {"T4": 1, "A100": 1}, 5000.0, *timings)
    assert refused == []
    assert [(subject.device, shards) for subject, shards, _ in calibration.points] == [("T4", 1), ("A100", 1)]
    labels = [label for _, _, label in calibration.points]
    assert labels == [operating_point(14.0, 50.0), operating_point(50.0, 50.0)], "of the rows that each had at a time"
    overhead = calibration.overhead_s("train", PROFILE.family, 2, STARTUP_S["train"])
    assert not overhead.known, "its shards' own compute says nothing of the whole"
    for device, factor in (("T4", 2.0), ("A100", 3.0)):
        plain, taught = (predicted(work, each, **{device: 1}) for each in (Calibration(), calibration))
        assert (taught - STARTUP_S["train"]) / (plain - STARTUP_S["train"]) == pytest.approx(factor, rel=0.2)


def test_what_a_shard_of_a_gang_took_is_not_taken_for_whole_batches() -> None:
    """Two rows a step pay for the optimizer as often as sixty-four do."""
    work = training(samples=1e6, batch_size=64)
    timing = in_a_gang(work, 1.0, "T4", 2, 500)
    calibration, _ = teach(work, {"T4": 1, "A100": 1}, 5000.0, timing)
    plain, taught = (predicted(work, each, T4=1) for each in (Calibration(), calibration))
    assert taught == pytest.approx(plain, rel=1e-3)
