"""How long placements last that can be moved or stopped, from what was seen of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..types import Situation

STAY_S = 600.0
"""How long a placement lasts, as long as nothing is known ..."""
STAY_MOVES = 6.0
"""... which is worth as much as so many moves that were seen."""
STAY_MEMORY_S = 6 * 3600.0
"""What was seen counts half after so long."""
NOTED_EVERY_S = 300.0
STAY_LIMITS_S = (120.0, 3600.0)


@dataclass(frozen=True)
class Stays:
    """How long placements that can be moved really last, from what was seen."""

    held_s: float
    moves: float
    at_s: float | None

    @classmethod
    def of(cls, situation: Situation) -> Stays:
        """What the last plan noted."""
        known = numbers(situation.memory.get("stays"))
        return cls(known.get("held_s", 0.0), known.get("moves", 0.0), known.get("at_s"))

    @property
    def seconds(self) -> float:
        """Of one placement."""
        found = (STAY_S * STAY_MOVES + self.held_s) / (STAY_MOVES + self.moves)
        return min(max(found, STAY_LIMITS_S[0]), STAY_LIMITS_S[1])

    def after(self, now_s: float, running: int, moved: int) -> dict[str, float]:
        """What is known after this cycle. Looked at now and then only: what a policy notes is stored when it changes,
        and this is not worth a write to the disk every second."""
        past_s = 0.0 if self.at_s is None else max(0.0, now_s - self.at_s)
        if self.at_s is not None and past_s < NOTED_EVERY_S and not moved:
            return {"held_s": self.held_s, "moves": self.moves, "at_s": self.at_s}
        fades = 0.5 ** (past_s / STAY_MEMORY_S)
        held_s = (self.held_s + past_s * running) * fades
        return {"held_s": held_s, "moves": self.moves * fades + moved, "at_s": now_s}


def numbers(noted: Any) -> dict[str, float]:
    """What is a number of at least 0 in a note of the last plan: whoever wrote it, nothing else is believed."""
    if not isinstance(noted, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in noted.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }
