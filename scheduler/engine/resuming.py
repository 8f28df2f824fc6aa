"""Which workloads go on where they were. Pure."""

from __future__ import annotations

from ..store import Record

RESUMES = ("train", "batch-infer")
"""Kinds whose next attempt goes on where the last one was. Others would begin again: no plan stops them."""


def resumes(record: Record) -> bool:
    """Whether a workload's next attempt goes on where the last one was: by its kind, or because it has many items, each
    of which is done once."""
    return record.kind in RESUMES or (record.work is not None and record.work.items)
