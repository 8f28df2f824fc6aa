"""Which rows stay, which labels there are, and that counts add up."""

from __future__ import annotations

import pytest
import ray

from workloads.bodies import preprocess
from workloads.bodies.preprocess import Split, labels_of
from workloads.bodies.tokenising import keep_rows, manifest_entry
from workloads.errors import WorkloadFailed


def split(name: str, *labels: str) -> Split:
    return Split(name, f"{name}.csv", labels={label: row for row, label in enumerate(labels)})


def test_rows_are_cleaned_and_every_one_that_goes_is_counted() -> None:
    kept = keep_rows(["  a  b ", " ", None, "c", "d", "e"], ["x", "x", "x", "oos", None, " y "], {"oos"})
    assert (kept.texts, kept.labels) == (["a b", "e"], ["x", "y"])
    assert (kept.empty, kept.dropped_label) == (3, 1)


def test_rows_without_a_label_column() -> None:
    kept = keep_rows(["a", ""], None, ())
    assert (kept.texts, kept.labels, kept.empty) == (["a"], [""], 1)


def test_labels_are_the_sorted_ones_of_train() -> None:
    assert labels_of([split("test", "a"), split("train", "b", "a")]) == ("a", "b")


def test_an_unseen_label_names_file_row_and_what_to_do() -> None:
    with pytest.raises(WorkloadFailed, match=r"test\.csv: .*: z \(first in row 1\); name them in drop_labels"):
        labels_of([split("train", "a", "b"), split("test", "a", "z")])


@pytest.mark.parametrize("labels", [(), ("a",)], ids=["no label", "one label"])
def test_one_class_is_nothing_to_learn(labels: tuple[str, ...]) -> None:
    with pytest.raises(WorkloadFailed, match="a classifier needs two or more"):
        labels_of([split("train", *labels)])


def test_a_manifest_entry_adds_its_blocks_up() -> None:
    blocks = [
        {"rows_in": 5, "rows_out": 4, "empty": 1, "dropped_label": 0, "tokens": 40, "max_tokens": 12, "bytes": 9},
        {"rows_in": 3, "rows_out": 1, "empty": 0, "dropped_label": 2, "tokens": 5, "max_tokens": 5, "bytes": 1},
    ]
    assert manifest_entry(blocks) == {
        "rows_in": 8,
        "rows_out": 5,
        "dropped": {"empty": 1, "label": 2},
        "tokens": 45,
        "mean_tokens": 9.0,
        "max_tokens": 12,
        "bytes": 10,
    }


WRAPPED = """ray::MapBatches(scaled)() (pid=7, ip=10.0.0.2)
  File "my_data.py", line 5, in scaled
TypeError: can't multiply sequence by non-int of type 'float'

The above exception was the direct cause of the following exception:

ray::MapBatches(scaled)() (pid=7, ip=10.0.0.2)
ray.exceptions.UserCodeException: UDF failed to process a data block.
To change retry attempts, configure `ray.data.DataContext.get_current()`."""


def test_an_error_of_a_users_function_is_told_in_the_users_words() -> None:
    wrapped = ray.exceptions.RayTaskError("scaled", WRAPPED, ray.exceptions.UserCodeException("To change ..."))
    assert preprocess._cause(wrapped) == "TypeError: can't multiply sequence by non-int of type 'float'"
    assert preprocess._cause(ValueError("no rows\nat all")) == "ValueError: at all"
    assert preprocess._cause(KeyError()) == "KeyError: "
