"""The user's own code: packed when it is submitted, so that what runs, also after retries and restarts, is what was
submitted, and a folder that is too large is refused before anything starts."""

from __future__ import annotations

import os
import stat
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
    """The files that would be shipped, with their bytes: hidden ones, caches, virtual environments and what is no file
    (sockets, devices) are left out. Raises SpecError where there are too many or they are too large, naming the
    largest, where a link leads out of the folder, or where one cannot be read."""
    files: list[tuple[Path, int]] = []
    total, root = 0, folder.resolve()
    for path in _walk(folder):
        size = _size_bytes(path, root)
        files.append((path, size))
        total += size
        if total > MAX_BYTES or len(files) > MAX_FILES:
            largest, most = max(files, key=lambda item: item[1])
            message = f"{folder} is too large to ship as code (over {MAX_BYTES >> 20} MiB or {MAX_FILES:,} files)"
            found = f"e.g. {largest.relative_to(folder)} has {most / 1e6:.0f} MB"
            raise SpecError(Problem(message, "code", f"{found}; put the code in a folder of its own: code: my_code"))
    return files


def _size_bytes(path: Path, root: Path) -> int:
    try:
        if (
            path.is_symlink() and root not in path.resolve().parents
        ):  # it may be a file of ours that the user cannot read
            message = f"{path} is a link to {os.readlink(path)}, which is not in the code folder"
            raise SpecError(Problem(message, "code", "copy the file into the folder"))
        return path.stat().st_size
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> SpecError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SpecError(Problem(f"{path} cannot be read: {reason}", "code"))


def _content(path: Path) -> tuple[bytes, int]:
    """A file's bytes and mode, if it still is one, and no larger than a whole folder may be. Raises SpecError."""
    try:
        descriptor = os.open(path.resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            content = file.read(MAX_BYTES + 1) if stat.S_ISREG(found.st_mode) else None
    except OSError as error:
        raise _unreadable(path, error) from None
    if content is None or len(content) > MAX_BYTES:
        raise SpecError(Problem(f"{path} changed while it was packed", "code"))
    return content, found.st_mode


def pack_code(folder: Path, target: Path) -> None:
    """Write the code folder as a zip; the same files give the same bytes. Raises SpecError as `code_files` does."""
    draft = target.with_name(f".{target.name}.partial")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, _ in sorted(code_files(folder)):
            content, mode = _content(path)
            info = zipfile.ZipInfo(_packed_name(path, folder), _FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode & 0xFFFF) << 16
            archive.writestr(info, content)
    os.replace(draft, target)


def _packed_name(path: Path, folder: Path) -> str:
    name = str(path.relative_to(folder))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SpecError(Problem(f"the name {name!r} is no UTF-8 text", "code", "rename the file")) from None
    return name


def _is_no_code(folder: Path) -> bool:
    """A virtual environment, what a workload wrote, or a service's own folder, with its token and database."""
    ours = (folder / "token").exists() and (folder / "runs").is_dir()
    return ours or (folder / "pyvenv.cfg").exists() or (folder / MARKER).exists()


def _walk(folder: Path) -> Iterator[Path]:
    for number, (root, folders, names) in enumerate(os.walk(folder)):
        if number > MAX_FILES:
            message = f"{folder} has more than {MAX_FILES:,} folders"
            raise SpecError(Problem(message, "code", "put the code in a folder of its own: code: my_code"))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED and not _is_no_code(Path(root, name))
        )
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and not name.endswith(".pyc") and path.is_file():
                yield path
