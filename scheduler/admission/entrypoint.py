"""Whether the user's module has what `entrypoint: module:name` names, read without running it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from workloads.errors import Problem

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NESTED = (*_SCOPES, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MAKES_NAMES = frozenset({"exec", "globals", "locals", "vars", "setattr"})
"""Calls that may give a module names that nobody can read off it."""


def missing_name(path: Path, name: str) -> Problem | None:
    """What is wrong with this name of a module, or with the module itself; None where it is there or nobody can say: a
    module with `from x import *`, a `__getattr__` of its own, or names that are made while it runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape in a text is the user's business
            tree = ast.parse(path.read_bytes(), path.name)
        return _missing_from(tree, path, name)
    except (RecursionError, MemoryError):  # expressions nested too deep to be read
        return None
    except (SyntaxError, ValueError) as error:  # a ValueError for a NUL byte
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        message = f"{path.name}{where} is not Python: {error.msg if isinstance(error, SyntaxError) else error}"
        return Problem(message, "entrypoint")


def _missing_from(tree: ast.Module, path: Path, name: str) -> Problem | None:
    names = set(_names(tree))
    if name in names or _may_have_others(tree, names):
        return None
    own = [node.name for node in _outermost(tree) if isinstance(node, _SCOPES) and not node.name.startswith("_")]
    close = get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(own) or 'no function or class'}"
    return Problem(f"{path.name} has no function or class {name!r}", "entrypoint", hint)


def _outermost(node: ast.AST) -> Iterator[ast.AST]:
    """What runs in the module's own scope: within its `if`, `try` and `with`, not within its functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _NESTED):
            yield from _outermost(child)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in _outermost(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in aliases)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names


def _may_have_others(tree: ast.Module, names: set[str]) -> bool:
    if "*" in names or "__getattr__" in names:
        return True
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id in _MAKES_NAMES for called in calls)
