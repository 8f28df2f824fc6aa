"""The contract with the scheduler: a Job survives JSON, progress survives a killed writer."""

from __future__ import annotations

from pathlib import Path

from workloads.job import Job, ProgressWriter, Shard, read_progress

JOB = Job(
    workload_id="w",
    run_id="w-r2",
    attempt=2,
    spec={"kind": "command", "name": "w", "command": "true"},
    shards=(Shard("T4", "node", {"T4": 1}, 0.25, 2), Shard("cpu", "head", {"CPU": 1})),
    run_dir="/runs/w",
    output="/out/w",
    progress_path="/runs/w/progress.jsonl",
)


def test_a_job_is_the_same_after_json() -> None:
    assert Job.from_json(JOB.to_json()) == JOB


def test_records_are_read_from_where_the_last_read_ended(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / "p.jsonl")
    writer.write("phase", phase="starting")
    first, offset = read_progress(writer.path)
    writer.write("note", message="two\nlines")
    second, end = read_progress(writer.path, offset)
    assert [record["kind"] for record in first + second] == ["phase", "note"]
    assert read_progress(writer.path, end) == ([], end)


def test_a_torn_last_line_waits_for_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"kind": "a"}\n{"kind": "b')
    records, offset = read_progress(path)
    assert [record["kind"] for record in records] == ["a"]
    with open(path, "ab") as file:
        file.write(b'"}\n')
    assert [record["kind"] for record in read_progress(path, offset)[0]] == ["b"]


def test_a_torn_line_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"kind": "a"}\n{"ki{"kind": "lost"}\n[1]\n{"kind": "b"}\n')
    assert [record["kind"] for record in read_progress(path)[0]] == ["a", "b"]


def test_a_missing_file_has_no_records(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "none") == ([], 0)


def test_maybe_writes_each_kind_at_most_once_an_interval(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / "p.jsonl", min_interval_s=60)
    for _ in range(3):
        writer.maybe("rows", rows=1)
        writer.maybe("step", step=1)
    assert [record["kind"] for record in read_progress(writer.path)[0]] == ["rows", "step"]


def test_text_that_no_store_takes_is_read_as_text_and_a_line_that_is_no_record_is_passed_over(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / "p.jsonl")
    writer.write("failed", message="no file '/data/caf\udce9.txt'", more={"\ud800": ["\udfff"]})
    with open(writer.path, "ab") as file:
        file.write(b"[" * 100_000 + b"\n")
        file.write('{"kind": "note", "message": "\u00e9 \U0001f600 \\ud83d\\ude00"}\n'.encode())
    failed, note = read_progress(writer.path)[0]
    assert (failed["message"], failed["more"]) == ("no file '/data/caf?.txt'", {"?": ["?"]})
    assert note["message"] == "\u00e9 \U0001f600 \U0001f600"
