"""Which cycle and which workload a log line is about. The engine sets it, the formatters of a service's log read it."""

from __future__ import annotations

from contextvars import ContextVar, Token

_cycle: ContextVar[int | None] = ContextVar("raywise_cycle", default=None)
_workload_id: ContextVar[str | None] = ContextVar("raywise_workload_id", default=None)


def enter_cycle(cycle: int) -> None:
    """What this thread logs from now on is of this cycle, and of no workload yet."""
    _cycle.set(cycle)
    _workload_id.set(None)


def leave_cycle() -> None:
    """What this thread logs from now on is of no cycle."""
    _cycle.set(None)


class about:  # noqa: N801  (it reads as a word: `with about(record.id):`)
    """What is logged within is about this workload."""

    __slots__ = ("_token", "_workload")

    def __init__(self, workload_id: str) -> None:
        self._workload = workload_id
        self._token: Token[str | None] | None = None

    def __enter__(self) -> None:
        self._token = _workload_id.set(self._workload)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        _workload_id.reset(self._token)


def current() -> dict[str, int | str]:
    """`cycle` and `workload_id`, those that are known."""
    known = {"cycle": _cycle.get(), "workload_id": _workload_id.get()}
    return {name: value for name, value in known.items() if value is not None}
