"""The items of a command: how they are written, read, and put into a shell command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workloads.bodies.item_worker import filled
from workloads.errors import SpecError
from workloads.items import MOST, read_items
from workloads.loading import load_data, load_text


def command(**fields: Any) -> dict[str, Any]:
    return {"kind": "command", "name": "w", "command": "echo {item}", **fields}


def loaded(folder: Path, **fields: Any) -> Any:
    return load_data(command(**fields), base=folder).steps[0]


def test_a_range_has_both_ends_and_is_not_made_before_it_is_asked_for(tmp_path: Path) -> None:
    step = loaded(tmp_path, items="1..5000")
    items = read_items(step.items)
    assert (len(items), items[0], items[4999], items[2:4]) == (5000, "1", "5000", ["3", "4"])
    assert list(read_items("-1..1")) == ["-1", "0", "1"]
    assert len(read_items(f"0..{MOST - 1}")) == MOST


def test_a_list_holds_texts_and_numbers(tmp_path: Path) -> None:
    assert list(read_items(loaded(tmp_path, items=["a b", 2, 0.5]).items)) == ["a b", "2", "0.5"]


def test_a_file_has_one_item_a_line_and_is_seen_from_the_specs_folder(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("first\n\n second one\r\nthird")
    step = loaded(tmp_path, items="items.txt")
    assert step.items == str(tmp_path / "items.txt")
    assert list(read_items(step.items)) == ["first", " second one", "third"]


def test_items_survive_being_stored(tmp_path: Path) -> None:
    for items in ("1..3", ["a", "b"], "file.txt"):
        step = loaded(tmp_path, items=items)
        assert type(step).model_validate(step.model_dump(mode="json")) == step


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"items": []}, "empty list", id="no items"),
        pytest.param({"items": [["a"]]}, "texts or numbers", id="a list in a list"),
        pytest.param({"items": [True]}, "texts or numbers", id="a truth value"),
        pytest.param({"items": ["a\nb"]}, "one line of text", id="two lines"),
        pytest.param({"items": "9..1"}, "low <= high", id="a range from high to low"),
        pytest.param({"items": "1..99999999999"}, "at most 10,000,000 items", id="too many"),
        pytest.param({"items": 7}, "expected a range", id="a number"),
        pytest.param({"items": "1..2", "entrypoint": "m:f"}, "either a command or", id="both to run"),
        pytest.param({"command": None, "items": "1..2"}, "either a command or", id="nothing to run"),
        pytest.param({"command": None, "entrypoint": "m:f"}, "entrypoint is for a command with items", id="no items"),
        pytest.param({"max_failed": 3}, "max_failed is for a command with items", id="failures of no items"),
        pytest.param(
            {"command": None, "entrypoint": "m:f", "items": "1..2", "item_timeout": "3s"},
            "cannot be ended from outside",
            id="a function with a limit",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_data(command(**fields), base=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "cannot be read", id="not there"),
        pytest.param(b"\n\n", "has no items", id="empty"),
        pytest.param(b"\xff\n", "not UTF-8", id="not text"),
    ],
)
def test_files_that_are_no_items(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = tmp_path / "items"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SpecError, match=message) as refused:
        read_items(str(path))
    assert refused.value.problems[0].field == "items"


def test_items_of_a_pipeline_may_be_what_a_step_wrote(tmp_path: Path) -> None:
    text = """
    kind: pipeline
    name: two
    steps:
      - {kind: command, name: make, command: "seq 5 > $RAYWISE_OUTPUT/list"}
      - {kind: command, name: use, needs: [make], command: "echo {item} ${item}", items: "${make.output}/list"}
    """
    steps = load_text(text, base=tmp_path).steps
    assert getattr(steps[1], "items") == "${make.output}/list"  # noqa: B009


def test_the_shell_gets_an_item_as_one_word() -> None:
    assert filled("f {item} {index} ${item} {other}", (3, "a b'; rm x")) == """f 'a b'"'"'; rm x' 3 ${item} {other}"""
