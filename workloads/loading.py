"""From a YAML file to a validated spec: parse, `--set`, parameters, unknown fields with the nearest known one, paths.

Everything wrong with the text is found here, before anything else looks at it; what depends on files, models or devices
is checked at admission.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .errors import Problem, SpecError
from .items import is_range
from .refusals import nearest, not_a_file, problem_of, shown
from .spec import BatchInfer, Benchmark, Command, Pipeline, Preprocess, Serve, Train, WorkloadSpec
from .urls import is_url, unopenable
from .yaml_values import MAX_DEPTH, MAX_YAML_BYTES, check_value, yaml_value

__all__ = [
    "KINDS",
    "Submission",
    "apply_overrides",
    "is_url",
    "load_data",
    "load_file",
    "load_text",
    "references",
    "resolve_references",
    "seen_from_here",
    "too_long",
    "yaml_value",
]
KINDS: dict[str, type[BaseModel]] = {
    "preprocess": Preprocess,
    "train": Train,
    "batch-infer": BatchInfer,
    "serve": Serve,
    "command": Command,
    "benchmark": Benchmark,
    "pipeline": Pipeline,
}
INHERITED = ("objective", "priority", "queue")
REFERENCE = re.compile(r"\$\{([a-z0-9-]+)\.output\}")
_PARAMETER = re.compile(r"(?<!\$)\$\{([A-Za-z_]\w*)\}")
_ESCAPED = re.compile(r"\$(\$\{[A-Za-z_]\w*\})")
_SHELL_FIELD = re.compile(r"steps\.\d+\.(command|env\..*)")
"""Where `${NAME}` may also be a variable of the shell."""
MAX_OVERRIDES = 1000
MAX_PROBLEMS = 50
"""So many are told of a file, and at the most so many characters of each."""
MAX_PROBLEM_CHARS = 1000
MAX_SUBSTITUTED_CHARS = 1 << 20
"""A file has so many after its parameters were put in."""
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095


@dataclass(frozen=True)
class Submission:
    """What one file asks for: the steps in an order in which every step comes after those it needs."""

    name: str
    steps: tuple[WorkloadSpec, ...]
    is_pipeline: bool
    deadline: float | None = None
    budget_usd: float | None = None
    file: str = ""


def load_file(path: Path, overrides: Iterable[str] = ()) -> Submission:
    """The submission a YAML file describes, with `--set` overrides (`key=value`) applied. Raises SpecError."""
    if problem := not_a_file(path):
        raise SpecError(problem)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(Problem(f"file cannot be read: {error.strerror}", file=str(path))) from None
    if len(raw) > MAX_YAML_BYTES:
        raise SpecError(Problem(f"file has {len(raw):,} bytes; a spec has at most {MAX_YAML_BYTES:,}", file=str(path)))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(f"not UTF-8 text (byte {error.start})", file=str(path), hint="not YAML?")) from None
    overrides = [seen_from_here(override) for override in overrides]
    return load_text(text, base=path.resolve().parent, file=str(path), overrides=overrides)


def load_text(text: str, *, base: Path, file: str = "", overrides: Iterable[str] = ()) -> Submission:
    """Like `load_file` for YAML text; relative paths, those of overrides too, are relative to `base`."""
    data = _parse_yaml(text, file)
    apply_overrides(data, overrides, file)
    check_value(data, file)  # each was bearable; so must be all together
    return load_data(data, base=base, file=file)


def load_data(data: dict[str, Any], *, base: Path, file: str = "") -> Submission:
    """Like `load_file` for data that is already parsed (JSON, Python)."""
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind)[:MAX_NAME_BYTES], KINDS) if kind else f"add one of: {', '.join(KINDS)}"
        message = f"unknown kind {shown(kind)}" if kind else "kind is missing"
        raise SpecError(Problem(message, "kind", hint, file))
    if kind == "pipeline":
        return _load_pipeline(data, base, file)
    spec = _validate(KINDS[kind], data, file)
    _check_alone(spec, file)
    step = _absolute_paths(spec, base, file)
    return Submission(name=step.name, steps=(step,), is_pipeline=False, file=file)


def _load_pipeline(data: dict[str, Any], base: Path, file: str) -> Submission:
    params, steps = data.get("params"), data.get("steps")
    params = params if isinstance(params, dict) else {}
    _check_substituted(data, params, file)
    data = _substitute(data, params, file)
    for step in data["steps"] if isinstance(steps, list) else []:
        if isinstance(step, dict):
            for field in INHERITED:
                if field in data:
                    step.setdefault(field, data[field])
    pipeline = _validate(Pipeline, data, file)
    assert isinstance(pipeline, Pipeline)
    _check_needs(pipeline, file)
    steps = tuple(_absolute_paths(step, base, file) for step in _in_order(pipeline, file))
    return Submission(pipeline.name, steps, True, pipeline.deadline, pipeline.budget_usd, file)


def _parse_yaml(text: str, file: str) -> dict[str, Any]:
    if len(text) > MAX_YAML_BYTES:
        raise SpecError(Problem(f"{len(text):,} characters; a spec has at most {MAX_YAML_BYTES:,}", file=file))
    data = yaml_value(text, file)
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise SpecError(
            Problem(f"expected a mapping of fields, the file is {found}", hint="see examples/ for a spec", file=file)
        )
    return data


def apply_overrides(data: dict[str, Any], overrides: Iterable[str], file: str = "") -> None:
    """Apply `--set key=value` in place: a pipeline's parameter, or a dotted path such as
    `steps.train.hyperparameters.epochs`."""
    overrides = list(overrides)
    if len(overrides) > MAX_OVERRIDES:
        raise SpecError(Problem(f"{len(overrides):,} of them; there are at most {MAX_OVERRIDES:,}", "--set", file=file))
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals or not key or len(key) > MAX_PATH_BYTES or key.count(".") > MAX_DEPTH:
            problem = f"expected key=value, got {shown(override)}"
            raise SpecError(Problem(problem, "--set", "e.g. --set data=my/folder", file))
        value = yaml_value(raw, file, "--set") if raw else ""
        params = data.get("params")
        if isinstance(params, dict) and key in params:
            params[key] = value
        else:
            _set_path(data, key, value, file)


def seen_from_here(override: str) -> str:
    """`key=path` with the path made absolute, seen from the current folder, where it is written as one (with a `/`, or
    a `.` or `~` first) and exists. The client, which shares no code with us, does the same."""
    key, _, value = override.partition("=")
    if is_url(value) or not ("/" in value or value.startswith((".", "~"))):
        return override
    try:
        path = Path(value).expanduser()
        return f"{key}={path.resolve()}" if path.exists() else override
    except (OSError, ValueError, RuntimeError):  # too long for a path, a NUL byte, an unknown ~user
        return override


def _set_path(data: dict[str, Any], key: str, value: object, file: str) -> None:
    target: Any = data
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(target, list):
            target = next((item for item in target if isinstance(item, dict) and item.get("name") == part), None)
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        if not isinstance(target, dict | list):
            raise SpecError(Problem(f"there is no {part!r} in {key!r}", "--set", _set_hint(data), file))
    if not isinstance(target, dict) or (not parents and last not in _known_fields(data)):
        raise SpecError(Problem(f"there is no parameter or field {key!r}", "--set", _set_hint(data, key), file))
    target[last] = value


def _known_fields(data: Mapping[str, Any]) -> list[str]:
    model = KINDS.get(str(data.get("kind")))
    return list(model.model_fields) if model else list(data)


def _set_hint(data: Mapping[str, Any], key: str = "") -> str:
    params = data.get("params")
    names = [*(params if isinstance(params, dict) else {}), *_known_fields(data)]
    return nearest(key, names) if key else f"known: {', '.join(names)}"


def _check_substituted(data: Mapping[str, Any], params: Mapping[str, Any], file: str) -> None:
    """Raise SpecError where a long parameter is put in so often that the file would burst."""
    sizes = {name: len(str(value)) for name, value in params.items()}
    waiting, size = [value for name, value in data.items() if name != "params"], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += sum(sizes.get(name, 0) for name in _PARAMETER.findall(value))
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    if size > MAX_SUBSTITUTED_CHARS:
        problem = f"the parameters would be {size:,} characters where they are used; at most {MAX_SUBSTITUTED_CHARS:,}"
        raise SpecError(Problem(problem, "params", file=file))


def _substitute(value: Any, params: Mapping[str, Any], file: str, path: str = "") -> Any:
    """`${name}` becomes the parameter's value; a text that is nothing but `${name}` keeps its type. `$${name}` is the
    text `${name}`."""
    if isinstance(value, dict):
        inner = {k: _substitute(v, params, file, f"{path}.{k}".lstrip(".")) for k, v in value.items() if k != "params"}
        return inner | ({"params": value["params"]} if "params" in value else {})
    if isinstance(value, list):
        return [_substitute(item, params, file, f"{path}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in _PARAMETER.findall(value):
        if name not in params and not _SHELL_FIELD.fullmatch(path):
            hint = nearest(name, params) if params else "declare it under params:"
            raise SpecError(Problem(f"unknown parameter ${{{name}}}", path, hint, file))
    whole = _PARAMETER.fullmatch(value)
    if whole:
        return params.get(whole[1], value)
    value = _PARAMETER.sub(lambda match: str(params.get(match[1], match[0])), value)
    return _ESCAPED.sub(r"\1", value)


def _validate(model: type[BaseModel], data: Mapping[str, Any], file: str) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [problem_of(model, KINDS, data, item, file) for item in error.errors()[:MAX_PROBLEMS]]
        raise SpecError([_cut(each) for each in dict.fromkeys(problems)]) from None


def _cut(problem: Problem) -> Problem:
    """The problem, without what is longer than anybody reads."""
    parts = (problem.message, problem.field, problem.hint)
    message, field, hint = (
        part if len(part) <= MAX_PROBLEM_CHARS else part[: MAX_PROBLEM_CHARS - 3] + "..." for part in parts
    )
    return replace(problem, message=message, field=field, hint=hint)


def _check_needs(pipeline: Pipeline, file: str) -> None:
    names = [step.name for step in pipeline.steps]
    problems = []
    for step in pipeline.steps:
        field = f"steps.{step.name}.needs"
        problems += [
            Problem(f"needs {need!r}, which is no step", field, nearest(need, names), file)
            for need in step.needs
            if need not in names
        ]
        for reference in sorted(references(step)):
            if reference not in names:
                hint = nearest(reference, names)
                problems.append(Problem(f"${{{reference}.output}} names no step", f"steps.{step.name}", hint, file))
            elif reference not in step.needs:
                hint = f"add {reference} to its needs"
                problems.append(
                    Problem(f"uses ${{{reference}.output}} but does not need {reference!r}", field, hint, file)
                )
    if problems:
        raise SpecError(problems)


def _check_alone(step: Any, file: str) -> None:
    """A workload of its own has no steps to need."""
    problems = [Problem("there are no other steps", "needs", "use kind: pipeline", file)] if step.needs else []
    problems += [
        Problem(f"${{{name}.output}} names no step", "", "use kind: pipeline", file)
        for name in sorted(references(step))
    ]
    if problems:
        raise SpecError(problems)


def references(step: BaseModel) -> set[str]:
    """Names of the steps whose output a step uses."""
    return set(REFERENCE.findall(step.model_dump_json()))


def resolve_references(step: WorkloadSpec, outputs: Mapping[str, str]) -> WorkloadSpec:
    """The step with every `${name.output}` replaced by that step's output path."""

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        if isinstance(value, str):
            return REFERENCE.sub(lambda match: outputs[match[1]], value)
        return value

    return type(step).model_validate(replace(step.model_dump(mode="json")))


def _in_order(pipeline: Pipeline, file: str) -> list[WorkloadSpec]:
    waiting = {step.name: step for step in pipeline.steps}
    done: list[WorkloadSpec] = []
    while waiting:
        ready = [step for step in waiting.values() if not set(step.needs) & waiting.keys()]
        if not ready:
            circle = " -> ".join(_circle(waiting))
            raise SpecError(Problem(f"needs go round in a circle: {circle}", "steps", "remove one of them", file))
        done += ready
        for step in ready:
            del waiting[step.name]
    return done


def _circle(waiting: Mapping[str, WorkloadSpec]) -> list[str]:
    path = [next(iter(waiting))]
    while True:
        following = next(need for need in waiting[path[-1]].needs if need in waiting)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def too_long(path: str, field: str) -> Problem | None:
    """What is wrong with a path that no file system takes: the operating system would only raise OSError."""
    longest = max(len(os.fsencode(name)) for name in path.split("/"))
    if longest <= MAX_NAME_BYTES and len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return None
    return Problem(f"{shown(path)} is too long for a path", field, f"a name has at most {MAX_NAME_BYTES} bytes")


def _absolute_paths(step: Any, base: Path, file: str) -> Any:
    """The step with local paths made absolute, seen from the spec's folder."""

    def absolute(path: str, field: str) -> str:
        if problem := unopenable(path, field):
            raise SpecError(replace(problem, file=file))
        if is_url(path) or path.startswith("${"):
            return path
        if problem := too_long(path, field):
            raise SpecError(replace(problem, file=file))
        try:
            return str((base / Path(path).expanduser()).resolve())
        except (OSError, ValueError, RuntimeError) as error:
            raise SpecError(Problem(f"{path!r} is no path: {error}", field, file=file)) from None

    changes: dict[str, Any] = {}
    for field in ("input", "output", "code", "items"):
        value = getattr(step, field, None)
        if isinstance(value, str) and not (field == "items" and is_range(value)):
            changes[field] = absolute(value, field)
        elif isinstance(value, dict):
            changes[field] = {key: absolute(path, f"{field}.{key}") for key, path in value.items()}
    model = getattr(step, "model", None)
    if model is not None:
        if problem := unopenable(model, "model") or too_long(model, "model"):
            raise SpecError(replace(problem, file=file))
        local = model.startswith((".", "/", "~")) or (base / model).is_dir()
        changes["model"] = absolute(model, "model") if local else model
    if step.code is None and getattr(step, "entrypoint", None):
        changes["code"] = str(base)
    return step.model_copy(update=changes)
