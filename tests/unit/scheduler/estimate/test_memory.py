"""Peak bytes of one device, by how much a configuration is too large, and remedies that really fit."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.types import DeviceType
from making import A100, CPU, PROFILE, T4, TYPES, configuration, inference, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.memory import (
    ALLOCATOR_SLACK,
    BUCKET_BYTES,
    FRAMEWORK_BYTES,
    HOST_CONVOLUTION_SLACK,
    HOST_FIXED_BYTES,
    HOST_INFERENCE_SLACK,
    HOST_TRAINING_SLACK,
    STATE_BYTES,
    Memory,
    peak,
    remedy,
)
from scheduler.estimate.profile import ModelProfile, Volume
from scheduler.estimate.work import Work
from scheduler.types import Estimate, Reason

GPU, HOST = FRAMEWORK_BYTES["gpu"], FRAMEWORK_BYTES["cpu"] + HOST_FIXED_BYTES
SAMPLE = 1000 * 50 + 10 * 50**2
"""Bytes of activations of a sample of 50 tokens."""
MILLION = 1_000_000
BIG = replace(PROFILE, parameters=2_000 * MILLION, trainable=2_000 * MILLION)
DEEP = replace(
    PROFILE,
    block_parameters=100_000,
    blocks=8,
    activation_bytes=Volume(per_sample=(0.0, 80_000.0, 0.0)),
    boundary_bytes=Volume(per_sample=(0.0, 500.0, 0.0)),
)


def of(work: Work, samples: float, shards: int = 1, host: bool = False, **more: Any) -> Memory:
    one = np.ones(1)
    return peak(work, samples * one, shards * one, float(host) * one, **more)


def parts(found: Memory) -> list[float]:
    each = (found.weights, found.state, found.activations, found.cache, found.framework)
    assert float(found.total[0]) == pytest.approx(sum(float(part[0]) for part in each))
    return [float(part[0]) for part in each]


def estimated(work: Work, facts: Facts | None = None, **counts: int) -> Estimate:
    facts = facts or Facts(TYPES, 1e9, {"T4": 2, "cpu": 4}, {"T4": 4, "A100": 1, "cpu": 4})
    return estimate(work, configuration(**counts), facts, Calibration())


TRAINED = [
    ("all parameters", training(), 1, [4e6, STATE_BYTES * 1e6, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU]),
    (
        "frozen ones have neither gradient nor moments",
        training(profile=replace(PROFILE, trainable=1000)),
        1,
        [4e6, STATE_BYTES * 1000, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU],
    ),
    (
        "16-bit copies of autocast are among the traced activations, the weights stay fp32",
        training(precision="bf16", profile=replace(PROFILE, precision="16-bit")),
        1,
        [4e6, STATE_BYTES * 1e6, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU],
    ),
    ("data-parallel shards hold whole copies", training(), 4, [4e6, (STATE_BYTES + BUCKET_BYTES) * 1e6, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU]),
    (
        "full sharding holds a part, and two gathered blocks",
        training(strategy="fsdp", profile=replace(PROFILE, block_parameters=50_000)),
        4,
        [1e6 + 2 * 50_000 * 4, STATE_BYTES * 1e6 / 4, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU],
    ),
    (
        "one shard has nothing to gather",
        training(strategy="fsdp", profile=replace(PROFILE, block_parameters=50_000)),
        1,
        [4e6, STATE_BYTES * 1e6, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU],
    ),
    (
        "a stage keeps the activations of the micro-batches under way",
        training(strategy="pipeline", micro_batches=2),
        4,
        [1e6, STATE_BYTES * 1e6 / 4, 10 * SAMPLE * 2 / 4 * ALLOCATOR_SLACK, 0, GPU],
    ),
    (
        "and of no more than there are stages",
        training(strategy="pipeline", micro_batches=16),
        4,
        [1e6, STATE_BYTES * 1e6 / 4, 10 * SAMPLE * ALLOCATOR_SLACK, 0, GPU],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("work", "shards", "expected"), [row[1:] for row in TRAINED], ids=[row[0] for row in TRAINED])
def test_training(work: Work, shards: int, expected: list[float]) -> None:
    assert parts(of(work, 10.0, shards)) == pytest.approx(expected)


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("fp16", 2), ("bf16", 2), ("fp8", 1), ("int8", 1)])
def test_inference_holds_weights_at_its_precision_and_no_state(precision: str, width: int) -> None:
    found = of(inference(precision=precision), 10.0, host=True)
    assert parts(found) == pytest.approx([width * 1e6, 0, 10 * SAMPLE * HOST_INFERENCE_SLACK, 0, HOST])


def test_generation_keeps_keys_and_values_of_all_tokens() -> None:
    model = replace(PROFILE, kv_bytes_per_token=300.0)
    assert parts(of(inference(profile=model, generated_tokens=14), 10.0))[3] == 10 * (50 + 14) * 300.0
    assert parts(of(inference(profile=model), 10.0))[3] == 0.0


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block() -> None:
    found = parts(of(training(profile=DEEP), 10.0, checkpointed=True))[2]
    assert found == pytest.approx((8 * 10 * 50 * 500.0 + 10 * 50 * 80_000.0 / 8) * ALLOCATOR_SLACK)


def test_the_path_of_a_host_has_activations_of_its_own() -> None:
    on_host = replace(PROFILE, activation_bytes=Volume(per_sample=(7.0, 0.0, 0.0)))
    work = training(host_profile=on_host)
    found = [parts(of(work, 10.0, host=host))[2] for host in (False, True)]
    assert found == pytest.approx([10 * SAMPLE * ALLOCATOR_SLACK, 70 * HOST_TRAINING_SLACK])
    convolutions = replace(PROFILE, forward={"convolution": PROFILE.forward["matmul"]})
    found = parts(of(training(profile=convolutions), 10.0, host=True))[2]  # type: ignore[assignment]
    assert found == pytest.approx(10 * SAMPLE * HOST_CONVOLUTION_SLACK)


def test_shards_and_micro_batches_split_the_activations() -> None:
    fixed = GPU + 1e6 * (4 + STATE_BYTES)
    rows = {(1, 1): 10, (2, 1): 5, (4, 1): 2.5, (1, 5): 2, (2, 5): 1}
    for (shards, micro), samples in rows.items():
        found = estimated(training(micro_batches=micro), T4=shards)
        buckets = BUCKET_BYTES * 1e6 if shards > 1 else 0.0
        assert found.memory_bytes == pytest.approx(fixed + buckets + samples * SAMPLE * ALLOCATOR_SLACK)


def test_what_does_not_fit_says_by_how_much_to_the_byte() -> None:
    needed = GPU + 2e9 * (4 + STATE_BYTES) + 10 * SAMPLE * ALLOCATOR_SLACK
    message = f"needs {needed / 1e9:.1f} GB a device, {(needed - 16e9) / 1e9:.1f} GB too much"
    found = estimated(training(profile=BIG), T4=1)
    assert found.memory_bytes == pytest.approx(needed, rel=1e-12)
    assert (found.seconds, found.money, found.breakdown) == (None, None, None)
    assert found.price_usd_h == 0.5
    assert found.infeasible == Reason("memory", message), "weights alone are too large: no remedy to name"


def test_the_last_byte_counts() -> None:
    needed = estimated(training(), T4=1).memory_bytes
    assert needed is not None
    for limit, fits in ((needed, True), (needed - 1, False)):
        found = estimated(training(), Facts({"T4": replace(T4, memory_bytes=limit)}), T4=1)
        assert (found.infeasible is None) is fits


def test_inference_fits_where_training_does_not() -> None:
    assert estimated(inference(profile=BIG), T4=1).infeasible is None
    assert estimated(training(profile=BIG), T4=1).infeasible is not None
    assert estimated(training(profile=BIG, strategy="fsdp"), T4=4).infeasible is None


def test_a_device_of_unknown_memory_is_not_refused() -> None:
    types: dict[str, DeviceType] = {"T4": replace(T4, memory_bytes=None)}
    assert estimated(training(profile=BIG), Facts(types), T4=1).infeasible is None


def test_the_shard_that_needs_the_most_is_the_one_that_is_told() -> None:
    found = estimated(inference(profile=BIG), T4=1, cpu=1)
    assert found.memory_bytes == pytest.approx(max(GPU, HOST) + 8e9 + 10 * SAMPLE * ALLOCATOR_SLACK)
    # The A100 has room for it, the T4 beside it has not.
    wide = inference(profile=replace(BIG, parameters=5_000 * MILLION))
    assert estimated(wide, A100=1).infeasible is None
    both = estimated(wide, A100=1, T4=1)
    assert both.infeasible is not None and both.infeasible.code == "memory"


def test_a_hosts_memory_is_shared_by_its_shards() -> None:
    model = replace(PROFILE, parameters=400 * MILLION, trainable=400 * MILLION)
    one = HOST + 400e6 * (4 + STATE_BYTES)
    work = training(profile=model, batch_size=1)
    for count, room in ((1, 1.2), (2, 2.2), (4, 4.2)):
        each = one + (400e6 * BUCKET_BYTES if count > 1 else 0.0)
        roomy, tight = (
            Facts({"cpu": replace(CPU, memory_bytes=share * each)}, 1e9, {"cpu": 4}) for share in (room, room - 0.3)
        )
        assert estimated(work, roomy, cpu=count).infeasible is None
        assert estimated(work, tight, cpu=count).infeasible is not None
    spread = Facts({"cpu": replace(CPU, memory_bytes=2.2 * (one + 400e6 * BUCKET_BYTES))}, 1e9, {"cpu": 2})
    assert estimated(work, spread, cpu=4).infeasible is None, "four shards on two hosts are two on each"


def test_emulated_devices_share_the_memory_of_the_host_they_stand_on() -> None:
    model = replace(PROFILE, parameters=400 * MILLION, trainable=400 * MILLION)
    each = HOST + 400e6 * (4 + STATE_BYTES + BUCKET_BYTES)
    work = training(profile=model, batch_size=1)
    for share, fits in ((2.2, True), (1.9, False)):
        device = replace(T4, memory_bytes=80e9, emulated_speed=0.5, host_memory_bytes=share * each)
        # One device a node: the nodes of what is emulated are all the same machine.
        found = estimated(work, Facts({"T4": device}, 1e9, {"T4": 1}, {"T4": 8}), T4=2)
        assert (found.infeasible is None) == fits
    assert found.infeasible is not None and "GB too much" in found.infeasible.message


def beyond(extra_samples: float, shards: int = 1) -> float:
    """Bytes that training has with room for so many samples at a time."""
    return GPU + 1e6 * (4 + STATE_BYTES) + extra_samples * SAMPLE * ALLOCATOR_SLACK + 1.0 * shards


REMEDIES = [
    ("more shards are the nearest", training(batch_size=1000), beyond(400.0) + BUCKET_BYTES * 1e6, "fits with 3 shards"),
    ("where there are no more, smaller micro-batches", training(batch_size=64), beyond(3.0), "fits with micro-batches of 2 (batch_size: 2)"),
    ("batches of inference are its own", inference(), GPU + 4e6 + 3.0 * SAMPLE * ALLOCATOR_SLACK, "fits with batches of 2"),
    ("checkpointing where one sample is too many", training(profile=DEEP, batch_size=4), beyond(0.0) + 2 * 50 * 80_000 / 2, "fits with gradient checkpointing (not in the built-in trainer yet)"),
    ("and smaller with it", training(profile=DEEP, batch_size=4), beyond(0.0) + 50 * 80_000 / 4, "fits with gradient checkpointing and micro-batches of 1 (not in the built-in trainer yet)"),
    ("what is checkpointed already cannot be again", training(profile=replace(DEEP, checkpointed=True), batch_size=4), beyond(0.0) + 50 * 80_000 / 4, ""),
    ("nothing helps", training(), GPU, ""),
]  # fmt: skip


@pytest.mark.parametrize(("work", "memory", "way"), [row[1:] for row in REMEDIES], ids=[row[0] for row in REMEDIES])
def test_the_nearest_remedy_is_named(work: Work, memory: float, way: str) -> None:
    facts = Facts({"T4": replace(T4, memory_bytes=memory)}, 1e9, {"T4": 2}, {"T4": 4})
    found = estimated(work, facts, T4=1).infeasible
    assert found is not None
    assert found.message.partition("; ")[2] == way


def test_more_shards_on_one_host_have_less_each() -> None:
    """Ten samples are too many for all of the host's memory: two shards of five need as much together, and more."""
    work = training()
    one = HOST + 1e6 * (4 + STATE_BYTES)
    facts = Facts(
        {"cpu": replace(CPU, memory_bytes=one + 6 * SAMPLE * HOST_TRAINING_SLACK)}, 1e9, {"cpu": 4}, {"cpu": 4}
    )
    found = estimated(work, facts, cpu=1).infeasible
    assert found is not None
    assert found.message.endswith("fits with micro-batches of 5 (batch_size: 5)")


def apart(way: str) -> tuple[int | None, int | None, bool]:
    """(shards, samples at a time, checkpointed) that a remedy names."""
    shards, batch = re.search(r"with (\d+) shards", way), re.search(r"batches of (\d+)", way)
    return int(shards[1]) if shards else None, int(batch[1]) if batch else None, "checkpointing" in way


WORKS = st.builds(
    lambda kind, strategy, batch, micro, blocks, kept: replace(
        training() if kind == "train" else inference(),
        strategy=strategy,
        batch_size=batch,
        micro_batches=micro if kind == "train" else 1,
        profile=ModelProfile(
            "x",
            MILLION,
            MILLION,
            forward=PROFILE.forward,
            blocks=blocks,
            block_parameters=MILLION // (blocks + 1),
            activation_bytes=Volume((kept, 0.0, 0.0), (kept, kept / 10, 10.0)),
            boundary_bytes=Volume(per_sample=(0.0, kept / 200, 0.0)),
        ),
    ),
    st.sampled_from(["train", "train", "batch-infer"]),
    st.sampled_from(["ddp", "fsdp", "pipeline"]),
    st.integers(1, 256),
    st.integers(1, 4),
    st.integers(1, 12),
    st.floats(1e3, 1e6),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    WORKS,
    st.integers(1, 6),
    st.integers(0, 10),
    st.floats(0.05, 0.95),
    st.sampled_from(["T4", "cpu", "emulated"]),
    st.integers(1, 8),
)
def test_what_is_named_really_fits(work: Work, count: int, more: int, room: float, where: str, per_node: int) -> None:
    device = {"T4": T4, "cpu": CPU, "emulated": replace(T4, emulated_speed=0.5)}[where]
    needed = estimated(work, Facts({"D": replace(device, name="D", memory_bytes=None)}, 1e9), D=count).memory_bytes
    assert needed is not None
    base = HOST if where != "T4" else GPU
    sharing = min(per_node, count) if where == "cpu" else 1
    device = replace(device, name="D", memory_bytes=(base + room * (needed - base)) * sharing)
    facts = Facts({"D": device}, 1e9, {"D": per_node}, {"D": count + more})
    found = estimated(work, facts, D=count)
    assert found.infeasible is not None and found.infeasible.code == "memory"
    shards, samples, checkpointed = apart(found.infeasible.message.partition("; ")[2])
    if shards is not None:
        assert count < shards <= count + more
        assert estimated(work, facts, D=shards).infeasible is None
    elif samples is not None and not checkpointed:
        smaller = replace(work, batch_size=samples)
        if work.training:
            members = 1 if work.strategy == "pipeline" else count
            smaller = replace(work, micro_batches=math.ceil(work.batch_size / members / samples))
        assert estimated(smaller, facts, D=count).infeasible is None
    elif checkpointed:
        members = 1 if work.strategy == "pipeline" else count
        share = samples or work.batch_size / members / work.micro_batches
        smaller = replace(work, micro_batches=math.ceil(work.batch_size / members / share))
        fitting = of(smaller, share, count, where != "T4", checkpointed=True).total
        assert float(fitting[0]) <= device.memory_bytes / sharing  # type: ignore[operator]


def test_a_remedy_is_for_the_room_that_other_counts_have() -> None:
    work = training(batch_size=8)
    fixed = 1e6 * (4 + STATE_BYTES) + GPU
    rooms = {1: fixed, 2: fixed, 4: fixed + BUCKET_BYTES * 1e6 + 2.5 * SAMPLE * ALLOCATOR_SLACK}
    assert remedy(work, lambda n: rooms.get(n, 0.0), False, 8.0, 1, 4) == "fits with 4 shards"
    assert remedy(work, lambda n: rooms.get(n, 0.0), False, 8.0, 1, 3) == ""


def test_the_types_of_these_tests_differ_in_memory() -> None:
    assert (T4.memory_bytes, A100.memory_bytes, CPU.memory_bytes) == (16e9, 40e9, 64e9)
