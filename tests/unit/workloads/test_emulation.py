"""Pacing: an emulated device takes as long as it says, and only for what it computed."""

from __future__ import annotations

import pytest

from workloads.bodies.emulation import Pacer


class FakeTime:
    """A CPU clock that only compute moves, and a sleep that is recorded."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.slept_s: list[float] = []

    def pacer(self, speed: float | None) -> Pacer:
        return Pacer(speed, clock=lambda: self.cpu_s, sleep=self.slept_s.append)


@pytest.mark.parametrize(("speed", "slept_s"), [(0.25, 6.0), (0.5, 2.0), (1.0, None)])
def test_two_seconds_of_compute_are_stretched_to_the_speed(speed: float, slept_s: float | None) -> None:
    time = FakeTime()
    with time.pacer(speed).pace():
        time.cpu_s += 2.0
    assert time.slept_s == ([slept_s] if slept_s is not None else [])


def test_a_real_device_never_sleeps() -> None:
    time = FakeTime()
    with time.pacer(None).pace():
        time.cpu_s += 2.0
    assert time.slept_s == []


def test_waiting_is_not_slowed_down_again() -> None:
    time = FakeTime()
    with time.pacer(0.1).pace():
        pass  # an all-reduce: wall time goes by, this thread's CPU time does not
    assert time.slept_s == []


def test_an_error_is_passed_on_without_a_sleep() -> None:
    time = FakeTime()

    def fails() -> None:
        with time.pacer(0.1).pace():
            time.cpu_s += 2.0
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fails()
    assert time.slept_s == []


def test_the_device_has_computed_at_its_own_speed() -> None:
    for speed, busy_s in ((None, 3.0), (0.5, 6.0)):
        time = FakeTime()
        pacer = time.pacer(speed)
        for seconds in (2.0, 1.0):
            with pacer.pace():
                time.cpu_s += seconds
        assert pacer.busy_s == busy_s


def test_what_is_behind_is_caught_up_before_others_are_waited_for_and_not_twice() -> None:
    time = FakeTime()
    pacer = time.pacer(0.25)
    with pacer.pace():
        time.cpu_s += 2.0
        pacer.catch_up()
        assert time.slept_s == [6.0]
        time.cpu_s += 1.0
    assert time.slept_s == [6.0, 3.0]
    assert pacer.busy_s == 12.0
