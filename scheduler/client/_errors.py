"""What goes wrong between a client and the service.

ClientError                 the service answered with an error; `status` is HTTP's
├── NoService               no service runs from this home, or it does not answer
└── Refused                 what was sent is wrong; `problems` says what, field by field
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx


class ClientError(Exception):
    """The service answered with an error; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NoService(ClientError):
    """No service runs from this home, or it does not answer."""


class Refused(ClientError):
    """What was sent is wrong; `problems` says what, each with file, field and hint."""

    def __init__(self, problems: Sequence[Mapping[str, str]]) -> None:
        self.problems = [dict(problem) for problem in problems]
        super().__init__("\n".join(_line(problem) for problem in problems), status=422)


def error_of(response: httpx.Response) -> ClientError:
    """The error that an answer means."""
    try:
        body: Any = response.json()
    except ValueError:
        return ClientError(f"HTTP {response.status_code}: {response.text[:200]}", response.status_code)
    if not isinstance(body, dict):
        return ClientError(f"HTTP {response.status_code}", response.status_code)
    if response.status_code == 422 and body.get("problems"):
        return Refused(body["problems"])
    return ClientError(str(body.get("detail") or body.get("title")), response.status_code)


def _line(problem: Mapping[str, str]) -> str:
    where = ": ".join(part for part in (problem.get("file"), problem.get("field")) if part)
    line = f"{where}: {problem['message']}" if where else problem["message"]
    return f"{line}\n  hint: {problem['hint']}" if problem.get("hint") else line
