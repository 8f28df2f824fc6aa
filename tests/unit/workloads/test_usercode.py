"""How a user's own function or class is found, and what is said where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workloads.bodies.usercode import load_entrypoint
from workloads.errors import WorkloadFailed


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module, made the working directory as on the cluster."""
    (tmp_path / "my_loop.py").write_text("SPEED = 3\ndef loop(config): return config\nclass Loop: pass\n")
    (tmp_path / "my_broken.py").write_text("raise KeyError('settings')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    yield tmp_path
    for name in ("my_loop", "my_broken"):
        sys.modules.pop(name, None)


def test_it_is_imported_from_the_working_directory_first(code: Path) -> None:
    assert load_entrypoint("my_loop:loop")(5) == 5
    assert load_entrypoint("my_loop:Loop").__name__ == "Loop"
    assert sys.path[0] == str(code)


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("my_loop:lop", "entrypoint my_loop:lop: module my_loop has no function or class lop; did you mean loop?"),
        ("my_loop:xyz", "entrypoint my_loop:xyz: module my_loop has no function or class xyz"),
        ("my_loop:SPEED", "entrypoint my_loop:SPEED: SPEED is neither a function nor a class, but of type int"),
        ("my_broken:loop", "entrypoint my_broken:loop cannot be imported: KeyError: 'settings'"),
        ("my_none:loop", "entrypoint my_none:loop cannot be imported: ModuleNotFoundError: No module named 'my_none'"),
    ],
)
def test_what_is_not_there_is_said_once_and_plainly(entrypoint: str, message: str) -> None:
    with pytest.raises(WorkloadFailed) as caught:
        load_entrypoint(entrypoint)
    assert str(caught.value) == message
    assert not caught.value.retryable
