"""A user's own code on a real cluster: in place from the first attempt on, in every process, as the documents say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from .conftest import Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "spec.md"
LOOP = """
import os, cluster, helper, ray.train, scheduler, workloads

def loop(config):
    print("works in", os.getcwd())
    print("sees", cluster.NAME, scheduler.NAME, workloads.NAME)
    data = float(open("data.txt").read())
    ray.train.report({"answer": helper.ANSWER, "data": data, "given": config["given"]})
"""


def submitted(service: Service, spec: Path) -> list[Any]:
    """The workloads of a submission, from the folder of its file, that has ended well."""
    done = service.run("submit", spec, "--wait", "--json", cwd=spec.parent, PYTHONPATH=".")
    assert done.stdout, done.stderr
    workloads = json.loads(done.stdout)["workloads"]
    logs = [service.run("logs", "--raw", each["id"]).stdout for each in workloads if each["state"] != "succeeded"]
    assert done.returncode == 0, [(each["name"], each["state"], each["message"]) for each in workloads] + logs
    return list(workloads)


def test_code_with_modules_of_our_names_that_has_just_been_changed_runs_at_the_first_attempt(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    for name, file in (
        ("cluster", "cluster/__init__.py"),
        ("scheduler", "scheduler.py"),
        ("workloads", "workloads.py"),
    ):
        (tmp_path / file).write_text(f"NAME = 'their {name}'\n")
    (tmp_path / "spec.yaml").write_text(
        "{kind: train, name: fresh, entrypoint: 'mine:loop', hyperparameters: {given: 42},"
        " resources: {devices: [T4], count: 2}}"
    )
    for number in range(2):
        (tmp_path / "mine.py").write_text(f"{LOOP}# version {number}\n")
        (tmp_path / "helper.py").write_text(f"ANSWER = {number}.0\n")
        (tmp_path / "data.txt").write_text(f"{10 * number}")
        (workload,) = submitted(service, tmp_path / "spec.yaml")
        assert (workload["state"], workload["attempt"]) == ("succeeded", 1)
        assert workload["progress"]["metrics"] == {"answer": number, "data": 10 * number, "given": 42}
        log = service.run("logs", workload["id"]).stdout
        assert f"/code/{workload['id']}" in log
        assert "sees their cluster their scheduler their workloads" in log
        assert "\x1b[36m" not in log
        assert "job_manager" not in log
        assert "Runtime env is setting up" in service.run("logs", "--raw", workload["id"]).stdout
    script = "import scheduler, raywise; print(scheduler.NAME, len(raywise.Client().list()) > 0)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=service.env(), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "their scheduler True"


def test_the_documented_pipeline_runs(service: Service, tmp_path: Path) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## Your own code\n")[1]
    for name, source in re.findall(r"`(my_\w+)\.py`:\n\n```python\n(.*?)```", section, flags=re.DOTALL):
        (tmp_path / f"{name}.py").write_text(source)
    for name, start in (("train", 0), ("test", 1)):
        lines = "".join(f"{x},{0.03 * x + 1}\n" for x in range(start - 100, 101, 5))
        (tmp_path / f"{name}.csv").write_text(f"x,y\n{lines}")
    spec = re.search(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    assert spec is not None
    (tmp_path / "spec.yaml").write_text(spec[1])
    steps = {workload["name"]: workload for workload in submitted(service, tmp_path / "spec.yaml")}
    assert {name: step["attempt"] for name, step in steps.items()} == {"prepare": 1, "fit": 1, "predict": 1}
    assert steps["fit"]["progress"]["metrics"]["loss"] < 0.01
    parts = sorted(Path(steps["predict"]["output"]).glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert len(rows) == 40
    assert all(row["prediction"] == pytest.approx(row["y"], abs=0.2) for row in rows)


LONG_LOOP = """
import os, tempfile, time, ray.train

def loop(config):
    begin, kept = 0, ray.train.get_checkpoint()
    if kept is not None:
        with kept.as_directory() as folder:
            begin = int(open(os.path.join(folder, "step")).read())
    print("begins at", begin)
    for step in range(begin, config["steps"] if kept is None else begin + 3):
        time.sleep(0.5)
        with tempfile.TemporaryDirectory() as folder:
            open(os.path.join(folder, "step"), "w").write(str(step + 1))
            ray.train.report({"step": step + 1}, checkpoint=ray.train.Checkpoint.from_directory(folder))
"""


def test_a_training_gives_way_to_a_higher_priority_and_goes_on_where_it_was(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LONG_LOOP)
    (tmp_path / "long.yaml").write_text(
        "{kind: train, name: long, entrypoint: 'mine:loop', hyperparameters: {steps: 1000}, resources: {devices: [A100]}}"
    )
    (tmp_path / "urgent.yaml").write_text(
        "{kind: command, name: urgent, command: echo now, priority: 5, resources: {devices: [A100]}}"
    )
    long = service.submit(tmp_path / "long.yaml")
    service.until(long, lambda workload: workload["progress"]["metrics"].get("step", 0) >= 3, timeout_s=200)
    urgent = service.submit(tmp_path / "urgent.yaml")
    done = service.until(urgent, lambda workload: workload["ended"], timeout_s=200)
    assert done["state"] == "succeeded"
    assert not service.show(long)[0]["ended"], "it was to be stopped, not waited for"
    ended = service.until(long, lambda workload: workload["ended"], timeout_s=300)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    events = service.json("show", long, "--events")["events"]
    kinds = [event["kind"] for event in events if event["kind"] in ("starting", "stopping", "queued", "succeeded")]
    assert kinds == ["queued", "starting", "stopping", "queued", "starting", "succeeded"]
    begun = [int(step) for step in re.findall(r"begins at (\d+)", service.run("logs", long).stdout)]
    assert begun[-1] >= 3, "it goes on from its last checkpoint"
    assert ended["progress"]["metrics"] == {"step": begun[-1] + 3}


def test_a_name_that_the_module_lacks_is_refused_before_anything_starts(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOOP)
    (tmp_path / "spec.yaml").write_text("{kind: train, name: w, entrypoint: 'mine:lop'}")
    done = service.run("submit", tmp_path / "spec.yaml")
    assert done.returncode == 2
    assert "mine.py has no function or class 'lop'" in done.stderr
    assert "did you mean 'loop'?" in done.stderr
