"""Tables: what is read, and how broken ones are refused with file, line and hint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.errors import Problem, SpecError
from workloads.inputs import clean_text, find_table, inspect_table, iter_tables, read_table


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def problem(path: str, **columns: str) -> Problem:
    with pytest.raises(SpecError) as caught:
        inspect_table(path, **columns)  # type: ignore[arg-type]
    return caught.value.problems[0]


def test_a_csv_table_is_described(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'text,label\n"hello, world",a\n"two\nlines",b\n   ,a\nNA,007\n')
    info = inspect_table(path, text_column="text", label_column="label")
    assert (info.rows, info.columns, info.format) == (4, ("text", "label"), "csv")
    assert info.sample == ("hello, world", "two lines", "NA")
    assert info.empty_texts == 1
    assert info.labels == (("007", 1), ("a", 1), ("b", 1))


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": 1}, {"text": None, "n": 2}, {"text": "c", "n": 3}]
    lines = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for path in (lines, str(tmp_path / "t.parquet")):
        assert read_table(find_table(path), text_columns=("text",)).to_pylist() == rows


def test_a_value_that_is_not_text_is_null_in_the_text_column_only(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": 5, "x": 5}\n{"text": "a", "x": "b"}\n')
    assert read_table(find_table(path), text_columns=("text",)).to_pylist() == [
        {"text": None, "x": "5"},
        {"text": "a", "x": "b"},
    ]


def test_blocks_are_in_order_and_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text\n" + "".join(f"row {i}\n" for i in range(25)))
    blocks = list(iter_tables(find_table(path), block_rows=10))
    assert [block.num_rows for block in blocks] == [10, 10, 5]
    assert [row for block in blocks for row in block.column("text").to_pylist()] == [f"row {i}" for i in range(25)]


@pytest.mark.parametrize(
    ("max_rows", "rows"),
    [(None, 5), (1, 1), (3, 3), (4, 4), (5, 5), (9, 5)],
    ids=["no limit", "one row", "all of the first file", "into the second file", "all", "more than there are"],
)
def test_only_the_first_rows_are_read_over_the_files_in_order(tmp_path: Path, max_rows: int | None, rows: int) -> None:
    for name, first, count in (("a", 0, 3), ("b", 3, 2)):
        pq.write_table(pa.table({"n": list(range(first, first + count))}), tmp_path / f"{name}.parquet")
    table = read_table(find_table(str(tmp_path)), max_rows=max_rows)
    assert table.column("n").to_pylist() == list(range(rows))


def test_what_comes_after_the_first_rows_is_not_even_parsed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"n": 0}\n{"n": 1}\n')
    write(tmp_path / "b.jsonl", "not json\n")
    assert read_table(find_table(str(tmp_path)), max_rows=2).column("n").to_pylist() == [0, 1]


def test_a_folder_is_its_files_by_name_and_prefers_parquet(tmp_path: Path) -> None:
    for name, text in (("b", "second"), ("a", "first")):
        pq.write_table(pa.table({"text": [text]}), tmp_path / f"{name}.parquet")
    write(tmp_path / "errors.jsonl", "{}\n")
    assert read_table(find_table(str(tmp_path))).column("text").to_pylist() == ["first", "second"]


def test_file_urls_work(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text\nhello\n")
    assert inspect_table(f"file://{path}").rows == 1


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    assert inspect_table(write(tmp_path / "t.csv", b"\xef\xbb\xbftext\nx\n"), text_column="text").rows == 1


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text\nx\n")
    write(tmp_path / "val.csv", "text\nx\n")
    found = problem(str(tmp_path / "trian.csv"))
    assert "does not exist" in found.message
    assert found.hint == "did you mean train.csv?"
    assert problem(str(tmp_path / "messages.csv")).hint == f"folder {tmp_path} has train.csv, val.csv"


def test_a_missing_column_lists_the_columns_and_the_nearest(tmp_path: Path) -> None:
    found = problem(write(tmp_path / "t.csv", "text,intent\nx,y\n"), text_column="test")
    assert found.field == "text_column"
    assert found.hint == "columns: text, intent; did you mean text?"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"text,label\n", "has no rows"),
        ("t.csv", b"text,label\na,b\nc\n", "line 3: 1 values where the header has 2 columns"),
        ("t.csv", b'text,label\n"a\nb",c\nd,e,f\n', "line 4: 3 values where the header has 2 columns"),
        ("t.csv", b"text,label\na,b\ncaf\xe9,d\n", "line 3: not UTF-8"),
        ("t.csv", b"text,text\na,b\n", "two columns named text"),
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', "line 2: not a JSON object"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2: not UTF-8"),
        ("t.jsonl", b"", "has no rows"),
        ("t.parquet", b"PAR1 no", "cannot be read as Parquet"),
        ("t.txt", b"hello", "is not a table"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_broken_table_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in problem(write(tmp_path / name, content)).message


def test_a_text_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "t.parquet")
    assert "holds int64, not text" in problem(str(tmp_path / "t.parquet"), text_column="text").message


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert problem(str(tmp_path)).hint == "folders in it: train"


def test_whitespace_is_normalised() -> None:
    assert clean_text("  a\t b\n") == "a b"
    assert clean_text(" \n ") is None
    assert clean_text(None) is None


def test_importing_the_inspection_loads_neither_torch_nor_ray() -> None:
    code = "import sys, workloads.inputs; print([m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
