"""Which folders are ours to write to: those that are empty or carry the marker of a workload that wrote them.

Everything else is somebody's data: admission refuses it as an output, and a body stops before it touches it.
"""

from __future__ import annotations

import json
from pathlib import Path

MARKER = ".raywise"
"""A file in every output folder, JSON: `{"workload_id": ...}`."""


def is_ours(folder: Path) -> bool:
    """Whether a folder may be written to and replaced: it is not there, is empty, or carries the marker."""
    if not folder.exists() and not folder.is_symlink():
        return True
    return folder.is_dir() and ((folder / MARKER).is_file() or not any(folder.iterdir()))


def mark(folder: Path, workload_id: str) -> None:
    """Make the folder and put the marker in; not by a rename, so that a kill leaves nothing else behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(json.dumps({"workload_id": workload_id}) + "\n")
