"""Measuring a device: what the stopwatch says, what is measured together, and how devices of a type are summed up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest

from workloads.bodies.benchmark import Probe, summary, together, turns
from workloads.bodies.rates import Bench, Stopwatch
from workloads.job import Shard


class Clock:
    """A clock that work moves, and a pace that moves it once more."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls = 0

    def work(self, *seconds: float) -> Any:
        taken = iter(seconds)

        def work() -> None:
            self.calls += 1
            self.now_s += next(taken)

        return work

    @contextmanager
    def pace(self) -> Iterator[None]:
        start = self.now_s
        yield
        self.now_s += self.now_s - start

    def stopwatch(self, **options: Any) -> Stopwatch:
        return Stopwatch(clock=lambda: self.now_s, **options)


@pytest.mark.parametrize(
    ("typical", "seconds"), [(min, 1.0), (statistics.median, 2.0)], ids=["a shared core", "a device held alone"]
)
def test_the_first_call_warms_up_and_the_others_count(typical: Any, seconds: float) -> None:
    clock = Clock()
    watch = clock.stopwatch(typical=typical, budget_s=7.0)
    assert watch.seconds(clock.work(0.5, 3.0, 1.0, 2.0)) == seconds
    assert clock.calls == 4


def test_a_probe_of_an_emulated_device_counts_its_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    watch = Probe(asdict(Shard("T4", "n0", {"T4": 1.0}, emulated_speed=0.5)))._bench.stopwatch
    computed_s = []

    def work() -> None:
        start = time.thread_time()
        sum(range(1_000_000))
        computed_s.append(time.thread_time() - start)

    assert watch.once(work) >= 2 * computed_s[0] > 0, "half as fast as the core"


@pytest.mark.parametrize(
    ("seconds", "calls"), [((1.0, 0.2), 2), ((1.0, 0.04, 0.04, 0.04), 3)], ids=["one at least", "as many as fit"]
)
def test_slow_work_is_repeated_within_its_budget(seconds: tuple[float, ...], calls: int) -> None:
    clock = Clock()
    clock.stopwatch(budget_s=0.1).seconds(clock.work(*seconds))
    assert clock.calls == calls


def test_the_sleep_of_an_emulated_device_counts() -> None:
    clock = Clock()
    assert clock.stopwatch(pace=clock.pace).once(clock.work(2.0)) == 4.0


class SlowTorch:
    """As much of torch as a matrix product needs, on a clock: a multiply-add takes 2 / `flops_s` seconds."""

    float16, bfloat16, float32 = "fp16", "bf16", "fp32"

    def __init__(self, clock: Clock, flops_s: float) -> None:
        self._clock, self._flops_s = clock, flops_s
        self.sizes: list[int] = []

    def get_float32_matmul_precision(self) -> str:
        return "highest"

    def set_float32_matmul_precision(self, precision: str) -> None:
        assert precision in ("highest", "high")

    def rand(self, size: int, other: int, device: Any) -> SlowMatrix:
        assert size == other
        return SlowMatrix(size)

    def mm(self, left: SlowMatrix, right: SlowMatrix) -> None:
        self.sizes.append(left.size)
        self._clock.now_s += 2.0 * left.size * right.size**2 / self._flops_s


class SlowMatrix:
    def __init__(self, size: int) -> None:
        self.size = size

    def to(self, dtype: Any) -> SlowMatrix:
        assert dtype in ("fp16", "bf16", "fp32")
        return self

    def t(self) -> SlowMatrix:
        return self


class SlowDevice:
    type = "cpu"


@pytest.mark.parametrize(
    ("flops_s", "largest"),
    [(50e9, 512), (1e9, 256), (1e8, 128)],
    ids=["a fast device", "a slow one", "a very slow one gets small matrices only"],
)
def test_matrices_are_as_large_as_time_allows(flops_s: float, largest: int) -> None:
    clock = Clock()
    torch = SlowTorch(clock, flops_s)
    bench = Bench(torch, SlowDevice(), clock.stopwatch())
    assert bench.matmul_flops("fp32") == pytest.approx(flops_s)
    assert max(torch.sizes) == largest


def test_host_devices_take_turns_and_accelerators_go_together() -> None:
    cpu, t4, gpu = {"CPU": 1.0}, {"T4": 1.0}, {"GPU": 1.0}
    shards = [
        Shard("cpu", "n0", cpu),
        Shard("L4", "n1", gpu),
        Shard("T4", "n2", t4, emulated_speed=0.5),
        Shard("L4", "n3", gpu),
    ]
    assert turns(shards) == [[1, 3], [0], [2]]
    assert turns(shards[:1]) == [[0]]


def test_an_all_reduce_is_measured_between_devices_of_one_machine() -> None:
    machines = ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"]
    assert together([0, 1, 2, 3], machines) == [1, 2]
    assert together([0, 3], machines) == [0], "a machine each: the network between them is another link"
    assert together([1, 2], ["10.0.0.1"] * 3) == [1, 2]


def device(scale: float, *precisions: str) -> dict[str, Any]:
    names = ("bandwidth_bytes_s", "elementwise_bytes_s", "launch_s")
    return {"flops": dict.fromkeys(precisions, 10.0 * scale)} | dict.fromkeys(names, scale)


@pytest.mark.parametrize(
    ("reduced", "expected"),
    [([], None), ([5.0, 4.0, 6.0], 4.0), ([5.0, None, 6.0], None)],
    ids=["not measured", "the slowest shard's", "one failed"],
)
def test_a_type_is_the_median_of_its_devices(reduced: list[float | None], expected: float | None) -> None:
    devices = [device(1.0, "fp32", "bf16"), device(9.0, "fp32"), device(2.0, "fp32", "bf16")]
    assert summary("T4", devices, reduced) == {
        "device_type": "T4",
        "shards": 3,
        "flops": {"fp32": 20.0},
        "bandwidth_bytes_s": 2.0,
        "elementwise_bytes_s": 2.0,
        "launch_s": 2.0,
        "reduce_bytes_s": expected,
    }
