"""Seconds that a shard computes in a step, without those it waits for the others: what a mixed gang is balanced by.

The hook runs when the gradients of a bucket are ready, before they are sent. On a host the thread's own CPU time is
what it computed; on CUDA, where kernels run behind the host, it is the time between two events on the device.
"""

# No postponed annotations here: DDP compares those of a hook with the types themselves.
import torch
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from .emulation import Pacer


class HostTime:
    """Of a host core, or of an emulated device: as its pacer counts them. The sleep of an emulated device comes before
    its gradients are sent, as if it had computed for so long."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer, self._before_s = pacer, 0.0

    def begin(self) -> None:
        """A step begins."""
        self._before_s = self._pacer.busy_s

    def ready(self) -> None:
        """The gradients of a bucket are computed."""
        self._pacer.catch_up()

    def seconds(self) -> float:
        """Of the step that has ended."""
        return self._pacer.busy_s - self._before_s


class CudaTime:
    """Of a CUDA device: from the begin of the step to the last gradients."""

    def __init__(self) -> None:
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def begin(self) -> None:
        """A step begins."""
        self._begin.record()
        self._end.record()

    def ready(self) -> None:
        """The gradients of a bucket will be computed when the device gets there."""
        self._end.record()

    def seconds(self) -> float:
        """Of the step that has ended; waits for it."""
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1000


OwnTime = HostTime | CudaTime


def own_time(device: torch.device, pacer: Pacer) -> OwnTime:
    """For a shard on this device."""
    return CudaTime() if device.type == "cuda" else HostTime(pacer)


def reduce_when_ready(own: OwnTime, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A communication hook of DDP: takes the time, then averages the gradients as DDP does by itself."""
    own.ready()
    return allreduce_hook(None, bucket)
