"""Which device types can train together, as shards that add up their gradients. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.types import DeviceType

from ..types import Reason
from .work import Work

TOGETHER = "the shards of one training gang are GPUs of one vendor, or cores and emulated devices"


def cannot_train_together(work: Work, types: Sequence[tuple[DeviceType, int]]) -> Reason | None:
    """Why a training gang of several types is not possible: their collectives do not reach each other."""
    if work.kind != "train" or len(types) < 2:
        return None
    hardware = [kind for kind, _ in types if not (kind.kind == "cpu" or kind.emulated)]
    if not hardware:
        return None
    same = all(kind.kind == "gpu" and kind.vendor == hardware[0].vendor for kind in hardware)
    return None if same and len(hardware) == len(types) else Reason("device", TOGETHER)
