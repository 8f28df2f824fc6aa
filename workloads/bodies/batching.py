"""Which rows go through the model together: epochs into batches, batches into shards. Pure, seeded, resumable.

Batches hold rows of similar length (padding is wasted compute), yet every epoch visits every row exactly once in an
order that only depends on the seed and the epoch. So a run that resumes at step s goes on with the rows of step s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int64]
POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches: little padding, and batches still differ by epoch."""


def plan_epoch(lengths: Sequence[int] | npt.NDArray[Any], batch_size: int, seed: int, epoch: int) -> list[IndexArray]:
    """The epoch's global batches, in order: row indices, sorted by length within a batch."""
    rng = np.random.default_rng((seed, epoch))
    sizes = np.asarray(lengths)
    order = rng.permutation(len(sizes))
    batches: list[IndexArray] = []
    for start in range(0, len(order), batch_size * POOL_BATCHES):
        pool = order[start : start + batch_size * POOL_BATCHES]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        batches.extend(pool[i : i + batch_size] for i in range(0, len(pool), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def share(batch: IndexArray, rank: int, weights: Sequence[float]) -> IndexArray:
    """The rows of a global batch that shard `rank` computes: in proportion to its weight, within one row. Each shard's
    rows are spread evenly over the batch, and so are their lengths."""
    counts = row_counts(len(batch), weights)
    if not len(batch):
        return batch
    positions = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    owners = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((owners, positions))
    mine: IndexArray = batch[owners[order] == rank]
    return mine


def row_counts(rows: int, weights: Sequence[float]) -> list[int]:
    """How many of `rows` each shard gets: what is due to it rounded down, and one more where most is cut off (the
    largest remainders; the first of equals)."""
    total = math.fsum(weights)
    due = [rows * weight / total for weight in weights]
    counts = [int(each) for each in due]
    left = rows - sum(counts)
    for rank in sorted(range(len(due)), key=lambda rank: (counts[rank] - due[rank], rank))[:left]:
        counts[rank] += 1
    return counts


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Global batches in an epoch."""
    return -(-rows // batch_size)


def total_steps(rows: int, batch_size: int, epochs: int, max_steps: int | None = None) -> int:
    """Global batches of a run: of all its epochs, or fewer where it ends after `max_steps`."""
    steps = steps_per_epoch(rows, batch_size) * epochs
    return steps if max_steps is None else min(steps, max_steps)


def seen(lengths: Sequence[int] | npt.NDArray[Any], batch_size: int, seed: int, steps: int) -> tuple[int, int]:
    """(rows, tokens without padding) of the first `steps` global batches of a run; a row counts once an epoch."""
    sizes = np.asarray(lengths, dtype=np.int64)
    epochs, begun = divmod(steps, steps_per_epoch(len(sizes), batch_size))
    partly = plan_epoch(sizes, batch_size, seed, epochs)[:begun]
    rows = len(sizes) * epochs + sum(len(batch) for batch in partly)
    return rows, int(sizes.sum()) * epochs + sum(int(sizes[batch].sum()) for batch in partly)


def length_batches(lengths: Sequence[int], batch_size: int) -> list[IndexArray]:
    """Rows sorted by length and cut into batches, longest first, for inference."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[IndexArray, IndexArray]:
    """(ids, mask) of shape [rows, longest]."""
    width = max((len(row) for row in rows), default=1) or 1
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def learning_rate_factor(step: int, total_steps: int, warmup_ratio: float) -> float:
    """Linear warm-up to 1, then linear decay towards 0. A function of the step, so there is nothing to restore."""
    warmup = int(total_steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The random seed of one shard's step: dropout repeats after a resume without saving generator states."""
    return (seed * 1_000_003 + step * 4_099 + rank) % (2**63)
