"""A benchmark's rates: folded, stored, applied to the next estimate, refused where they are absurd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.fake import FakeCluster, Script
from cluster.types import Snapshot
from making import TYPES, inference, standard
from scheduler.engine.learn import learn_rates
from scheduler.engine.progress import Progress, fold
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.candidates import facts_of
from scheduler.estimate.device_rates import DeviceRates
from scheduler.estimate.expectation import expectation
from scheduler.estimate.work import Work
from scheduler.store import Event, Record
from world import World

RATES: dict[str, Any] = {
    "kind": "rates",
    "device_type": "T4",
    "shards": 2,
    "flops": {"fp32": 4e12},
    "bandwidth_bytes_s": 200e9,
    "elementwise_bytes_s": 180e9,
    "launch_s": 5e-6,
    "reduce_bytes_s": 6e9,
}
FOUND = DeviceRates("T4", {"fp32": 4e12}, 200e9, 180e9, 5e-6, 6e9, 2, 100.0)


def folded(*records: dict[str, Any]) -> Progress:
    return fold(Progress(), [{"t": 100.0, **record} for record in records])


def test_rates_are_kept_by_device_type_the_last_one_counts() -> None:
    first, other = RATES | {"flops": {"fp32": 1e12}}, RATES | {"device_type": "A100", "reduce_bytes_s": None}
    kept = {each.device_type: each for each in folded(first, other, RATES).rates}
    assert kept["T4"] == FOUND
    assert kept["A100"].reduce_bytes_s is None


@pytest.mark.parametrize(
    "broken",
    [
        {"flops": None},
        {"flops": {"fp32": "fast"}},
        {"flops": {"fp32": None}},
        {"bandwidth_bytes_s": "x"},
        {"shards": "two"},
        {"shards": math.inf},
        {"t": None},
    ],
    ids=str,
)
def test_a_malformed_record_is_passed_over(broken: dict[str, Any]) -> None:
    assert folded(RATES | broken) == Progress()
    assert folded({key: value for key, value in RATES.items() if key != "launch_s"}) == Progress()


def test_a_lesson_adds_to_what_is_known_and_says_what_was_measured() -> None:
    known = {"A100": DeviceRates("A100", {"fp32": 10e12})}
    alone = DeviceRates("T4", {"fp32": 5e12, "fp16": math.nan}, launch_s=6e-6)
    lesson = learn_rates(known, [FOUND, alone, DeviceRates("Z9")], standard())
    assert set(lesson.known) == {"A100", "T4"}
    assert lesson.known["T4"].flops == {"fp32": 5e12}
    assert lesson.known["T4"].reduce_bytes_s == 6e9
    assert lesson.measured == [
        "T4 was measured: 4000 GFLOP/s in fp32",
        "T4 was measured: 5000 GFLOP/s in fp32",
    ]
    assert lesson.refused == ["a matrix product in fp16 at nan FLOP/s on T4: not believed"]
    assert set(known) == {"A100"}


def benchmark(world: World, name: str, *records: dict[str, Any]) -> None:
    """Store a benchmark of two T4 that says so, and let it run."""
    spec = {"kind": "benchmark", "name": name, "resources": {"devices": ["T4"], "count": 2}}
    record = Record(name, name, "benchmark", spec, "pending", world.now_s, f"/out/{name}", f"/run/{name}")
    world.profiler.works[name] = Work("benchmark", "benchmark", declared_s=10.0)
    world.scripts[name] = Script(records=[(5.0, record) for record in records])
    world.store.add([record], [Event("submitted", "a user submitted it", name, at_s=world.now_s)])
    world.submitted.append(name)
    world.run_until_ended()


def compute_s(world: World, name: str) -> float:
    """Predicted seconds of arithmetic of an inference on a T4 that is submitted and runs now."""
    work = inference(samples=1e6)
    world.submit(name, work=work, gang=True, input="/data", resources={"devices": ["T4"]}, budget_usd=None)
    world.run_until_ended()
    predicted = world.get(name).predicted
    assert predicted is not None
    assert predicted.breakdown is not None
    return predicted.breakdown.compute_s


def test_a_benchmark_changes_the_next_estimate(world: World) -> None:
    """The prior is 0.55 of the catalog's 8 TFLOP/s; of a measured product 0.85."""
    before = compute_s(world, "before")
    benchmark(world, "measure", RATES)
    assert compute_s(world, "after") / before == pytest.approx(0.55 * 8e12 / (0.85 * 4e12))
    assert world.event("measure", "rates-measured").cause == "T4 was measured: 4000 GFLOP/s in fp32"
    assert world.kinds("measure")[-2:] == ["succeeded", "rates-measured"]


def test_measured_rates_outlive_the_service(world: World) -> None:
    benchmark(world, "measure", RATES)
    world.restart()
    assert world.engine.device_rates["T4"].flops == {"fp32": 4e12}
    assert world.engine.as_measured(standard()).device_types["T4"].measured_bandwidth_bytes_s == 200e9


def test_absurd_rates_are_refused_and_told(world: World) -> None:
    before = compute_s(world, "before")
    benchmark(world, "measure", RATES | {"flops": {"fp32": 1e15}, "launch_s": 0.0})
    causes = [each.cause for each in world.store.events(workload_id="measure") if each.kind == "measurement-refused"]
    assert causes == [
        "a matrix product in fp32 at 1e+15 FLOP/s on T4: not believed",
        "starting an operator at 0 s on T4: not believed",
    ]
    assert compute_s(world, "after") == pytest.approx(before)


def test_only_the_devices_a_benchmark_held_are_measured(world: World) -> None:
    benchmark(world, "measure", RATES | {"device_type": "A100"})
    assert world.engine.device_rates == {}
    assert "rates-measured" not in world.kinds("measure")


def test_a_benchmark_that_fails_teaches_nothing(world: World) -> None:
    world.scripts["measure"] = Script()
    spec = {"kind": "benchmark", "name": "measure", "resources": {"devices": ["T4"]}, "retries": 0}
    record = Record("measure", "measure", "benchmark", spec, "pending", world.now_s, "/out/m", "/run/m")
    world.profiler.works["measure"] = Work("benchmark", "benchmark", declared_s=10.0)
    world.scripts["measure"] = Script(fail_at_s=8.0, records=[(5.0, RATES)])
    world.store.add([record], [Event("submitted", "a user submitted it", "measure", at_s=world.now_s)])
    world.submitted.append("measure")
    world.run_until_ended()
    assert world.states() == {"measure": "failed"}
    assert world.engine.device_rates == {}


def test_what_others_say_of_rates_is_not_heard_and_a_benchmarks_duration_teaches_nothing(world: World) -> None:
    world.submit("liar", script=Script(records=[(1.0, RATES | {"device_type": "cpu"})]))
    benchmark(world, "measure", RATES)
    assert set(world.engine.device_rates) == {"T4"}
    assert not [key for key in world.engine.calibration.entries if key[1] == "benchmark"]


def test_a_reset_forgets_all_of_it_for_good() -> None:
    world = World()
    benchmark(world, "measure", RATES)
    world.submit("hello")
    world.run_until_ended()
    assert world.engine.calibration.entries
    world.engine.reset_calibration()
    for _ in range(2):
        assert (world.engine.device_rates, world.engine.calibration) == ({}, Calibration())
        world.restart()
    assert world.store.events()[-1].kind == "calibration-reset"
    world.store.close()


# What was learnt against other rates.

EMULATED = replace(
    TYPES["T4"],
    emulated_speed=0.5,
    peak_flops={"fp32": 25e9},
    memory_bandwidth_bytes_s=5e9,
    interconnect_bytes_s=1e9,
    rates_at_s=10.0,
)
TWICE = replace(
    EMULATED,
    peak_flops={"fp32": 50e9},
    memory_bandwidth_bytes_s=10e9,
    interconnect_bytes_s=2e9,
    rates_at_s=900.0,
)
WORK = inference(samples=1000.0)


def with_t4(kind: Any) -> Snapshot:
    return replace(standard(), device_types={**TYPES, "T4": kind})


def measured_s(world: World) -> float:
    """What the work took when it was measured, by what calibration says of the present prediction."""
    (point,) = world.engine.calibration.points.values()
    return seconds(world) * math.exp(point.ratio.mean)


def taught(path: Path, kind: Any = EMULATED) -> World:
    """A service that has measured the work at three times the seconds that were predicted."""
    world = World(path, where=with_t4(kind))
    world.cycle()
    took_s = 3.0 * seconds(world)
    timing = {"kind": "timing", "device_type": "T4", "count": 1, "seconds": took_s, "samples": 1000, "tokens": 0}
    script = Script(run_s=took_s, records=[(1.0, timing)])
    world.submit("teacher", work=WORK, gang=True, resources={"devices": ["T4"]}, script=script)
    world.run_until_ended(cycles=3000, advance_s=max(1.0, took_s / 100))
    assert measured_s(world) == pytest.approx(took_s)
    return world


def seconds(world: World) -> float:
    expected = expectation(WORK, "T4", 1, 1000.0, facts_of(world.engine.as_measured(world.cluster.snapshot())))
    assert expected is not None
    return expected.seconds


def again_on(world: World, where: Snapshot, path: Path) -> World:
    """The next service from the same folder."""
    world.store.close()
    after = World(path, where=where)
    after.now_s, after.submitted = world.now_s, world.submitted
    return after


def test_a_host_that_is_measured_anew_leaves_measured_speeds_what_they_are(tmp_path: Path) -> None:
    world = taught(tmp_path / "db")
    before = measured_s(world)
    world = again_on(world, with_t4(TWICE), tmp_path / "db")
    assert seconds(world) < before
    world.cycle()
    assert measured_s(world) == pytest.approx(before)
    for where in (TWICE, EMULATED):  # and once only: the next service finds what this one has written
        world = again_on(world, with_t4(where), tmp_path / "db")
        for _ in range(2):
            world.cycle()
            assert measured_s(world) == pytest.approx(before)
    world.store.close()


def test_a_benchmark_that_the_host_is_measured_after_counts_no_more_and_speeds_stay(tmp_path: Path) -> None:
    world = taught(tmp_path / "db")
    before = measured_s(world)
    benchmark(world, "measure", RATES | {"flops": {"fp32": 100e9}, "bandwidth_bytes_s": 4e9, "reduce_bytes_s": 2e9})
    assert world.engine.device_rates
    assert measured_s(world) == pytest.approx(before)
    newest = replace(TWICE, rates_at_s=world.now_s + 1e6)
    world = again_on(world, with_t4(newest), tmp_path / "db")
    world.cycle()
    assert world.engine.as_measured(world.cluster.snapshot()).device_types["T4"] == newest
    assert measured_s(world) == pytest.approx(before)
    world.store.close()


def test_rates_that_change_while_the_service_runs_and_what_is_learnt_of_others() -> None:
    world = World(where=with_t4(EMULATED))
    world.cycle()
    calibration = world.engine.calibration
    other, mine = ("A100", "T4~emulated@0.5")
    parts = (1.0, *[0.0] * 5)
    for name in (other, mine):
        assert calibration.observe(Subject("train", "bert", name, "fp32"), 1, "b8", 2.0, parts)
    ratios = {key[0].device: point.ratio.mean for key, point in calibration.points.items()}
    world.cluster = FakeCluster(with_t4(TWICE), lambda: world.now_s)
    world.engine._observer = world.cluster
    world.cycle()
    after = {key[0].device: point.ratio.mean for key, point in calibration.points.items()}
    assert after[other] == ratios[other]
    assert after[mine] == pytest.approx(ratios[mine] + math.log(2)), "half the prediction, the same measurement"
    assert world.store.load_calibration() == calibration, "a crash now loses nothing of it"
    assert kept_flops(world) == {"fp32": 50e9}
    world.store.close()


def kept_flops(world: World) -> Mapping[str, float]:
    return world.store.load_learnt_against()["T4~emulated@0.5"].peak_flops


def test_a_price_that_changes_is_no_change_of_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(where=with_t4(EMULATED))
    world.cycle()
    assert world.engine.calibration.observe(Subject("train", "b", "T4", "fp32"), 1, "b8", 2.0, (1.0, *[0.0] * 5))
    saved: list[Any] = []
    monkeypatch.setattr(world.store, "save_calibration", lambda *given: saved.append(given))
    world.engine._observer = FakeCluster(with_t4(replace(EMULATED, price_usd_h=9.0, rates_at_s=99.0)), lambda: 2000.0)
    world.cycle()
    assert not saved
    world.store.close()
