"""Which items a worker gets next: the pull queue of blocks, with items that are tried again and blocks that are cut.

Pure: time comes in with the results. Positions are the items' places among those that this attempt has to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .blocks import SPEED_MEMORY, Block, BlockQueue

MOST_IN_BLOCK = 20_000


@dataclass
class ItemQueue(BlockQueue):
    """A `BlockQueue` whose rows are items. A block holds half a second of work, so that little is done twice when a
    worker dies, and a worker that got slow items gives the rest of its block back."""

    block_s: float = 0.5
    min_block_s: float = 0.05

    @classmethod
    def of(cls, items: int) -> ItemQueue:
        """All items, first of all one for each worker, to see how long they take."""
        return cls([Block(-1, 0, items)] if items else [], batch_size=1)

    def take(self, replica: int, replicas: int) -> Block | None:
        """The next block for a worker, one of `replicas` that live; None when nothing is left to give."""
        block = super().take(replica, replicas)
        if block is None or block.rows <= MOST_IN_BLOCK:
            return block
        short = replace(block, stop=block.start + MOST_IN_BLOCK)
        self.held[replica][-1] = short
        self.pending.insert(0, Block(-1, short.stop, block.stop))
        return short

    def cut(self, replica: int, block: Block, rows: int, seconds: float) -> None:
        """A worker did the first `rows` of a block and gives the rest back."""
        self.held[replica].remove(block)
        if rows < block.rows:
            self.pending.insert(0, Block(-1, block.start + rows, block.stop))
        if seconds > 0 and rows:
            old, speed = self.speeds.get(replica), rows / seconds
            self.speeds[replica] = speed if old is None else SPEED_MEMORY * speed + (1 - SPEED_MEMORY) * old

    def again(self, position: int) -> None:
        """An item that failed is to be tried again, after all that nobody has tried."""
        self.pending.append(Block(self.next_number, position, position + 1))
        self.next_number += 1

    def lost(self, replica: int) -> list[Block]:
        """A worker died: its items go back to the front, those of the block it was at one by one. Returns that block
        where it was a single item: then it is known which one the worker died of, and it does not go back."""
        blocks = sorted(self.held.pop(replica, []), key=lambda block: block.number)
        if not blocks:
            return []
        first, rest = blocks[0], blocks[1:]
        if first.rows == 1:
            self.pending[:0] = rest
            return [first]
        singles = [
            Block(self.next_number + place, position, position + 1)
            for place, position in enumerate(range(first.start, first.stop))
        ]
        self.next_number += len(singles)
        self.pending[:0] = [*singles, *rest]
        return []
