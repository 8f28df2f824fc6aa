"""What there is to do, in numbers: made once at admission (`scheduler.admission`), read by the cost model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .profile import ModelProfile

Strategy = Literal["ddp", "fsdp", "pipeline"]


@dataclass(frozen=True)
class Work:
    """One workload in numbers. None is unknown; nothing is invented for it."""

    kind: str
    family: str
    """What calibration is shared over: the model's family, or the workload's own name where there is no model."""
    precision: str = "fp32"
    samples: float | None = None
    """Rows or items to go through in all: rows x epochs for training."""
    evaluation_samples: float = 0.0
    """Rows that are only passed forward, beside `samples` (validation)."""
    tokens_per_sample: float | None = None
    batch_size: int = 1
    """Global batch for training, per replica for inference."""
    profile: ModelProfile | None = None
    host_profile: ModelProfile | None = None
    """The model as it runs on a host's CPU, where that is another path (attention with dropout is not fused there)."""
    strategy: Strategy = "ddp"
    """How a training gang shares the model: whole copies, full sharding, or pipeline stages."""
    micro_batches: int = 1
    """Parts that a shard's share of the batch is computed in, one after the other (gradient accumulation)."""
    generated_tokens: int = 0
    """Tokens generated for each sample; inference only."""
    rows_per_core_s: float | None = None
    """Rows a host core prepares in a second, sampled at admission; preprocessing only."""
    declared_s: float | None = None
    """The user's own `expected_runtime`."""
    declared_by: Mapping[str, float] = field(default_factory=dict)
    """Seconds on each configuration (its name), where they are given: a trace says so. All others are impossible."""
    startup_s: float | None = None
    """Seconds of every attempt beside the work, where they are given."""
    checkpoint_every_s: float | None = None
    input_bytes: float = 0.0
    """Of a command's or the user's own trainer's input; 0 where they are not known."""
    output_bytes: float = 0.0
    longest_tokens: float | None = None
    """Of the longest row: what memory must have room for; the mean where it is not known."""
    note: str = ""
    """Why the model could not be traced, where it could not."""
    items: bool = False
    """Whether it is one command, or one function of the user's own, for each of `samples` items."""

    @property
    def size(self) -> float | None:
        """What the time of work that no model predicts grows with: rows, else bytes of its input; None where neither is
        known."""
        return self.samples or self.input_bytes or None

    @property
    def training(self) -> bool:
        """Whether gradients are taken."""
        return self.kind == "train"
