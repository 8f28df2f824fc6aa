"""A worker's items: results, failures, time limits, and nothing left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workloads.bodies import item_worker
from workloads.bodies.item_worker import ItemWorker, Outcome, Task, is_final

ROOT = Path(__file__).resolve().parents[3]


def worker(command: str | None = None, entrypoint: str | None = None, **options: Any) -> ItemWorker:
    made = ItemWorker(Task(command, entrypoint, {"RAYWISE_OUTPUT": "/out"}, **options), "T4", None)
    made.prepare()
    return made


def one(outcomes: tuple[list[Outcome], float]) -> Outcome:
    (found,), _ = outcomes
    return found


def result(outcome: Outcome) -> Any:
    assert not outcome.error
    return json.loads(outcome.line)["result"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_items.py").write_text(
        "def double(item):\n    return {'twice': item * 2}\n\n\ndef breaks(item):\n    raise ValueError('no ' + item)\n\n\n"
        "def strange(item):\n    return object()\n\n\ndef stray(item):\n    return 'caf\\udce9'\n\n\n"
        "def breaks_over_it(item):\n    raise OSError('no caf\\udce9')\n\n\ndef nan(item):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine_items", raising=False)


@pytest.mark.usefixtures("mine")
def test_a_function_gets_items_of_a_range_as_numbers_and_others_as_texts() -> None:
    assert result(one(worker(entrypoint="mine_items:double", numbers=True).run([(0, "21")]))) == {"twice": 42}
    outcome = one(worker(entrypoint="mine_items:double").run([(7, "ab")]))
    record = json.loads(outcome.line)
    assert (record["index"], record["item"], record["device_type"]) == (7, "ab", "T4")
    assert record["result"] == {"twice": "abab"}


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param("breaks", "ValueError: no x", id="it raises"),
        pytest.param("strange", "TypeError: Object of type object is not JSON serializable", id="no JSON"),
        pytest.param("nan", "ValueError: Out of range float values", id="not a number"),
    ],
)
def test_a_function_that_fails_fails_its_item_alone(name: str, error: str) -> None:
    assert one(worker(entrypoint=f"mine_items:{name}").run([(0, "x")])).error.startswith(error)


def test_a_shell_item_sees_its_item_and_its_output_is_the_result() -> None:
    command = 'echo {item} "$RAYWISE_ITEM" $RAYWISE_ITEM_INDEX $RAYWISE_OUTPUT; echo err >&2'
    assert result(one(worker(command).run([(4, "a  b")]))) == "a  b a  b 4 /out\nerr"


def test_only_the_end_of_a_long_output_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_worker, "KEPT_BYTES", 10)
    assert result(one(worker("seq 200000; echo the end").run([(0, "")]))) == "0\nthe end"


@pytest.mark.parametrize(
    ("command", "error", "final"),
    [
        pytest.param("echo why >&2; exit 3", "the command ended with exit code 3; it said: why", False, id="a code"),
        pytest.param("kill -9 $$", "the command was ended by signal SIGKILL", False, id="a signal"),
        pytest.param("no-such-program 2>/dev/null", "the command cannot be run (exit code 127", True, id="not found"),
    ],
)
def test_a_shell_item_that_fails_says_why(command: str, error: str, final: bool) -> None:
    found = one(worker(command).run([(0, "x")])).error
    assert found.startswith(error)
    assert is_final(found) is final


def test_a_shell_item_that_takes_too_long_is_ended_with_all_of_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    found = one(worker(f"sleep 300 & echo $! > {child}; wait", timeout_s=0.5).run([(0, "x")]))
    assert found.error == "took longer than 0.5 s"
    assert not _lives(child.read_text().strip())


def test_what_a_shell_item_leaves_in_the_background_does_not_hold_it_up_and_is_ended(tmp_path: Path) -> None:
    child = tmp_path / "child"
    assert result(one(worker(f"sleep 300 & echo $! > {child}; echo done").run([(0, "x")]))) == "done"
    assert not _lives(child.read_text().strip())


def test_a_block_that_takes_long_is_cut_after_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_worker, "CUT_S", 0.0)
    outcomes, seconds = worker("true").run([(0, "a"), (1, "b")])
    assert len(outcomes) == 1
    assert seconds > 0


def test_an_item_ends_with_its_worker(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "from workloads.bodies.item_worker import ItemWorker, Task\n"
        f"made = ItemWorker(Task('sleep 300 & echo $! > {child}; wait', None, {{}}), 'T4', None)\n"
        "made.prepare()\nmade.run([(0, 'x')])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not (child.exists() and child.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    pid = child.read_text().strip()
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("mine")
def test_a_name_with_a_stray_byte_can_be_written_whether_it_is_a_result_or_an_error() -> None:
    outcome = one(worker(entrypoint="mine_items:stray").run([(0, "x")]))
    assert json.loads(outcome.line.encode())["result"] == "caf\udce9"
    outcome = one(worker(entrypoint="mine_items:breaks_over_it").run([(0, "x")]))
    assert outcome.error.encode() == b"OSError: no caf?"
