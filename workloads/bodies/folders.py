"""Output folders that are whole or not there: written under a temporary name, then moved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import WorkloadFailed


def local_folder(path: str) -> Path:
    """The folder on a file system that all nodes see. Raises WorkloadFailed for other URLs."""
    if "://" in path and not path.startswith("file://"):
        raise WorkloadFailed(f"output {path} must be a folder that every node can write to, not a URL")
    return Path(path.removeprefix("file://"))


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that replaces it when the body ends without an error."""
    draft = target.with_name(f".{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    os.replace(draft, path)
