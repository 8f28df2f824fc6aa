"""What every executor must do, run on the fake and on Ray. The Ray runs use a stub body (`tests/stub_workloads`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.fake import FakeCluster, Script
from cluster.gcs import ControlService
from cluster.host import HostRates
from cluster.local import LocalCluster
from cluster.processes import ProcessId
from cluster.protocols import Executor, LogPart
from cluster.ray_executor import RayExecutor
from cluster.types import RunObservation, RunRequest, Snapshot
from workloads.job import Job, Shard

STUB = Path(__file__).parents[1] / "stub_workloads"
# What the stub body prints and writes for each command, as the fake plays it.
SCRIPTS = {
    "succeed": Script(run_s=5, logs="hello from a run\n"),
    "fail": Script(run_s=5, fail_at_s=2, message="no rows"),
    "wait": Script(run_s=1e9, stop_s=1e9),
    "save": Script(run_s=1e9, stop_s=2, saves=[{"kind": "note", "message": "saved"}]),
    "wait-to-begin": Script(startup_s=1e9),
}


@dataclass
class Harness:
    """One executor under test, and how to let time pass on it."""

    make: Callable[[], Executor]
    pass_time: Callable[[], None]
    folder: Path
    run_ids: Iterator[str]
    executor: Executor = field(init=False)

    def __post_init__(self) -> None:
        self.executor = self.make()

    def request(self, command: str, **changes: Any) -> RunRequest:
        run_id = next(self.run_ids)
        job = Job(
            workload_id=run_id,
            run_id=run_id,
            attempt=1,
            spec={"kind": "stub", "name": "stub", "command": command},
            shards=(Shard("T4", "planned-t4", {"T4": 1.0}, emulated_speed=0.5),),
            run_dir=str(self.folder),
            output=str(self.folder / "out"),
            progress_path=str(self.folder / f"{run_id}.progress"),
        )
        return RunRequest(job, name="stub", **changes)

    def start(self, command: str, **changes: Any) -> str:
        request = self.request(command, **changes)
        self.executor.start(request)
        return request.job.run_id

    def wait(self, run_id: str, until: Callable[[RunObservation], bool], timeout_s: float = 60) -> RunObservation:
        deadline = time.monotonic() + timeout_s
        while True:
            run = self.executor.observe([run_id])[run_id]
            if until(run):
                return run
            assert time.monotonic() < deadline, f"{run}\n{self.executor.logs(run_id)}"
            assert not run.ended, f"{run}\n{self.executor.logs(run_id)}"
            self.pass_time()

    def wait_ended(self, run_id: str) -> RunObservation:
        return self.wait(run_id, lambda run: run.ended)

    def wait_running(self, run_id: str) -> RunObservation:
        return self.wait(run_id, lambda run: run.state == "running")

    def notes(self, run_id: str) -> list[str]:
        return [record["message"] for record in self.make().progress(run_id) if record["kind"] == "note"]


def _ids(prefix: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{prefix}-{number}-{time.time_ns()}"


@pytest.fixture
def fake_harness(definition: ClusterDefinition, catalog: Catalog, host_rates: HostRates, tmp_path: Path) -> Harness:
    clock = [1000.0]
    snapshot: Snapshot = definition.snapshot(host_rates, catalog)

    def script_of(request: RunRequest) -> Script:
        return SCRIPTS[request.job.spec["command"]]

    cluster = FakeCluster(snapshot, lambda: clock[0], script_of)

    def pass_time() -> None:
        clock[0] += 1.0

    views = iter([cluster])
    return Harness(lambda: next(views, None) or cluster.reopened(), pass_time, tmp_path, _ids("fake"))


@pytest.fixture
def ray_harness(local_cluster: LocalCluster, tmp_path: Path) -> Iterator[Harness]:
    made: list[RayExecutor] = []

    def make() -> RayExecutor:
        executor = RayExecutor(
            local_cluster.dashboard_url,
            local_cluster.address,
            lambda run_id: tmp_path / f"{run_id}.progress",
            token_path=local_cluster.token_path,
            workloads_dir=STUB,
        )
        made.append(executor)
        return executor

    yield Harness(make, lambda: time.sleep(0.2), tmp_path, _ids("ray"))
    for executor in made:
        executor.close()


@pytest.fixture(params=["fake", pytest.param("ray", marks=pytest.mark.ray)])
def harness(request: pytest.FixtureRequest) -> Harness:
    found = request.getfixturevalue(f"{request.param}_harness")
    assert isinstance(found, Harness)
    return found


class TestEveryExecutor:
    def test_a_run_goes_from_starting_over_running_to_succeeded(self, harness: Harness) -> None:
        run_id = harness.start("succeed")
        run = harness.wait_ended(run_id)
        assert (run.state, run.message) == ("succeeded", "")
        assert run.started_s is not None
        assert run.ended_s is not None
        assert run.started_s <= run.ended_s

    def test_starting_a_run_twice_starts_it_once(self, harness: Harness) -> None:
        request = harness.request("succeed")
        harness.executor.start(request)
        harness.executor.start(request)
        harness.make().start(request)
        run_id = request.job.run_id
        assert harness.wait_ended(run_id).state == "succeeded"
        harness.executor.start(request)
        assert harness.executor.observe([run_id])[run_id].state == "succeeded"
        kinds = [record["kind"] for record in harness.make().progress(run_id)]
        assert kinds.count("done") == 1

    def test_a_failing_run_says_why(self, harness: Harness) -> None:
        run = harness.wait_ended(harness.start("fail"))
        assert run.state == "failed"
        assert "no rows" in run.message
        assert not run.message.startswith("Ray: ")

    def test_a_run_is_starting_until_its_body_says_that_it_runs(self, harness: Harness) -> None:
        run_id = harness.start("wait-to-begin")
        for _ in range(20):
            assert harness.executor.observe([run_id])[run_id].state == "starting"
            harness.pass_time()
        harness.executor.stop(run_id)
        assert harness.wait_ended(run_id).state == "stopped"

    def test_stop_ends_a_run_and_may_be_repeated(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.wait_running(run_id)
        harness.executor.stop(run_id)
        harness.executor.stop(run_id)
        assert harness.wait_ended(run_id).state == "stopped"
        harness.executor.stop(run_id)
        assert harness.executor.observe([run_id])[run_id].state == "stopped"

    def test_a_run_can_be_stopped_before_it_runs(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.executor.stop(run_id)
        assert harness.wait_ended(run_id).state == "stopped"

    def test_a_run_that_is_given_time_saves_and_ends_by_itself(self, harness: Harness) -> None:
        run_id = harness.start("save")
        harness.wait_running(run_id)
        harness.executor.stop(run_id, 1e6)
        run = harness.wait_ended(run_id)
        assert (run.state, run.message) == ("stopped", "")
        assert run.ended_s is not None
        assert harness.notes(run_id) == ["saved"]

    def test_a_run_that_has_had_its_time_is_ended_by_force(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.wait_running(run_id)
        harness.executor.stop(run_id, 2.0)
        assert not harness.executor.observe([run_id])[run_id].ended
        assert harness.wait_ended(run_id).state == "stopped"
        assert harness.notes(run_id) == []

    def test_the_first_deadline_stays_whoever_asks_again(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.wait_running(run_id)
        harness.executor.stop(run_id, 2.0)
        harness.executor.stop(run_id, 1e6)
        harness.executor = harness.make()
        harness.executor.stop(run_id, 1e6)
        assert harness.wait_ended(run_id).state == "stopped"

    def test_a_call_without_grace_ends_what_was_given_time(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.wait_running(run_id)
        harness.executor.stop(run_id, 1e6)
        for _ in range(5):
            harness.pass_time()
            assert harness.executor.observe([run_id])[run_id].state == "running"
        harness.make().stop(run_id)
        assert harness.wait_ended(run_id).state == "stopped"

    def test_a_run_whose_work_has_not_begun_needs_no_time(self, harness: Harness) -> None:
        run_id = harness.start("wait-to-begin")
        harness.executor.stop(run_id, 1e6)
        assert harness.wait_ended(run_id).state == "stopped"

    def test_stopping_a_run_that_ended_changes_nothing(self, harness: Harness) -> None:
        run_id = harness.start("succeed")
        harness.wait_ended(run_id)
        harness.executor.stop(run_id)
        harness.executor.stop(run_id, 1e6)
        assert harness.executor.observe([run_id])[run_id].state == "succeeded"

    def test_a_run_that_was_never_started_is_lost(self, harness: Harness) -> None:
        runs = harness.executor.observe(["never-started"])
        assert runs["never-started"].state == "lost"
        assert runs["never-started"].ended
        harness.executor.stop("never-started")
        harness.executor.stop("never-started", 1e6)
        assert harness.executor.observe(["never-started"])["never-started"].state == "lost"
        assert list(harness.executor.progress("never-started")) == []
        assert harness.executor.logs("never-started") == ""

    def test_what_a_run_printed_is_read_from_a_byte_on(self, harness: Harness) -> None:
        run_id = harness.start("succeed")
        harness.wait_ended(run_id)
        whole = harness.executor.log_part(run_id, 0, 1 << 20, fresh=True)
        assert b"hello from" in whole.data
        assert whole.size == len(whole.data)
        assert whole.data.decode() == harness.executor.logs(run_id)
        assert harness.executor.log_part(run_id, 3, 4) == LogPart(whole.data[3:7], whole.size)
        assert harness.executor.log_part(run_id, whole.size, 4) == LogPart(b"", whole.size)
        assert harness.executor.log_part("never-started", 0, 4) == LogPart(b"", 0)

    def test_many_runs_are_observed_at_once(self, harness: Harness) -> None:
        run_id = harness.start("succeed")
        harness.wait_ended(run_id)
        names = [run_id, "no-1", "no-2", "no-3", "no-4"]
        states = {name: run.state for name, run in harness.executor.observe(names).items()}
        assert states == {run_id: "succeeded", "no-1": "lost", "no-2": "lost", "no-3": "lost", "no-4": "lost"}
        assert harness.executor.observe([]) == {}

    def test_progress_is_delivered_once_and_again_to_a_fresh_executor(self, harness: Harness) -> None:
        run_id = harness.start("succeed")
        harness.wait_ended(run_id)
        first = [record["kind"] for record in harness.executor.progress(run_id)]
        assert first[-1] == "done"
        assert "phase" in first
        assert list(harness.executor.progress(run_id)) == []
        assert [record["kind"] for record in harness.make().progress(run_id)] == first

    def test_a_fresh_executor_adopts_a_run_that_goes_on(self, harness: Harness) -> None:
        run_id = harness.start("wait")
        harness.wait_running(run_id)
        harness.executor = harness.make()
        harness.wait_running(run_id)
        harness.executor.stop(run_id)
        assert harness.wait_ended(run_id).state == "stopped"


@pytest.mark.ray
class TestRayExecutor:
    def test_logs_are_what_the_run_printed(self, ray_harness: Harness) -> None:
        run_id = ray_harness.start("succeed")
        ray_harness.wait_ended(run_id)
        assert f"hello from {run_id}" in ray_harness.executor.logs(run_id)

    def test_rays_own_file_on_this_machine_says_the_same(
        self, ray_harness: Harness, local_cluster: LocalCluster
    ) -> None:
        run_id = ray_harness.start("succeed")
        ray_harness.wait_ended(run_id)
        nowhere = "http://127.0.0.1:9"
        beside = RayExecutor(
            nowhere, local_cluster.address, lambda _: ray_harness.folder, logs_dir=local_cluster.logs_dir
        )
        assert beside.logs(run_id) == ray_harness.executor.logs(run_id)
        assert f"hello from {run_id}" in beside.logs(run_id)
        beside.close()

    def test_the_users_environment_reaches_the_run(self, ray_harness: Harness) -> None:
        run_id = ray_harness.start("env succeed", env={"USERS_VARIABLE": "a value"})
        ray_harness.wait_ended(run_id)
        assert ray_harness.notes(run_id) == ["a value"]

    @pytest.mark.parametrize("packed", [False, True], ids=["a folder", "a zip"])
    def test_the_users_code_is_shipped(self, ray_harness: Harness, packed: bool) -> None:
        code = ray_harness.folder / "code"
        code.mkdir()
        (code / "users_own_module.py").write_text("GREETING = 'from the code'\n")
        if packed:
            code = Path(shutil.make_archive(str(code), "zip", code))
        run_id = ray_harness.start("code succeed", code_path=str(code))
        ray_harness.wait_ended(run_id)
        assert ray_harness.notes(run_id) == ["from the code"]

    def test_a_run_that_ray_cannot_set_up_fails_with_ray_as_the_reason(
        self, ray_harness: Harness, tmp_path: Path
    ) -> None:
        archive = tmp_path / "broken.zip"
        archive.write_bytes(b"not a zip file")
        run = ray_harness.wait_ended(ray_harness.start("succeed", code_path=str(archive)))
        assert run.state == "failed"
        assert run.message.startswith("Ray: ")
        assert "RUNTIME_ENV_SETUP_FAILURE" in run.message

    def test_stop_leaves_no_process_behind(self, ray_harness: Harness) -> None:
        run_id = ray_harness.start("crowd wait")
        pid_file = ray_harness.folder / "pid"
        ray_harness.wait(run_id, lambda _: pid_file.exists() and pid_file.read_text() != "")
        child = ProcessId.of(int(pid_file.read_text()))
        assert child.is_alive()
        ray_harness.executor.stop(run_id)
        assert ray_harness.wait_ended(run_id).state == "stopped"
        assert not child.is_alive()

    @pytest.mark.parametrize("ends_by", ["stop", "itself"])
    def test_an_ended_run_leaves_no_actor_and_no_placement_group(
        self, ray_harness: Harness, local_cluster: LocalCluster, ends_by: str
    ) -> None:
        service = ControlService(local_cluster.address, local_cluster.token_path)
        run_id = ray_harness.start("leave-behind wait" if ends_by == "stop" else "leave-behind")
        if ends_by == "stop":
            ray_harness.wait(run_id, lambda _: "left behind" in ray_harness.notes(run_id))
            assert run_id in [group.name for group in service.placement_groups()]
            assert [actor.name for driver in service.job_ids(run_id) for actor in service.actors(driver)] == [run_id]
            ray_harness.executor.stop(run_id)
        ray_harness.wait_ended(run_id)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            ray_harness.executor.observe([run_id])
            left = [group.name for group in service.placement_groups() if group.name == run_id]
            left += [actor.name for driver in service.job_ids(run_id) for actor in service.actors(driver)]
            if not left:
                break
            time.sleep(0.2)
        assert left == []
        freed_after = time.monotonic()
        while any(node.free.get("T4") != node.total.get("T4") for node in service.nodes()):
            assert time.monotonic() - freed_after < 20, "the placement group's device was not given back"
            time.sleep(0.1)
        service.close()
