"""Where a model reference points: a local folder, an installed package (`package:NAME`) or a hub id (`org/name`).

Resolved on the machine that loads it, so the same reference works on every node.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

PACKAGE_PREFIX = "package:"


def is_hub_id(reference: str) -> bool:
    """Whether the reference can only be a hub id: `name` or `org/name`, neither a path nor a package."""
    looks_local = reference.startswith(("/", ".", "~", "file:")) or "://" in reference or reference.count("/") > 1
    return not reference.startswith(PACKAGE_PREFIX) and not looks_local


def resolve_model(reference: str) -> str:
    """What `from_pretrained` should be given for a reference.

    Raises FileNotFoundError, with the reason, where the folder or package is missing or holds no `config.json`.
    A hub id is returned as it is: only the hub can say whether it exists.
    """
    if reference.startswith(PACKAGE_PREFIX):
        return str(_package_folder(reference.removeprefix(PACKAGE_PREFIX)))
    if is_hub_id(reference):
        return reference
    folder = Path(reference.removeprefix("file://")).expanduser()
    if not os.path.isdir(folder):  # False, not an OSError, for a name that is too long
        raise FileNotFoundError(f"model folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"model folder {folder} has no config.json")
    return str(folder)


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or found.origin is None:
        raise FileNotFoundError(f"package {name} is not installed")
    root = Path(found.origin).parent
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(f"package {name} carries no model folder (none with a config.json)")
