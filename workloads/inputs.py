"""Reads and inspects tables (CSV, JSON lines, Parquet): the service refuses bad input with it before anything starts,
and the bodies read with it, so both mean the same by a row.

CSV columns are text: no guessing, so `007` stays `007` and the text `NA` is not missing. In JSON lines and Parquet a
value that is missing or not text is null in the text column. A folder is the files of one format in it, in the order
of their names; where a folder has Parquet files, its other files (reports, logs) are not part of the table.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import fs

from .errors import Problem, SpecError

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
BLOCK_ROWS = 10_000
_SHOWN_NAMES = 8
"""So many names of a folder are in a hint."""


@dataclass(frozen=True)
class Source:
    """The files of one table."""

    path: str
    format: str
    files: tuple[str, ...]
    filesystem: Any
    size_bytes: int


@dataclass(frozen=True)
class TableInfo:
    """What there is to know about a table without running anything."""

    path: str
    format: str
    files: tuple[str, ...]
    size_bytes: int
    columns: tuple[str, ...]
    rows: int
    sample: tuple[str, ...] = ()
    """Texts spread over the first block, for measuring token lengths."""
    empty_texts: int = 0
    labels: tuple[tuple[str, int], ...] = ()
    """Distinct labels with their rows, sorted by name; rows without text are not counted."""


def find_table(path: str, field: str = "input") -> Source:
    """The files a path or URL names. Raises SpecError when there are none, or of no known format."""
    filesystem, root = open_url(path, field)
    info = filesystem.get_file_info(root)
    if info.type == fs.FileType.NotFound:
        raise _problem(f"{path} does not exist", field, _near_paths(filesystem, root))
    if info.type == fs.FileType.File:
        name = _format_of(root)
        if name is None:
            raise _problem(f"{path} is not a table", field, f"known endings: {', '.join(FORMATS)}")
        return Source(path, name, (root,), filesystem, info.size or 0)
    return _folder(path, root, filesystem, field)


def _folder(path: str, root: str, filesystem: Any, field: str) -> Source:
    entries = sorted(filesystem.get_file_info(fs.FileSelector(root)), key=lambda entry: str(entry.path))
    files = [e for e in entries if e.type == fs.FileType.File and not PurePosixPath(e.path).name.startswith((".", "_"))]
    formats = {name for entry in files if (name := _format_of(entry.path))}
    if not formats:
        folders = [PurePosixPath(e.path).name for e in entries if e.type == fs.FileType.Directory]
        hint = f"folders in it: {', '.join(folders)}" if folders else f"known endings: {', '.join(FORMATS)}"
        raise _problem(f"folder {path} holds no table", field, hint)
    name = "parquet" if "parquet" in formats else next(iter(formats))
    if len(formats) > 1 and name != "parquet":
        raise _problem(f"folder {path} mixes formats: {', '.join(sorted(formats))}", field, "name one file")
    chosen = [entry for entry in files if _format_of(entry.path) == name]
    return Source(path, name, tuple(e.path for e in chosen), filesystem, sum(e.size or 0 for e in chosen))


def iter_tables(
    source: Source,
    columns: Sequence[str] | None = None,
    *,
    text_columns: Sequence[str] = (),
    field: str = "input",
    block_rows: int = BLOCK_ROWS,
) -> Iterator[pa.Table]:
    """The rows in order, in blocks of at most `block_rows`. `text_columns` come as strings, null where a value is
    not text. Raises SpecError, with file and line where the format has lines."""
    for file in source.files:
        for table in _READERS[source.format](source, file, columns, text_columns, field):
            for start in range(0, table.num_rows, block_rows):
                yield table.slice(start, block_rows)


def read_table(
    source: Source, *, text_columns: Sequence[str] = (), field: str = "input", max_rows: int | None = None
) -> pa.Table:
    """All columns of all rows, or of the first `max_rows`, in memory. Columns that differ in type between blocks become
    text."""
    tables = list(_first_rows(iter_tables(source, text_columns=text_columns, field=field), max_rows))
    if not tables:
        return pa.table({name: pa.array([], pa.string()) for name in column_names(source, field)})
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_tables([_all_text(table) for table in tables], promote_options="permissive")


def _first_rows(tables: Iterator[pa.Table], max_rows: int | None) -> Iterator[pa.Table]:
    """The tables up to `max_rows` rows in all; no further block is read."""
    left = max_rows
    for table in tables:
        if left is None or table.num_rows < left:
            yield table
            left = left if left is None else left - table.num_rows
        else:
            yield table.slice(0, left)
            return


def column_names(source: Source, field: str = "input") -> list[str]:
    """Columns of the table: the first file's (JSON lines: of its first block)."""
    file = source.files[0]
    if source.format == "parquet":
        return list(_parquet(source, file, field).schema_arrow.names)
    if source.format == "csv":
        with _csv_reader(source, file, None, field) as reader:
            return list(reader.schema.names)
    names: dict[str, None] = {}
    for table in _read_jsonl(source, file, None, (), field):
        names |= dict.fromkeys(table.column_names)
        break
    return list(names)


def inspect_table(
    path: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    field: str = "input",
    sample_rows: int = 200,
) -> TableInfo:
    """Look at a table: columns, row count, a sample of the text, the labels. Reads only the columns it needs.

    Raises SpecError when the table is missing, empty, broken, or lacks a column.
    """
    source = find_table(path, field)
    columns = column_names(source, field)
    wanted = [name for name in (text_column, label_column) if name is not None]
    for name in wanted:
        require_column(name, columns, path, "text_column" if name == text_column else "label_column")
    if source.format == "parquet" and text_column is not None:
        _require_text(source, text_column, field)
    if source.format == "parquet" and not wanted:
        rows = sum(_parquet(source, file, field).metadata.num_rows for file in source.files)
        scan = _Scan(rows=rows)
    else:
        # Reading even where no column is asked for: a broken row shows only when it is read.
        scan = _scan(iter_tables(source, wanted or None, text_columns=wanted, field=field), text_column, label_column)
    if scan.rows == 0:
        raise _problem(f"{path} has no rows", field)
    stride = max(1, len(scan.texts) // sample_rows)
    return TableInfo(
        path=path,
        format=source.format,
        files=source.files,
        size_bytes=source.size_bytes,
        columns=tuple(columns),
        rows=scan.rows,
        sample=tuple(scan.texts[::stride][:sample_rows]),
        empty_texts=scan.empty,
        labels=tuple(sorted(scan.labels.items())),
    )


def require_column(name: str, columns: Sequence[str], path: str, field: str) -> None:
    """Raise SpecError, naming the columns there are, unless `name` is one of them."""
    if name in columns:
        return
    near = get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"columns: {', '.join(columns)}" + (f"; did you mean {near[0]}?" if near else "")
    raise _problem(f"{path} has no column {name}", field, hint)


def clean_text(value: str | None) -> str | None:
    """A text with its whitespace normalised; None where nothing is left."""
    return (" ".join(value.split()) or None) if value is not None else None


@dataclass
class _Scan:
    rows: int = 0
    empty: int = 0

    def __post_init__(self) -> None:
        self.texts: list[str] = []
        self.labels: Counter[str] = Counter()


def _scan(tables: Iterator[pa.Table], text_column: str | None, label_column: str | None) -> _Scan:
    scan = _Scan()
    for table in tables:
        scan.rows += table.num_rows
        texts = None
        if text_column is not None:
            texts = [clean_text(value) for value in table.column(text_column).to_pylist()]
            scan.empty += sum(text is None for text in texts)
            if not scan.texts:
                scan.texts = [text for text in texts if text is not None]
        if label_column is not None:
            labels = table.column(label_column).to_pylist()
            kept = zip(labels, texts, strict=True) if texts is not None else ((label, "") for label in labels)
            scan.labels.update(label for label, text in kept if text is not None and label is not None)
    return scan


def open_url(path: str, field: str) -> tuple[Any, str]:
    """The pyarrow file system of a path or URL, and the path within it. Raises SpecError."""
    try:
        if "://" not in path:
            return fs.LocalFileSystem(), path
        try:
            filesystem, root = fs.FileSystem.from_uri(path)
            return filesystem, root
        except pa.ArrowInvalid:
            import fsspec  # for the schemes pyarrow has no client of its own for

            remote, root = fsspec.core.url_to_fs(path)
            return fs.PyFileSystem(fs.FSSpecHandler(remote)), root
    except (ValueError, ImportError, OSError) as error:
        raise _problem(f"{path} cannot be opened: {error}", field) from error


def _read_csv(
    source: Source, file: str, columns: Sequence[str] | None, text_columns: Sequence[str], field: str
) -> Iterator[pa.Table]:
    del text_columns  # every column of a CSV file is text
    with _csv_reader(source, file, columns, field) as reader:
        batches = iter(reader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except pa.ArrowInvalid as error:
                raise _csv_error(source, file, field, error) from error
            yield pa.Table.from_batches([batch])


def _csv_reader(source: Source, file: str, columns: Sequence[str] | None, field: str) -> Any:
    delimiter = "\t" if file.lower().endswith(".tsv") else ","
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        with source.filesystem.open_input_stream(file) as head:
            names = pacsv.open_csv(head, parse_options=parse).schema.names
        if len(set(names)) != len(names):
            doubles = sorted({name for name in names if names.count(name) > 1})
            raise _problem(f"{file} has two columns named {', '.join(doubles)}", field)
        convert = pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=list(columns or names)
        )
        stream = source.filesystem.open_input_stream(file)
        return pacsv.open_csv(stream, parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _csv_error(source, file, field, error) from error


def _csv_error(source: Source, file: str, field: str, error: Exception) -> SpecError:
    """The same error with its line: found by reading the file once more, slowly."""
    with source.filesystem.open_input_stream(file) as stream:
        data = stream.readall()
    if not data.strip():
        return _problem(f"{file} is empty", field)
    try:
        text = codecs.decode(data, "utf-8-sig")
    except UnicodeDecodeError as broken:
        line = data.count(b"\n", 0, broken.start) + 1
        return _problem(f"{file}, line {line}: not UTF-8", field, "save the file as UTF-8")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if file.lower().endswith(".tsv") else ",")
    header = next(rows)
    for row in rows:
        if row and len(row) != len(header):
            message = f"{file}, line {rows.line_num}: {len(row)} values where the header has {len(header)} columns"
            return _problem(message, field, "a comma or line break inside a value needs quotes around the value")
    return _problem(f"{file} cannot be read as CSV: {error}", field)


def _read_parquet(
    source: Source, file: str, columns: Sequence[str] | None, text_columns: Sequence[str], field: str
) -> Iterator[pa.Table]:
    try:
        batches = _parquet(source, file, field).iter_batches(BLOCK_ROWS, columns=list(columns) if columns else None)
        for batch in batches:
            yield _with_text(pa.Table.from_batches([batch]), text_columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _problem(f"{file} cannot be read as Parquet: {error}", field) from error


def _parquet(source: Source, file: str, field: str) -> Any:
    try:
        return pq.ParquetFile(source.filesystem.open_input_file(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise _problem(f"{file} cannot be read as Parquet: {error}", field) from error


def _require_text(source: Source, column: str, field: str) -> None:
    kind = _parquet(source, source.files[0], field).schema_arrow.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _problem(f"column {column} of {source.path} holds {kind}, not text", "text_column")


def _read_jsonl(
    source: Source, file: str, columns: Sequence[str] | None, text_columns: Sequence[str], field: str
) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    with source.filesystem.open_input_stream(file) as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            if line.strip():
                rows.append(_json_row(line, number, file, field))
            if len(rows) == BLOCK_ROWS:
                yield _rows_table(rows, columns, text_columns)
                rows = []
    if rows:
        yield _rows_table(rows, columns, text_columns)


def _json_row(line: bytes, number: int, file: str, field: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise _problem(f"{file}, line {number}: not UTF-8", field, "save the file as UTF-8") from error
    except ValueError as error:
        raise _problem(f"{file}, line {number}: not JSON: {error}", field, "one JSON object a line") from error
    if not isinstance(row, dict):
        raise _problem(f"{file}, line {number}: not a JSON object", field, "one JSON object a line")
    return row


def _rows_table(rows: list[dict[str, Any]], columns: Sequence[str] | None, text_columns: Sequence[str]) -> pa.Table:
    names = list(columns) if columns is not None else list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _array([row.get(name) for row in rows], name in text_columns) for name in names})


def _array(values: list[Any], as_text: bool) -> pa.Array:
    if as_text:
        return pa.array([_text_or_null(value) for value in values], pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([v if isinstance(v, str) or v is None else json.dumps(v) for v in values], pa.string())


def _text_or_null(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _with_text(table: pa.Table, text_columns: Sequence[str]) -> pa.Table:
    for name in text_columns:
        if name in table.column_names and not pa.types.is_string(table.schema.field(name).type):
            column = pa.array([None if v is None else str(v) for v in table.column(name).to_pylist()], pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
    return table


def _all_text(table: pa.Table) -> pa.Table:
    texts = {
        name: pa.array(
            [v if isinstance(v, str) or v is None else json.dumps(v, default=str) for v in column.to_pylist()],
            pa.string(),
        )
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(texts)


def _format_of(path: str) -> str | None:
    return FORMATS.get(PurePosixPath(path).suffix.lower())


def _near_paths(filesystem: Any, root: str) -> str:
    parent = str(PurePosixPath(root).parent)
    if filesystem.get_file_info(parent).type != fs.FileType.Directory:
        return f"folder {parent} does not exist either"
    names = sorted(PurePosixPath(e.path).name for e in filesystem.get_file_info(fs.FileSelector(parent)))
    stems = {PurePosixPath(name).stem: name for name in reversed(names)}
    near = get_close_matches(PurePosixPath(root).stem, list(stems), n=1, cutoff=0.6)  # every table ends alike
    if near:
        return f"did you mean {stems[near[0]]}?"
    here = ", ".join([*names[:_SHOWN_NAMES], *(["..."] if len(names) > _SHOWN_NAMES else [])])
    return f"folder {parent} has {here}" if names else f"folder {parent} is empty"


def _problem(message: str, field: str, hint: str = "") -> SpecError:
    return SpecError(Problem(message, field=field, hint=hint))


_READERS = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
