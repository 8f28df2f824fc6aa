"""Logs by offset: from Ray's file where it is here, else from one answer that all readers share."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cluster import job_logs
from cluster.job_logs import JobLogs
from cluster.protocols import ClusterUnreachable, LogPart


class Ray:
    """Answers with what a run printed; each answer takes so many seconds of the clock."""

    def __init__(self) -> None:
        self.now_s, self.takes_s, self.text, self.asked = 100.0, 0.0, "", 0
        self.down = False

    def clock(self) -> float:
        return self.now_s

    def fetch(self, run_id: str) -> str:
        self.asked += 1
        self.now_s += self.takes_s
        if self.down:
            raise ClusterUnreachable("nobody is there")
        return self.text if run_id == "a" else ""


@pytest.fixture
def ray() -> Ray:
    return Ray()


def test_a_file_is_read_from_a_byte_on_and_ray_is_not_asked(ray: Ray, tmp_path: Path) -> None:
    logs = JobLogs(ray.fetch, tmp_path)
    (tmp_path / "job-driver-a.log").write_bytes(b"one\xff\ntwo\n")
    assert logs.read("a", 3, 3) == LogPart(b"\xff\nt", 9)
    assert logs.read("a", 7, 100) == LogPart(b"o\n", 9)
    assert logs.read("a", 50, 100) == LogPart(b"", 9)
    assert ray.asked == 0
    ray.text = "from Ray"
    (tmp_path / "job-driver-a.log").unlink()
    assert logs.read("a", 5, 100) == LogPart(b"Ray", 8), "a folder of another shape"


def test_all_who_read_within_a_second_share_an_answer(ray: Ray) -> None:
    logs = JobLogs(ray.fetch, clock=ray.clock)
    ray.text = "one é\n"
    assert [logs.read("a", place, 100).data.decode() for place in (0, 4, 4)] == ["one é\n", "é\n", "é\n"]
    assert ray.asked == 1
    ray.text += "two\n"
    assert logs.read("a", 7, 100).data == b""
    ray.now_s += 1.0
    assert logs.read("a", 7, 100) == LogPart(b"two\n", 11)
    assert ray.asked == 2


def test_readers_that_come_at_once_wait_for_one_answer(ray: Ray) -> None:
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def fetch(run_id: str) -> str:
        asked.append(run_id)
        begun.set()
        go_on.wait(60)
        return "text"

    logs, found = JobLogs(fetch, clock=ray.clock), []
    readers = [threading.Thread(target=lambda: found.append(logs.read("a", 0, 9).data)) for _ in range(8)]
    for reader in readers:
        reader.start()
    assert begun.wait(60)
    go_on.set()
    for reader in readers:
        reader.join(60)
    assert (found, asked) == ([b"text"] * 8, ["a"])


def test_what_takes_long_is_asked_for_less_often(ray: Ray) -> None:
    logs, ray.takes_s = JobLogs(ray.fetch, clock=ray.clock), 2.0
    logs.read("a", 0, 1)
    ray.now_s += 7.9
    logs.read("a", 0, 1)
    assert ray.asked == 1
    ray.now_s += 0.2
    logs.read("a", 0, 1)
    assert ray.asked == 2


def test_who_needs_the_end_of_it_gets_no_older_answer(ray: Ray) -> None:
    logs, ray.text = JobLogs(ray.fetch, clock=ray.clock), "one"
    logs.read("a", 0, 9)
    ray.text = "one and the end"
    assert logs.read("a", 3, 20, fresh=True).data == b" and the end"
    assert logs.read("a", 3, 20).data == b" and the end"
    assert ray.asked == 2


def test_a_failure_is_shared_too_and_ends(ray: Ray) -> None:
    logs, ray.down = JobLogs(ray.fetch, clock=ray.clock), True
    for _ in range(3):
        with pytest.raises(ClusterUnreachable, match="nobody is there"):
            logs.read("a", 0, 9)
    assert ray.asked == 1
    ray.down, ray.text = False, "back"
    ray.now_s += 1.0
    assert logs.read("a", 0, 9).data == b"back"


def test_so_many_bytes_of_answers_are_kept(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "KEPT_BYTES", 5)
    logs = JobLogs(lambda run_id: run_id * 3, clock=ray.clock)
    for run_id in ("a", "b", "c"):
        logs.read(run_id, 0, 9)
    assert [*logs._answers] == ["c"]
