"""Tables are readable in every width: remarks below their rows, columns left out and named."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from dashboards.sheet import Column, Row, Sheet

COLUMNS = (Column("name", "left"), Column("time"), Column("dollars", rank=1), Column("memory\n/device", rank=2))
ROWS = (
    Row(["T4 x2\n(emulated)", "2m 01s", "$0.0375", "1.07 GB"], Text("taken", style="green"), "bold"),
    Row(["A100-SXM4-40GB x2", "?", "-", "-"], "2 [wanted], the cluster has 1", "dim"),
)
SHEET = Sheet(COLUMNS, ROWS, "why not", "train", ["least money"])


def drawn(sheet: Sheet, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(sheet)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def test_where_there_is_room_the_remark_is_a_column() -> None:
    lines = drawn(SHEET, 90).splitlines()
    assert any("A100-SXM4-40GB x2" in line and "2 [wanted], the cluster has 1" in line for line in lines)
    assert any("name" in line and "why not" in line for line in lines)


def test_where_there_is_less_the_remark_stands_below_its_row() -> None:
    assert (
        drawn(SHEET, 60)
        == """train

name                 time  dollars   memory
                                    /device
───────────────────────────────────────────
T4 x2              2m 01s  $0.0375  1.07 GB
(emulated)
  taken
A100-SXM4-40GB x2       ?        -        -
  2 [wanted], the cluster has 1

least money"""
    )


def test_where_there_is_little_columns_are_left_out_and_named() -> None:
    text = drawn(SHEET, 36)
    assert "no room for: memory /device" in text
    assert "$0.0375" in text and "1.07 GB" not in text
    text = drawn(SHEET, 26)
    assert "dollars" in text.split("no room for:")[1]
    assert "$0.0375" not in text


@pytest.mark.parametrize("width", [20, 26, 36, 60, 80, 100, 120, 160])
def test_no_line_is_longer_than_the_window_and_no_word_is_lost(width: int) -> None:
    text = drawn(SHEET, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    joined = "".join(text.split())
    for word in ("T4x2", "taken", "2[wanted],theclusterhas1", "leastmoney", "2m01s"):
        assert word in joined


def test_the_first_column_is_folded_before_anything_is_cut() -> None:
    sheet = Sheet((Column("workload", "left"), Column("state", "left")), [Row(["a" * 54, "running"])], "progress")
    text = drawn(sheet, 40)
    assert "running" in text
    assert text.count("a") - "workload state".count("a") == 54
    assert max(len(line) for line in text.splitlines()) <= 40


def test_what_stands_before_a_remark_below_its_row() -> None:
    sheet = Sheet(COLUMNS, [Row(["T4", "1 s", "$1", "-"], "aws 2026-07")], "price from", lead="price from ")
    assert "  price from aws 2026-07" in drawn(sheet, 32)


def test_a_table_without_rows() -> None:
    assert drawn(Sheet(COLUMNS, [], "why not", "t"), 80).startswith("t")
    assert drawn(Sheet(COLUMNS, [], "why not", "t"), 20).startswith("t")
