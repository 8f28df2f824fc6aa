"""The collector between cycles: cycles of objects are found while they are new, and the others once an hour."""

from __future__ import annotations

import gc
import weakref

import pytest

from scheduler.collecting import UNFROZEN_EVERY_S, Collector


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _thawed() -> object:
    yield
    gc.unfreeze()


def test_what_is_new_is_collected_and_what_was_put_aside_once_an_hour() -> None:
    now_s = 0.0
    collector = Collector(lambda: now_s)
    young, old = Knot(), Knot()
    seen, kept = weakref.ref(young), weakref.ref(old)
    del young
    collector.between_cycles()
    assert seen() is None
    del old
    collector.between_cycles()
    assert kept() is not None, "it was put aside while it lived"
    now_s = UNFROZEN_EVERY_S
    collector.between_cycles()
    assert kept() is None
