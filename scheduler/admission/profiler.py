"""The real `Profiler`: reads the input and the model's config and says what the work is, in numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from workloads.bodies.batching import steps_per_epoch, total_steps
from workloads.errors import Problem, SpecError
from workloads.items import is_range, read_items
from workloads.models import is_hub_id, resolve_model
from workloads.remote import is_remote
from workloads.spec import BatchInfer, Benchmark, Command, Precision, Preprocess, Serve, Train, WorkloadSpec

from ..engine.profiler import Upstream
from ..estimate.model_profile import Untraceable, profile_model
from ..estimate.profile import ModelProfile
from ..estimate.work import Work
from .shapes import Promised, Shape, inspect, local_model, shape_of, tokenised_splits

BENCHMARK_S = 10.0
"""What the benchmark body keeps to on each device."""
BYTES_PER_TOKEN = 4.0
"""Of a tokenised row in Parquet: an int32 a token, before compression."""
MOST_FILES = 10_000
"""That are looked at to know the size of an input."""


class FileProfiler:
    """Looks at files as they are now; `promised` holds what earlier steps are going to write."""

    def __init__(self, promised: Promised | None = None) -> None:
        self._promised = promised or Promised()

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        """The work in numbers. Raises SpecError with the field that is wrong."""
        family = _family(spec, {each.output for each in upstream.values()} | self._promised.outputs)
        match spec:
            case Preprocess():
                return self._preprocess(spec, family)
            case Train():
                return self._train(spec, family)
            case BatchInfer():
                return self._infer(spec, family)
            case Command():
                return self._command(spec, family)
            case Benchmark():
                seconds = BENCHMARK_S * spec.resources.count_range.low  # a host measures its shards in turn
                return Work("benchmark", family="benchmark", declared_s=spec.expected_runtime or seconds)
            case Serve():
                raise SpecError(Problem("serving is not there yet", "kind", "use batch-infer for a table of rows"))

    def _command(self, spec: Command, family: str) -> Work:
        if spec.items is None:
            size = input_bytes(spec.input)
            return Work("command", family=family, declared_s=spec.expected_runtime, input_bytes=size)
        if isinstance(spec.items, str) and not is_range(spec.items) and self._promised.unwritten(spec.items):
            return replace(self._later("command", family, "fp32", spec.expected_runtime), items=True)
        count = len(read_items(spec.items))
        return Work("command", family=family, samples=float(count), items=True, declared_s=spec.expected_runtime)

    def _preprocess(self, spec: Preprocess, family: str) -> Work:
        splits = spec.input if isinstance(spec.input, dict) else {"train": spec.input}
        shapes = {}
        for name, path in splits.items():
            where = f"input.{name}" if isinstance(spec.input, dict) else "input"
            text = None if spec.entrypoint else spec.text_column
            info = inspect(path, where, text, None if spec.entrypoint else spec.label_column)
            if spec.entrypoint or spec.model is None:
                shapes[name] = Shape(info.rows, size_bytes=info.size_bytes)
            else:
                _require_model(spec.model)
                shapes[name] = shape_of(info, spec.model, spec.max_length, frozenset(spec.drop_labels))
            if shapes[name].rows == 0:
                raise SpecError(Problem(f"{path} has no rows", where, "every row is dropped, or the file is empty"))
        if spec.entrypoint is None and spec.label_column is not None:
            _check_labels(splits, shapes)
        if spec.output is not None:
            self._promised.splits[spec.output] = shapes
        rows = sum(shape.rows for shape in shapes.values())
        rates = [shape.rows_per_core_s for shape in shapes.values() if shape.rows_per_core_s]
        return Work(
            "preprocess",
            family=family if spec.entrypoint else "tokenise",
            samples=rows,
            rows_per_core_s=min(rates) if rates else None,
            declared_s=spec.expected_runtime,
            output_bytes=sum(s.size_bytes + s.rows * (s.mean_tokens or 0) * BYTES_PER_TOKEN for s in shapes.values()),
        )

    def _train(self, spec: Train, family: str) -> Work:
        if spec.output is not None and spec.model is not None:
            self._promised.models[spec.output] = spec.model
        if spec.entrypoint is not None:
            size = input_bytes(spec.input)
            return Work("train", family, spec.precision, declared_s=spec.expected_runtime, input_bytes=size)
        assert spec.input is not None
        assert spec.model is not None
        model = self._promised.model(spec.model)
        if self._promised.unwritten(spec.input) and spec.input not in self._promised.splits:
            _require_model(model)
            return self._later("train", spec.name, spec.precision, spec.expected_runtime)
        profile, host_profile, note = _profiles(model, training=True, precision=spec.precision)
        splits = tokenised_splits(spec.input, self._promised)
        if "train" not in splits or "validation" not in splits:
            raise SpecError(
                Problem(f"needs the splits train and validation, {spec.input} has {', '.join(splits)}", "input")
            )
        parameters = spec.text_classification
        train, validation = splits["train"], splits["validation"]
        tokens = min(train.mean_tokens or parameters.max_length, float(parameters.max_length))
        batch_size = min(parameters.batch_size, max(train.rows, 1))
        rows = max(train.rows, 1)
        steps = total_steps(rows, batch_size, parameters.epochs, parameters.max_steps)
        full, rest = divmod(steps, steps_per_epoch(rows, batch_size))
        return Work(
            "train",
            family=profile.family if profile else family,
            precision=spec.precision,
            samples=float(min(train.rows * parameters.epochs, full * train.rows + rest * batch_size)),
            evaluation_samples=float(validation.rows * (full + (rest > 0))),
            tokens_per_sample=tokens,
            longest_tokens=min(train.longest_tokens or parameters.max_length, float(parameters.max_length)),
            batch_size=batch_size,
            profile=profile,
            host_profile=host_profile,
            declared_s=spec.expected_runtime,
            checkpoint_every_s=spec.checkpoint_every,
            output_bytes=profile.parameters * 4.0 if profile else 0.0,
            note=note,
        )

    def _infer(self, spec: BatchInfer, family: str) -> Work:
        shape = self._promised.table(spec.input)
        if shape is None and self._promised.unwritten(spec.input):
            if spec.model is not None and spec.entrypoint is None:
                _require_model(self._promised.model(spec.model))
            return self._later("batch-infer", spec.name, spec.precision, spec.expected_runtime)
        if spec.entrypoint is not None:
            rows = shape.rows if shape is not None else inspect(spec.input, "input", None, None).rows
            return Work("batch-infer", family, spec.precision, _at_most(rows, spec), declared_s=spec.expected_runtime)
        assert spec.model is not None
        base = self._promised.model(spec.model)
        profile, host_profile, note = _profiles(base, training=False, precision=spec.precision)
        if shape is None:
            info = inspect(spec.input, "input", spec.text_column, spec.label_column)
            shape = shape_of(info, base, spec.max_length, frozenset(spec.drop_labels))
        if shape.rows == 0:
            raise SpecError(Problem(f"{spec.input} has no rows", "input"))
        return Work(
            "batch-infer",
            family=profile.family if profile else family,
            precision=spec.precision,
            samples=_at_most(shape.rows, spec),
            tokens_per_sample=shape.mean_tokens,
            longest_tokens=shape.longest_tokens or float(spec.max_length),
            batch_size=spec.batch_size,
            profile=profile,
            host_profile=host_profile,
            declared_s=spec.expected_runtime,
            output_bytes=shape.size_bytes * _at_most(shape.rows, spec) / shape.rows,
            note=note,
        )

    @staticmethod
    def _later(kind: str, family: str, precision: str, declared_s: float | None) -> Work:
        """Work on what an earlier step is going to write: it is measured when that is there."""
        note = "its input is not written yet: predicted when the step before is done"
        return Work(kind, family=family, precision=precision, declared_s=declared_s, note=note)


def _at_most(rows: int, spec: BatchInfer) -> float:
    return float(rows if spec.max_rows is None else min(rows, spec.max_rows))


def _family(spec: WorkloadSpec, outputs: Collection[str]) -> str:
    """What is learnt of a command, the user's own code or a model that cannot be traced is kept for just that: its name
    with a digest of what decides, beside the size of its input, how long it takes. `outputs` are the folders that
    other steps write to, which are others in every run."""
    data = spec.model_dump(mode="json", exclude_defaults=True)
    what = data.get("command") or data.get("entrypoint") or ""
    names = ("model", "env", "hyperparameters") if what else ("model", "max_length", "precision")
    arguments = {name: data[name] for name in names if data.get(name)}
    text = "\n".join([what, json.dumps(arguments, sort_keys=True, ensure_ascii=False)] if arguments else [what])
    for folder in sorted(set(outputs) - {spec.output}, key=len, reverse=True):
        text = text.replace(folder, "${output}")
    return f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def input_bytes(given: Mapping[str, str] | str | None) -> float:
    """Bytes of the files that are given, or lie below the folders that are; 0 where one is not there, on other storage,
    or has more than MOST_FILES."""
    paths = [given] if isinstance(given, str) else list((given or {}).values())
    if any(is_remote(path) for path in paths):
        return 0.0
    sizes = [_path_bytes(Path(path.removeprefix("file://"))) for path in paths]
    return 0.0 if None in sizes else float(sum(size for size in sizes if size))


def _path_bytes(path: Path) -> int | None:
    try:
        if not path.is_dir():
            return path.stat().st_size
        files = list(islice((each for each in path.rglob("*") if each.is_file()), MOST_FILES + 1))
        return sum(each.stat().st_size for each in files) if len(files) <= MOST_FILES else None
    except OSError:
        return None


def _profiles(
    model: str, *, training: bool, precision: Precision
) -> tuple[ModelProfile | None, ModelProfile | None, str]:
    """The model as it runs on an accelerator and on a host, or why it cannot be traced: its speed is then only known
    from earlier runs or from the user. Raises SpecError where there is no such model."""
    _require_model(model)
    try:
        on_device = profile_model(local_model(model), training=training, precision=precision)
        on_host = profile_model(local_model(model), training=training, precision=precision, accelerator=False)
    except Untraceable as error:
        return None, None, f"the model cannot be traced ({error}): no prediction before it has run"
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(Problem(f"model {model} cannot be built: {reason}", "model")) from None
    return on_device, on_host if training else None, ""


def _require_model(model: str) -> None:
    try:
        resolve_model(local_model(model))
    except OSError as error:
        hint = "a local folder, package:NAME or a hub id such as org/name"
        raise SpecError(Problem(str(error), "model", hint)) from None
    if is_hub_id(model):
        _require_hub_model(model)


def _require_hub_model(model: str) -> None:
    """A hub id is tried now (its config is a few kilobytes), not when devices are already held."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        hint = "a local folder? there is none of that name. A hub id? the hub does not answer or has no such model"
        raise SpecError(Problem(f"model {model} cannot be found: {reason}", "model", hint)) from None


def _check_labels(splits: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    if "train" not in shapes:
        return
    known = shapes["train"].labels
    if len(known) < 2:
        found = ", ".join(sorted(known)) or "none"
        raise SpecError(Problem(f"{splits['train']} has fewer than two labels: {found}", "label_column"))
    problems = []
    for name, shape in shapes.items():
        unseen = sorted(shape.labels - known)
        if unseen:
            shown = ", ".join(unseen[:5]) + (" ..." if len(unseen) > 5 else "")
            hint = f"add rows to train, or leave them out with drop_labels: [{shown}]"
            problems.append(Problem(f"{splits[name]} has labels unseen in training: {shown}", f"input.{name}", hint))
    if problems:
        raise SpecError(problems)
