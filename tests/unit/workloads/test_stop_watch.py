"""How a body hears of a request to stop: once, whatever it does about it, and at its end in any case."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from workloads.bodies.stop_watch import StopRequests, StopWatch, end_after_checkpoint, go_on
from workloads.job import ProgressWriter
from workloads.stopping import request_stop

LONG_S = 30.0


class Ended:
    """Notes that the driver would end."""

    def __init__(self) -> None:
        self.event, self.calls = threading.Event(), 0

    def __call__(self) -> None:
        self.calls += 1
        self.event.set()

    def within(self, seconds: float = LONG_S) -> bool:
        return self.event.wait(seconds)


@pytest.fixture
def ended() -> Ended:
    return Ended()


def test_a_body_that_nobody_asks_works_on(tmp_path: Path, ended: Ended) -> None:
    with StopWatch(tmp_path / "w.stop", go_on, ended) as stop:
        assert not stop.asked
    assert not stop.asked
    assert ended.calls == 0


def test_a_body_with_nothing_to_save_ends_at_once(tmp_path: Path, ended: Ended) -> None:
    with StopWatch(tmp_path / "w.stop", end=ended):
        request_stop(tmp_path / "w.stop", time.time() + 1e6)
        assert ended.within()
    assert ended.calls == 1


def test_a_body_that_looks_itself_has_its_time_and_ends_when_that_is_over(tmp_path: Path, ended: Ended) -> None:
    with StopWatch(tmp_path / "w.stop", go_on, ended) as stop:
        request_stop(tmp_path / "w.stop", time.time() + 0.6)
        assert ended.within()
        assert stop.asked
        assert stop.left_s == 0.0
    assert ended.calls == 1


def test_a_body_that_is_done_in_time_ends_by_itself(tmp_path: Path, ended: Ended) -> None:
    asked = threading.Event()
    with StopWatch(tmp_path / "w.stop", lambda _: asked.set(), ended) as stop:
        request_stop(tmp_path / "w.stop", time.time() + 1e6)
        assert asked.wait(LONG_S)
        assert stop.left_s > 1e5
    assert ended.calls == 0


def test_a_request_from_before_that_has_run_out_ends_the_body(tmp_path: Path, ended: Ended) -> None:
    request_stop(tmp_path / "w.stop", time.time() - 5.0)
    with StopWatch(tmp_path / "w.stop", go_on, ended):
        assert ended.within()


def test_the_next_checkpoint_is_the_end_of_a_body_that_does_not_look(tmp_path: Path, ended: Ended) -> None:
    progress, asked = ProgressWriter(tmp_path / "progress"), threading.Event()
    progress.write("checkpoint", step=1)
    wait = end_after_checkpoint(progress.path)

    def when_asked(stop: StopWatch) -> None:
        asked.set()
        wait(stop)

    with StopWatch(tmp_path / "w.stop", when_asked, ended) as stop:
        request_stop(tmp_path / "w.stop", time.time() + 1e6)
        assert asked.wait(LONG_S)
        assert not ended.within(1.0), "a checkpoint from before the request does not count"
        progress.write("metrics", values={})
        progress.write("checkpoint")
        assert ended.within()
        assert stop.asked
    assert ended.calls == 1


def test_a_body_that_ends_while_its_checkpoint_is_waited_for_is_done(tmp_path: Path, ended: Ended) -> None:
    asked = threading.Event()
    wait = end_after_checkpoint(tmp_path / "progress")

    def when_asked(stop: StopWatch) -> None:
        asked.set()
        wait(stop)

    with StopWatch(tmp_path / "w.stop", when_asked, ended):
        request_stop(tmp_path / "w.stop", time.time() + 1e6)
        assert asked.wait(LONG_S)
    assert ended.calls == 0


class Answers:
    """Stands in for the relay: what it says, and when its answers are there."""

    def __init__(self) -> None:
        self.deadline_s: float | None = None
        self.asked, self.there = 0, True
        self.waits_s: list[float] = []
        self.stop_deadline_s = self

    def remote(self) -> float | None:
        self.asked += 1
        return self.deadline_s

    def wait(self, questions: list[float | None], timeout: float) -> tuple[list[float | None], list[float | None]]:
        self.waits_s.append(timeout)
        return (questions, []) if self.there else ([], questions)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    import ray

    found = Answers()
    monkeypatch.setattr(ray, "wait", found.wait)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    return found


def test_the_relay_is_asked_about_once_a_second(answers: Answers) -> None:
    now = [0.0]
    requests = StopRequests(answers, clock=lambda: now[0])
    for _ in range(100):
        assert not requests.come()
        now[0] += 0.1
    assert 9 <= answers.asked <= 11
    answers.deadline_s = 77.0
    now[0] += 1.0
    assert requests.come()
    assert requests.deadline_s == 77.0
    asked = answers.asked
    now[0] += 10.0
    assert requests.come()
    assert answers.asked == asked, "what has come does not go"


def test_an_answer_is_waited_for_a_hundredth_of_a_step_at_most(answers: Answers) -> None:
    now = [0.0]
    requests = StopRequests(answers, clock=lambda: now[0])
    answers.there, answers.deadline_s = False, 77.0
    for step_s in (0.0, 0.05, 2.0, 600.0):
        now[0] += step_s
        assert not requests.come()
    assert answers.waits_s == pytest.approx([0.0, 0.0005, 0.02, 0.1])
    assert answers.asked == 1, "one question at a time"
    answers.there = True
    assert requests.come()
