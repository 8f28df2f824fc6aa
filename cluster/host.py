"""What one core of this machine can do, measured; and what a device type looks like when that core stands in for it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from .types import CPU, DeviceType

MATMUL_SIZE = 512
COPY_BYTES = 128 * 2**20
REPEATS = 7


@dataclass(frozen=True)
class HostRates:
    """Rates of one core, and what the whole machine has. Measured by `measure_host`."""

    core_flops: float
    """FLOP/s of a single-threaded fp32 matrix product."""
    core_bandwidth_bytes_s: float
    """Bytes read and written a second by a single-threaded copy."""
    cores: int
    memory_bytes: float
    measured_s: float = 0.0
    """Unix seconds of the measurement; 0 where the rates are given."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a cache file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HostRates:
        """What `to_json` gave. Raises TypeError where a field is missing or unknown."""
        return cls(**data)


def measure_host() -> HostRates:
    """Measure this machine, in under a second after torch is imported. Rates are medians; the thread count of torch is
    put back."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        flops = _matmul_flops(torch)
        bandwidth = _copy_bandwidth_bytes_s(torch)
    finally:
        torch.set_num_threads(threads)
    return HostRates(flops, bandwidth, host_cores(), host_memory_bytes(), measured_s=time.time())


def host_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory_bytes() -> float:
    """The machine's memory, or the container's limit where that is lower."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                total = min(total, float(file.read()))
        except (OSError, ValueError):
            continue
    return total


def emulate(device: DeviceType, host: HostRates, speed: float) -> DeviceType:
    """`device` as a host core at `speed` of its rate shows it: the core's rates; the type's memory, price and name."""
    return replace(
        device,
        memory_bandwidth_bytes_s=host.core_bandwidth_bytes_s * speed,
        peak_flops={"fp32": host.core_flops * speed},
        interconnect_bytes_s=None,
        power_watts=None,
        emulated_speed=speed,
        source=f"emulated on a host core at {speed:g} of its speed",
    )


def host_cpu(device: DeviceType, host: HostRates | None) -> DeviceType:
    """The generic `cpu` type with the measured rates of a core. Its memory is what one process may use at most: the
    whole machine's."""
    if host is None or device.name != CPU:
        return device
    return replace(
        device,
        memory_bytes=host.memory_bytes,
        memory_bandwidth_bytes_s=host.core_bandwidth_bytes_s,
        peak_flops={"fp32": host.core_flops},
        source="measured on this host",
    )


def _matmul_flops(torch: Any) -> float:
    left = torch.rand(MATMUL_SIZE, MATMUL_SIZE)
    right = torch.rand(MATMUL_SIZE, MATMUL_SIZE)
    seconds = _median_seconds(lambda: torch.mm(left, right))
    return 2.0 * MATMUL_SIZE**3 / seconds


def _copy_bandwidth_bytes_s(torch: Any) -> float:
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8)
    target = torch.ones(COPY_BYTES, dtype=torch.uint8)
    seconds = _median_seconds(lambda: target.copy_(source))
    return 2.0 * COPY_BYTES / seconds


def _median_seconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
