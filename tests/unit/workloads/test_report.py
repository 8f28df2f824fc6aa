"""Metrics against values computed by hand."""

from __future__ import annotations

import pytest

from workloads.bodies.report import ClassScore, classification_report

LABELS = ["a", "a", "a", "b", "b", "c"]
PREDICTIONS = ["a", "a", "b", "b", "a", "b"]


def test_precision_recall_and_f1_by_class() -> None:
    report = classification_report(LABELS, PREDICTIONS)
    # a: predicted 3 times, 2 right; b: predicted 3 times, 1 right; c: never predicted.
    assert report.classes["a"] == ClassScore(precision=2 / 3, recall=2 / 3, f1=pytest.approx(2 / 3), support=3)
    assert report.classes["b"] == ClassScore(precision=1 / 3, recall=1 / 2, f1=pytest.approx(0.4), support=2)
    assert report.classes["c"] == ClassScore(precision=0.0, recall=0.0, f1=0.0, support=1)
    assert report.accuracy == pytest.approx(0.5)
    assert report.macro_f1 == pytest.approx((2 / 3 + 0.4) / 3)


def test_the_confusion_matrix_counts_every_row_once() -> None:
    report = classification_report(LABELS, PREDICTIONS)
    assert report.confusion == {("a", "a"): 2, ("a", "b"): 1, ("b", "b"): 1, ("b", "a"): 1, ("c", "b"): 1}
    assert report.confusion_rows() == [
        ["label", "a", "b", "c"],
        ["a", "2", "1", "0"],
        ["b", "1", "1", "0"],
        ["c", "0", "1", "0"],
    ]


def test_a_label_the_model_does_not_know_is_wrong_and_named() -> None:
    report = classification_report(["a", "z", "z"], ["a", "a", "a"], known_labels=["a", "b"])
    assert report.accuracy == pytest.approx(1 / 3)
    assert report.unknown_labels == {"z": 2}
    assert report.to_json()["unknown_labels"] == {"z": 2}


def test_a_class_that_is_only_predicted_has_no_score_of_its_own() -> None:
    report = classification_report(["a", "a"], ["a", "b"])
    assert list(report.classes) == ["a"]
    assert report.macro_f1 == pytest.approx(2 / 3)


def test_no_rows_are_no_error() -> None:
    assert classification_report([], []).accuracy == 0.0
