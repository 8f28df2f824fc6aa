"""The user's own code: packed when it is submitted, so that what runs, also after retries and restarts, is what was
submitted, and a folder that is too large is refused before anything starts."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from workloads.errors import Problem, SpecError
from workloads.outputs import MARKER

MAX_BYTES = 64 << 20
MAX_FILES = 10_000
SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "build", "dist"})
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def code_files(folder: Path) -> list[tuple[Path, int]]:
    """The files that would be shipped, with their bytes: hidden ones, caches and virtual environments are left out.
    Raises SpecError where there are too many or they are too large, naming the largest."""
    files: list[tuple[Path, int]] = []
    total = 0
    for path in _walk(folder):
        size = path.stat().st_size
        files.append((path, size))
        total += size
        if total > MAX_BYTES or len(files) > MAX_FILES:
            largest, most = max(files, key=lambda item: item[1])
            message = f"{folder} is too large to ship as code (over {MAX_BYTES >> 20} MiB or {MAX_FILES:,} files)"
            found = f"e.g. {largest.relative_to(folder)} has {most / 1e6:.0f} MB"
            raise SpecError(Problem(message, "code", f"{found}; put the code in a folder of its own: code: my_code"))
    return files


def pack_code(folder: Path, target: Path) -> None:
    """Write the code folder as a zip; the same files give the same bytes."""
    draft = target.with_name(f".{target.name}.partial")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, _ in sorted(code_files(folder)):
            info = zipfile.ZipInfo(str(path.relative_to(folder)), _FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (path.stat().st_mode & 0xFFFF) << 16
            archive.writestr(info, path.read_bytes())
    os.replace(draft, target)


def _is_no_code(folder: Path) -> bool:
    """A virtual environment, or what a workload wrote."""
    return (folder / "pyvenv.cfg").exists() or (folder / MARKER).exists()


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED and not _is_no_code(Path(root, name))
        )
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and not name.endswith(".pyc") and path.is_file():
                yield path
