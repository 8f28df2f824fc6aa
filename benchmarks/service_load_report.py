"""What `service_load` measured, put into words: the section of docs/reliability.md. Other sections are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEADING = "## Short commands and task arrays"


@dataclass(frozen=True)
class Round:
    """One burst of commands. `waits_s` are seconds from each submission to the command's first instruction."""

    commands: int
    lost: int
    makespan_s: float
    submitting_s: float
    waits_s: Sequence[float]
    cpu_s: float | None

    @property
    def per_s(self) -> float:
        """Commands begun in a second, from the first submission to the last start."""
        return (self.commands - self.lost) / self.makespan_s


@dataclass
class Load:
    """Bursts through Ray alone and through the service, and single commands on the idle cluster."""

    commands: int
    raw: list[Round]
    service: list[Round]
    single_raw: list[float]
    single_service: list[float]
    singles: int = 15
    states: dict[str, int] = field(default_factory=dict)


@dataclass
class Arrays:
    """Items a second, by name of the case: raw Ray tasks and one workload with items."""

    items: int


def write_section(path: Path, load: Load, arrays: Arrays | None) -> str:
    """Put the section into the file, in the place of the one that is there. Returns it."""
    return str(load.raw) + str(load.service)
