"""Output folders: only such as are ours are written to, and those that are replaced are whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import WorkloadFailed
from ..outputs import MARKER, is_ours, mark


def local_folder(path: str) -> Path:
    """The folder on a file system that all nodes see. Raises WorkloadFailed for other URLs."""
    if "://" in path and not path.startswith("file://"):
        raise WorkloadFailed(f"output {path} must be a folder that every node can write to, not a URL")
    return Path(path.removeprefix("file://"))


def claim(folder: Path, workload_id: str) -> None:
    """Make an output folder that is written to in place, and mark it. Raises WorkloadFailed where it is not ours."""
    require_ours(folder)
    mark(folder, workload_id)


def require_ours(folder: Path) -> None:
    """Raise WorkloadFailed where a folder holds what Raywise did not write."""
    if not is_ours(folder):
        raise WorkloadFailed(f"{folder} holds what Raywise did not write; choose an empty folder as output")


@contextmanager
def whole(target: Path, workload_id: str) -> Iterator[Path]:
    """A fresh, marked folder beside `target` that replaces it when the body ends without an error. Raises
    WorkloadFailed, before anything is written, where `target` or a folder in the way is not ours."""
    target = target.resolve()  # the folder behind a link is replaced, not the link
    draft, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    for folder in (target, draft, old):
        require_ours(folder)
    _remove(draft)
    mark(draft, workload_id)
    yield draft
    _remove(old)
    if target.exists():
        require_ours(target)  # somebody may have filled it since
        target.rename(old)
    draft.rename(target)
    _remove(old)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    os.replace(draft, path)


def _remove(folder: Path) -> None:
    """Delete a folder of ours, its marker last: a kill on the way leaves a folder that is still ours."""
    require_ours(folder)
    if not folder.exists():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    (folder / MARKER).unlink(missing_ok=True)
    folder.rmdir()
