"""One inference replica: a model on one device that predicts blocks of rows, and finds the row that breaks a block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import WorkloadFailed
from ..job import Shard
from ..spec import BatchInfer
from .batching import length_batches, pad
from .emulation import Pacer

Columns = dict[str, list[Any]]


@dataclass
class BlockResult:
    """What came of a block: output columns for the rows `kept` (places within the block), and errors by place."""

    kept: list[int]
    columns: Columns
    errors: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: int = 0


def bisect(
    places: Sequence[int], predict: Callable[[Sequence[int]], Columns]
) -> tuple[list[int], Columns, dict[int, str]]:
    """Predict rows; where that raises, halve until the rows that raise stand alone.

    Returns (places predicted, their columns, error by place): a row is in exactly one of the first and the last.
    """
    if not places:
        return [], {}, {}
    try:
        return list(places), predict(places), {}
    except WorkloadFailed:
        raise
    except Exception as error:
        if len(places) == 1:
            return [], {}, {places[0]: f"{type(error).__name__}: {error}"}
    middle = len(places) // 2
    left, right = bisect(places[:middle], predict), bisect(places[middle:], predict)
    return left[0] + right[0], join(left[1], right[1]), left[2] | right[2]


def join(first: Columns, second: Columns) -> Columns:
    """Two sets of columns end to end; an empty one has no columns."""
    if not first or not second:
        return first or second
    return {name: first[name] + second[name] for name in first}


class Replica:
    """Loads the model once; then `predict` block after block. Runs as an actor in its shard's bundle."""

    def __init__(self, spec: dict[str, Any], shard: dict[str, Any]) -> None:
        import torch

        self._spec, self._shard = BatchInfer.model_validate(spec), Shard(**shard)
        torch.set_num_threads(max(1, self._shard.threads))
        self._pacer = Pacer(self._shard.emulated_speed)
        if self._spec.entrypoint is not None:
            self._predictor: _Predictor = _UserPredictor(self._spec, self._shard)
        else:
            self._predictor = _TextPredictor(self._spec, self._shard)

    def labels(self) -> list[str] | None:
        """The labels the model can predict; None for user code. Returns once the model is loaded."""
        return self._predictor.labels

    def predict(self, rows: Columns) -> BlockResult:
        """Predict a block, given as columns. One bad row costs only itself."""
        started = time.perf_counter()
        count = len(next(iter(rows.values())))
        self._predictor.tokens = 0
        places = list(range(count))
        bad = self._predictor.refuse(rows)
        good = [place for place in places if place not in bad]
        kept: list[int] = []
        columns: Columns = {}
        errors = dict(bad)
        for batch in self._predictor.batches(rows, good):
            done, values, raised = bisect(batch, lambda some: self._paced(rows, some))
            kept, columns, errors = kept + done, join(columns, values), errors | raised
        order = sorted(range(len(kept)), key=kept.__getitem__)
        columns = {name: [values[i] for i in order] for name, values in columns.items()}
        seconds = time.perf_counter() - started
        return BlockResult(sorted(kept), columns, errors, seconds, self._predictor.tokens)

    def _paced(self, rows: Columns, places: Sequence[int]) -> Columns:
        with self._pacer.pace():
            return self._predictor.predict(rows, places)


class _Predictor:
    labels: list[str] | None = None
    tokens = 0

    def refuse(self, rows: Columns) -> dict[int, str]:
        """Rows that cannot be predicted, with the reason."""
        del rows
        return {}

    def batches(self, rows: Columns, places: Sequence[int]) -> list[list[int]]:
        """Places that go through the model together."""
        raise NotImplementedError

    def predict(self, rows: Columns, places: Sequence[int]) -> Columns:
        """Output columns for these places."""
        raise NotImplementedError


class _TextPredictor(_Predictor):
    def __init__(self, spec: BatchInfer, shard: Shard) -> None:
        import torch

        from .classifier import load_classifier
        from .text import load_tokenizer

        self._torch, self._spec = torch, spec
        self._device = torch.device("cuda" if shard.resources.get("GPU", 0) and torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(spec.model or "")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.precision, torch.float32)
        self._model = load_classifier(spec.model or "").to(self._device, dtype)
        self.labels = list(self._model.labels)
        self._ids: dict[int, list[int]] = {}

    def refuse(self, rows: Columns) -> dict[int, str]:
        texts = rows[self._spec.text_column]
        return {
            place: f"{self._spec.text_column} is missing or not text"
            for place, text in enumerate(texts)
            if not isinstance(text, str)
        }

    def batches(self, rows: Columns, places: Sequence[int]) -> list[list[int]]:
        texts = rows[self._spec.text_column]
        order = length_batches([len(texts[place]) for place in places], self._spec.batch_size)
        return [[places[i] for i in batch] for batch in order]

    def predict(self, rows: Columns, places: Sequence[int]) -> Columns:
        from .text import tokenise

        torch = self._torch
        texts = [rows[self._spec.text_column][place] for place in places]
        ids, mask = pad(tokenise(self._tokenizer, texts, self._spec.max_length), self._tokenizer.pad_token_id)
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device))
            scores, best = logits.float().softmax(-1).max(-1)
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("the model's scores are not finite numbers")
        self.tokens += int(ids.size)
        labels = self.labels or []
        return {"prediction": [labels[i] for i in best.tolist()], "score": [float(score) for score in scores.tolist()]}


class _UserPredictor(_Predictor):
    def __init__(self, spec: BatchInfer, shard: Shard) -> None:
        from .usercode import load_entrypoint

        self._spec = spec
        place = {"device_type": shard.device_type, "model": spec.model, "threads": shard.threads}
        config = {**spec.hyperparameters, "raywise": place}
        try:
            self._call = load_entrypoint(spec.entrypoint or "")(config)
        except WorkloadFailed:
            raise
        except Exception as error:
            raise WorkloadFailed(f"{spec.entrypoint} cannot be made: {type(error).__name__}: {error}") from error

    def batches(self, rows: Columns, places: Sequence[int]) -> list[list[int]]:
        del rows
        size = self._spec.batch_size
        return [list(places[i : i + size]) for i in range(0, len(places), size)]

    def predict(self, rows: Columns, places: Sequence[int]) -> Columns:
        result = self._call({name: [values[place] for place in places] for name, values in rows.items()})
        columns = {str(name): list(values) for name, values in dict(result).items()}
        wrong = sorted(name for name, values in columns.items() if len(values) != len(places))
        if wrong or not columns:
            raise ValueError(f"{self._spec.entrypoint} returned {wrong or 'nothing'}: not one value for each row")
        return columns
