"""Short measurements of one device: matrix product, copy, element-wise operator, launch, all-reduce.

Used by the `benchmark` body in the process that holds a device, and by `cluster.host` on the machine of the service.
Run as a script (`rates.py RANK WORLD STORE`) it is one of the processes of an all-reduce. Only torch is imported, and
late: this file is also run by its path.
"""

from __future__ import annotations

import datetime
import math
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

BUDGET_S = 0.3
"""For the calls of one measurement, after one that warms up."""
COPY_BYTES = {"cpu": 128 * 2**20, "cuda": 512 * 2**20}
ELEMENTWISE_ELEMENTS = 2**20
"""4 MB of fp32: what an activation of a small model's layer takes."""
LAUNCH_ROW = 1_000
"""Tiny operators timed together: the overshoot of a sleep of 0.1 ms is then nothing."""
LEAST_CALLS = 3
"""Products of a size that must fit into the budget, so that one disturbed call does not count."""
MATMUL_SIZES = {"cpu": (128, 256, 512), "cuda": (2048, 4096, 8192)}
REDUCE_BYTES = 64 * 2**20
REDUCE_REPEATS = 5
REDUCE_TIMEOUT_S = 60


@dataclass(frozen=True)
class Stopwatch:
    """Times work on one device.

    `pace` surrounds every piece of work: an emulated device sleeps there, and the sleep counts. `synchronise` waits for
    what the device has queued. `typical` picks from the times of several calls: the shortest on a host core, whose
    caches and memory others use too; a median on a device that is held alone, for the clock that it can keep.
    """

    pace: Callable[[], AbstractContextManager[Any]] = nullcontext
    synchronise: Callable[[], object] = lambda: None
    typical: Callable[[list[float]], float] = min
    budget_s: float = BUDGET_S
    clock: Callable[[], float] = time.perf_counter

    def once(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes now."""
        self.synchronise()
        start = self.clock()
        with self.pace():
            work()
            self.synchronise()
        return self.clock() - start

    def seconds(self, work: Callable[[], object]) -> float:
        """Typical seconds of `work` after one call to warm up: of as many calls as fit into the budget, at least
        one."""
        self.once(work)
        taken = [self.once(work)]
        left_s = self.budget_s - taken[0]
        while left_s >= taken[-1]:
            taken.append(self.once(work))
            left_s -= taken[-1]
        return self.typical(taken)


@dataclass(frozen=True)
class Bench:
    """The measurements on one torch device (`cpu` or `cuda`)."""

    torch: Any
    device: Any
    stopwatch: Stopwatch

    @classmethod
    def on_cpu(
        cls,
        pace: Callable[[], AbstractContextManager[Any]] = nullcontext,
        clock: Callable[[], float] = time.thread_time,
    ) -> Bench:
        """A bench on one host core. torch must be left with one thread: the clock is then this thread's CPU time,
        which goes on only while it has the core."""
        import torch

        return cls(torch, torch.device("cpu"), Stopwatch(pace, clock=clock))

    @classmethod
    def on_cuda(cls) -> Bench:
        """A bench on the first GPU that this process sees."""
        import torch

        return cls(
            torch, torch.device("cuda"), Stopwatch(synchronise=torch.cuda.synchronize, typical=statistics.median)
        )

    def precisions(self) -> tuple[str, ...]:
        """What matrix products are measured in: tf32 and bf16 need an Ampere GPU or a later one."""
        if self.device.type == "cpu":
            return ("fp32", "bf16")
        modern = self.torch.cuda.get_device_capability(self.device)[0] >= 8
        return ("fp32", "fp16", "tf32", "bf16") if modern else ("fp32", "fp16")

    def flops(self) -> dict[str, float]:
        """FLOP/s of a square matrix product, by precision; one that cannot be computed here is left out."""
        rates = {}
        for precision in self.precisions():
            try:
                rates[precision] = self.matmul_flops(precision)
            except RuntimeError:
                continue
        return rates

    def matmul_flops(self, precision: str) -> float:
        """FLOP/s of a product of two square matrices, the second one transposed as a layer's weights are: the largest
        that do not take too long."""
        sizes = MATMUL_SIZES[self.device.type]
        before = self.torch.get_float32_matmul_precision()
        self.torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        try:
            rate = self._matmul_flops(precision, sizes[0])
            fitting = [n for n in sizes[1:] if LEAST_CALLS * 2.0 * n**3 / rate <= self.stopwatch.budget_s]
            return self._matmul_flops(precision, fitting[-1]) if fitting else rate
        finally:
            self.torch.set_float32_matmul_precision(before)

    def _matmul_flops(self, precision: str, size: int) -> float:
        torch = self.torch
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        left, right = (torch.rand(size, size, device=self.device).to(dtype) for _ in range(2))
        return 2.0 * size**3 / self.stopwatch.seconds(lambda: torch.mm(left, right.t()))

    def copy_bytes_s(self) -> float:
        """Bytes read and written a second by a large copy within the device's memory."""
        size = COPY_BYTES[self.device.type]
        source = self.torch.zeros(size, dtype=self.torch.uint8, device=self.device)
        target = self.torch.ones(size, dtype=self.torch.uint8, device=self.device)
        return 2.0 * size / self.stopwatch.seconds(lambda: target.copy_(source))

    def elementwise_bytes_s(self) -> float:
        """Bytes read and written a second by element-wise operators on tensors of 4 MB: the geometric mean of an
        addition, which only moves bytes, and a GELU, which also computes."""
        torch, size = self.torch, 4.0 * ELEMENTWISE_ELEMENTS
        left, right = (torch.rand(ELEMENTWISE_ELEMENTS, device=self.device) for _ in range(2))
        add = 3 * size / self.stopwatch.seconds(lambda: left + right)
        gelu = 2 * size / self.stopwatch.seconds(lambda: torch.nn.functional.gelu(left))
        return math.sqrt(add * gelu)

    def launch_s(self) -> float:
        """Seconds to dispatch one tiny operator: an addition of 16 floats, many in a row."""
        values = self.torch.rand(16, device=self.device)

        def row() -> None:
            for _ in range(LAUNCH_ROW):
                values + values

        return self.stopwatch.seconds(row) / LAUNCH_ROW

    def reduce_bytes_s(self, rank: int, world: int, store: str) -> float:
        """Bytes a second that each link carries in an all-reduce of 64 MB of fp32: 2(n-1)/n x bytes / seconds, which
        for a ring does not depend on the number of processes n. All `world` processes call this with the same `store`,
        a URL such as `tcp://host:port` or `file:///path`. Raises RuntimeError where they do not find each other."""
        distributed = self.torch.distributed
        distributed.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            init_method=store,
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=REDUCE_TIMEOUT_S),
        )
        wall = replace(self.stopwatch, clock=time.perf_counter)  # other threads do the work while this one waits
        try:
            buffer = self.torch.ones(REDUCE_BYTES // 4, device=self.device)
            distributed.all_reduce(buffer)
            taken = [wall.once(lambda: distributed.all_reduce(buffer)) for _ in range(REDUCE_REPEATS)]
        finally:
            distributed.destroy_process_group()
        return 2.0 * (world - 1) / world * REDUCE_BYTES / wall.typical(taken)


def main(arguments: list[str]) -> None:
    """One process of an all-reduce on the CPU; prints its bytes a second."""
    rank, world, store = arguments
    bench = Bench.on_cpu()
    bench.torch.set_num_threads(1)
    print(bench.reduce_bytes_s(int(rank), int(world), store), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
