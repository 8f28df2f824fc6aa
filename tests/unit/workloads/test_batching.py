"""Epochs, batches and shards: every row once, in an order that a resume finds again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.bodies import batching

LENGTHS = np.random.default_rng(1).integers(3, 40, size=1003)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 8, 64, 5000])
def test_an_epoch_has_every_row_exactly_once_over_all_shards(world: int, batch_size: int) -> None:
    batches = batching.plan_epoch(LENGTHS, batch_size, seed=0, epoch=0)
    seen = [row for batch in batches for rank in range(world) for row in batching.share(batch, rank, [1.0] * world)]
    assert sorted(seen) == list(range(len(LENGTHS)))
    assert len(batches) == batching.steps_per_epoch(len(LENGTHS), batch_size)


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return np.concatenate(batching.plan_epoch(LENGTHS, 32, seed, epoch)).tolist()

    assert first(0, 0) == first(0, 0)
    assert first(0, 0) != first(0, 1)
    assert first(0, 0) != first(1, 0)


def test_a_resume_goes_on_with_the_rows_that_were_next() -> None:
    whole = [batch for epoch in range(2) for batch in batching.plan_epoch(LENGTHS, 32, 0, epoch)]
    epoch, offset = divmod(40, batching.steps_per_epoch(len(LENGTHS), 32))
    assert (epoch, offset) == (1, 8)
    resumed = batching.plan_epoch(LENGTHS, 32, 0, epoch)[offset:]
    assert [b.tolist() for b in resumed] == [b.tolist() for b in whole[40:]]


@pytest.mark.parametrize(
    ("max_steps", "steps"),
    [(None, 96), (5, 5), (32, 32), (96, 96), (1000, 96)],
    ids=["no limit", "within an epoch", "at an epoch's end", "all of it", "more than there is"],
)
def test_a_run_ends_after_its_epochs_or_its_steps(max_steps: int | None, steps: int) -> None:
    assert batching.total_steps(len(LENGTHS), 32, 3, max_steps) == steps


@pytest.mark.parametrize("steps", [0, 1, 31, 32, 40, 96])
def test_rows_and_tokens_seen_are_those_of_the_batches_that_were_done(steps: int) -> None:
    done = [batch for epoch in range(3) for batch in batching.plan_epoch(LENGTHS, 32, 7, epoch)][:steps]
    rows = [row for batch in done for row in batch.tolist()]
    assert batching.seen(LENGTHS, 32, 7, steps) == (len(rows), int(LENGTHS[rows].sum()))


def test_whole_epochs_see_every_row_as_often() -> None:
    assert batching.seen([3, 4, 5], 2, 0, steps=4) == (6, 24)


def test_batches_of_similar_lengths_waste_little() -> None:
    batches = batching.plan_epoch(LENGTHS, 16, 0, 0)
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    assert padded < 1.1 * LENGTHS.sum()


def test_shards_get_as_much_work_as_each_other() -> None:
    batch = batching.plan_epoch(LENGTHS, 64, 0, 0)[0]
    parts = [LENGTHS[batching.share(batch, rank, [1.0] * 4)].sum() for rank in range(4)]
    assert max(parts) - min(parts) < 0.1 * sum(parts)


def test_a_batch_smaller_than_the_gang_leaves_shards_empty() -> None:
    assert [len(batching.share(np.array([5]), rank, [1.0] * 3)) for rank in range(3)] == [1, 0, 0]
    assert len(batching.share(np.array([], dtype=np.int64), 0, [1.0] * 3)) == 0


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_equal_shards_take_every_so_many_th_row(world: int) -> None:
    for rows in range(40):
        batch = np.arange(100, 100 + rows)
        parts = [batching.share(batch, rank, [1 / world] * world).tolist() for rank in range(world)]
        assert parts == [batch[rank::world].tolist() for rank in range(world)]


@given(
    rows=st.integers(0, 300),
    weights=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9),
    scale=st.sampled_from([1e-9, 1.0, 3.0, 1e9]),
)
def test_every_row_goes_to_one_shard_in_proportion_to_its_weight(rows: int, weights: list[float], scale: float) -> None:
    batch = np.random.default_rng(rows).permutation(rows)
    parts = [batching.share(batch, rank, weights) for rank in range(len(weights))]
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    counts = batching.row_counts(rows, weights)
    assert [len(part) for part in parts] == counts
    assert all(abs(n - rows * w / sum(weights)) < 1 + 1e-9 for n, w in zip(counts, weights, strict=True))
    scaled = batching.row_counts(rows, [scale * weight for weight in weights])
    assert max(abs(a - b) for a, b in zip(counts, scaled, strict=True)) <= 1


def test_a_shard_with_little_weight_gets_no_row_and_the_rest_all_of_them() -> None:
    assert batching.row_counts(8, [1.0, 0.01, 0.5]) == [5, 0, 3]


def test_uneven_shards_get_rows_of_all_lengths() -> None:
    batch = batching.plan_epoch(LENGTHS, 64, 0, 0)[0]
    parts = [LENGTHS[batching.share(batch, rank, [3.0, 1.0])] for rank in range(2)]
    assert abs(parts[0].mean() - parts[1].mean()) < 0.05 * LENGTHS[batch].mean()


def test_length_batches_cover_all_rows_longest_first() -> None:
    batches = batching.length_batches([3, 9, 1, 7, 5], 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [4, 0], [2]]


def test_pad_fills_to_the_longest_row() -> None:
    ids, mask = batching.pad([[1, 2, 3], [4]], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factors = [batching.learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[0] < factors[5] < factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert batching.learning_rate_factor(0, 10, 0.0) == 1.0


def test_step_seeds_differ_by_step_and_shard() -> None:
    seeds = {batching.step_seed(0, step, rank) for step in range(200) for rank in range(8)}
    assert len(seeds) == 1600
