"""From YAML text to plain values: texts, finite numbers, true and false, nothing, dates, lists, and mappings whose keys
are texts. Whatever the text, it costs bounded time and memory. Used by `loading`.

The events of the text are counted first, by libyaml where it is there: only what is small and shallow is built. Aliases
and merge keys repeat what was built once, so the values are counted again, as often as they are repeated.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from .errors import Problem, SpecError

MAX_YAML_BYTES = 1 << 20
MAX_YAML_NODES = 50_000
MAX_DEPTH = 100
MAX_NUMBER_CHARS = 40
MAX_INT = 2**63
_WORDS_UP_TO = 1 << 16
"""An error in the first so many characters is told in the words of PyYAML's own parser, which is slower."""
_TOO_MANY = "too many nodes (aliases within aliases?)"
_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
_MERGE_TAG, _STRING_TAG = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_PLAIN = (bool, int, float, type(None), datetime.date, list)
_OF_TAGS = (AttributeError, LookupError, TypeError, ArithmeticError)
"""What PyYAML fails with at `!!int ''`, `!!bool x` and the like."""
_BROKEN = (yaml.YAMLError, RecursionError, ValueError, *_OF_TAGS)
"""A ValueError: a date of month 13."""
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Strict:
    """What both loaders refuse: keys given twice, numbers of absurd length, merges without end."""

    _merged = 0

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        pairs = node.value if isinstance(node, MappingNode) else []
        for key in (key for key, _ in pairs if isinstance(key, ScalarNode)):
            if key.value in seen and key.value != "<<":
                raise ConstructorError(None, None, f"field {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)  # type: ignore[misc]
        return found

    def flatten_mapping(self, node: Any) -> None:
        """Count what merge keys (`<<`) are about to copy: each level may be ten times the one below."""
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                bases = value.value if isinstance(value, SequenceNode) else [value]
                self._merged += sum(len(base.value) for base in bases if isinstance(base, MappingNode))
                if self._merged > MAX_YAML_NODES:
                    raise ConstructorError(None, None, "merge keys (<<) repeat too much", key.start_mark)
                if node in bases:
                    raise ConstructorError(None, None, "a mapping is merged into itself", key.start_mark)
        super().flatten_mapping(node)  # type: ignore[misc]

    def construct_yaml_int(self, node: Any) -> int:
        self._check_number(node)
        found: int = super().construct_yaml_int(node)  # type: ignore[misc]
        return found

    def construct_yaml_float(self, node: Any) -> float:
        self._check_number(node)
        found: float = super().construct_yaml_float(node)  # type: ignore[misc]
        return found

    def _check_number(self, node: Any) -> None:
        if isinstance(node.value, str) and len(node.value) > MAX_NUMBER_CHARS:
            raise ConstructorError(None, None, "a number with too many digits", node.start_mark)


class _FastLoader(_Strict, _FAST):  # type: ignore[misc]
    """The loader that is used."""


class _WordyLoader(_Strict, yaml.SafeLoader):
    """The loader that says best what is wrong."""


_LOADERS: tuple[Any, ...] = (_FastLoader, _WordyLoader)
for _loader in _LOADERS:
    _loader.add_constructor("tag:yaml.org,2002:int", _loader.construct_yaml_int)
    _loader.add_constructor("tag:yaml.org,2002:float", _loader.construct_yaml_float)


def yaml_value(text: str, file: str, field: str = "") -> Any:
    """What a YAML text says. Raises SpecError: where it is no YAML, or larger or of other things than described above.
    `field` stands for the place, where the text is no file."""
    try:
        _check_events(text)
        value = yaml.load(text, Loader=_FastLoader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        error = _in_words(text, error)
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark and not field else field
        hint = "use spaces, not tabs" if "\\t" in str(error.problem) else "check indentation and quotes"
        raise SpecError(Problem(f"not YAML: {error.problem}", where, hint, file)) from None
    except _BROKEN as error:
        said = "a value is not what its tag says" if isinstance(error, _OF_TAGS) else str(error).partition("\n")[0]
        raise SpecError(Problem(f"not YAML: {said}", field, file=file)) from None
    check_value(value, file, field)
    return value


def check_value(value: Any, file: str = "", field: str = "") -> None:
    """Raise SpecError unless these are plain values as described above, not too many, and not too deep. What is there
    several times is counted several times; a text also by its length."""
    nodes = 0
    for path, item, depth in _walk(value):
        nodes += 1 + (len(item) // 1000 if isinstance(item, str) else 0)
        if nodes > MAX_YAML_NODES or depth > MAX_DEPTH:
            problem = _TOO_MANY if nodes > MAX_YAML_NODES else _TOO_DEEP
            raise SpecError(Problem(f"not YAML: {problem}", field, file=file))
        message, hint = _wrong_with(item)
        if message:
            raise SpecError(Problem(message, field or _dotted(path), hint, file))


Path = tuple[Any, ...] | None
"""The last part, and the path before it."""


def _walk(value: Any) -> Iterator[tuple[Path, Any, int]]:
    waiting: list[tuple[Path, Any, int]] = [(None, value, 0)]
    while waiting:
        path, item, depth = waiting.pop()
        yield path, item, depth
        if isinstance(item, dict):
            waiting += [((key, path), each, depth + 1) for key, each in item.items()]
        elif isinstance(item, list):
            waiting += [((number, path), each, depth + 1) for number, each in enumerate(item)]


def _wrong_with(item: Any) -> tuple[str, str]:
    """What is wrong with one value, without those in it, and what to do about it."""
    if isinstance(item, dict):
        return next((found for found in map(_wrong_with_key, item) if found[0]), ("", ""))
    if isinstance(item, str):
        return _wrong_with_text(item), ""
    if isinstance(item, float) and not math.isfinite(item):
        return f"must be a finite number, got {item}", ""
    if isinstance(item, int) and abs(item) >= MAX_INT:
        return "a whole number has at most 63 bits", ""
    return ("", "") if isinstance(item, _PLAIN) else (f"a {type(item).__name__} is no value of a spec", "")


def _wrong_with_key(key: Any) -> tuple[str, str]:
    if not isinstance(key, str):
        what = str(key)[:MAX_NUMBER_CHARS] if isinstance(key, bool | float | None) else type(key).__name__
        return f"the name of a field is a text, not {what}", "write it in quotes"
    return _wrong_with_text(key), ""


def _wrong_with_text(text: str) -> str:
    if "\x00" in text:
        return "a text has no NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text has half of a surrogate pair, which is no character"
    return ""


def _dotted(path: Path) -> str:
    parts: list[str] = []
    while path is not None:
        parts.append(str(path[0]))
        path = path[1]
    return ".".join(reversed(parts))


def _check_events(text: str) -> None:
    """Raise ValueError for more nodes, or deeper ones, than a spec has; nothing is built yet. Raises YAMLError."""
    nodes = depth = 0
    for event in yaml.parse(text, Loader=_FAST):
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if nodes > MAX_YAML_NODES or depth > MAX_DEPTH:
            raise ValueError(_TOO_MANY if nodes > MAX_YAML_NODES else _TOO_DEEP)


def _in_words(text: str, error: yaml.MarkedYAMLError) -> yaml.MarkedYAMLError:
    """The same error by PyYAML's own parser, where it is found soon."""
    mark = error.problem_mark
    if mark is not None and mark.index < _WORDS_UP_TO:
        try:
            yaml.load(text[: 2 * _WORDS_UP_TO], Loader=_WordyLoader)  # noqa: S506  (a SafeLoader)
        except yaml.MarkedYAMLError as found:
            soon = found.problem_mark is not None and found.problem_mark.index < _WORDS_UP_TO
            return found if soon else error  # later: it is about where the text was cut
        except _BROKEN:
            return error
    return error
