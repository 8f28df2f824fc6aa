"""Which rows a replica gets next: a pull queue over row ranges. Pure: time comes in with the results.

Fast devices come back sooner and so take more rows. A block is as long as `block_s` of work at the replica's measured
speed; near the end blocks shrink so that all replicas finish together (guided self-scheduling, Polychronopoulos and
Kuck 1987). A block is done once; what a lost replica held goes back to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

KILLS_BEFORE_SPLIT = 2
SPEED_MEMORY = 0.5
"""Weight of the newest block in a replica's speed."""


@dataclass(frozen=True)
class Block:
    """Rows `start <= row < stop`. `kills` counts the replicas that died while they held it."""

    number: int
    start: int
    stop: int
    kills: int = 0

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


@dataclass
class BlockQueue:
    """Hands out rows; `pending` are the ranges nobody has, in order."""

    pending: list[Block]
    batch_size: int
    block_s: float = 2.0
    min_block_s: float = 0.25
    next_number: int = 0
    speeds: dict[int, float] = field(default_factory=dict)
    held: dict[int, list[Block]] = field(default_factory=dict)

    @classmethod
    def over(cls, missing: Sequence[tuple[int, int]], batch_size: int, next_number: int = 0) -> BlockQueue:
        """A queue of these row ranges; on a resume, of those that no finished part covers."""
        return cls([Block(-1, start, stop) for start, stop in missing], batch_size, next_number=next_number)

    @property
    def rows_left(self) -> int:
        """Rows that nobody has been given."""
        return sum(block.rows for block in self.pending)

    @property
    def finished(self) -> bool:
        """Whether every row was given out and came back."""
        return not self.pending and not any(self.held.values())

    def take(self, replica: int, replicas: int) -> Block | None:
        """The next block for a replica, one of `replicas` that live; None when nothing is left to give."""
        if not self.pending:
            return None
        first = self.pending[0]
        size = first.rows if first.number >= 0 else min(first.rows, self._size(replica, replicas))
        block = replace(first, stop=first.start + size)
        if block.number < 0:
            block = replace(block, number=self.next_number)
            self.next_number += 1
        rest = [replace(first, start=block.stop)] if size < first.rows else []
        self.pending[:1] = rest
        self.held.setdefault(replica, []).append(block)
        return block

    def done(self, replica: int, block: Block, seconds: float) -> None:
        """A replica finished a block in `seconds`."""
        self.held[replica].remove(block)
        if seconds > 0:
            speed = block.rows / seconds
            old = self.speeds.get(replica)
            self.speeds[replica] = speed if old is None else SPEED_MEMORY * speed + (1 - SPEED_MEMORY) * old

    def lost(self, replica: int) -> list[Block]:
        """A replica died: its blocks go back to the front. Returns single rows that killed too often; they are done.

        Only the oldest block can have been computed on, so only that one is blamed.
        """
        blocks = sorted(self.held.pop(replica, []), key=lambda block: block.number)
        if not blocks:
            return []
        guilty = replace(blocks[0], kills=blocks[0].kills + 1)
        returned, poisoned = self._after_kill(guilty)
        self.pending[:0] = returned + blocks[1:]
        return poisoned

    def _after_kill(self, block: Block) -> tuple[list[Block], list[Block]]:
        if block.kills < KILLS_BEFORE_SPLIT:
            return [block], []
        if block.rows == 1:
            return [], [block]
        middle = block.start + block.rows // 2
        second = Block(self.next_number, middle, block.stop, kills=1)
        self.next_number += 1
        return [replace(block, stop=middle, kills=1), second], []

    def _size(self, replica: int, replicas: int) -> int:
        speed = self.speeds.get(replica)
        if speed is None:
            return self.batch_size
        others = [self.speeds[r] for r in self.speeds if r != replica]
        total = speed + sum(others) + max(0, replicas - 1 - len(others)) * speed
        # Half of this replica's fair part of what is left, so that the last blocks are short.
        fair = self.rows_left * speed / total / 2
        rows = min(speed * self.block_s, max(fair, speed * self.min_block_s))
        whole_batches = int(rows) // self.batch_size * self.batch_size
        return max(1, whole_batches or int(rows))


def missing_ranges(rows: int, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `0..rows` that no range of `covered` covers."""
    missing: list[tuple[int, int]] = []
    at = 0
    for start, stop in sorted(covered):
        if start > at:
            missing.append((at, start))
        at = max(at, stop)
    if at < rows:
        missing.append((at, rows))
    return missing
