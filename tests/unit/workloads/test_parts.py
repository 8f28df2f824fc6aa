"""Parts: a block is done when its file is there, and only for the run that wrote it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.bodies.parts import Part, fingerprint, part_path, read_parts, write_part
from workloads.errors import WorkloadFailed

MARK = fingerprint("w", ["input.csv", 10])


def part(number: int, start: int, stop: int, mark: str = MARK) -> Part:
    return Part(number, start, stop, "T4", stop - start - 1, mark, [(start, "bad")], tokens=5)


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    parts = [part(0, 0, 4), part(1, 4, 10)]
    for each in parts:
        write_part(tmp_path, each, pa.table({"row": list(range(each.start + 1, each.stop))}))
    assert read_parts(tmp_path, MARK) == parts


def test_half_written_parts_and_those_of_another_run_are_removed(tmp_path: Path) -> None:
    write_part(tmp_path, part(0, 0, 4), pa.table({"row": [1, 2, 3]}))
    write_part(tmp_path, part(1, 4, 8, mark="another run"), pa.table({"row": [5, 6, 7]}))
    (tmp_path / ".part-00003.parquet.partial").write_bytes(b"x")
    assert [each.number for each in read_parts(tmp_path, MARK)] == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]


def test_a_part_of_another_version_is_removed(tmp_path: Path) -> None:
    table = pa.table({"row": [1]}).replace_schema_metadata({b"raywise": b'{"block": 0}'})
    pq.write_table(table, part_path(tmp_path, 0))
    assert read_parts(tmp_path, MARK) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_parquet", [True, False], ids=["a table of the user's", "something else"])
def test_a_file_that_only_looks_like_a_part_stays(tmp_path: Path, is_parquet: bool) -> None:
    path = part_path(tmp_path, 2)
    if is_parquet:
        pq.write_table(pa.table({"mine": [1]}), path)
    else:
        path.write_text("mine")
    before = path.read_bytes()
    with pytest.raises(WorkloadFailed, match=r"part-00002\.parquet is no part that Raywise wrote") as failed:
        read_parts(tmp_path, MARK)
    assert not failed.value.retryable
    assert path.read_bytes() == before


def test_the_fingerprint_tells_inputs_apart() -> None:
    assert fingerprint("w", ["a"]) != fingerprint("w", ["b"])
    assert fingerprint("w", ["a"]) != fingerprint("v", ["a"])
