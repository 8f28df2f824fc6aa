"""What the columns answer: seconds, intervals and memory of every configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.types import DeviceType

from ..types import EstimateSource
from .columns import Columns
from .profile import FloatArray
from .step_time import PARTS
from .work import Work

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One device type's part of one configuration, with the memory it needs and has."""

    work: Work
    device: DeviceType
    shards: int
    samples: float
    memory_bytes: float
    limit_bytes: float


@dataclass(frozen=True)
class SpeedTable:
    """Seconds of the work itself for each configuration, in the order they were added."""

    seconds: FloatArray
    low_s: FloatArray
    high_s: FloatArray
    parts: FloatArray
    """[configurations, 6]; they add up to `seconds`."""
    sources: list[EstimateSource]
    memory_bytes: FloatArray
    """Of the device that needs the most."""
    moved_bytes: list[float]
    row_memory: FloatArray
    row_limits: FloatArray
    row_share: FloatArray
    """Samples a device computes at a time."""
    starts: IntArray
    """First row of each configuration, and the end."""
    over: list[bool]
    """Whether any device of a configuration has too little memory."""
    columns: Columns | None = None

    @classmethod
    def empty(cls) -> SpeedTable:
        """Of no configurations."""
        none = np.zeros(0)
        return cls(
            none, none, none, np.zeros((0, len(PARTS))), [], none, [], none, none, none, np.zeros(1, np.int64), []
        )

    def over_memory(self, configuration: int) -> Row | None:
        """The first device type of a configuration that has too little memory."""
        for row in range(self.starts[configuration], self.starts[configuration + 1]):
            if self.row_memory[row] > self.row_limits[row] and self.columns is not None:
                return Row(
                    self.columns.works[self.columns.rows[row][0]],
                    self.columns.devices[row],
                    self.columns.rows[row][4],
                    float(self.row_share[row]),
                    float(self.row_memory[row]),
                    float(self.row_limits[row]),
                )
        return None
