"""The workload, or the pipeline, that an id or the start of one means."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from ...store import Filter, Record, Store
from .problems import ProblemError

SHOWN_IDS = 8
"""So many of the ids that a short start fits are named."""
_LOOKED_AT = 200
"""So many ids are looked at, however many are stored."""
_SAME_START = 3
"""Letters that what was meant is taken to share with what was written."""


@dataclass(frozen=True)
class Found:
    """The whole id, and the workloads that it is of: of a pipeline all, in the order of their submission."""

    id: str
    records: list[Record]
    is_pipeline: bool


def find(store: Store, asked: str) -> Found:
    """What this id, or start of an id, means. Raises ProblemError."""
    known = whole_id(store, asked)
    record = store.get(known)
    if record is not None:
        return Found(known, [record], False)
    return Found(known, store.select(pipeline_id=known), True)


def whole_id(store: Store, asked: str) -> str:
    """The id that was meant: itself, or the only one that starts so. Raises ProblemError, with those that are near."""
    if "\0" in asked:  # no id has one, and no database takes it
        raise ProblemError(404, f"there is no workload or pipeline {asked!r}")
    if store.get(asked) is not None or store.select(pipeline_id=asked, limit=1):
        return asked
    fitting = store.ids(asked, limit=_LOOKED_AT)
    if fitting and all(known.startswith(f"{fitting[0]}-") for known in fitting[1:]):  # a pipeline and its steps
        return fitting[0]
    if fitting:
        raise ProblemError(404, f"{asked!r} is the start of several ids: {', '.join(fitting[-SHOWN_IDS:])}")
    near = get_close_matches(asked, _candidates(store, asked), n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ProblemError(404, f"there is no workload or pipeline {asked!r}{hint}")


def _candidates(store: Store, asked: str) -> list[str]:
    """Ids that start nearly so, and the newest ones: never all that are stored."""
    newest = store.page(Filter(), limit=SHOWN_IDS).records
    recent = [name for record in newest for name in (record.pipeline_id, record.id) if name is not None]
    return list(dict.fromkeys([*store.ids(asked[:_SAME_START], limit=_LOOKED_AT), *recent]))
