"""Commands without a body: which they are, where they run, and the records that are made of their jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.direct_command import OUTPUT, Recorder, is_direct, place_of, records_of, script_in, variables
from cluster.jobs_api import JobStatus, Place, _placing
from cluster.ray_executor import RayExecutor
from cluster.types import RunRequest
from workloads import shell
from workloads.errors import WorkloadFailed
from workloads.job import Job, Shard, read_progress

T4 = Shard("T4", "node-a", {"T4": 1.0})


def request(
    folder: Path, shards: tuple[Shard, ...] = (T4, T4), publish: str | None = None, code: str | None = None, **spec: Any
) -> RunRequest:
    given = {"kind": "command", "name": "w", "command": "echo $A", **spec}
    folders = str(folder / "run"), str(folder / "out"), str(folder / "progress")
    return RunRequest(Job("w-1", "w-1.r2", 2, given, shards, *folders, publish), "w", code, {"A": "mine"})


def job(status: str, exit_code: int | None = None, error_type: str = "") -> JobStatus:
    return JobStatus("w-1.r2", status, "", error_type, 1.0, 2.0, exit_code, {OUTPUT: "/out"})


@pytest.mark.parametrize(
    ("changes", "direct"),
    [
        pytest.param({}, True, id="a command on one node"),
        pytest.param({"kind": "train"}, False, id="another kind"),
        pytest.param({"items": "1..9"}, False, id="many items"),
        pytest.param({"publish": "s3://b/out"}, False, id="published"),
        pytest.param({"shards": (T4, Shard("T4", "node-b", {"T4": 1.0}))}, False, id="two nodes: its body refuses it"),
    ],
)
def test_which_runs_have_no_body(tmp_path: Path, changes: dict[str, Any], direct: bool) -> None:
    assert is_direct(request(tmp_path, **changes)) is direct


def test_it_holds_all_its_devices_on_their_node(tmp_path: Path) -> None:
    gpu = Shard("A100", "n", {"GPU": 1.0, "CPU": 4.0, "memory": 1e9})
    place = place_of(request(tmp_path, (gpu, gpu)).job)
    assert place == Place("n", {"GPU": 2.0, "CPU": 8.0, "memory": 2e9})
    assert _placing(place) == {
        "entrypoint_num_cpus": 8.0,
        "entrypoint_num_gpus": 2.0,
        "entrypoint_memory": 2_000_000_000,
        "entrypoint_resources": {},
        "entrypoint_label_selector": {"ray.io/node-id": "n"},
    }
    assert _placing(place_of(request(tmp_path).job))["entrypoint_resources"] == {"T4": 2.0}


def test_the_environment_of_the_command(tmp_path: Path) -> None:
    job = request(tmp_path, input={"a-b": "/x"}).job
    told = variables(job, tmp_path / "ended")
    assert told["RAYWISE_INPUT_A_B"] == "/x"
    assert (told["RAYWISE_OUTPUT"], told["RAYWISE_DEVICE_TYPE"]) == (str(tmp_path / "out"), "T4")
    assert told["RAYWISE_ATTEMPT"] == "2"
    assert told[shell.COMMAND] == "echo $A"
    assert told[shell.STOP_FILE] == str(job.stop_path)
    assert told[shell.ENDED_WELL_FILE] == str(tmp_path / "run" / "ended-well")
    assert told[shell.END_FILE] == str(tmp_path / "ended")
    assert shell.END_FILE not in variables(request(tmp_path).job, None)


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        pytest.param(job("PENDING"), [], id="waits for Ray"),
        pytest.param(job("RUNNING"), ["phase"], id="runs"),
        pytest.param(job("SUCCEEDED", 0), ["phase", "done"], id="ended well"),
        pytest.param(job("FAILED", 7, "JOB_ENTRYPOINT_COMMAND_ERROR"), ["phase", "failed"], id="failed"),
        pytest.param(job("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED"), [], id="lost by Ray: not the command's failure"),
        pytest.param(job("STOPPED"), [], id="stopped"),
    ],
)
def test_the_records_that_a_jobs_state_makes(status: JobStatus, kinds: list[str], tmp_path: Path) -> None:
    Recorder().record(status, tmp_path / "progress")
    assert [record["kind"] for record in read_progress(tmp_path / "progress")[0]] == kinds


@pytest.mark.parametrize(
    ("code", "message", "retryable"),
    [
        pytest.param(7, "the command ended with exit code 7", True, id="a failure"),
        pytest.param(126, "not found or not executable", False, id="not executable"),
        pytest.param(127, "not found or not executable", False, id="not found"),
        pytest.param(-9, "ended by signal SIGKILL", True, id="killed"),
    ],
)
def test_what_exit_codes_mean(code: int, message: str, retryable: bool) -> None:
    kind, values = records_of(job("FAILED", code, "JOB_ENTRYPOINT_COMMAND_ERROR"))[-1]
    assert kind == "failed"
    assert message in str(values["message"])
    assert values["retryable"] is retryable


def test_each_record_is_written_once_also_by_the_next_service(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    first = Recorder()
    for status in (job("RUNNING"), job("RUNNING")):
        first.record(status, path)
    second = Recorder()
    for status in (job("RUNNING"), job("SUCCEEDED", 0), job("SUCCEEDED", 0)):
        second.record(status, path)
    records = read_progress(path)[0]
    assert [record["kind"] for record in records] == ["phase", "done"]
    assert records[-1]["outputs"] == {"output": "/out"}


def test_the_script_is_copied_once_for_all_nodes(tmp_path: Path) -> None:
    script = script_in(tmp_path / "stage")
    assert script.read_text() == Path(shell.__file__).read_text()
    os.utime(script, (1, 1))
    assert script_in(tmp_path / "stage") == script
    assert script.stat().st_mtime == 1


class Jobs:
    """Takes note of what is submitted."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Any, ...]] = []

    def submit(self, *arguments: Any) -> None:
        self.submitted.append(arguments)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("shared", [True, False], ids=["files that every node sees", "files of the head's own"])
def test_a_command_is_submitted_as_its_own_process(tmp_path: Path, shared: bool) -> None:
    executor = RayExecutor(
        "http://127.0.0.1:1", "127.0.0.1:1", lambda _: tmp_path, staging=tmp_path / "stage", shared_files=shared
    )
    executor._jobs = jobs = Jobs()  # type: ignore[assignment]
    executor.start(request(tmp_path))
    executor.close()
    ((run_id, entrypoint, environment, metadata, place),) = jobs.submitted
    assert (run_id, place) == ("w-1.r2", Place("node-a", {"T4": 2.0}))
    assert metadata == {"name": "w", "workload_id": "w-1", OUTPUT: str(tmp_path / "out")}
    assert entrypoint.startswith("exec python ")
    assert ("py_modules" in environment) is not shared
    assert environment["env_vars"]["A"] == "mine"
    assert (tmp_path / "out" / ".raywise").is_file()


def test_a_command_does_not_start_where_the_users_files_are(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    executor = RayExecutor("http://127.0.0.1:1", "127.0.0.1:1", lambda _: tmp_path)
    with pytest.raises(WorkloadFailed, match="holds what Raywise did not write") as failed:
        executor.start(request(tmp_path))
    executor.close()
    assert not failed.value.retryable
