"""What is wrong with a spec, in plain words: a field that does not fit its model, a name nobody knows, a path that is
no file. Used by `loading`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from .errors import Problem
from .spec import TextClassification

Kinds = Mapping[str, type[BaseModel]]
SHOWN_CHARS = 60
_COMPARED_CHARS, _COMPARED = 100, 1000
"""A name nobody knows is compared so far, and with so many: it takes the product of all the lengths."""
_SHOWN_FILES = 8
"""So many files of a folder are named in a hint."""


_EXPECTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a number",
    "string_type": "a text",
    "bool_": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_": "a mapping of fields",
}
"""What pydantic calls a type, by the start of the error's name, and we."""
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def problem_of(model: type[BaseModel], kinds: Kinds, data: Mapping[str, Any], item: Any, file: str) -> Problem:
    """One error of pydantic's as a problem of the file `data` is from."""
    location = _location(item["loc"])
    field = ".".join(_named(data, location))
    message, hint = _plain(item, location)
    if item["type"] == "extra_forbidden":
        message = f"unknown field {location[-1]!r}"
        hint = nearest(str(location[-1]), _fields_at(model, kinds, data, location))
    elif item["type"] == "union_tag_invalid":
        message, hint = f"unknown kind {item['ctx']['tag']}", f"kinds: {', '.join(k for k in kinds if k != 'pipeline')}"
        field += ".kind"
    elif item["type"] == "union_tag_not_found":
        message, field = "kind is missing", f"{field}.kind"
    return Problem(message, field, hint, file)


def _plain(item: Any, location: list[Any]) -> tuple[str, str]:
    """Message and hint for a value that does not fit, without the library's words."""
    kind, value, last = item["type"], item["input"], str(location[-1]) if location else ""
    if kind == "missing":
        return "is required", ""
    if kind == "literal_error":
        return _one_of(item, last)
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} is not allowed here", _pattern_hint(last)
    if location[:1] == ["params"]:
        return f"expected a text, a number or true or false, got {shown(value)}", ""
    money = isinstance(value, str) and value.strip().startswith("$")
    return _wanted(item), f"write {value.strip()[1:].strip()}, without the $" if money else ""


def _wanted(item: Any) -> str:
    """What is wanted in place of a value of the wrong type or size."""
    kind, got = item["type"], f", got {shown(item['input'])}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"must be {words} {str(item['ctx'][key]).removesuffix('.0')}{got}"
    if kind == "too_short":
        return "is empty: at least one is needed"
    start = next((start for start in _EXPECTED if kind.startswith(start)), None)
    return str(item["msg"]).removeprefix("Value error, ") if start is None else f"expected {_EXPECTED[start]}{got}"


def _one_of(item: Any, field: str) -> tuple[str, str]:
    words, value = re.findall(r"'([^']+)'", item["ctx"]["expected"]), str(item["input"])
    if field != "devices":
        return f"expected one of {', '.join(words)}, got {shown(item['input'])}", nearest(value, words)
    message = f"expected {', '.join(words)} or a list of device types, got {shown(item['input'])}"
    near = nearest(value, words)
    return message, f"{near} A device type is written [{value}]" if near.startswith("did") else f"write [{value}]"


def _location(parts: tuple[Any, ...]) -> list[Any]:
    """Where it is in the file: without the names pydantic puts in for the branches of a union."""
    location = list(parts)
    if location[:1] == ["steps"] and len(location) > 2:
        del location[2]  # the step's kind
    if "devices" in location and location[-1] != "devices":
        del location[location.index("devices") + 1]  # a word, a list or a mapping
    return location[:2] if location[:1] == ["params"] else location


def _pattern_hint(field: str) -> str:
    if field == "entrypoint":
        return "write package.module:function"
    return "use lower-case letters, digits and '-', at most 48 characters"


def shown(value: object) -> str:
    """A value as it is quoted in a message."""
    text = repr(value[:SHOWN_CHARS] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _named(data: Any, location: list[Any]) -> list[str]:
    """The location with a step's name in place of its number."""
    names = []
    for part in location:
        data = (
            data[part]
            if isinstance(data, list) and isinstance(part, int) and part < len(data)
            else (data.get(part) if isinstance(data, dict) else None)
        )
        named = isinstance(part, int) and isinstance(data, dict) and isinstance(data.get("name"), str)
        names.append(data["name"] if named and isinstance(data, dict) else str(part))
    return names


def _fields_at(model: type[BaseModel], kinds: Kinds, data: Any, location: list[Any]) -> list[str]:
    """Names of the fields known where an unknown one stood."""
    current: type[BaseModel] | None = model
    for part in location[:-1]:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
            current = kinds.get(str(data.get("kind"))) if isinstance(data, dict) else None
            continue
        data = data.get(part) if isinstance(data, dict) else None
        if part == "hyperparameters":
            current = TextClassification
        elif current is not None and part in current.model_fields and part != "steps":
            annotation = current.model_fields[part].annotation
            current = next((a for a in (annotation, *get_args(annotation)) if _is_model(a)), None)
    return list(current.model_fields) if current else []


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name nobody knows: the known one that is most like it, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name[:_COMPARED_CHARS].lower(), known[:_COMPARED], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else ""


def not_a_file(path: Path) -> Problem | None:
    """What is wrong with the path of a spec, if it is no file: a folder, a device, nothing, with the nearest name."""
    try:
        if path.is_file() or path.is_fifo():
            return None
    except OSError as error:  # a name that is too long
        return Problem(f"file cannot be read: {error.strerror}", file=str(path))
    if path.is_dir():
        names = _yaml_names(path)
        hint = f"name the file: {', '.join(names[:_SHOWN_FILES])}" if names else f"there is no YAML file in {path}"
        return Problem("is a folder, not a file", file=str(path), hint=hint)
    if path.exists():
        return Problem("is not a regular file", file=str(path), hint="a spec is a YAML file")
    folder = path.parent
    if not folder.is_dir():
        return Problem("file does not exist", file=str(path), hint=f"there is no folder {folder}")
    names = _yaml_names(folder)
    hint = nearest(path.name, names) if names else f"no YAML file in {folder.resolve()}"
    return Problem("file does not exist", file=str(path), hint=hint)


def _yaml_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.glob("*.y*ml"))
