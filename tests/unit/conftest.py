"""Unit tests need no Ray: one that starts it fails."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("a unit test called ray.init: mark it `ray` and move it out of tests/unit")


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import ray
    except ImportError:
        return
    monkeypatch.setattr(ray, "init", _refuse)
