"""The record of items that are done: each once, whatever the last attempt left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workloads.bodies.item_results import FAILED, MANIFEST, RESULTS, FailedItem, Results
from workloads.errors import WorkloadFailed

ITEMS = [f"item-{number}" for number in range(10)]


def line(index: int, item: str | None = None) -> str:
    return json.dumps({"index": index, "item": item or ITEMS[index], "device_type": "T4", "result": index})


def filled(folder: Path, *indices: int) -> None:
    results = Results(folder, "w", ITEMS)
    results.add(indices, [line(index) for index in indices], "T4")
    results.close()


def test_the_next_attempt_knows_what_is_done(tmp_path: Path) -> None:
    filled(tmp_path, 3, 1)
    filled(tmp_path, 7)
    again = Results(tmp_path, "w", ITEMS)
    again.close()
    assert again.done == {1, 3, 7}
    assert again.by_device == {"T4": 3}


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(line(5)[:-7], id="a torn line"),
        pytest.param(line(5, "another item") + "\n", id="an item that is another now"),
        pytest.param(line(3) + "\n", id="an item twice"),
        pytest.param('{"index": 99, "item": "x"}\n', id="an item that is not there"),
        pytest.param("[1]\n", id="no record"),
        pytest.param("\x00\x00\n", id="no JSON"),
    ],
)
def test_what_is_no_result_is_left_out_for_good(tmp_path: Path, left: str) -> None:
    filled(tmp_path, 3, 1)
    with open(tmp_path / RESULTS, "a") as file:
        file.write(left)
    filled(tmp_path, 5)
    records = [json.loads(each) for each in (tmp_path / RESULTS).read_text().splitlines()]
    assert [record["index"] for record in records] == [3, 1, 5]
    assert not list(tmp_path.glob(".results*"))


def test_another_workloads_results_are_not_ours(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    other = Results(tmp_path, "another", ITEMS)
    other.close()
    assert other.done == set()
    assert (tmp_path / RESULTS).read_text() == ""


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("mine\n")
    with pytest.raises(WorkloadFailed, match="holds what Raywise did not write"):
        Results(tmp_path, "w", ITEMS)
    assert (tmp_path / RESULTS).read_text() == "mine\n"


def test_the_manifest_names_what_failed_and_an_attempt_forgets_the_failures_of_the_last(tmp_path: Path) -> None:
    results = Results(tmp_path, "w", ITEMS)
    results.add([0], [line(0)], "T4")
    for index in (4, 2):
        results.add_failed(FailedItem(index, ITEMS[index], "why", 2))
    results.finish(1.5)
    results.close()
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert (manifest["items"], manifest["succeeded"], manifest["failed"]) == (10, 1, 2)
    assert [each["index"] for each in manifest["failed_items"]] == [2, 4]
    assert [json.loads(each)["index"] for each in (tmp_path / FAILED).read_text().splitlines()] == [4, 2]
    Results(tmp_path, "w", ITEMS).close()
    assert not (tmp_path / FAILED).exists()
