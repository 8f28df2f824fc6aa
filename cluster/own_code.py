"""A user's own code on its way to a run's processes: a folder of the run's own, or a package that no other run has.

Ray's `working_dir` is not safe for a package that two runs, or two nodes that share a folder for temporary files, have
in common: whoever sets it up last removes it and unpacks it again, under the processes that already work in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

MAX_BYTES = 1 << 30
MAX_FILES = 20_000
"""Of what is unpacked: well above what is packed at submission."""
CODE_FOLDER = "code"
"""Within a run's folder: the code of each attempt, under the attempt's id."""


def unpacked(source: Path, run_dir: Path, run_id: str) -> Path:
    """The run's own copy of its code, a zip or a folder; made once, whole or not at all. Raises OSError, and
    zipfile.BadZipFile for what is no zip."""
    target = run_dir.absolute() / CODE_FOLDER / run_id
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{run_id}.", dir=target.parent))
    try:
        if source.is_dir():
            shutil.copytree(source, draft, dirs_exist_ok=True)
        else:
            _extract(source, draft)
        draft.chmod(0o755)
        os.replace(draft, target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _extract(archive: Path, folder: Path) -> None:
    """Unpack with the permissions that were packed: scripts stay executable. Raises zipfile.BadZipFile for what is
    larger than code that was packed, or would lie elsewhere."""
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
            raise zipfile.BadZipFile(f"more than {MAX_FILES:,} files, or {MAX_BYTES >> 20} MiB")
        for member in members:
            parts = PurePosixPath(member.filename).parts
            if ".." in parts or parts[:1] == ("/",) or "\\" in member.filename:
                raise zipfile.BadZipFile(f"{member.filename!r} leads out of the folder")
            path = packed.extract(member, folder)
            mode = member.external_attr >> 16 & 0o777
            if mode and not member.is_dir():
                os.chmod(path, mode | 0o600)


def own_package(source: Path, run_dir: Path, run_id: str) -> Path:
    """A copy of the zip that differs from every other run's by its comment: Ray knows packages by their bytes, and so
    shares none between runs. What is no zip is returned as it is."""
    if not zipfile.is_zipfile(source):
        return source
    run_dir.mkdir(parents=True, exist_ok=True)
    target = run_dir / f"{run_id}.zip"
    draft = run_dir / f".{run_id}.partial"
    shutil.copyfile(source, draft)
    with zipfile.ZipFile(draft, "a") as archive:
        archive.comment = run_id.encode()
    os.replace(draft, target)
    return target


def remove_copy(run_dir: Path, run_id: str) -> None:
    """Forget an attempt's copy of the code: it has ended, and the submission's own zip is kept."""
    shutil.rmtree(run_dir.absolute() / CODE_FOLDER / run_id, ignore_errors=True)
    (run_dir / f"{run_id}.zip").unlink(missing_ok=True)
