"""The pull queue: fast replicas take more, nothing is lost or doubled, resumes and crashes included."""

from __future__ import annotations

import heapq

import pytest

from workloads.bodies.blocks import Block, BlockQueue, missing_ranges


def simulate(rows: int, speeds: list[float], batch_size: int = 8) -> tuple[list[Block], dict[int, int], list[float]]:
    """Replicas of these speeds (rows/s) pull until all is done: blocks, rows by replica, finish time by replica."""
    queue = BlockQueue.over([(0, rows)], batch_size)
    events: list[tuple[float, int, Block]] = []
    done: list[Block] = []
    taken = dict.fromkeys(range(len(speeds)), 0)
    ends = [0.0] * len(speeds)

    def pull(replica: int, now: float) -> None:
        block = queue.take(replica, len(speeds))
        if block is not None:
            heapq.heappush(events, (now + block.rows / speeds[replica], replica, block))

    for replica in range(len(speeds)):
        pull(replica, 0.0)
    while events:
        now, replica, block = heapq.heappop(events)
        queue.done(replica, block, block.rows / speeds[replica])
        done.append(block)
        taken[replica] += block.rows
        ends[replica] = now
        pull(replica, now)
    assert queue.finished
    return done, taken, ends


def covered(blocks: list[Block]) -> list[int]:
    return sorted(row for block in blocks for row in range(block.start, block.stop))


def test_fast_replicas_take_more_rows_and_all_finish_together() -> None:
    blocks, taken, ends = simulate(10_000, [100.0, 400.0, 50.0])
    assert covered(blocks) == list(range(10_000))
    assert taken[1] / taken[0] == pytest.approx(4, rel=0.1)
    assert taken[0] / taken[2] == pytest.approx(2, rel=0.15)
    assert max(ends) - min(ends) < 0.05 * max(ends)


def test_a_block_is_at_most_about_two_seconds_of_work() -> None:
    blocks, _, _ = simulate(100_000, [1000.0])
    assert max(block.rows for block in blocks) <= 2000


def test_block_numbers_follow_the_rows() -> None:
    blocks, _, _ = simulate(5_000, [100.0, 300.0])
    by_number = sorted(blocks, key=lambda block: block.number)
    assert [block.number for block in by_number] == list(range(len(blocks)))
    assert [block.start for block in by_number] == sorted(block.start for block in blocks)


def test_a_lost_replica_gives_its_blocks_back_as_they_were() -> None:
    queue = BlockQueue.over([(0, 100)], 10)
    first, second = queue.take(0, 2), queue.take(0, 2)
    assert queue.lost(0) == []
    again, more = queue.take(1, 1), queue.take(1, 1)
    assert first is not None
    assert again is not None
    assert (again.number, again.start, again.stop, again.kills) == (first.number, first.start, first.stop, 1)
    assert more == second


def test_a_row_that_kills_replicas_is_found_and_left_out() -> None:
    queue = BlockQueue.over([(0, 64)], 16)
    done: list[int] = []
    poisoned: list[Block] = []
    replica = 0
    while not queue.finished:
        block = queue.take(replica, 1)
        assert block is not None
        if block.start <= 21 < block.stop:
            poisoned += queue.lost(replica)
            replica += 1
        else:
            queue.done(replica, block, 0.1)
            done += range(block.start, block.stop)
    assert [(block.start, block.stop) for block in poisoned] == [(21, 22)]
    assert sorted(done) == [row for row in range(64) if row != 21]


def test_numbers_of_split_blocks_are_not_used_twice() -> None:
    queue = BlockQueue.over([(0, 8)], 4)
    numbers: list[int] = []
    for _ in range(2):
        assert queue.take(0, 1) is not None
        queue.lost(0)
    while (block := queue.take(0, 1)) is not None:
        numbers.append(block.number)
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("covered_ranges", "missing"),
    [
        ([], [(0, 10)]),
        ([(0, 10)], []),
        ([(4, 6)], [(0, 4), (6, 10)]),
        ([(6, 8), (0, 2)], [(2, 6), (8, 10)]),
    ],
    ids=["nothing is done", "all is done", "the middle is done", "parts in any order"],
)
def test_a_resume_does_only_what_is_missing(
    covered_ranges: list[tuple[int, int]], missing: list[tuple[int, int]]
) -> None:
    assert missing_ranges(10, covered_ranges) == missing
    queue = BlockQueue.over(missing, 3, next_number=7)
    rows: list[int] = []
    while (block := queue.take(0, 1)) is not None:
        assert block.number >= 7
        rows += range(block.start, block.stop)
        queue.done(0, block, 1.0)
    assert rows == [row for start, stop in missing for row in range(start, stop)]
    assert queue.finished
