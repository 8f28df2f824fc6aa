"""What one core of this machine can do, measured; and what a device type looks like when that core stands in for it."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from workloads.bodies import rates

from .types import CPU, DeviceType

REDUCE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class HostRates:
    """Rates of one core, and what the whole machine has. Measured by `measure_host` and `measure_reduce`; None is not
    measured."""

    core_flops: float
    """FLOP/s of a single-threaded fp32 matrix product."""
    core_bandwidth_bytes_s: float
    """Bytes read and written a second by a single-threaded copy."""
    cores: int
    memory_bytes: float
    """Of the whole machine."""
    machine: str = ""
    """Its name, so that the rates of another one are not taken for its own."""
    measured_s: float = 0.0
    """Unix seconds of the measurement; 0 where the rates are given."""
    core_flops_by_precision: Mapping[str, float] = field(default_factory=dict)
    """FLOP/s of a single-threaded matrix product in `fp32` and `bf16`; fp32's is `core_flops`."""
    core_elementwise_bytes_s: float | None = None
    """Bytes read and written a second by a typical single-threaded element-wise operator on tensors of 4 MB."""
    launch_s: float | None = None
    """Seconds to dispatch one tiny operator in PyTorch."""
    reduce_bytes_s: float | None = None
    """Bytes a second on each link of an all-reduce between two processes of this machine, over gloo."""

    @property
    def flops(self) -> dict[str, float]:
        """FLOP/s of one core by precision; fp32 is always there."""
        return {**self.core_flops_by_precision, "fp32": self.core_flops}

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a cache file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HostRates:
        """What `to_json` gave. Raises ValueError where a field is missing or unknown: a cache file of another version
        is measured anew."""
        expected = {each.name for each in fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            raise ValueError(f"not the rates of a host: expected {', '.join(sorted(expected))}")
        return cls(**data)

    @property
    def of_this_machine(self) -> bool:
        """Whether they were measured here: the same name, cores and memory (within a hundredth)."""
        memory = host_memory_bytes()
        return (self.machine, self.cores) == (platform.node(), host_cores()) and (
            abs(self.memory_bytes - memory) <= memory / 100
        )


def measure_host() -> HostRates:
    """Measure one core of this machine, in some seconds after torch is imported: the best rates seen, since others may
    use the core too. The thread count of torch is put back. `reduce_bytes_s` is left to `measure_reduce`."""
    bench = rates.Bench.on_cpu()
    threads = bench.torch.get_num_threads()
    bench.torch.set_num_threads(1)
    try:
        flops = bench.flops()
        return HostRates(
            core_flops=flops["fp32"],
            core_bandwidth_bytes_s=bench.copy_bytes_s(),
            cores=host_cores(),
            memory_bytes=host_memory_bytes(),
            machine=platform.node(),
            measured_s=time.time(),
            core_flops_by_precision=flops,
            core_elementwise_bytes_s=bench.elementwise_bytes_s(),
            launch_s=bench.launch_s(),
        )
    finally:
        bench.torch.set_num_threads(threads)


def measure_reduce(timeout_s: float = REDUCE_TIMEOUT_S) -> float | None:
    """Bytes a second on each link of an all-reduce between two processes of this machine, over gloo. Takes as long as
    two imports of torch, some seconds; None where it fails or takes longer than `timeout_s`."""
    with tempfile.TemporaryDirectory(prefix="raywise-reduce-") as folder:
        store = (Path(folder) / "store").as_uri()
        commands = [[sys.executable, "-P", rates.__file__, str(rank), "2", store] for rank in range(2)]
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        processes = [
            subprocess.Popen(
                command, env={**os.environ, **loopback}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            for command in commands
        ]
        try:
            deadline = time.monotonic() + timeout_s
            answers = [process.communicate(timeout=max(0.0, deadline - time.monotonic()))[0] for process in processes]
            return statistics.fmean(float(answer) for answer in answers)
        except (subprocess.TimeoutExpired, ValueError):
            return None
        finally:
            for process in processes:
                process.kill()
                process.wait()


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
    launch_s = None if host.launch_s is None else host.launch_s / speed
    return replace(
        device,
        host_memory_bytes=host.memory_bytes,
        memory_bandwidth_bytes_s=host.core_bandwidth_bytes_s * speed,
        peak_flops={precision: rate * speed for precision, rate in host.flops.items()},
        interconnect_bytes_s=host.reduce_bytes_s,  # traffic is not paced
        launch_s=launch_s,
        power_watts=None,
        emulated_speed=speed,
        source=f"emulated on a host core at {speed:g} of its speed",
        rates_at_s=host.measured_s,
    )


def host_cpu(device: DeviceType, host: HostRates | None) -> DeviceType:
    """The generic `cpu` type with the measured rates of a core. Its memory is what one process may use at most: the
    whole machine's (`build_snapshot` puts the smallest node's in its place)."""
    if host is None or device.name != CPU:
        return device
    return replace(
        device,
        memory_bytes=host.memory_bytes,
        memory_bandwidth_bytes_s=host.core_bandwidth_bytes_s,
        peak_flops=host.flops,
        interconnect_bytes_s=host.reduce_bytes_s,
        launch_s=host.launch_s,
        source="measured on this host",
        rates_at_s=host.measured_s,
    )
