"""What there is to do, in numbers: made once at admission (`scheduler.admission`), read by the cost model. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelProfile:
    """What one sequence of L tokens costs, counted on the real model without weights (`model_profile`)."""

    family: str
    """Architecture and size, e.g. `bert-6x384`: what calibration shares between runs."""
    parameters: int
    forward_flops: tuple[float, float]
    """(a, b): forward FLOPs of one sequence are `a L + b L^2`."""
    training_flops: tuple[float, float]
    """The same for forward and backward."""
    activation_bytes: tuple[float, float]
    """(a, b): bytes kept for backward in fp32 for one sequence are `a L + b L^2`."""
    vocabulary_parameters: int = 0
    """Parameters of embedding tables: stored and reduced, but not multiplied."""

    def forward(self, tokens: float) -> float:
        """Forward FLOPs of one sequence of this many tokens."""
        return self.forward_flops[0] * tokens + self.forward_flops[1] * tokens**2

    def training(self, tokens: float) -> float:
        """Forward and backward FLOPs of one sequence of this many tokens."""
        return self.training_flops[0] * tokens + self.training_flops[1] * tokens**2

    def activations(self, tokens: float) -> float:
        """Bytes of activations that one sequence keeps for backward, fp32."""
        return self.activation_bytes[0] * tokens + self.activation_bytes[1] * tokens**2


@dataclass(frozen=True)
class Work:
    """One workload in numbers. None is unknown; nothing is invented for it."""

    kind: str
    family: str
    """What calibration is shared over: the model's family, or the workload's own name where there is no model."""
    precision: str = "fp32"
    samples: float | None = None
    """Rows to go through in all: rows x epochs for training."""
    evaluation_samples: float = 0.0
    """Rows that are only passed forward, beside `samples` (validation)."""
    tokens_per_sample: float | None = None
    batch_size: int = 1
    """Global batch for training, per replica for inference."""
    profile: ModelProfile | None = None
    rows_per_core_s: float | None = None
    """Rows a host core prepares in a second, sampled at admission; preprocessing only."""
    declared_s: float | None = None
    """The user's own `expected_runtime`."""
    output_bytes: float = 0.0

    @property
    def training(self) -> bool:
        """Whether gradients are taken."""
        return self.kind == "train"
