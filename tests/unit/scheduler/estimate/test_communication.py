"""Collectives against their closed forms, the link that binds, and what overlap and sharing a host do to them."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler.estimate.communication import (
    MEASURED,
    RING,
    Gang,
    Growth,
    Links,
    all_reduce_s,
    bubble_fraction,
    exposed_s,
    fully_sharded_s,
    host_factor,
    point_to_point_s,
    waiting_s,
)

FAST, SLOW = 10e9, 1e9
LINKS = Links(within_bytes_s=FAST, between_bytes_s=SLOW, latency_s=1e-3)
VOLUME = 1e9


@pytest.mark.parametrize(
    ("counts", "all_reduce", "sharded"),
    [
        pytest.param((1,), 0.0, 0.0, id="one shard says nothing"),
        pytest.param((2,), 0.1 + 0.002, 0.15 + 0.003, id="two in a node: V, and 3/2 V, over the fast link"),
        pytest.param((4,), 0.15 + 0.006, 0.225 + 0.009, id="four in a node: 3/2 V, and 9/4 V"),
        pytest.param((1, 1), 1.0 + 0.002, 1.5 + 0.003, id="two nodes: the same bytes over the network"),
        pytest.param((2, 2), 1.5 + 0.006, 2.25 + 0.009, id="two full nodes: the slowest link binds"),
        pytest.param((3, 1), 1.5 + 0.006, 2.25 + 0.009, id="an uneven gang: only its size counts on a ring"),
    ],
)
def test_a_ring_takes_its_closed_form(counts: tuple[int, ...], all_reduce: float, sharded: float) -> None:
    gang = Gang.from_counts(*counts)
    assert float(all_reduce_s(VOLUME, gang, LINKS)) == pytest.approx(all_reduce)
    assert float(fully_sharded_s(VOLUME, gang, LINKS)) == pytest.approx(sharded)


def test_each_block_that_is_gathered_by_itself_pays_its_own_hops() -> None:
    gang = Gang.from_counts(2)
    assert float(
        fully_sharded_s(VOLUME, gang, LINKS, blocks=12) - fully_sharded_s(VOLUME, gang, LINKS)
    ) == pytest.approx(11 * 3e-3)


@pytest.mark.parametrize("growth", [RING, MEASURED], ids=["as a ring", "as measured"])
def test_more_shards_and_more_bytes_never_take_less(growth: Growth) -> None:
    shards = np.arange(1, 65)
    in_nodes_of_8 = Gang(shards, np.ceil(shards / 8), np.minimum(shards, 8))
    by_shards = all_reduce_s(VOLUME, in_nodes_of_8, LINKS, growth)
    by_volume = all_reduce_s(np.linspace(0.0, VOLUME, 9), Gang.from_counts(4, 4), LINKS, growth)
    assert np.all(np.diff(by_shards) > 0)
    assert np.all(np.diff(by_volume) > 0)


def test_the_slowest_link_binds_whichever_it_is() -> None:
    gang = Gang.from_counts(2, 2)
    slow_inside = Links(within_bytes_s=SLOW, between_bytes_s=FAST, latency_s=1e-3)
    assert float(all_reduce_s(VOLUME, gang, slow_inside)) == pytest.approx(float(all_reduce_s(VOLUME, gang, LINKS)))
    assert float(all_reduce_s(VOLUME, Gang.from_counts(1, 1), slow_inside)) == pytest.approx(0.1 + 0.002)


def test_measured_growth_starts_from_the_ring_of_two() -> None:
    for counts in ((2,), (1, 1)):
        gang = Gang.from_counts(*counts)
        assert float(all_reduce_s(VOLUME, gang, LINKS, MEASURED)) == pytest.approx(
            float(all_reduce_s(VOLUME, gang, LINKS))
        )
    apart, crowded = Gang(64, 64, 1), Gang.from_counts(8)
    assert float(all_reduce_s(VOLUME, apart, LINKS, MEASURED)) < float(all_reduce_s(VOLUME, apart, LINKS))
    assert float(all_reduce_s(VOLUME, crowded, LINKS, MEASURED)) > float(all_reduce_s(VOLUME, crowded, LINKS))


def test_a_stage_hands_its_boundary_over_one_hop_of_the_slowest_link() -> None:
    assert float(point_to_point_s(1e8, Gang.from_counts(2), LINKS)) == pytest.approx(0.01 + 0.001)
    assert float(point_to_point_s(1e8, Gang.from_counts(1, 1), LINKS)) == pytest.approx(0.1 + 0.001)
    assert float(point_to_point_s(1e8, Gang.from_counts(1), LINKS)) == 0.0


@pytest.mark.parametrize(
    ("stages", "micro_batches", "expected"),
    [
        pytest.param(1, 4, 0.0, id="one stage never waits"),
        pytest.param(4, 1, 0.75, id="one micro-batch: one stage at a time works"),
        pytest.param(4, 9, 0.25, id="more micro-batches fill the bubble"),
    ],
)
def test_the_bubble_is_its_closed_form(stages: int, micro_batches: int, expected: float) -> None:
    assert float(bubble_fraction(stages, micro_batches)) == pytest.approx(expected)


def test_overlap_leaves_between_nothing_and_everything() -> None:
    communication_s = np.linspace(0.0, 3.0, 31)
    left_s = exposed_s(communication_s, 1.0)
    assert left_s[0] == 0.0
    assert np.all(left_s >= 0.0)
    assert np.all(left_s <= communication_s)
    assert np.all(np.diff(left_s) > 0)


@pytest.mark.parametrize(
    ("communication_s", "work_s", "expected"),
    [
        pytest.param(2.0, 0.0, 2.0, id="no work to hide behind"),
        pytest.param(0.2, 10.0, 0.02, id="much work: only the last bucket shows"),
        pytest.param(2.0, 1.0, 1.5, id="little work: all but its overlapping half"),
    ],
)
def test_overlap_hides_behind_half_of_the_work(communication_s: float, work_s: float, expected: float) -> None:
    assert float(exposed_s(communication_s, work_s, overlap=0.5, last_bucket=0.1)) == pytest.approx(expected, abs=1e-3)


def test_a_shared_host_slows_work_with_every_doubling() -> None:
    assert host_factor(np.array([1, 2, 4, 8]), 0.1) == pytest.approx([1.0, 1.1, 1.2, 1.3])


def test_all_wait_for_the_slowest_of_n() -> None:
    draws = np.random.default_rng(0).normal(size=(200_000, 16))
    for shards in (1, 2, 6, 16):
        expected = 3.0 * 0.05 * draws[:, :shards].max(axis=1).mean()
        assert float(waiting_s(3.0, shards, 0.05)) == pytest.approx(expected, abs=2e-3)


def test_arrays_give_what_single_gangs_give() -> None:
    counts = [(1,), (2,), (8,), (1, 1), (4, 2), (8, 8, 8)]
    singles = [Gang.from_counts(*each) for each in counts]
    together = Gang(
        *(np.array([getattr(gang, name) for gang in singles]) for name in ("shards", "nodes", "per_node_max"))
    )
    for function in (all_reduce_s, fully_sharded_s, point_to_point_s):
        assert function(VOLUME, together, LINKS) == pytest.approx(
            [float(function(VOLUME, gang, LINKS)) for gang in singles]
        )
    communication_s = np.array([0.0, 0.1, 2.0])
    assert exposed_s(communication_s, 1.0) == pytest.approx([float(exposed_s(value, 1.0)) for value in communication_s])
