"""The finished blocks of a batch inference, as files: a part exists once its block is done, whole, exactly once.

A part's file metadata says which rows it covers and which of them failed, so the folder itself is the record of what
is done: there is no second record that could disagree with it after a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import WorkloadFailed

_KEY = b"raywise"


@dataclass(frozen=True)
class Part:
    """What a part file covers. `errors` are (row, message)."""

    number: int
    start: int
    stop: int
    device_type: str
    rows: int
    fingerprint: str
    errors: list[tuple[int, str]] = field(default_factory=list)
    tokens: int = 0


def fingerprint(workload_id: str, values: Sequence[Any]) -> str:
    """Tells parts of this workload and input from those of another that wrote to the same folder."""
    return hashlib.sha256(json.dumps([workload_id, *map(str, values)]).encode()).hexdigest()[:16]


def part_path(folder: Path, number: int) -> Path:
    """`part-00000.parquet` and so on."""
    return folder / f"part-{number:05d}.parquet"


def write_part(folder: Path, part: Part, table: pa.Table) -> None:
    """Commit a block: the rename is what makes it done."""
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(asdict(part)).encode()}
    path = part_path(folder, part.number)
    draft = path.with_name(f".{path.name}.partial")
    pq.write_table(table.replace_schema_metadata(metadata), draft)
    os.replace(draft, path)


def read_parts(folder: Path, expected: str) -> list[Part]:
    """Parts already finished; those of another run, and drafts, are removed. Raises WorkloadFailed for a file
    that is none of our parts: it is neither deleted nor overwritten."""
    parts: list[Part] = []
    for draft in folder.glob(".part-*.partial"):
        draft.unlink()
    for path in sorted(folder.glob("part-*.parquet")):
        text = _metadata(path)
        if text is None:
            raise WorkloadFailed(f"{path} is no part that Raywise wrote; move it away or choose another output")
        part = _part(text)
        if part is None or part.fingerprint != expected:
            path.unlink()
        else:
            parts.append(part)
    return parts


def _metadata(path: Path) -> bytes | None:
    """What we wrote into a part's metadata; None where the file is not ours."""
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return None
    return metadata.get(_KEY)


def _part(text: bytes) -> Part | None:
    try:
        values = json.loads(text)
        return Part(**{**values, "errors": [(int(row), str(error)) for row, error in values["errors"]]})
    except (KeyError, ValueError, TypeError):  # of another version
        return None
