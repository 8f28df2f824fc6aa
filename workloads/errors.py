"""The tree of exceptions of Raywise, and when each occurs.

RaywiseError                    everything we raise on purpose
├── SpecError                   what the user wrote cannot run: refused before anything starts (exit code 2)
├── WorkloadFailed              a body stopped for a reason it can name (bad row file, no data left, user code raised)
└── WorkloadStopped             a body was asked to stop, and has saved what it had
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


class RaywiseError(Exception):
    """Anything Raywise raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a submission: where it is, what it is, and what to do about it."""

    message: str
    field: str = ""
    hint: str = ""
    file: str = ""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.field) if part)
        line = f"{where}: {self.message}" if where else self.message
        return f"{line}\n  hint: {self.hint}" if self.hint else line


class SpecError(RaywiseError):
    """The submission is refused; `problems` lists every reason found, each with file, field path and hint."""

    def __init__(self, problems: list[Problem] | Problem) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def to_json(self) -> list[dict[str, str]]:
        """The problems as plain dictionaries, as the service returns them."""
        return [asdict(problem) for problem in self.problems]


class WorkloadFailed(RaywiseError):
    """A body cannot go on, and says why in one sentence the user can act on. `retryable` is False where the same
    input would fail again."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class WorkloadStopped(RaywiseError):
    """A body ends before its work is done because it was asked to; the next attempt goes on from what it saved."""
