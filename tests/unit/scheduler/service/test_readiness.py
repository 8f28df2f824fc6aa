"""When a service is ready, what it says when it is not, and who is told that a cycle ended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from fake_service import FakeRuntime
from scheduler.service.notify import Supervisor
from scheduler.service.pulse import Pulse
from scheduler.service.readiness import ReadinessFacts, readiness
from scheduler.service.runtime import PROBE_SETTING, Runtime
from scheduler.store import StoreError

GOOD = ReadinessFacts(now_s=1000.0, started_s=900.0, cycle_s=1.0, last_cycle_s=999.0)


def test_a_service_that_works_is_ready() -> None:
    assert readiness(GOOD) == (True, [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"last_cycle_s": None}, "no cycle has come to its end in 100 s since the start"),
        ({"last_cycle_s": 939.0}, "the last cycle ended 61 s ago, more than 60 s"),
        ({"last_cycle_s": 899.0, "cycle_s": 10.0}, "the last cycle ended 101 s ago, more than 100 s"),
        ({"cycle_error": "disk full"}, "the last cycle failed: disk full"),
        ({"cluster_error": "nothing answers at a:1"}, "the Ray cluster cannot be reached: nothing answers at a:1"),
        ({"store_error": "disk full"}, "the store cannot be written: disk full"),
    ],
)
def test_each_reason_is_a_sentence(changes: dict[str, Any], reason: str) -> None:
    assert readiness(replace(GOOD, **changes)) == (False, [reason])


@pytest.mark.parametrize(
    "changes",
    [{"last_cycle_s": 940.0}, {"last_cycle_s": 901.0, "cycle_s": 10.0}, {"last_cycle_s": 1001.0}],
    ids=["just in time", "slow cycles are given longer", "a clock that was put back"],
)
def test_what_is_no_reason(changes: dict[str, Any]) -> None:
    assert readiness(replace(GOOD, **changes)) == (True, [])


def test_all_reasons_are_said() -> None:
    assert len(readiness(replace(GOOD, last_cycle_s=None, cluster_error="a", store_error="b"))[1]) == 3


def test_a_pulse_keeps_how_the_last_cycle_went() -> None:
    now = SimpleNamespace(s=10.0)
    pulse = Pulse(1.0, lambda: now.s)
    assert pulse.facts(lambda: None).last_cycle_s is None
    now.s = 11.0
    pulse.ended()
    assert readiness(pulse.facts(lambda: None)) == (True, [])
    pulse.failed(StoreError("disk full"))
    assert pulse.facts(lambda: None).cycle_error == "disk full"
    pulse.failed(ValueError("/secret/path"))
    assert pulse.facts(lambda: None).cycle_error == "ValueError, see the log", "a defect's own words are for the log"
    pulse.ended("nothing answers")
    facts = pulse.facts(lambda: None)
    assert (facts.cycle_error, facts.cluster_error, facts.last_cycle_s) == (None, "nothing answers", 11.0)


def test_the_store_is_tried_at_most_every_ten_seconds() -> None:
    now = SimpleNamespace(s=10.0)
    asked: list[float] = []

    def probe() -> None:
        asked.append(now.s)
        if now.s >= 20:
            raise StoreError("disk full")

    pulse = Pulse(1.0, lambda: now.s)
    for now.s in (10.0, 15.0, 19.9):
        assert pulse.facts(probe).store_error is None
    for now.s in (20.0, 29.9):
        assert pulse.facts(probe).store_error == "disk full"
    now.s = 5.0  # the clock was put back
    assert pulse.facts(probe).store_error is None
    assert asked == [10.0, 20.0, 5.0]


def test_a_running_service_says_so_of_itself(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.pulse.ended()
    assert readiness(runtime.readiness_facts()) == (True, [])
    assert runtime.store.setting(PROBE_SETTING), "it was written, not only asked"

    def full(*_: Any) -> NoReturn:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(runtime.store, "set_setting", full)
    runtime.passed_s += 20
    assert readiness(runtime.readiness_facts()) == (False, ["the store cannot be written: database or disk is full"])


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(5)
        yield made


def test_the_supervisor_is_told(listener: socket.socket) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": listener.getsockname()})
    supervisor.ready("at http://x")
    supervisor.alive()
    supervisor.stopping()
    assert [listener.recv(200) for _ in range(3)] == [b"READY=1\nSTATUS=at http://x", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0raywise-test-notify")
        made.settimeout(5)
        Supervisor({"NOTIFY_SOCKET": "@raywise-test-notify"}).ready()
        assert made.recv(200) == b"READY=1"


def test_without_a_supervisor_nothing_is_said(tmp_path: Path) -> None:
    Supervisor({}).ready()
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()


def test_the_watchdog_is_fed_by_cycles_that_end_and_by_nothing_else() -> None:
    """A cycle that fails, or that never ends, is what the watchdog is for."""
    outcomes: list[Any] = [object(), RuntimeError("defect"), None, StoreError("disk full"), object()]
    fed: list[int] = []
    stop = threading.Event()
    done: list[int] = []

    def run_cycle() -> Any:
        outcome = outcomes[len(done)]
        done.append(1)
        if len(done) == len(outcomes):
            stop.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    loop = SimpleNamespace(
        _stop=stop,
        _waiting=SimpleNamespace(until_next=lambda: None),
        engine=SimpleNamespace(run_cycle=run_cycle, cycle=1),
        access=SimpleNamespace(address="a:1"),
        pulse=Pulse(1.0),
        _supervisor=SimpleNamespace(alive=lambda: fed.append(len(done))),
    )
    Runtime._loop(loop)  # type: ignore[arg-type]
    assert fed == [1, 3, 5]
    assert loop.pulse.facts(lambda: None).cluster_error is None
