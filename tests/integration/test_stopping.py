"""Inference and commands that are asked to end: what is begun is finished, and nothing is done twice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.stopping import request_stop

if TYPE_CHECKING:
    from .conftest import Driver, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
A100 = "A100-SXM4-40GB"
PREDICTOR = """
import time


class Predict:
    def __init__(self, config):
        self.pause_s = config["pause_s"]

    def __call__(self, batch):
        time.sleep(self.pause_s)
        return {"length": [len(text) for text in batch["text"]]}
"""


def rows_of(files: list[Path]) -> list[int]:
    rows: list[int] = pa.concat_tables([pq.read_table(file) for file in files]).column("row").to_pylist()
    return sorted(rows)


def test_an_inference_that_is_stopped_finishes_its_blocks_and_the_next_attempt_does_the_rest(
    driver: Driver, nodes: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PREDICTOR)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(600)))
    spec: dict[str, Any] = {"kind": "batch-infer", "input": str(tmp_path / "rows.jsonl"), "batch_size": 8}
    spec |= {"entrypoint": "mine:Predict", "hyperparameters": {"pause_s": 0.2}}
    process = driver.start("stopped", spec, [nodes.shard("T4"), nodes.shard(A100)], code=tmp_path)
    driver.wait_for("stopped", lambda record: record["kind"] == "rows" and record["rows"] >= 24)
    request_stop(driver.folder / "stopped" / "stopped.stop", time.time() + 120.0)
    first = driver.finish("stopped", process)
    assert first.code == 143, first.log
    assert not first.kinds("done")
    assert not first.kinds("failed")
    files = sorted(first.output.glob("part-*.parquet"))
    before = {file.name: file.stat().st_mtime_ns for file in files}
    assert len(rows_of(files)) == first.kinds("rows")[-1]["rows"] < 600, "all that was begun is written and told"
    again = driver.run("stopped", spec, [nodes.shard("T4")] * 2, attempt=2, code=tmp_path)
    assert again.done["rows"] == 600
    assert again.kinds("resumed")[-1]["rows"] == len(rows_of(files))
    assert {name: (again.output / name).stat().st_mtime_ns for name in before} == before
    assert rows_of(sorted(again.output.glob("part-*.parquet"))) == list(range(600))


@pytest.mark.parametrize("polite", [True, False], ids=["one that ends", "one that does not hear"])
def test_a_command_gets_a_signal_and_its_time(driver: Driver, nodes: Nodes, polite: bool) -> None:
    name = "polite" if polite else "deaf"
    ending = "echo saving; echo saved > $RAYWISE_OUTPUT/saved; exit 0" if polite else ""
    script = f"trap '{ending}' TERM; touch $RAYWISE_OUTPUT/ready; while true; do sleep 0.1; done"
    process = driver.start(name, {"kind": "command", "command": script}, [nodes.shard("T4")])
    ready = driver.folder / name / "output" / "ready"
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert time.monotonic() < deadline, (driver.folder / name / "log").read_text()
        time.sleep(0.1)
    request_stop(driver.folder / name / f"{name}.stop", time.time() + (120.0 if polite else 3.0))
    attempt = driver.finish(name, process)
    assert attempt.code == 143, attempt.log
    assert not attempt.kinds("done")
    assert not attempt.kinds("failed")
    assert (attempt.output / "saved").exists() == polite
    assert ("saving" in attempt.log) == polite
