"""Seconds of one step of one shard, from a model's volumes and a device's rates; many rows at once. Pure.

Per operator class a roofline, `max(FLOPs / achievable FLOP/s, bytes / achievable bandwidth)` (Williams, Waterman and
Patterson, 2009); starting kernels adds up on a host and shows only in excess on a device that runs behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from . import communication
from .hardware import Rates
from .profile import FloatArray, ModelProfile

Part = Literal["compute", "memory", "launch", "within", "between", "crowding"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What the seconds of a step are made of: arithmetic, memory traffic, kernel launches, communication within a node and
between nodes (the slower of both counts), and what shards cost each other: by sharing a host, and by waiting for the
slowest. Calibration corrects each by a factor of its own."""
COMPUTE, MEMORY, LAUNCH, WITHIN, BETWEEN, CROWDING = range(len(PARTS))
LAST_BUCKET = 0.15
"""Share of the traffic that nothing hides: the gradients that are ready last (measured, docs/accuracy.md)."""
OVERLAP_ACCELERATOR = 0.67
"""Share of the backward pass that traffic hides behind on a device with its own copy engines (measured as 0.44 of a
step that is two thirds backward, docs/accuracy.md)."""
OVERLAP_HOST = 0.0
"""On a host the same cores compute and send."""
WAITING = 0.025
"""Standard deviation of one shard's work, as a share of it: all wait for the slowest (the median of what is found with
one model or one kind of machine left out, docs/accuracy.md)."""
ADAMW_FLOPS = 14.0
ADAMW_BYTES = 28.0
"""Fused AdamW in fp32: reads weight, gradient and two moments, writes weight and moments."""
CLIP_BYTES = 12.0
"""Clipping by the global norm: one read, then a read and a write of every gradient."""


def roofline(flops: FloatArray, moved: FloatArray, launches: FloatArray, device: RateRows) -> FloatArray:
    """Parts [rows, 6] of one pass over volumes [rows, class]; those that others cause stay zero."""
    compute_s, memory_s = flops / device.flops_s, moved / device.bytes_s
    arithmetic = compute_s >= memory_s
    parts = np.zeros((len(flops), len(PARTS)))
    parts[:, COMPUTE] = np.where(arithmetic, compute_s, 0.0).sum(axis=1)
    parts[:, MEMORY] = np.where(arithmetic, 0.0, memory_s).sum(axis=1)
    starting_s = launches * device.launch_s
    busy_s = parts[:, COMPUTE] + parts[:, MEMORY]
    parts[:, LAUNCH] = np.where(device.asynchronous, np.maximum(starting_s - busy_s, 0.0), starting_s)
    return parts


@dataclass(frozen=True)
class RateRows:
    """`Rates` of many rows."""

    flops_s: FloatArray
    bytes_s: FloatArray
    launch_s: FloatArray
    asynchronous: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, each: Sequence[Rates], index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> RateRows:
        """Row i has the rates `each[index[i]]`."""
        return cls(
            np.array([rates.flops_s for rates in each])[index],
            np.array([rates.bytes_s for rates in each])[index],
            np.array([rates.launch_s for rates in each])[index],
            np.array([float(rates.asynchronous) for rates in each])[index] > 0,
        )


def optimizer_volumes(profile: ModelProfile) -> tuple[float, float, float]:
    """(FLOPs, bytes, launches) of one optimizer step over all trainable parameters, clipping included. Fused: a handful
    of kernels, whatever the number of tensors."""
    return profile.trainable * ADAMW_FLOPS, profile.trainable * (ADAMW_BYTES + CLIP_BYTES), 20.0


def total_s(parts: FloatArray, overlap: FloatArray) -> FloatArray:
    """Seconds of a step from its parts [..., 6]: work, and the communication that `overlap` (share of the work's
    seconds that traffic may hide behind) leaves exposed; at least the last bucket."""
    work_s = own_s(parts)
    traffic_s = np.maximum(parts[..., WITHIN], parts[..., BETWEEN])
    return np.asarray(work_s + communication.exposed_s(traffic_s, work_s, overlap, LAST_BUCKET))


def exposed_s(parts: FloatArray, overlap: FloatArray) -> FloatArray:
    """The communication in `total_s`."""
    return total_s(parts, overlap) - own_s(parts)


def own_s(parts: FloatArray) -> FloatArray:
    """What a shard does by itself: all parts but the communication."""
    return np.asarray(parts[..., COMPUTE] + parts[..., MEMORY] + parts[..., LAUNCH] + parts[..., CROWDING])


def sensitivities(parts: FloatArray, overlap: FloatArray) -> FloatArray:
    """d log total / d log part, [..., 6], by central differences: what a correction of each part does to the total."""
    step = 1e-3
    result = np.empty_like(parts)
    for k in range(len(PARTS)):
        factor = np.ones(len(PARTS))
        factor[k] = np.exp(step)
        up = total_s(parts * factor, overlap)
        down = total_s(parts / factor, overlap)
        result[..., k] = np.log(up / down) / (2 * step)
    return result
