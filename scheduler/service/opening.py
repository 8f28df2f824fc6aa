"""Opens the store a service is told to use: the home's own file, a file elsewhere, or a database by URL."""

from __future__ import annotations

import os
from pathlib import Path

from ..store import Store, StoreError
from ..store.database import is_url
from .home import Home


def store_path(home: Home, place: str | None) -> Path | None:
    """The file of a store; None where it is no file."""
    if place is None:
        return home.database
    return None if is_url(place) else Path(place)


def open_store(home: Home, place: str | None = None) -> Store:
    """The store at `place` (path or URL), or the home's own. Its file is made for its owner only. Raises
    StoreError."""
    path = store_path(home, place)
    if path is None:
        return Store(str(place))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _protect(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be the store: {error.strerror}") from None
    return Store(path)


def _protect(path: Path) -> None:
    """Make a store's file before SQLite does, readable by its owner only: so are then the files beside it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
