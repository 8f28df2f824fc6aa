"""Readers of traces: what others published, and our own store. `read` tells by the file what it is."""

from __future__ import annotations

import json
from pathlib import Path

from workloads.errors import SpecError

from ..types import Trace
from . import alibaba, events, gavel, sia
from .tables import read_text, refused

FORMATS = (
    "known are Gavel's traces (ten fields separated by tabs), Sia's workloads (name,time,application,num_replicas,"
    "batch_size), Alibaba's task lists (name,cpu_milli,memory_mib,num_gpu,gpu_milli,...) and a service's raywise.db"
)
OBJECTIVE = "balanced"


def read(
    path: Path | str,
    *,
    throughputs: Path | None = None,
    profiles: Path | None = None,
    nodes: Path | None = None,
    objective: str | None = None,
    rigid: bool = False,
    fractions: alibaba.Fractions = "whole",
) -> Trace:
    """A trace of any known format. Raises SpecError with file, line and hint.

    `throughputs` belongs to Gavel's traces, `profiles` and `rigid` to Sia's, `nodes` and `fractions` to Alibaba's; each
    is found beside the trace where it is not given. `objective` is that of all jobs: balanced, or in a store each
    workload's own, where it is not given.
    """
    path = Path(path)
    if events.is_store(path):
        return events.read(path, objective)
    text, wanted = read_text(path), objective or OBJECTIVE
    if gavel.looks_like(text):
        return gavel.read(path, throughputs, wanted)
    header = {name.strip() for name in text.split("\n", 1)[0].split(",")}
    if _like(header, sia.COLUMNS):
        return sia.read(path, profiles, wanted, rigid=rigid)
    if _like(header, alibaba.TASK_COLUMNS):
        return alibaba.read(path, nodes, wanted, fractions)
    raise _unknown(path, text, header)


def _like(header: set[str], columns: tuple[str, ...]) -> bool:
    """Whether a header is meant to have these columns: at least three of them, so that one that lacks is told."""
    return len(header.intersection(columns)) >= min(3, len(columns))


def _unknown(path: Path, text: str, header: set[str]) -> SpecError:
    if header.issuperset(alibaba.NODE_COLUMNS):
        return refused(path, "is a list of nodes", "give the list of tasks; this belongs to it")
    try:
        json.loads(text)
    except ValueError:
        return refused(path, "is no trace", FORMATS)
    return refused(path, "is JSON, not a trace", "a table of throughputs belongs to a trace: give the trace")


__all__ = ["FORMATS", "alibaba", "events", "gavel", "read", "sia"]
