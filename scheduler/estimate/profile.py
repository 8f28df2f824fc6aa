"""What a model costs, as polynomials in batch and length: counted once on the real model without weights
(`tracing`), evaluated for any number of configurations at once (`step_time`, `memory`). Pure data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

OperatorClass = Literal["matmul", "convolution", "attention", "elementwise", "embedding", "optimizer"]
OPERATOR_CLASSES: tuple[OperatorClass, ...] = get_args(OperatorClass)
"""`matmul`: products with weights; `attention`: fused attention, and products of two activations; `elementwise`: all
that only streams through memory (norms, softmax, dropout, activations, casts, copies)."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Volume:
    """An amount (FLOPs, bytes, kernel launches) that depends on B samples of L tokens each."""

    constant: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Coefficients of 1, L, L^2: what does not grow with the batch (weights, masks)."""
    per_sample: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Coefficients of B, B L, B L^2."""

    def at(self, samples: float | FloatArray, tokens: float | FloatArray) -> Any:
        """The amount for `samples` of `tokens` each; arrays broadcast."""
        c, s = self.constant, self.per_sample
        return (c[0] + tokens * (c[1] + tokens * c[2])) + samples * (s[0] + tokens * (s[1] + tokens * s[2]))

    def __add__(self, other: Volume) -> Volume:
        return Volume(
            tuple(a + b for a, b in zip(self.constant, other.constant, strict=True)),  # type: ignore[arg-type]
            tuple(a + b for a, b in zip(self.per_sample, other.per_sample, strict=True)),  # type: ignore[arg-type]
        )

    def scaled(self, factor: float) -> Volume:
        """This amount, `factor` times."""
        return Volume(
            tuple(factor * value for value in self.constant),  # type: ignore[arg-type]
            tuple(factor * value for value in self.per_sample),  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Cost:
    """What one operator class does in one pass (forward, or backward) over a batch."""

    flops: Volume = Volume()
    moved_bytes: Volume = Volume()
    """Bytes read and written by the kernels, each operator by itself (eager execution, nothing fused)."""
    launches: float = 0.0
    """Kernels started, whatever the batch."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.moved_bytes + other.moved_bytes, self.launches + other.launches)

    def scaled(self, factor: float) -> Cost:
        """This cost, `factor` times."""
        return Cost(self.flops.scaled(factor), self.moved_bytes.scaled(factor), self.launches * factor)


Pass = Mapping[OperatorClass, Cost]


@dataclass(frozen=True)
class Coefficients:
    """The volumes of one pass as arrays [class, term]; the terms are 1, L, L^2, B, B L, B L^2 (see `terms`)."""

    flops: FloatArray
    moved: FloatArray
    launches: float

    @classmethod
    def of(cls, part: Pass) -> Coefficients:
        """The coefficients of a pass, classes in the order of `OPERATOR_CLASSES`."""
        costs = [part.get(name, Cost()) for name in OPERATOR_CLASSES]
        return cls(
            np.array([(*cost.flops.constant, *cost.flops.per_sample) for cost in costs], dtype=np.float64),
            np.array([(*cost.moved_bytes.constant, *cost.moved_bytes.per_sample) for cost in costs], dtype=np.float64),
            float(sum(cost.launches for cost in costs)),
        )


def terms(samples: FloatArray, tokens: FloatArray) -> FloatArray:
    """[rows, 6]: 1, L, L^2, B, B L, B L^2."""
    ones = np.ones_like(samples)
    return np.stack([ones, tokens, tokens**2, samples, samples * tokens, samples * tokens**2], axis=-1)


@dataclass(frozen=True)
class ModelProfile:
    """A model as it runs at one precision, for training or for inference."""

    family: str
    """Architecture and size, e.g. `bert-6x384`: what calibration shares between runs."""
    parameters: int
    """Unique parameters: tied weights count once."""
    trainable: int
    """Parameters that get a gradient."""
    precision: str = "fp32"
    """What it was traced at: `fp32`, or `16-bit` (mixed precision for training, 16-bit weights for inference)."""
    forward: Pass = field(default_factory=dict)
    backward: Pass = field(default_factory=dict)
    """Empty for inference. With gradient checkpointing it includes the second forward."""
    activation_bytes: Volume = Volume()
    """Most bytes of activations and temporaries alive at once; training: with all that backward needs."""
    saved_bytes: Volume = Volume()
    """Bytes kept from forward for backward."""
    boundary_bytes: Volume = Volume()
    """What one block hands to the next: point-to-point traffic of pipeline stages."""
    block_parameters: int = 0
    """Parameters of the largest repeated block: what full sharding gathers at a time."""
    blocks: int = 0
    """Repeated blocks (layers), the most that pipeline stages can share out."""
    kv_bytes_per_token: float = 0.0
    """Key and value cache of one token of one sample; 0 for models that do not generate."""
    checkpointed: bool = False
    source: Literal["traced", "given"] = "traced"

    def totals(self, part: Literal["forward", "backward"]) -> Cost:
        """All classes of a pass together."""
        return sum((self.forward if part == "forward" else self.backward).values(), Cost())

    @cached_property
    def coefficients(self) -> tuple[Coefficients, Coefficients]:
        """Of the forward and of the backward pass."""
        return Coefficients.of(self.forward), Coefficients.of(self.backward)
