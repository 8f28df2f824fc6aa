"""Finds a model's repeated blocks, so that a deep model is traced with few of them.

A run of blocks of one period (1 for equal blocks, 2 for blocks that alternate, ...) is cut to a few periods, from its
end, so that positions keep their meaning (`config.layer_types[i]`, which the mask of block i is chosen by).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LONGEST_PERIOD = 12
FEWEST_PERIODS = 4
"""Shorter runs are traced whole: two traces of two and three periods would be no quicker."""
BLOCKS_SHARE = 0.01
"""Of all parameters that a list must hold to be the model's blocks, not a detail of it."""
POSITION_WORDS = ("idx", "index", "layer_id", "layer_number", "block_id")


@dataclass(frozen=True)
class Repeat:
    """Blocks `first` .. `first + period * count` of a list of blocks."""

    blocks: Any
    """The torch.nn.ModuleList or torch.nn.Sequential."""
    first: int
    period: int
    count: int
    """Whole periods."""

    @contextmanager
    def cut(self, count: int) -> Iterator[None]:
        """The model with only the first `count` periods of the run."""
        before = self.blocks._modules
        start, end = self.first + self.period * count, self.first + self.period * self.count
        children = list(before.values())
        try:
            self.blocks._modules = {str(i): child for i, child in enumerate(children[:start] + children[end:])}
            yield
        finally:
            self.blocks._modules = before


def find_repeats(model: Any) -> list[Repeat]:
    """The outermost runs of blocks that repeat, where tracing few of them saves anything."""
    found = [repeat for blocks in block_lists(model) if (repeat := longest_run(blocks)) is not None]
    whole = _size(model)
    removed = sum(
        (each.count - 2) * sum(_size(child) for child in _children(each.blocks)[each.first : each.first + each.period])
        for each in found
    )
    return found if (len(found) + 1) * (whole - removed) < whole else []


def block_lists(model: Any) -> list[Any]:
    """The lists of at least two blocks that hold the model's weight, the heaviest first; lists inside them are not."""
    import torch

    total = sum(each.numel() for each in model.parameters())
    found: list[Any] = []
    inside: set[int] = set()
    for module in model.modules():
        if id(module) in inside or not isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
            continue
        children = [child for child in _children(module) if any(True for _ in child.parameters())]
        alike = len(children) >= 2 and len({type(child) for child in children}) == 1
        if alike and _parameters(module) >= BLOCKS_SHARE * total:
            found.append(module)
            inside |= {id(each) for each in module.modules()}
    return sorted(found, key=_parameters, reverse=True)


def block_sizes(blocks: Any) -> list[int]:
    """Parameters of each block that has any."""
    return [size for child in _children(blocks) if (size := _parameters(child))]


def longest_run(blocks: Any) -> Repeat | None:
    """The run in a list of blocks that saves most."""
    signatures = [signature(child) for child in _children(blocks)]
    best: Repeat | None = None
    for period in range(1, min(LONGEST_PERIOD, len(signatures) // FEWEST_PERIODS) + 1):
        equal = [a == b for a, b in zip(signatures, signatures[period:], strict=False)]
        for first, length in _runs(equal):
            run = Repeat(blocks, first, period, (length + period) // period)
            if run.count >= FEWEST_PERIODS and (best is None or _saved(run) > _saved(best)):
                best = run
    return best


def _saved(run: Repeat) -> int:
    return (run.count - 3) * run.period


def _runs(equal: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """(start, length) of each stretch of True."""
    start = None
    for i, each in enumerate([*equal, False]):
        if each and start is None:
            start = i
        elif not each and start is not None:
            yield start, i - start
            start = None


def signature(block: Any) -> tuple[Any, ...]:
    """What two blocks have in common exactly if they cost the same."""
    return tuple(
        (name, type(module).__qualname__, _settings(module), _shapes(module)) for name, module in block.named_modules()
    )


def _settings(module: Any) -> tuple[Any, ...]:
    """Plain attributes, but those that only say which block it is."""
    return tuple(
        (name, repr(value))
        for name, value in sorted(vars(module).items())
        if isinstance(value, (bool, int, float, str, tuple, type(None))) and not any(w in name for w in POSITION_WORDS)
    )


def _shapes(module: Any) -> tuple[Any, ...]:
    return tuple(
        (name, None if each is None else (tuple(each.shape), each.dtype, each.requires_grad))
        for name, each in [*module._parameters.items(), *module._buffers.items()]
    )


def _children(blocks: Any) -> list[Any]:
    return list(blocks._modules.values())  # `children()` would name a shared block once


def _parameters(module: Any) -> int:
    return sum(each.numel() for each in module.parameters())


def _size(module: Any) -> int:
    """Modules inside, as often as they are used: what a trace takes time in proportion to."""
    return 1 + sum(_size(child) for child in _children(module) if child is not None)
