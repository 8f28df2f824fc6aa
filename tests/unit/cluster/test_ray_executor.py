"""What the Ray executor makes of Ray's answers, with a small HTTP server in Ray's place."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.protocols import ClusterUnreachable
from cluster.ray_executor import RayExecutor
from cluster.types import RunRequest
from workloads.errors import WorkloadFailed
from workloads.job import Job, ProgressWriter
from workloads.stopping import request_stop, stop_deadline_s


class FakeJobsServer:
    """Answers as Ray's Jobs API: `jobs` by submission id, or `status` for every request where it is not 200."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.tokens: set[str | None] = set()
        self.paths: list[str] = []
        self.stopped: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.tokens.add(self.headers.get("Authorization"))
                outer.paths.append(self.path)
                name = self.path.removeprefix("/api/jobs/")
                body: Any = list(outer.jobs.values()) if name == "" else outer.jobs.get(name)
                self.send_response(outer.status if outer.status != 200 else 404 if body is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                outer.stopped.append(self.path.removeprefix("/api/jobs/").removesuffix("/stop"))
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def job(self, name: str, status: str, **values: Any) -> None:
        self.jobs[name] = {"submission_id": name, "status": status, "type": "SUBMISSION", **values}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[FakeJobsServer]:
    found = FakeJobsServer()
    yield found
    found.close()


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(
    server: FakeJobsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> Iterator[Callable[[], RayExecutor]]:
    """Executors of one cluster, as one process after the other would make them."""
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setattr(RayExecutor, "_sweep", lambda self, run_id: None)
    made: list[RayExecutor] = []

    def make() -> RayExecutor:
        token = tmp_path / "token"
        made.append(RayExecutor(server.url, "127.0.0.1:1", lambda run_id: tmp_path / run_id, token, clock=clock))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


@pytest.fixture
def executor(make: Callable[[], RayExecutor]) -> RayExecutor:
    return make()


@pytest.mark.parametrize(
    ("error_type", "message", "is_rays"),
    [
        pytest.param("JOB_ENTRYPOINT_COMMAND_ERROR", "failed with exit code 1", False, id="the body failed"),
        pytest.param("RUNTIME_ENV_SETUP_FAILURE", "runtime_env setup failed", True, id="the environment"),
        pytest.param("JOB_SUPERVISOR_ACTOR_DIED", "Job supervisor actor died", True, id="the supervisor was lost"),
        pytest.param("JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "failed to start within 900", True, id="pending too long"),
    ],
)
def test_rays_own_failures_can_be_told_from_the_bodys(
    executor: RayExecutor, server: FakeJobsServer, error_type: str, message: str, is_rays: bool
) -> None:
    server.job("a", "FAILED", message=message, error_type=error_type, start_time=1000, end_time=2500)
    run = executor.observe(["a"])["a"]
    assert (run.state, run.started_s, run.ended_s) == ("failed", 1.0, 2.5)
    assert message in run.message
    assert run.message.startswith("Ray: ") == is_rays


def test_running_begins_with_the_bodys_word(executor: RayExecutor, server: FakeJobsServer, tmp_path: Path) -> None:
    server.job("a", "PENDING")
    assert executor.observe(["a"])["a"].state == "starting"
    server.job("a", "RUNNING")
    writer = ProgressWriter(tmp_path / "a")
    writer.write("phase", phase="starting")
    assert executor.observe(["a"])["a"].state == "starting"
    writer.write("phase", phase="running")
    assert executor.observe(["a"])["a"].state == "running"
    writer.write("phase", phase="finishing")
    assert executor.observe(["a"])["a"].state == "running"
    assert [record["phase"] for record in executor.progress("a")] == ["starting", "running", "finishing"]


def test_other_clusters_in_the_environment_are_not_asked(
    executor: RayExecutor, server: FakeJobsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.job("a", "SUCCEEDED")
    assert executor.observe(["a"])["a"].state == "succeeded"
    assert server.tokens == {"Bearer secret"}


def test_many_runs_cost_one_request(executor: RayExecutor, server: FakeJobsServer) -> None:
    server.jobs["driver"] = {"submission_id": None, "status": "RUNNING", "type": "DRIVER"}
    for name in "abcdef":
        server.job(name, "SUCCEEDED")
    assert len(executor.observe("abcdefg")) == 7
    assert server.paths == ["/api/jobs/"]


def test_few_runs_among_many_jobs_that_ended_are_asked_for_one_by_one(
    executor: RayExecutor, server: FakeJobsServer
) -> None:
    for number in range(60):
        server.job(f"old-{number}", "SUCCEEDED")
    executor.observe([f"old-{number}" for number in range(6)])
    executor.observe([f"old-{number}" for number in range(5)])
    executor.observe([f"old-{number}" for number in range(6)])
    single = [f"/api/jobs/old-{number}" for number in range(5)]
    assert server.paths[0] == server.paths[-1] == "/api/jobs/"
    assert sorted(server.paths[1:-1]) == single


@pytest.mark.parametrize("status", [500, 503, 401, 403])
def test_a_cluster_that_answers_with_an_error_is_unreachable_and_no_run_is_lost(
    executor: RayExecutor, server: FakeJobsServer, status: int
) -> None:
    server.status = status
    with pytest.raises(ClusterUnreachable):
        executor.observe(["a"])


def test_a_server_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    gone = RayExecutor("http://127.0.0.1:1", "127.0.0.1:1", lambda run_id: tmp_path / run_id)
    with pytest.raises(ClusterUnreachable):
        gone.observe(["a"])
    with pytest.raises(ClusterUnreachable):
        gone.stop("a")


def test_the_package_is_staged_where_it_is_asked_for_and_again_when_it_is_gone(tmp_path: Path) -> None:
    executor = RayExecutor(
        "http://127.0.0.1:1", "127.0.0.1:1", lambda run_id: tmp_path / run_id, staging=tmp_path / "home" / "stage"
    )
    first = executor._stage()
    assert first.parents[1] == tmp_path / "home" / "stage"
    assert first == executor._stage()
    (first / "__main__.py").unlink()  # a cleaner of old files leaves folders behind
    second = executor._stage()
    assert second != first
    assert (second / "__main__.py").is_file()
    executor.close()
    assert not second.exists()


def request(code: Path, run_id: str, folder: Path) -> RunRequest:
    job = Job("w", run_id, 1, {}, (), str(folder / "run"), str(folder / "out"), str(folder / "progress"))
    return RunRequest(job, "w", str(code))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A zip of somebody's code."""
    path = tmp_path / "code.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mine.py", "X = 1\n")
    return path


def test_code_is_used_in_place_where_every_node_sees_it(code: Path, tmp_path: Path) -> None:
    executor = RayExecutor("http://127.0.0.1:1", "127.0.0.1:1", lambda _: tmp_path, shared_files=True)
    folders = [executor._runtime_env(request(code, run_id, tmp_path))["working_dir"] for run_id in ("w", "w.r2")]
    executor.close()
    assert folders == [f"local://{tmp_path}/run/code/w", f"local://{tmp_path}/run/code/w.r2"]
    assert [Path(each.removeprefix("local://"), "mine.py").read_text() for each in folders] == ["X = 1\n"] * 2


def test_code_that_ray_brings_to_the_nodes_is_a_package_that_no_other_run_has(code: Path, tmp_path: Path) -> None:
    executor = RayExecutor("http://127.0.0.1:1", "127.0.0.1:1", lambda _: tmp_path)
    packages = [
        Path(executor._runtime_env(request(code, run_id, tmp_path))["working_dir"]) for run_id in ("w", "w.r2", "w")
    ]
    executor.close()
    assert packages[0].read_bytes() == packages[2].read_bytes() != packages[1].read_bytes()
    assert zipfile.ZipFile(packages[1]).read("mine.py") == b"X = 1\n"


def test_code_that_cannot_be_unpacked_fails_the_run_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(b"no zip")
    executor = RayExecutor("http://127.0.0.1:1", "127.0.0.1:1", lambda _: tmp_path, shared_files=True)
    with pytest.raises(WorkloadFailed, match="its code cannot be unpacked: File is not a zip file") as caught:
        executor.start(request(tmp_path / "code.zip", "w", tmp_path))
    executor.close()
    assert caught.value.retryable


def runs(server: FakeJobsServer, folder: Path, name: str = "a") -> None:
    """A run whose body has said that its work began."""
    server.job(name, "RUNNING")
    ProgressWriter(folder / name).write("phase", phase="running")


def test_a_run_that_is_given_time_is_asked_first_and_ended_when_the_time_is_over(
    executor: RayExecutor, server: FakeJobsServer, tmp_path: Path, clock: Clock
) -> None:
    runs(server, tmp_path)
    executor.stop("a", 30.0)
    assert stop_deadline_s(tmp_path / "a.stop") == 5030.0
    clock.now_s += 29.0
    executor.stop("a", 30.0)
    executor.observe(["a"])
    assert server.stopped == []
    clock.now_s += 1.0
    executor.stop("a", 30.0)
    assert server.stopped == ["a"]


def test_the_first_deadline_holds_for_later_processes_and_needs_no_further_call(
    make: Callable[[], RayExecutor], server: FakeJobsServer, tmp_path: Path, clock: Clock
) -> None:
    runs(server, tmp_path)
    make().stop("a", 30.0)
    clock.now_s += 20.0
    later = make()
    later.stop("a", 30.0)
    later.observe(["a"])
    assert (server.stopped, stop_deadline_s(tmp_path / "a.stop")) == ([], 5030.0)
    clock.now_s += 10.0
    make().observe(["a"])
    assert server.stopped == ["a"]


def test_a_call_without_grace_ends_the_run_now(executor: RayExecutor, server: FakeJobsServer, tmp_path: Path) -> None:
    runs(server, tmp_path)
    executor.stop("a", 30.0)
    executor.stop("a")
    assert server.stopped == ["a"]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_run_whose_work_has_not_begun_is_ended_at_once(
    executor: RayExecutor, server: FakeJobsServer, tmp_path: Path, status: str
) -> None:
    server.job("a", status)
    executor.stop("a", 30.0)
    assert server.stopped == ["a"]
    assert not (tmp_path / "a.stop").exists()


@pytest.mark.parametrize("status", [None, "SUCCEEDED", "FAILED", "STOPPED"])
def test_a_run_that_is_not_there_or_over_is_not_asked(
    executor: RayExecutor, server: FakeJobsServer, tmp_path: Path, status: str | None
) -> None:
    if status is not None:
        server.job("a", status)
    executor.stop("a", 30.0)
    assert server.stopped == []
    assert not (tmp_path / "a.stop").exists()


def test_a_run_that_cannot_be_asked_is_ended(
    executor: RayExecutor, server: FakeJobsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> float:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cluster.ray_executor.request_stop", full)
    runs(server, tmp_path)
    executor.stop("a", 30.0)
    assert server.stopped == ["a"]


@pytest.mark.parametrize(
    ("asked", "exit_code", "state"),
    [(True, 143, "stopped"), (True, 1, "failed"), (False, 143, "failed")],
    ids=["it ended as it was asked to", "it failed meanwhile", "somebody else ended it"],
)
def test_a_run_that_ended_by_itself_as_it_was_asked_to_is_stopped(
    executor: RayExecutor, server: FakeJobsServer, tmp_path: Path, asked: bool, exit_code: int, state: str
) -> None:
    if asked:
        request_stop(tmp_path / "a.stop", 5030.0)
    server.job("a", "FAILED", message="boom", error_type="JOB_ENTRYPOINT_COMMAND_ERROR", driver_exit_code=exit_code)
    run = executor.observe(["a"])["a"]
    assert (run.state, run.message) == (state, "" if state == "stopped" else "boom")
    assert run.ended


def test_runs_that_nobody_looks_at_any_more_are_forgotten(
    executor: RayExecutor, server: FakeJobsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ray_executor.FORGOTTEN_AFTER", 2)
    server.job("a", "RUNNING", start_time=1000)
    for name in ("a", "b", "c", "d"):
        executor.progress(name)
    executor.observe(["a", "d"])
    assert set(executor._offsets) == {"a", "b", "c", "d"}, "only so many are too many"
    executor.progress("e")
    executor.observe(["a"])
    assert set(executor._offsets) == {"a"}


def test_a_log_that_ray_cannot_read_is_said_to_be_one_and_one_that_is_not_there_yet_is_empty(
    executor: RayExecutor, server: FakeJobsServer
) -> None:
    server.status, server.jobs["a/logs"] = 500, {"detail": "'utf-8' codec can't decode byte 0xe9 in position 3"}
    assert executor.logs("a").startswith("Ray cannot show this log")
    server.jobs["a/logs"] = {"detail": "no agent yet"}
    assert executor.logs("a") == ""
