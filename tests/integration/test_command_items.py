"""Commands over many items on a real cluster: each item once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Attempt, Driver, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

A100 = "A100-SXM4-40GB"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with functions of one item."""
    folder = tmp_path_factory.mktemp("item-code")
    (folder / "work.py").write_text(
        """
import os, pathlib, time

OUTPUT = pathlib.Path(os.environ.get("RAYWISE_OUTPUT", "."))


def square(item):
    return item * item


def slow(item):
    time.sleep(0.02)
    return item


def odd_ones_fail_once(item):
    mark = pathlib.Path(os.environ["RAYWISE_OUTPUT"], f"tried-{item}")
    if item % 2 and not mark.exists():
        mark.touch()
        raise ValueError("the first time")
    return os.getpid()


def dies_of_seven(item):
    if item == 7:
        os._exit(1)
    return item


def never(item):
    raise RuntimeError("broken")
"""
    )
    return folder


def spec(items: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "command", "items": items, **fields}


def results(attempt: Attempt) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (attempt.output / "results.jsonl").read_text().splitlines()]


def manifest(attempt: Attempt) -> Any:
    return json.loads((attempt.output / "manifest.json").read_text())


def test_a_function_over_a_range_on_two_device_types(driver: Driver, nodes: Nodes, code: Path) -> None:
    shards = [nodes.shard("T4"), nodes.shard("T4"), nodes.shard(A100)]
    attempt = driver.run("squares", spec("1..3000", entrypoint="work:slow"), shards, code=code)
    assert attempt.done["rows"] == 3000
    found = results(attempt)
    assert Counter(each["index"] for each in found) == dict.fromkeys(range(3000), 1)
    assert all(each["result"] == each["index"] + 1 == int(each["item"]) for each in found)
    assert set(manifest(attempt)["by_device"]) == {"T4", A100}
    assert [record["phase"] for record in attempt.kinds("phase")][:2] == ["starting", "running"]
    last = attempt.kinds("rows")[-1]
    assert (last["rows"], last["total_rows"], sum(last["by_device"].values())) == (3000, 3000, 3000)
    assert sum(record["samples"] for record in attempt.kinds("timing")) == 3000


def test_shell_items_from_a_file(driver: Driver, nodes: Nodes, tmp_path: Path) -> None:
    items = tmp_path / "items"
    items.write_text("a b\nc'd\n$HOME\n")
    command = 'printf "%s|" {item} "$RAYWISE_ITEM" $RAYWISE_ITEM_INDEX $RAYWISE_DEVICE_TYPE'
    attempt = driver.run("shell-items", spec(str(items), command=command), [nodes.shard("T4")])
    assert {each["index"]: each["result"] for each in results(attempt)} == {
        0: "a b|a b|0|T4|",
        1: "c'd|c'd|1|T4|",
        2: "$HOME|$HOME|2|T4|",
    }


def test_items_that_fail_are_tried_again_on_workers_that_stay(driver: Driver, nodes: Nodes, code: Path) -> None:
    attempt = driver.run("again", spec("1..40", entrypoint="work:odd_ones_fail_once"), [nodes.shard("T4")], code=code)
    assert attempt.done["metrics"] == {"items": 40, "failed": 0}
    assert len({each["result"] for each in results(attempt)}) == 1


def test_an_item_that_kills_its_worker_fails_alone(driver: Driver, nodes: Nodes, code: Path) -> None:
    given = spec("1..300", entrypoint="work:dies_of_seven", max_failed=1)
    attempt = driver.run("deadly", given, [nodes.shard("T4"), nodes.shard(A100)], code=code)
    assert attempt.done["metrics"] == {"items": 300, "failed": 1}
    assert sorted(int(each["item"]) for each in results(attempt)) == [n for n in range(1, 301) if n != 7]
    (failed,) = manifest(attempt)["failed_items"]
    assert (failed["item"], failed["tries"]) == ("7", 2)
    assert "died" in failed["error"]


def test_too_many_failures_fail_the_run_when_the_others_are_done(driver: Driver, nodes: Nodes) -> None:
    given = spec(["1", "2", "0", "3"], command="echo working; exit $((RAYWISE_ITEM == 0 ? 5 : 0))", item_retries=0)
    attempt = driver.run("one-fails", given, [nodes.shard("T4")])
    assert attempt.code == 4
    assert len(results(attempt)) == 3
    failed = attempt.kinds("failed")[0]
    assert failed["retryable"]
    assert failed["message"].startswith("1 of 4 items failed, and 0 may; item '0' (number 2): the command ended with")
    assert json.loads((attempt.output / "failed.jsonl").read_text())["item"] == "0"


def test_what_can_never_succeed_stops_early(driver: Driver, nodes: Nodes, code: Path) -> None:
    attempt = driver.run("never", spec("1..100000", entrypoint="work:never"), [nodes.shard("T4")], code=code)
    assert attempt.code == 3
    assert "none of the first" in attempt.kinds("failed")[0]["message"]
    assert "RuntimeError: broken" in attempt.kinds("failed")[0]["message"]


def test_an_entrypoint_that_cannot_be_imported_is_final(driver: Driver, nodes: Nodes, code: Path) -> None:
    attempt = driver.run("no-entry", spec("1..9", entrypoint="work:sqare"), [nodes.shard("T4")], code=code)
    assert attempt.code == 3
    assert "did you mean square?" in attempt.kinds("failed")[0]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_the_next_attempt_does_what_is_missing_and_no_item_twice(
    driver: Driver, nodes: Nodes, tmp_path: Path, number: signal.Signals
) -> None:
    name = f"resumed-{number.name.lower()}"
    command = f"echo {{item}} >> {tmp_path}/done; sleep 0.02; echo $$ > {tmp_path}/last"
    process = driver.start(name, spec("1..400", command=command), [nodes.shard("T4"), nodes.shard("T4")])
    driver.wait_for(name, lambda record: record["kind"] == "rows" and record["rows"] >= 20)
    process.send_signal(number)
    driver.finish(name, process)
    before = (driver.folder / name / "output" / "results.jsonl").read_text().splitlines()
    assert before
    attempt = driver.run(name, spec("1..400", command=command), [nodes.shard(A100)], attempt=2)
    assert attempt.done["rows"] == 400
    found = results(attempt)
    assert sorted(int(each["item"]) for each in found) == list(range(1, 401))
    assert (attempt.output / "results.jsonl").read_text().splitlines()[: len(before)] == before
    assert attempt.kinds("resumed")[-1]["rows"] == len(before)
    twice = [item for item, count in Counter((tmp_path / "done").read_text().split()).items() if count > 1]
    assert len(twice) <= 400 - len(before)
    assert not {int(item) for item in twice} & {json.loads(line)["index"] + 1 for line in before}


def test_a_worker_that_is_killed_loses_no_item(driver: Driver, nodes: Nodes, code: Path) -> None:
    shards = [nodes.shard("T4"), nodes.shard(A100)]
    process = driver.start("killed-worker", spec("1..1500", entrypoint="work:slow"), shards, code=code)
    driver.wait_for("killed-worker", lambda record: record["kind"] == "rows" and record["rows"] >= 50)
    os.kill(nodes.processes("ray::ItemWorker")[0], signal.SIGKILL)
    attempt = driver.finish("killed-worker", process)
    assert attempt.done["metrics"] == {"items": 1500, "failed": 0}
    assert Counter(each["index"] for each in results(attempt)) == dict.fromkeys(range(1500), 1)
    assert any("died" in record["message"] for record in attempt.kinds("note"))


def test_a_shell_item_ends_with_its_driver(driver: Driver, nodes: Nodes, tmp_path: Path) -> None:
    child = tmp_path / "child"
    process = driver.start(
        "item-long", spec("1..3", command=f"sleep 300 & echo $! > {child}; wait"), [nodes.shard("T4")]
    )
    deadline = time.monotonic() + 90
    while not (child.exists() and child.read_text().strip()):
        assert time.monotonic() < deadline, (driver.folder / "item-long" / "log").read_text()
        time.sleep(0.1)
    running = Path("/proc", child.read_text().strip())
    process.send_signal(signal.SIGKILL)
    driver.finish("item-long", process)
    while running.exists() and "sleep" in (running / "cmdline").read_text():
        assert time.monotonic() < deadline, "the item outlived its driver"
        time.sleep(0.1)
