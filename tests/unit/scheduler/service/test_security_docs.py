"""`docs/security.md` names every limit of the guard with its default, and every role."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from scheduler.service.auth import ROLES
from scheduler.service.guard import Limits

TEXT = (Path(__file__).resolve().parents[4] / "docs" / "security.md").read_text(encoding="utf-8")


def section(name: str) -> list[tuple[str, str]]:
    body = TEXT.split(f"## {name}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|", body, flags=re.MULTILINE)


def test_every_limit_with_its_default() -> None:
    assert [(name, value.strip()) for name, value in section("Limits")] == [
        (each.name, str(getattr(Limits(), each.name))) for each in fields(Limits)
    ]


def test_every_role() -> None:
    assert [name for name, _ in section("Roles")] == list(ROLES)
