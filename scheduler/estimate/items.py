"""How long many items take that do not know of each other: the rates of all devices add up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.types import DeviceType

from .calibration import Calibration
from .names import one_device
from .work import Work


def items_s(
    work: Work, types: Sequence[tuple[DeviceType, int]], calibration: Calibration
) -> tuple[float, float, float] | None:
    """Seconds of all items on so many devices of each type, with the least and the most to be expected; None where one
    of the types was not measured."""
    inverse = [0.0, 0.0, 0.0]
    for kind, count in types:
        alone = calibration.history_s(work.kind, work.family, one_device(kind), work.size)
        if alone is None:
            return None
        for place, seconds in enumerate((alone.mean, alone.low, alone.high)):
            inverse[place] += count / seconds
    mean, low, high = (1.0 / rate for rate in inverse)
    return mean, low, high
