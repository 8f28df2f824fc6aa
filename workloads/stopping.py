"""A request to end a run with time to save: a small file beside its progress file. The executor writes it, the body
looks for it, and both find it again after they were started anew."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

EXIT_STOPPED = 143
"""What a driver's process ends with that was asked to stop: 128 and SIGTERM."""


def stop_path(progress_path: Path, run_id: str) -> Path:
    """Where the request to end a run is."""
    return progress_path.with_name(f"{run_id}.stop")


def request_stop(path: Path, deadline_s: float) -> float:
    """Ask for an end by `deadline_s` (Unix seconds); returns the deadline that holds, which is that of the first
    request. Raises OSError."""
    known = stop_deadline_s(path)
    if known is not None:
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(json.dumps({"deadline_s": deadline_s}) + "\n")
    os.replace(draft, path)
    return deadline_s


def stop_deadline_s(path: Path) -> float | None:
    """By when the run is to have ended (Unix seconds); None where nobody asks for it. What cannot be understood asks
    for an end now."""
    try:
        text = path.read_text()
    except OSError:
        return None
    try:
        deadline_s = float(json.loads(text)["deadline_s"])
    except (ValueError, TypeError, KeyError):
        return 0.0
    return deadline_s if math.isfinite(deadline_s) else 0.0
