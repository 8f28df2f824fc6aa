"""Every kind of event that the code writes, and every module of the engine, is in `scheduler/README.md`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SCHEDULER = Path(__file__).resolve().parents[3] / "scheduler"


def written() -> set[str]:
    """First arguments of `Event(...)` and of what makes events by kind, where they are plain texts."""
    found = set()
    for path in SCHEDULER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in ("Event", "_event"):
                    found.add(str(node.args[0].value))
    return found


def test_every_kind_is_documented() -> None:
    text = (SCHEDULER / "README.md").read_text(encoding="utf-8")
    documented = set(
        re.findall(r"`([a-z-]+)`", text[text.index("What the log tells") : text.index("Where an estimate")])
    )
    kinds = written()
    assert {"submitted", "cancel-requested", "token-created", "token-revoked", "token-rotated"} <= kinds
    assert kinds <= documented


def test_every_module_of_the_engine_is_in_the_readme() -> None:
    text = (SCHEDULER / "README.md").read_text(encoding="utf-8")
    modules = {path.name for path in (SCHEDULER / "engine").glob("*.py")} - {"__init__.py"}
    assert {"engine.py", "apart.py", "needs.py"} <= modules
    assert not {name for name in modules if f"`{name}`" not in text and f"engine/{name}" not in text}
