"""A benchmark's rates: folded, stored, applied to the next estimate, refused where they are absurd."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.fake import Script
from making import inference, standard
from scheduler.engine.learn import learn_rates
from scheduler.engine.progress import Progress, fold
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.device_rates import DeviceRates
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
    lesson = learn_rates(Calibration(), known, [FOUND, alone, DeviceRates("Z9")], standard())
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
