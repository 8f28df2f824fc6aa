"""How good predictions are: accuracy, precision, recall and F1 by class, and the confusion matrix. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    """One class: the share of its predictions that are right, of its rows that were found, and how many rows it has."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Report:
    """A comparison of labels with predictions. `confusion[(label, prediction)]` counts rows."""

    rows: int
    accuracy: float
    macro_f1: float
    classes: dict[str, ClassScore]
    confusion: dict[tuple[str, str], int]
    unknown_labels: dict[str, int]
    """Labels in the data that the model cannot predict, with their rows: every one of those counts as wrong."""

    def to_json(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {
            "rows": self.rows,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "unknown_labels": self.unknown_labels,
            "classes": {name: vars(score) for name, score in self.classes.items()},
        }

    def confusion_rows(self) -> list[list[str]]:
        """`confusion.csv`: a header, then one line a label; columns are predictions."""
        names = sorted({name for pair in self.confusion for name in pair})
        header = ["label", *names]
        return [header, *([label, *(str(self.confusion.get((label, p), 0)) for p in names)] for label in names)]


def classification_report(
    labels: Sequence[str], predictions: Sequence[str], known_labels: Sequence[str] | None = None
) -> Report:
    """Compare row by row. Macro F1 is the mean over the classes that have rows; a class without predictions has
    precision 0, as in scikit-learn."""
    confusion = Counter(zip(labels, predictions, strict=True))
    support, predicted = Counter(labels), Counter(predictions)
    classes = {name: _score(confusion[name, name], predicted[name], support[name]) for name in sorted(support)}
    right = sum(count for (label, prediction), count in confusion.items() if label == prediction)
    unknown = sorted(set(support) - set(known_labels)) if known_labels is not None else []
    return Report(
        rows=len(labels),
        accuracy=right / len(labels) if labels else 0.0,
        macro_f1=sum(score.f1 for score in classes.values()) / len(classes) if classes else 0.0,
        classes=classes,
        confusion=dict(confusion),
        unknown_labels={name: support[name] for name in unknown},
    )


def _score(hits: int, predicted: int, support: int) -> ClassScore:
    precision = hits / predicted if predicted else 0.0
    recall = hits / support if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassScore(precision, recall, f1, support)
