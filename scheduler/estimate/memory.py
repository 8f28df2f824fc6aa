"""Peak memory of one device, and what would make a configuration fit. Pure, many rows at once.

Training holds weights, gradients and AdamW's two moments (fp32: 16 bytes a parameter; frozen ones only their weight),
the activations that backward needs, and what the framework takes. Data-parallel shards hold whole copies, full sharding
(ZeRO stage 3; Rajbhandari et al., 2020) an n-th of the state and one gathered block, pipeline stages their blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

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


def peak(work: Work, samples: FloatArray, shards: FloatArray, host: FloatArray, checkpointed: bool = False) -> Memory:
    """Peak of a device that computes `samples` at a time (a micro-batch for training) as one of `shards`; `host` says
    where it is a host's memory. `checkpointed` estimates what gradient checkpointing would leave of a profile without
    it: each block's input, and one block's activations."""
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
        weights, state, kept = weights / shards, state / shards, kept * np.minimum(work.micro_batches, shards) / shards
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
    one = np.array(1.0)

    def fits(share: float, count: int, checkpointed: bool = False) -> bool:
        tried = replace(work, micro_batches=math.ceil(work.micro_batches * samples / share))
        return bool(peak(tried, one * share, one * count, one * float(host), checkpointed).total <= room(count))

    if work.training:
        batch = samples * shards
        for count in range(shards + 1, most_shards + 1):
            share = samples if work.strategy == "pipeline" else batch / count
            if share >= 1 and fits(share, count):
                return f"fits with {count} shards"
    size = int(samples) // 2
    while size >= 1:
        if fits(size, shards):
            what = "micro-batches" if work.training else "batches"
            offered = f" (batch_size: {size * shards})" if work.training else ""
            return f"fits with {what} of {size}{offered}"
        size //= 2
    if work.training and work.profile is not None and not work.profile.checkpointed:
        size = max(1, int(samples))
        while size >= 1:
            if fits(size, shards, checkpointed=True):
                where = "" if size >= int(samples) else f" and micro-batches of {size}"
                return f"fits with gradient checkpointing{where} (not in the built-in trainer yet)"
            size //= 2
    return ""
