"""A world for each test; what must always hold is checked when the test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A fake cluster with an engine; whatever the test did, the invariants hold at its end."""
    made = World()
    yield made
    made.check()
    made.store.close()
