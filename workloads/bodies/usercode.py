"""Loads what a user's `entrypoint: module:name` points at."""

from __future__ import annotations

import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

from ..errors import WorkloadFailed


def load_entrypoint(entrypoint: str) -> Any:
    """The object behind `module:name`, imported from the user's code folder (the working directory).

    Raises WorkloadFailed, with the reason, when the module cannot be imported or has no such name.
    """
    module_name, _, name = entrypoint.partition(":")
    if os.getcwd() not in sys.path:
        # The driver is started with `python -P`, which leaves the working directory out.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise WorkloadFailed(f"entrypoint {entrypoint} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        close = get_close_matches(name, [each for each in dir(module) if not each.startswith("__")], n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise WorkloadFailed(f"entrypoint {entrypoint}: module {module_name} has no function or class {name}{hint}")
    if not callable(found):
        kind = type(found).__name__
        raise WorkloadFailed(f"entrypoint {entrypoint}: {name} is neither a function nor a class, but of type {kind}")
    return found
