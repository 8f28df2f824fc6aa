"""Printing logs: those of several workloads with a line between, without what Ray itself writes at every start."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cluster.log_noise import without_noise
from scheduler.client import Client


def print_logs(texts: Mapping[str, str], *, raw: bool) -> None:
    """Whole logs by workload; with several, a line with the id before each."""
    for workload_id, text in texts.items():
        if text and len(texts) > 1:
            sys.stdout.write(f"=== {workload_id}\n")
        sys.stdout.write(text if raw else without_noise(text))
    sys.stdout.flush()


def follow_logs(client: Client, workload_id: str, *, raw: bool) -> None:
    """What comes, until everything has ended or the user has seen enough."""
    printer = LinePrinter(raw=raw)
    try:
        for text in client.logs(workload_id, follow=True):
            printer.print(text)
    except KeyboardInterrupt:
        return
    finally:
        printer.end()


class LinePrinter:
    """Prints a text that comes in pieces. Without `raw`, what Ray itself writes is left out, which can be told of whole
    lines only: one that has not ended waits."""

    def __init__(self, *, raw: bool = False) -> None:
        self._raw, self._waiting = raw, ""

    def print(self, text: str) -> None:
        """Print what came."""
        if self._raw:
            self._write(text)
            return
        text = self._waiting + text
        end = text.rfind("\n") + 1
        self._waiting = text[end:]
        self._write(without_noise(text[:end]))

    def end(self) -> None:
        """Nothing comes any more."""
        self._write(without_noise(self._waiting))
        self._waiting = ""

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
