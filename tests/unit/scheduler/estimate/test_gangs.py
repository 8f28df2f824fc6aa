"""Training gangs: collectives over the slowest link, overlap, full sharding, pipelines, micro-batches, uneven gangs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.types import DeviceType
from making import A100, CPU, PROFILE, T4, TYPES, configuration, inference, products, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.columns import Columns
from scheduler.estimate.communication import (
    MEASURED,
    Gang,
    Links,
    all_reduce_s,
    exposed_s,
    fully_sharded_s,
    host_factor,
    point_to_point_s,
    waiting_s,
)
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.hardware import CPU_COMPUTE, GPU_BANDWIDTH, GPU_COMPUTE, GPU_LAUNCH_S
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.rows import (
    DEVICE_LATENCY_S,
    GRADIENT_BYTES,
    HOST_LATENCY_S,
    HOST_SHARE,
    LINK_EFFICIENCY,
    Units,
    units,
)
from scheduler.estimate.step_time import (
    ADAMW_BYTES,
    BETWEEN,
    CLIP_BYTES,
    COMPUTE,
    CROWDING,
    LAST_BUCKET,
    MEMORY,
    OVERLAP_ACCELERATOR,
    OVERLAP_HOST,
    WAITING,
    WITHIN,
    own_s,
)
from scheduler.estimate.work import Work

NETWORK = 1e9
PER_NODE = {"T4": 2, "A100": 1, "cpu": 4}
PRODUCTS = GPU_COMPUTE["matmul"]
HUNDREDFOLD: dict[str, Any] = {"forward": products(2e8), "backward": products(4e8)}
HEAVY: dict[str, Any] = {"forward": products(2e9), "backward": products(4e9)}
LINKED = replace(
    PROFILE,
    parameters=2_000_000,
    block_parameters=400_000,
    blocks=4,
    boundary_bytes=Volume(per_sample=(0.0, 2000.0, 0.0)),
)
"""Two million parameters, one million of them trained, in four blocks that hand on 2000 bytes a token."""
T4_LINKS = Links(32e9 / 2 * LINK_EFFICIENCY, NETWORK * LINK_EFFICIENCY, DEVICE_LATENCY_S)


def unit(work: Work, types: dict[str, DeviceType] = TYPES, **counts: int) -> Units:
    columns = Columns(types, NETWORK, PER_NODE)
    columns.add(work, [configuration(**counts)])
    return units(columns)


def step_s(work: Work, types: dict[str, DeviceType] = TYPES, **counts: int) -> float:
    """Seconds of one of all the steps that a run has."""
    found = estimate(work, configuration(**counts), Facts(types, NETWORK, PER_NODE), Calibration())
    assert found.seconds is not None and work.samples is not None
    return (found.seconds - found.startup_s) * work.batch_size / work.samples


def traffic(work: Work, types: dict[str, DeviceType] = TYPES, **counts: int) -> tuple[float, float]:
    """Seconds within and between nodes, before anything hides them."""
    found = unit(work, types, **counts).parts[0]
    return float(found[WITHIN]), float(found[BETWEEN])


def optimizer_s(device: DeviceType, parameters: float = 1e6) -> float:
    assert device.memory_bandwidth_bytes_s is not None
    return parameters * (ADAMW_BYTES + CLIP_BYTES) / (device.memory_bandwidth_bytes_s * GPU_BANDWIDTH["optimizer"])


RINGS = [
    ("one shard sends nothing", 1, None, None),
    ("two on one node use its link", 2, Gang(2, 1, 2), None),
    ("three cross the network as well", 3, Gang(3, 1, 2), Gang(3, 2, 1)),
    ("so do four", 4, Gang(4, 1, 2), Gang(4, 2, 1)),
]


@pytest.mark.parametrize(("shards", "inside", "across"), [row[1:] for row in RINGS], ids=[row[0] for row in RINGS])
def test_a_ring_all_reduce_of_the_gradients(shards: int, inside: Gang | None, across: Gang | None) -> None:
    gradients = 1e6 * GRADIENT_BYTES  # of what is trained
    expected = [
        0.0 if gang is None else float(all_reduce_s(gradients, gang, T4_LINKS, MEASURED)) for gang in (inside, across)
    ]
    assert traffic(training(profile=LINKED), T4=shards) == pytest.approx(expected)
    if shards == 2:
        assert expected[0] == pytest.approx(4e6 / float(T4_LINKS.within_bytes_s) + 2 * DEVICE_LATENCY_S)


LINK_TABLE = [
    ("half of both directions of the catalog", T4, 16e9 * LINK_EFFICIENCY, DEVICE_LATENCY_S),
    ("an unknown link is the network", replace(T4, interconnect_bytes_s=None), NETWORK, DEVICE_LATENCY_S),
    ("a measured link as it is", replace(T4, measured_link_bytes_s=5e9), 5e9, DEVICE_LATENCY_S),
    ("a host's is measured as it is", replace(CPU, name="T4", interconnect_bytes_s=3e9), 3e9, HOST_LATENCY_S),
    ("so is an emulated type's", replace(T4, emulated_speed=0.5, interconnect_bytes_s=3e9), 3e9, HOST_LATENCY_S),
]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "bytes_s", "hop_s"), [row[1:] for row in LINK_TABLE], ids=[r[0] for r in LINK_TABLE]
)
def test_links_in_a_node(device: DeviceType, bytes_s: float, hop_s: float) -> None:
    within, _ = traffic(training(), {"T4": device}, T4=2)
    assert within == pytest.approx(4e6 / bytes_s + 2 * hop_s)


def crowded(fullest: int, shards: int) -> float:
    """Work takes this many times as long beside so many shards on a host, and waiting for the slowest of all."""
    return float(host_factor(fullest, HOST_SHARE) + waiting_s(1.0, shards, WAITING))


def test_traffic_hides_behind_the_backward_pass_on_a_device_and_not_on_a_host() -> None:
    for device, share, hidden in ((T4, PRODUCTS, OVERLAP_ACCELERATOR), (CPU, CPU_COMPUTE["matmul"], OVERLAP_HOST)):
        count: dict[str, Any] = {device.name: 2}
        found = unit(training(), **count)
        backward_s = 5 * 4e6 * 50 / (device.peak_flops["fp32"] * share)
        assert float(found.overlap[0]) == pytest.approx(hidden * backward_s / float(own_s(found.parts[0])))


def test_shards_on_one_host_cost_each_other() -> None:
    for count, fullest in ((1, 1), (2, 2), (4, 2)):
        found = unit(training(), T4=count).parts[0]
        alone = float(found[:WITHIN].sum())
        assert float(found[CROWDING]) == pytest.approx((crowded(fullest, count) - 1) * alone)
    assert float(unit(inference(), T4=2).parts[0, CROWDING]) == 0.0


def test_stages_hand_on_what_crosses_and_no_gradients() -> None:
    boundary = replace(PROFILE, boundary_bytes=Volume(per_sample=(0.0, 1000.0, 0.0)))
    work = training(profile=boundary, strategy="pipeline", micro_batches=2)
    found = unit(work, T4=4)  # two nodes: one crossing, forward and back
    assert found.traffic_bytes.tolist() == [pytest.approx(2 * work.batch_size * 1000 * 50)]
    assert unit(work, T4=2).traffic_bytes.tolist() == [0.0]


def test_what_cannot_hide_is_exposed() -> None:
    within_s, between_s = traffic(training(), T4=4)
    assert 0.0 < within_s < between_s
    found = unit(training(), T4=4)
    compute_s = 2.5 * 6e6 * 50 / (8e12 * PRODUCTS)
    work_s = crowded(2, 4) * (compute_s + optimizer_s(T4))
    exposed = float(exposed_s(between_s, work_s, float(found.overlap[0]), LAST_BUCKET))
    assert step_s(training(), T4=4) == pytest.approx(work_s + exposed)
    # A hundred times the work hides all but the last bucket.
    large = replace(PROFILE, **HUNDREDFOLD)
    hidden_s = crowded(2, 4) * (100 * compute_s + optimizer_s(T4)) + LAST_BUCKET * between_s
    assert step_s(training(profile=large), T4=4) == pytest.approx(hidden_s, rel=1e-3)


def test_full_sharding_gathers_every_block_and_shares_the_optimizer() -> None:
    work = training(profile=LINKED, strategy="fsdp")
    gathered = [
        float(fully_sharded_s(2e6 * GRADIENT_BYTES, gang, T4_LINKS, 4, MEASURED))
        for gang in (Gang(4, 1, 2), Gang(4, 2, 1))
    ]
    assert traffic(work, T4=4) == pytest.approx(gathered)
    assert float(unit(work, T4=4).parts[0, MEMORY]) == pytest.approx(optimizer_s(T4) / 4)
    assert traffic(work, T4=1) == (0.0, 0.0)
    copies, sharded = (float(unit(replace(work, strategy=each), T4=4).traffic_bytes[0]) for each in ("ddp", "fsdp"))
    assert (copies, sharded) == (2 * 1e6 * GRADIENT_BYTES, 3 * 2e6 * GRADIENT_BYTES)


def test_a_pipeline_waits_in_its_bubble_and_hands_on_its_boundary() -> None:
    work = training(profile=LINKED, strategy="pipeline", micro_batches=5, batch_size=20, samples=2000.0)
    found = unit(work, T4=4)
    whole_s = 20 * 6e6 * 50 / (8e12 * PRODUCTS)
    bubble = 3 / (5 + 3)
    assert found.share.tolist() == [4.0]  # every stage sees all samples of a micro-batch
    assert float(found.parts[0, COMPUTE]) == pytest.approx(whole_s / 4 / (1 - bubble))
    assert float(found.parts[0, MEMORY]) == pytest.approx(optimizer_s(T4) / 4)
    hops = [float(point_to_point_s(4 * 50 * 2000.0, gang, T4_LINKS)) for gang in (Gang(4, 1, 2), Gang(4, 2, 1))]
    assert traffic(work, T4=4) == pytest.approx([2 * 5 * hop for hop in hops])
    # Only its own stage's part of the backward pass hides a device's traffic.
    backward_s = 20 * 4e6 * 50 / (8e12 * PRODUCTS) / 4 / (1 - bubble)
    assert float(found.overlap[0]) == pytest.approx(OVERLAP_ACCELERATOR * backward_s / float(own_s(found.parts[0])))


def test_more_micro_batches_shrink_the_bubble() -> None:
    found = [step_s(training(strategy="pipeline", micro_batches=n, batch_size=64), T4=2) for n in (1, 2, 8)]
    assert found == sorted(found, reverse=True)


def test_one_stage_is_no_pipeline() -> None:
    assert step_s(training(strategy="pipeline"), T4=1) == pytest.approx(step_s(training(), T4=1))


def test_micro_batches_start_their_kernels_again() -> None:
    passing = Cost(flops=Volume(per_sample=(0.0, 2e6, 0.0)), launches=5000.0)
    model = replace(PROFILE, forward={"matmul": passing}, backward={"matmul": passing})
    for micro in (1, 2, 4):
        found = unit(training(profile=model, micro_batches=micro), T4=1)
        assert found.share.tolist() == [10 / micro]
        starting_s = 2 * 5000 * GPU_LAUNCH_S
        assert float(found.parts[0, :WITHIN].sum()) == pytest.approx(micro * starting_s + optimizer_s(T4))
    even = [step_s(training(micro_batches=micro), T4=1) for micro in (1, 4)]
    assert even[0] == pytest.approx(even[1]), "arithmetic alone does not care"


def sample_s(device: DeviceType, flops_per_token: float) -> float:
    """Seconds that a sample of 50 tokens adds to a shard's step."""
    return flops_per_token * 50 / (device.peak_flops["fp32"] * PRODUCTS)


@pytest.mark.parametrize(("t4", "a100"), [(1, 1), (2, 1), (4, 2)])
def test_an_uneven_gang_shares_its_batches_by_speed(t4: int, a100: int) -> None:
    silent = replace(PROFILE, **HEAVY, trainable=1000)
    work = training(profile=silent, batch_size=64, samples=6400.0)
    found = estimate(work, configuration(T4=t4, A100=a100), Facts(TYPES, NETWORK, PER_NODE), Calibration())
    assert found.infeasible is None
    assert found.seconds is not None and found.breakdown is not None
    groups = [(n, optimizer_s(device, 1000), sample_s(device, 6e9)) for device, n in ((T4, t4), (A100, a100))]
    together = (64 + sum(n * c / s for n, c, s in groups)) / sum(n / s for n, _, s in groups)
    step = crowded(min(t4, 2), t4 + a100) * together + LAST_BUCKET * max(traffic(work, T4=t4, A100=a100))
    assert (found.seconds - found.startup_s) / 100 == pytest.approx(step, rel=1e-3)
    rows = dict(found.speeds)
    assert t4 * rows["T4"] + a100 * rows["A100"] == pytest.approx(64)
    taken_s = [c + s * rows[name] for name, (_, c, s) in zip(("T4", "A100"), groups, strict=True)]
    assert taken_s[0] == pytest.approx(taken_s[1], rel=1e-2), "they are done together"


def test_a_device_that_is_too_slow_to_help_is_given_half_a_row() -> None:
    types = TYPES | {"slow": replace(T4, name="slow", peak_flops={"fp32": 8e6})}
    work = training(profile=replace(PROFILE, **HEAVY), batch_size=64)
    found = estimate(work, configuration(slow=1, A100=1), Facts(types, NETWORK, PER_NODE | {"slow": 1}), Calibration())
    assert dict(found.speeds)["slow"] == 0.5


def test_a_fast_device_needs_memory_for_its_larger_part_of_a_batch() -> None:
    work = training(profile=replace(PROFILE, **HEAVY), batch_size=64)
    facts = Facts(TYPES, NETWORK, PER_NODE)
    alone, together = (
        estimate(work, each, facts, Calibration()) for each in (configuration(A100=2), configuration(A100=1, T4=1))
    )
    assert alone.memory_bytes is not None and together.memory_bytes is not None
    assert together.memory_bytes > alone.memory_bytes
    assert not alone.speeds


def test_an_uneven_gang_is_between_its_parts() -> None:
    large = replace(PROFILE, **HEAVY)
    work = training(profile=large, batch_size=64)
    assert step_s(work, A100=2) < step_s(work, T4=1, A100=1) < step_s(work, T4=2)
    # Slow helpers help, and a gang of one type twice over is the gang of that type.
    types = TYPES | {"T5": replace(T4, name="T5")}
    per_node = PER_NODE | {"T5": 2}
    twice = estimate(work, configuration(T4=2, T5=2), Facts(types, NETWORK, per_node), Calibration())
    once = estimate(work, configuration(T4=4), Facts(types, NETWORK, per_node), Calibration())
    assert twice.seconds == pytest.approx(once.seconds)


def test_bytes_that_cross_the_network_are_counted_and_priced_and_replicas_have_none() -> None:
    assert unit(training(), T4=4).traffic_bytes.tolist() == [2 * 1e6 * GRADIENT_BYTES]  # round two nodes
    assert unit(training(), T4=2).traffic_bytes.tolist() == [0.0]
    assert unit(inference(), T4=4).traffic_bytes.tolist() == [0.0]
    assert traffic(inference(), T4=4) == (0.0, 0.0)


def test_what_backward_does_is_not_done_in_inference() -> None:
    assert PROFILE.backward
    forward_only = ModelProfile("x", 1, 1, forward=PROFILE.forward)
    found: list[Any] = [unit(inference(profile=each), T4=1).parts for each in (PROFILE, forward_only)]
    assert np.array_equal(*found)
    assert math.isclose(float(found[0][0, COMPUTE]), 1e9 / (8e12 * PRODUCTS))
