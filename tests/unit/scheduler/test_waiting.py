"""When the service's next cycle runs."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from scheduler.service.waiting import AFTER_END_S, LOOK_S, Waiting


class Time:
    """A clock that passes while the event is waited for; `at` are things that happen then."""

    def __init__(self, at: dict[float, object]) -> None:
        self.now_s, self.at = 0.0, dict(at)

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        for when in [each for each in self.at if each <= self.now_s + 1e-9]:
            action = self.at.pop(when)
            assert callable(action)
            action()
        return False


def waiting(path: Path, at: dict[float, object], monkeypatch: pytest.MonkeyPatch) -> tuple[Waiting, Time]:
    time = Time(at)
    made = Waiting(path, 1.0, time.clock)
    monkeypatch.setattr(made._event, "wait", time.wait)
    return made, time


def test_a_cycle_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, time = waiting(tmp_path / "home" / "ended", {}, monkeypatch)
    made.until_next()
    made.until_next()
    assert time.now_s == pytest.approx(2.0)


def test_soon_after_a_command_ended_and_twice_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ended"
    made, time = waiting(path, {0.3: lambda: os.utime(path, (1, 1))}, monkeypatch)
    cycles = []
    for _ in range(4):
        made.until_next()
        cycles.append(time.now_s)
    first = 0.3 + AFTER_END_S[0]
    assert cycles[0] == pytest.approx(first, abs=LOOK_S + 1e-9)
    pauses = [after - before for before, after in itertools.pairwise(cycles)]
    assert pauses == pytest.approx([*AFTER_END_S[1:], 1.0])


def test_many_ends_do_not_put_the_cycle_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ended"
    ends = {number / 10: (lambda number=number: os.utime(path, (number, number))) for number in range(1, 9)}
    made, time = waiting(path, dict(ends), monkeypatch)
    made.until_next()
    assert time.now_s <= 0.1 + AFTER_END_S[0] + LOOK_S + 1e-9


def test_at_once_when_it_is_woken_also_before_it_waits(tmp_path: Path) -> None:
    made = Waiting(tmp_path / "ended", 600.0)
    made.wake()
    made.until_next()
    timer = threading.Timer(0.05, made.wake)
    timer.start()
    made.until_next()
    timer.join()
