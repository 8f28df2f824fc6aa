"""Training that is preempted and that is spread over unequal devices computes what one undisturbed device would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .conftest import Driver
from .gangs import Note, make_model, make_tokens, notes, run_name, stopped_at, writing_down

if TYPE_CHECKING:
    from workloads.job import Shard

    from .conftest import Attempt, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3000)]

A100 = "A100-SXM4-40GB"
STEPS = 120
NEARLY = {"rtol": 2e-3, "atol": 1e-4}
"""Sums of the same numbers in another order, over all steps."""


@pytest.fixture(scope="module")
def noting(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = tmp_path_factory.mktemp("noted")
    return Driver(writing_down(nodes, folder), folder)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eight epochs of 15 steps; no checkpoint but after an epoch and when a run is stopped."""
    folder = tmp_path_factory.mktemp("training")
    options = {"epochs": 8, "batch_size": 16, "learning_rate": 2e-3, "max_length": 16, "pooling": "cls"}
    spec = {"kind": "train", "input": str(make_tokens(folder / "tokens")), "model": make_model(folder / "model")}
    return {**spec, "hyperparameters": options, "checkpoint_every": "1h"}


@pytest.fixture(scope="module")
def undisturbed(noting: Driver, nodes: Nodes, training: dict[str, Any]) -> Attempt:
    """On one device, without a break."""
    return noting.run("undisturbed", training, [nodes.shard(A100)])


def by_step(all_notes: Sequence[Note]) -> dict[int, list[Note]]:
    """The notes of each step, by rank."""
    found: dict[int, list[Note]] = {}
    for note in all_notes:
        found.setdefault(note.step, []).append(note)
    return found


def assert_same_training(mine: Sequence[Note], reference: Sequence[Note]) -> None:
    """The same rows in every step, each computed by one shard, and the same losses."""
    steps, expected = by_step(mine), by_step(reference)
    assert sorted(steps) == sorted(expected) == list(range(STEPS))
    for step, shards in steps.items():
        (alone,) = expected[step]
        assert [note.rank for note in shards] == list(range(len(shards))), f"step {step} was done once by each shard"
        assert sorted(row for note in shards for row in note.mine) == sorted(alone.mine), f"step {step}"
        assert {tuple(note.batch) for note in shards} == {tuple(alone.batch)}
    losses, alone_losses = ([each[step][0].loss for step in range(STEPS)] for each in (steps, expected))
    np.testing.assert_allclose(losses, alone_losses, **NEARLY)


def at_speed(gang: Sequence[Shard]) -> list[Shard]:
    """The same gang, each 25 times as fast: no step of it has to be met."""
    return [replace(shard, emulated_speed=25 * (shard.emulated_speed or 1.0)) for shard in gang]


def last_metrics(attempt: Attempt) -> dict[str, float]:
    values = attempt.kinds("metrics")[-1]["values"]
    assert isinstance(values, dict)
    return values


def test_preempted_training_sees_every_row_once_on_whatever_devices(
    noting: Driver, nodes: Nodes, training: dict[str, Any], undisturbed: Attempt
) -> None:
    """Each kind of gang in any order: to start an attempt is what takes the time here."""
    kinds: dict[str, list[Shard]] = {
        "two alike": [nodes.shard("T4", 0.02), nodes.shard("T4", 0.02)],
        "one": [nodes.shard(A100, 0.02)],
        "two types": [replace(nodes.shard("T4", 0.02), speed=1.0), replace(nodes.shard(A100, 0.04), speed=2.0)],
    }
    random = np.random.default_rng()
    order, after = random.permutation(list(kinds)).tolist(), random.integers(1, 12, size=2).tolist()
    print("trained on", order, "and asked to stop after so many steps:", after)
    gangs = [*(kinds[name] for name in order[:-1]), at_speed(kinds[order[-1]])]
    done: list[Note] = []
    for number, (gang, at) in enumerate(zip(gangs, [*after, None], strict=True), start=1):
        if at is None:
            attempt = noting.run("preempted", training, gang, attempt=number)
        else:
            attempt = stopped_at(noting, "preempted", training, gang, len(by_step(done)) + at, number)
            assert attempt.code == 143, attempt.log
            assert not attempt.kinds("done")
            assert not attempt.kinds("failed")
        fresh = notes(attempt, run_name("preempted", number))
        assert min(note.step for note in fresh) == len(by_step(done)), "it went on at that very step"
        done += fresh
        if at is not None:
            assert attempt.kinds("checkpoint")[-1]["step"] == max(note.step for note in fresh) + 1
    assert attempt.done["metrics"]["steps"] == STEPS
    assert [record["step"] for record in attempt.kinds("resumed")] == sorted(
        {r["step"] for r in attempt.kinds("resumed")}
    )
    assert_same_training(done, notes(undisturbed, "undisturbed"))
    assert last_metrics(attempt) == pytest.approx(last_metrics(undisturbed), rel=5e-3, abs=1e-3)


def test_a_gang_of_several_types_trains_as_one_device_and_shares_by_speed(
    noting: Driver, nodes: Nodes, training: dict[str, Any], undisturbed: Attempt
) -> None:
    gang = [nodes.shard("T4", 0.05), nodes.shard("T4", 0.05), nodes.shard(A100, 0.2)]  # nothing is predicted of them
    attempt = noting.run("mixed", training, gang)
    assert attempt.done["metrics"]["steps"] == STEPS
    mine = notes(attempt, "mixed")
    assert_same_training(mine, notes(undisturbed, "undisturbed"))
    first, last = (Counter[str](), Counter[str]())
    for note in mine:
        if note.step < 2:
            first[note.device_type] += len(note.mine)
        if note.step >= STEPS - 15:
            last[note.device_type] += len(note.mine)
    assert set(last) == {"T4", A100}, f"{first}, {last}, {[(n.rank, n.device_type, len(n.mine)) for n in mine[:6]]}"
    assert first[A100] == pytest.approx(32 / 3, abs=2), "an even split at first"
    assert last[A100] > last["T4"], f"it is four times as fast as each of the two others: {last}"
    timing = attempt.kinds("timing")
    assert {record["device_type"] for record in timing} == {"T4", A100}
    assert {(record["count"], record["gang"]) for record in timing} == {(1, 3)}
    per_row = {
        name: sum(r["seconds"] for r in timing if r["device_type"] == name)
        / sum(r["samples"] for r in timing if r["device_type"] == name)
        for name in ("T4", A100)
    }
    assert per_row["T4"] > 1.5 * per_row[A100]


def test_real_hardware_and_host_cores_are_no_gang(noting: Driver, nodes: Nodes, training: dict[str, Any]) -> None:
    hardware = replace(nodes.shard("T4"), resources={"GPU": 1.0})
    attempt = noting.run("impossible", training, [hardware, nodes.shard(A100, 0.5)])
    assert attempt.code == 3
    (failed,) = attempt.kinds("failed")
    assert failed["message"] == f"one gang cannot train on T4 beside {A100}: their shards cannot add up gradients"
    assert not failed["retryable"]


LOOP = """
import json, os, tempfile, time
import ray.train


def loop(config):
    place, context = config["raywise"], ray.train.get_context()
    checkpoint = ray.train.get_checkpoint()
    step = 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step = json.load(open(os.path.join(folder, "step")))["step"]
    began = step
    while step < config["steps"]:
        step += 1
        time.sleep(0.05)
        if ray.train.get_preemption_info() is not None or (config["blind"] and step % 20 == 0):
            with tempfile.TemporaryDirectory() as folder:
                json.dump({"step": step}, open(os.path.join(folder, "step"), "w"))
                first = context.get_world_rank() == 0
                ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint(folder) if first else None)
        elif step % 20 == 0:
            ray.train.report({"step": step})
    ray.train.report({"began": began, "step": step})
"""


@pytest.mark.parametrize("blind", [False, True], ids=["a loop that asks", "a loop that saves now and then"])
def test_a_users_own_loop_is_given_time_to_save(driver: Driver, nodes: Nodes, tmp_path: Path, blind: bool) -> None:
    (tmp_path / "mine.py").write_text(LOOP)
    name = f"own-{'blind' if blind else 'asking'}"
    spec = {"kind": "train", "entrypoint": "mine:loop", "hyperparameters": {"steps": 100_000, "blind": blind}}
    gang = [nodes.shard("T4", 0.5), nodes.shard("T4", 0.5)]
    process = driver.start(name, spec, gang, code=tmp_path)
    driver.wait_for(name, lambda record: record["kind"] == "metrics" and record["values"]["step"] >= 40)
    stop_at_its_next_checkpoint(driver, name)
    attempt = driver.finish(name, process)
    assert attempt.code == 143, attempt.log
    assert not attempt.kinds("failed")
    last = attempt.kinds("metrics")[-1]["values"]["step"]
    assert attempt.kinds("checkpoint")
    spec["hyperparameters"] = {"steps": last + 5, "blind": blind}
    again = driver.run(name, spec, gang, attempt=2, code=tmp_path)
    assert again.done["metrics"] == {"began": last, "step": last + 5}


def stop_at_its_next_checkpoint(driver: Driver, name: str) -> None:
    import time

    from workloads.stopping import request_stop

    request_stop(driver.folder / name / f"{name}.stop", time.time() + 120.0)
