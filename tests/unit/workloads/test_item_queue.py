"""Which items workers get, when they are slow, die, or fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workloads.bodies.blocks import Block
from workloads.bodies.item_queue import MOST_IN_BLOCK, ItemQueue


def take(queue: ItemQueue, worker: int = 0, workers: int = 1) -> Block:
    block = queue.take(worker, workers)
    assert block is not None
    return block


def test_the_first_block_is_one_item_and_later_ones_half_a_second_of_work() -> None:
    queue = ItemQueue.of(10_000)
    first = take(queue)
    assert first.rows == 1
    queue.cut(0, first, 1, 0.001)
    assert take(queue).rows == 500


def test_fast_workers_get_more() -> None:
    queue = ItemQueue.of(100_000)
    for worker, seconds in ((0, 0.001), (1, 0.01)):
        queue.cut(worker, take(queue, worker, 2), 1, seconds)
    assert take(queue, 0, 2).rows == 500
    assert take(queue, 1, 2).rows == 50


def test_the_last_blocks_are_short() -> None:
    queue = ItemQueue.of(1001)
    for worker in (0, 1):
        queue.cut(worker, take(queue, worker, 2), 1, 0.001)
    sizes = []
    while (block := queue.take(0, 2)) is not None:
        sizes.append(block.rows)
        queue.cut(0, block, block.rows, block.rows / 1000)
    assert sizes[0] == 249
    assert sizes[-1] <= 50
    assert sum(sizes) == 999


def test_a_block_has_an_end_however_fast_a_worker_is() -> None:
    queue = ItemQueue.of(10 * MOST_IN_BLOCK)
    queue.cut(0, take(queue), 1, 1e-7)
    assert take(queue) == Block(1, 1, 1 + MOST_IN_BLOCK)
    assert queue.rows_left == 9 * MOST_IN_BLOCK - 1


def test_the_rest_of_a_cut_block_goes_to_whoever_comes_next() -> None:
    queue = ItemQueue.of(1000)
    queue.cut(0, take(queue), 1, 0.001)
    block = take(queue)
    queue.cut(0, block, 3, 2.1)
    assert take(queue, 1, 2).start == block.start + 3


def test_the_items_of_a_dead_worker_come_back_one_by_one() -> None:
    queue = ItemQueue.of(100)
    queue.cut(0, take(queue), 1, 0.1)
    first, second = take(queue), take(queue)
    assert queue.lost(0) == []
    singles = [take(queue) for _ in range(first.rows)]
    assert [(each.start, each.rows) for each in singles] == [(first.start + n, 1) for n in range(first.rows)]
    again = take(queue)
    assert (again.start, again.stop) == (second.start, second.stop)


def test_a_single_item_is_blamed_and_comes_back_only_when_it_is_to_be_tried_again() -> None:
    queue = ItemQueue.of(2)
    guilty, other = take(queue), take(queue)
    assert queue.lost(0) == [guilty]
    assert take(queue) == other
    assert queue.take(0, 1) is None
    queue.again(guilty.start)
    assert take(queue).start == guilty.start


@given(st.integers(1, 3000), st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["done", "cut", "lost", "fail"]))))
def test_every_item_is_done_once_whatever_happens(items: int, story: list[tuple[int, str]]) -> None:
    queue = ItemQueue.of(items)
    held: dict[int, list[Block]] = {0: [], 1: [], 2: []}
    done: list[int] = []

    def settle(worker: int, what: str) -> None:
        if what == "lost":
            held[worker].clear()
            done.extend(block.start for block in queue.lost(worker))
            return
        block = held[worker].pop(0)
        rows = max(1, block.rows // 2) if what == "cut" else block.rows
        queue.cut(worker, block, rows, rows / 100)
        did = list(range(block.start, block.start + rows))
        if what == "fail":
            queue.again(did.pop())
        done.extend(did)

    for worker, what in story:
        for _ in range(2):
            if (block := queue.take(worker, 3)) is not None:
                held[worker].append(block)
        if held[worker] or what == "lost":
            settle(worker, what)
    while not queue.finished:
        for worker, blocks in held.items():
            if (block := queue.take(worker, 3)) is not None:
                blocks.append(block)
            while blocks:
                settle(worker, "done")
    assert sorted(done) == list(range(items))
