"""Which names of a user's module are found without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.admission.checks import code
from scheduler.admission.entrypoint import missing_name
from workloads.errors import Problem
from workloads.spec import Train


def checked(folder: Path, source: str, name: str = "loop") -> Problem | None:
    (folder / "my_loop.py").write_text(source)
    return missing_name(folder / "my_loop.py", name)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def loop(config): ...", id="a function"),
        pytest.param("async def loop(config): ...", id="an asynchronous function"),
        pytest.param("class loop: ...", id="a class"),
        pytest.param("loop = lambda config: None", id="an assignment"),
        pytest.param("loop: object = print", id="an assignment with a type"),
        pytest.param("first, (loop, *rest) = things()", id="one of several"),
        pytest.param("from other import loop", id="an import"),
        pytest.param("from other import train as loop", id="an import by another name"),
        pytest.param("import loop.inner", id="an imported package"),
        pytest.param("if True:\n    def loop(config): ...", id="within if"),
        pytest.param("try:\n    from a import loop\nexcept ImportError:\n    loop = None", id="within try"),
        pytest.param("with x as loop: ...", id="by with"),
        pytest.param("def make():\n    global loop\n    loop = 1\nmake()", id="global in a function"),
        pytest.param("from other import *", id="a star import may bring it"),
        pytest.param("def __getattr__(name): ...", id="a module with __getattr__ may have it"),
        pytest.param("globals()['lo' + 'op'] = print", id="names made while it runs"),
        pytest.param("TEXT = '\\d'\ndef loop(config): ...", id="beside a doubtful text"),
        pytest.param("X = " + "-" * 5000 + "1", id="nested too deep to be read"),
        pytest.param("exec(open('more.py').read())", id="code of elsewhere"),
    ],
)
def test_a_name_that_is_there_or_may_be_there_passes(tmp_path: Path, source: str) -> None:
    assert checked(tmp_path, source) is None


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        pytest.param("def lop(config): ...", "did you mean 'lop'?", id="a slip of the pen"),
        pytest.param("def train(config): ...\nclass Other: ...", "it has: train, Other", id="others"),
        pytest.param("X = 1\ndef _hidden(): ...", "it has: no function or class", id="nothing to call"),
        pytest.param("def outer():\n    def loop(): ...", "it has: outer", id="within a function"),
        pytest.param("class Outer:\n    def loop(self): ...", "it has: Outer", id="a method"),
        pytest.param("def outer():\n    loop = 1", "it has: outer", id="a local variable"),
        pytest.param("all = [loop for loop in ()]", "it has: no function or class", id="a comprehension's variable"),
        pytest.param("print(loop)", "it has: no function or class", id="only used"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path, source: str, hint: str) -> None:
    found = checked(tmp_path, source)
    assert found == Problem("my_loop.py has no function or class 'loop'", "entrypoint", hint)


def test_what_is_no_python_is_refused_with_its_line(tmp_path: Path) -> None:
    found = checked(tmp_path, "import os\ndef loop(config:\n")
    assert found is not None
    assert "my_loop.py, line 2 is not Python: " in found.message
    nul = checked(tmp_path, "def loop(): ...\0")
    assert nul is not None
    assert "is not Python" in nul.message


@pytest.mark.parametrize("place", ["pkg/__init__.py", "pkg/deep.py"])
def test_packages_are_looked_into(tmp_path: Path, place: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / place).write_text("def loop(config): ...")
    module = "pkg" if place.endswith("__init__.py") else "pkg.deep"

    def problems(entrypoint: str) -> list[Problem]:
        return code(
            Train.model_validate({"name": "w", "kind": "train", "code": str(tmp_path), "entrypoint": entrypoint})
        )

    assert problems(f"{module}:loop") == []
    (problem,) = problems(f"{module}:lop")
    assert (problem.field, problem.hint) == ("entrypoint", "did you mean 'loop'?")
