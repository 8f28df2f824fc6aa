"""Peak memory of one device, and what would make a configuration fit. Pure, many rows at once.

Training holds weights, gradients and AdamW's two moments (fp32: 16 bytes a parameter; frozen ones only their weight),
the activations that backward needs, and what the framework takes. Data-parallel shards hold whole copies, full sharding
(ZeRO stage 3; Rajbhandari et al., 2020) an n-th of the state and one gathered block, pipeline stages their blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .hardware import weight_bytes
from .profile import FloatArray, ModelProfile
from .work import Work

STATE_BYTES = 12.0
"""Gradient and two moments of one trainable parameter, fp32."""
FRAMEWORK_BYTES = {"cpu": 0.62e9, "gpu": 0.75e9}
"""One process before the model is there: Python, torch and Ray on a host; context and kernels on a GPU (priors)."""
ALLOCATOR_SLACK = 1.08
"""Activations of a GPU with the blocks that its allocator keeps and cannot use again (prior)."""
HOST_TRAINING_SLACK = 1.30
HOST_INFERENCE_SLACK = 2.70
HOST_CONVOLUTION_SLACK = 2.20
"""The same of a host: freed blocks stay with the process, and oneDNN copies what it multiplies and convolves into
layouts of its own (measured, docs/accuracy.md)."""
HOST_FIXED_BYTES = 25e6
"""Kernels and buffers that a first step adds on a host (measured)."""
BUCKET_BYTES = 4.0
"""DDP's buckets hold the gradients once more while they are exchanged (measured on a host)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device by what they are for, [rows]."""

    weights: FloatArray
    state: FloatArray
    """Gradients and optimizer state."""
    activations: FloatArray
    cache: FloatArray
    """Keys and values of what is being generated."""
    framework: FloatArray

    @property
    def total(self) -> FloatArray:
        """All of it."""
        return self.weights + self.state + self.activations + self.cache + self.framework


def peak(
    work: Work,
    samples: FloatArray,
    shards: FloatArray,
    host: FloatArray,
    checkpointed: bool = False,
    micro_batches: FloatArray | None = None,
) -> Memory:
    """Peak of a device that computes `samples` at a time (a micro-batch for training) as one of `shards`; `host` says
    where it is a host's memory. `checkpointed` estimates what gradient checkpointing would leave of a profile without
    it: each block's input, and one block's activations. `micro_batches`: as in `work` where they are not given."""
    profile, tokens = work.profile, work.longest_tokens or work.tokens_per_sample or 1.0
    assert profile is not None
    ones = np.ones_like(shards, dtype=np.float64)
    framework = np.where(host > 0, FRAMEWORK_BYTES["cpu"], FRAMEWORK_BYTES["gpu"])
    framework = framework + np.where(host > 0, HOST_FIXED_BYTES, 0.0)
    kept = _activations(work, samples, host, checkpointed) * np.where(host > 0, _host_slack(work), ALLOCATOR_SLACK)
    if not work.training:
        width = weight_bytes(work.precision)
        length = tokens + work.generated_tokens
        cache = samples * length * profile.kv_bytes_per_token if work.generated_tokens else 0.0 * ones
        return Memory(profile.parameters * width * ones, 0.0 * ones, kept, cache, framework)
    weights = profile.parameters * 4.0 * ones
    state = profile.trainable * STATE_BYTES * ones
    if work.strategy == "fsdp":
        gathered = 2.0 * profile.block_parameters * 4.0
        weights, state = weights / shards + np.where(shards > 1, gathered, 0.0), state / shards
    elif work.strategy == "ddp":
        state = state + np.where(shards > 1, profile.trainable * BUCKET_BYTES, 0.0)
    elif work.strategy == "pipeline":
        micro = work.micro_batches if micro_batches is None else micro_batches
        weights, state, kept = weights / shards, state / shards, kept * np.minimum(micro, shards) / shards
    return Memory(weights, state, kept, 0.0 * ones, framework)


def _host_slack(work: Work) -> float:
    assert work.profile is not None
    if not work.training:
        return HOST_INFERENCE_SLACK
    return HOST_CONVOLUTION_SLACK if "convolution" in work.profile.forward else HOST_TRAINING_SLACK


def _activations(work: Work, samples: FloatArray, host: FloatArray, checkpointed: bool) -> FloatArray:
    """Of the path the model takes where it runs."""
    assert work.profile is not None
    tokens = work.longest_tokens or work.tokens_per_sample or 1.0

    def of(profile: ModelProfile) -> FloatArray:
        kept = profile.activation_bytes.at(samples, tokens)
        if not checkpointed:
            return np.asarray(kept)
        blocks = max(profile.blocks, 1)
        return np.asarray(blocks * profile.boundary_bytes.at(samples, tokens) + kept / blocks)

    if work.host_profile is None:
        return of(work.profile)
    return np.where(host > 0, of(work.host_profile), of(work.profile))


def remedy(work: Work, room: Callable[[int], float], host: bool, samples: float, shards: int, most_shards: int) -> str:
    """What would make a configuration fit, the nearest first; an empty text where nothing does. `room` is the bytes
    that each of so many shards has; `samples` is what a shard computes at a time now."""

    def first(shares: FloatArray, counts: FloatArray, checkpointed: bool = False) -> int | None:
        """The place of the first that fits, of so many samples at a time on so many shards."""
        micro = np.ceil(work.micro_batches * samples / shares)
        needed = peak(work, shares, counts, np.full(len(shares), float(host)), checkpointed, micro).total
        rooms = {count: room(int(count)) for count in set(counts.tolist())}
        fitting = needed <= np.array([rooms[count] for count in counts.tolist()])
        return int(np.argmax(fitting)) if fitting.any() else None

    if work.training:
        counts = np.arange(shards + 1, most_shards + 1, dtype=np.float64)
        shares = np.full(len(counts), samples) if work.strategy == "pipeline" else samples * shards / counts
        counts, shares = counts[shares >= 1], shares[shares >= 1]
        found = first(shares, counts)
        if found is not None:
            return f"fits with {counts[found]:.0f} shards"
    sizes = _halves(int(samples) // 2)
    found = first(sizes, np.full(len(sizes), float(shards)))
    if found is not None:
        what = "micro-batches" if work.training else "batches"
        offered = f" (batch_size: {sizes[found] * shards:.0f})" if work.training else ""
        return f"fits with {what} of {sizes[found]:.0f}{offered}"
    if work.training and work.profile is not None and not work.profile.checkpointed:
        sizes = _halves(max(1, int(samples)))
        found = first(sizes, np.full(len(sizes), float(shards)), checkpointed=True)
        if found is not None:
            where = "" if sizes[found] >= int(samples) else f" and micro-batches of {sizes[found]:.0f}"
            return f"fits with gradient checkpointing{where} (not in the built-in trainer yet)"
    return ""


def _halves(size: int) -> FloatArray:
    """The size, half of it, and so on down to one."""
    return np.array([size >> k for k in range(size.bit_length())], dtype=np.float64)
