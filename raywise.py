"""`raywise`, the command, and the client for Python users.

The packages of this distribution have common names (`scheduler`, `cluster`, ...). This module is the door that is
safe to use from a folder with a `scheduler.py` of its own: `main` puts the distribution first on the path of its own
process, and `Client` is loaded under a private name, so neither side ever sees the other's module.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_HOME = Path(__file__).resolve().parent


def _load_client() -> ModuleType:
    name = "_raywise_client"
    if name not in sys.modules:
        folder = _HOME / "scheduler" / "client"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:  # pragma: no cover - a broken installation
            raise ImportError(f"raywise is not installed whole: {folder} is missing")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def __getattr__(name: str) -> object:
    if name in ("AsyncClient", "Client", "ClientError", "NoService", "Refused"):
        return getattr(_load_client(), name)
    raise AttributeError(f"module 'raywise' has no attribute {name!r}")


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, str(_HOME))
    from scheduler.cli import app

    app()


if __name__ == "__main__":
    main()
