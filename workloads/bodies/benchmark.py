"""`benchmark`: what the placed devices really do, in numbers for the cost model.

One actor holds each device, as in `infer`. Devices of a real accelerator type are measured all at once; host cores, and
emulated devices that run on them, one after the other, because they would take memory bandwidth and turbo from each
other. Emulated devices are paced like any body's work, so their emulated speed shows in every rate.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import ray

from ..errors import WorkloadFailed
from ..job import Job, ProgressWriter, Shard
from ..spec import Benchmark
from .emulation import Pacer
from .folders import claim, local_folder, write_json
from .placement import gang, in_bundle, remote_options
from .rates import Bench

CALL_TIMEOUT_S = 120.0
"""For one device's measurements, the import of torch with it; they take some seconds."""
RATES = ("bandwidth_bytes_s", "elementwise_bytes_s", "launch_s")


class Probe:
    """Measures the device that this actor holds."""

    def __init__(self, shard: dict[str, Any]) -> None:
        import torch

        held = Shard(**shard)
        cuda = held.resources.get("GPU", 0) > 0 and torch.cuda.is_available()
        torch.set_num_threads(1)  # a host device is one core
        self._slept_s = 0.0
        pacer = Pacer(held.emulated_speed, sleep=self._sleep)
        self._bench = Bench.on_cuda() if cuda else Bench.on_cpu(pacer.pace, self._clock)

    def _sleep(self, seconds: float) -> None:
        start = time.perf_counter()
        time.sleep(seconds)
        self._slept_s += time.perf_counter() - start

    def _clock(self) -> float:
        """What this process computed and slept: not what it waited for a core that others use."""
        return time.thread_time() + self._slept_s

    def machine(self) -> str:
        """Address of the machine this process runs on; the answer also says that it is up."""
        return str(ray.util.get_node_ip_address())

    def rates(self) -> dict[str, Any]:
        """The rates of this device alone, named as in the `rates` record."""
        return {
            "flops": self._bench.flops(),
            "bandwidth_bytes_s": self._bench.copy_bytes_s(),
            "elementwise_bytes_s": self._bench.elementwise_bytes_s(),
            "launch_s": self._bench.launch_s(),
        }

    def meeting_point(self) -> str:
        """Where the processes of an all-reduce can find this one."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def reduce_bytes_s(self, rank: int, world: int, store: str) -> float | None:
        """Bytes a second on each link of an all-reduce; None where the processes do not find each other."""
        try:
            return self._bench.reduce_bytes_s(rank, world, store)
        except (RuntimeError, ValueError) as error:
            print(f"no all-reduce on shard {rank} of {world}: {error}", flush=True)
            return None


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Measure every placed device. Raises WorkloadFailed."""
    Benchmark.model_validate(job.spec)
    output = local_folder(job.output)
    claim(output, job.workload_id)
    bundles = [shard.resources for shard in job.shards]
    with gang(job.run_id, bundles, [shard.node_id for shard in job.shards]) as group:
        probes = [_start(group, index, shard) for index, shard in enumerate(job.shards)]
        machines = _get([probe.machine.remote() for probe in probes])  # one that still imports torch slows the others
        progress.write("phase", phase="running")
        single = measure(job.shards, probes)
        records = []
        for device_type in dict.fromkeys(shard.device_type for shard in job.shards):
            members = [i for i, shard in enumerate(job.shards) if shard.device_type == device_type]
            reduce_bytes_s = _reduce([probes[i] for i in together(members, machines)])
            record = summary(device_type, [single[i] for i in members], reduce_bytes_s)
            progress.write("rates", **record)
            records.append(record)
    write_json(output / "rates.json", records)
    return {"outputs": {"output": job.output}, "metrics": {}}


def turns(shards: Sequence[Shard]) -> list[list[int]]:
    """Places of the shards that are measured at the same time, turn after turn."""
    accelerators = [i for i, shard in enumerate(shards) if shard.resources.get("GPU", 0) > 0]
    alone = [[i] for i in range(len(shards)) if i not in accelerators]
    return ([accelerators] if accelerators else []) + alone


def measure(shards: Sequence[Shard], probes: Sequence[Any]) -> list[dict[str, Any]]:
    """The rates of each shard's device, in the order of the shards."""
    found: dict[int, dict[str, Any]] = {}
    for turn in turns(shards):
        found |= zip(turn, _get([probes[i].rates.remote() for i in turn]), strict=True)
    return [found[i] for i in range(len(shards))]


def together(members: Sequence[int], machines: Sequence[str]) -> list[int]:
    """Those of the members that share the machine with most of them: an all-reduce over these crosses no network, which
    is not the link that is asked about."""
    most = max((machines[i] for i in members), key=lambda name: sum(machines[i] == name for i in members))
    return [i for i in members if machines[i] == most]


def summary(
    device_type: str, devices: Sequence[Mapping[str, Any]], reduce_bytes_s: Sequence[float | None]
) -> dict[str, Any]:
    """The `rates` record of a type: medians over its devices; the all-reduce is as fast as its slowest shard says."""
    precisions = [name for name in devices[0]["flops"] if all(name in device["flops"] for device in devices)]
    reduced = [rate for rate in reduce_bytes_s if rate is not None]
    return {
        "device_type": device_type,
        "shards": len(devices),
        "flops": {name: statistics.median(device["flops"][name] for device in devices) for name in precisions},
        **{name: statistics.median(device[name] for device in devices) for name in RATES},
        "reduce_bytes_s": min(reduced) if len(reduced) == len(reduce_bytes_s) and reduced else None,
    }


def _start(group: Any, index: int, shard: Shard) -> Any:
    options = remote_options(shard.resources)
    actor = ray.remote(Probe).options(**options, scheduling_strategy=in_bundle(group, index))
    return actor.remote(asdict(shard))


def _reduce(probes: Sequence[Any]) -> list[float | None]:
    """What each shard measured of an all-reduce of them all; nothing for a shard alone."""
    if len(probes) < 2:
        return []
    (store,) = _get([probes[0].meeting_point.remote()])
    calls = [probe.reduce_bytes_s.remote(rank, len(probes), store) for rank, probe in enumerate(probes)]
    return _get(calls)


def _get(calls: list[Any]) -> list[Any]:
    try:
        return list(ray.get(calls, timeout=CALL_TIMEOUT_S))
    except ray.exceptions.GetTimeoutError as error:
        raise WorkloadFailed(f"a device was not measured within {CALL_TIMEOUT_S:.0f} s", retryable=True) from error
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkloadFailed(f"a device cannot be measured: {lines[-1]}", retryable=True) from error
