"""What talking costs a gang: collectives over the slowest link of its placement, what overlap with the backward pass
leaves of them, and what shards on shared hosts lose by waiting. Between `profile` (bytes) and `step_time` (seconds).
Pure; arrays broadcast; seconds, bytes and bytes per second throughout.

Ring collectives: Patarasuk and Yuan (2009). Full sharding: Zhao et al. (FSDP, VLDB 2023). Bubble: Huang et al. (GPipe,
2019). `Growth` and the shares of the last three functions are fitted to measured steps by benchmarks/estimates/sia.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = float | npt.NDArray[Any]

EXPECTED_MAXIMUM = (0.0, 0.5642, 1.0294, 1.4236, 1.7660, 2.0697, 2.3437, 2.5946, 2.8269, 3.0439, 3.2482, 3.4418, 3.6261)
"""Of 1, 2, 4, ... 4096 standard normal values (order statistics; grows like sqrt(2 ln n))."""


@dataclass(frozen=True)
class Gang:
    """How many shards work together and how they are spread over nodes; numbers, or arrays that broadcast."""

    shards: Values
    nodes: Values = 1
    per_node_max: Values = 1
    """Shards on the fullest node."""

    @classmethod
    def from_counts(cls, *counts: int) -> Gang:
        """One gang with so many shards on each node, e.g. `from_counts(4, 2)`."""
        return cls(sum(counts), len(counts), max(counts))


@dataclass(frozen=True)
class Links:
    """How fast the devices of one placement reach each other."""

    within_bytes_s: Values
    """Device to device in one node: NVLink or PCIe, one direction."""
    between_bytes_s: Values
    """Network of one node, shared by all its devices."""
    latency_s: Values = 20e-6
    """Of one hop of a collective: launch of the kernel and the wire."""


@dataclass(frozen=True)
class Growth:
    """How measured collectives grow from two shards up, where that differs from a ring on links of its own."""

    within: float = 0.0
    """Seconds per byte in a node grow as (shards on it / 2) to this power: devices that share lanes of the host."""
    between: float = 1.0
    """Seconds between nodes grow as 2 (n-1)/n to this power: 1 is a ring, less is a collective that starts slower."""


RING = Growth()
MEASURED = Growth(within=0.25, between=0.5)
"""Best for T4, 2080Ti, RTX6000, V100 and A100 machines, up to 64 shards on 16 nodes."""


def seconds_per_byte(gang: Gang, links: Links, growth: Growth = RING) -> Any:
    """Of the slowest link that a ring over the gang crosses; 0 for one shard.

    A ring in node order crosses a node's network once in each direction, however many devices the node holds: they
    share the network, and the ring has all of it.
    """
    shards, nodes, per_node = (np.asarray(value, float) for value in (gang.shards, gang.nodes, gang.per_node_max))
    crowding = np.maximum(per_node / 2.0, 1.0) ** growth.within
    starting = np.maximum(2.0 * (shards - 1.0) / shards, 1.0) ** (growth.between - 1.0)
    within = np.where(per_node > 1, crowding / np.asarray(links.within_bytes_s, float), 0.0)
    between = np.where(nodes > 1, starting / np.asarray(links.between_bytes_s, float), 0.0)
    return np.where(shards > 1, np.maximum(within, between), 0.0)


def all_reduce_s(volume_bytes: Values, gang: Gang, links: Links, growth: Growth = RING) -> Any:
    """Ring all-reduce of `volume_bytes` (the gradients): 2 (n-1) hops of V/n bytes each."""
    return 2.0 * _ring_pass_s(volume_bytes, gang, links, growth)


def fully_sharded_s(
    parameter_bytes: Values, gang: Gang, links: Links, blocks: Values = 1, growth: Growth = RING
) -> Any:
    """Traffic of full sharding: parameters gathered for forward and again for backward, gradients reduce-scattered.

    Three ring passes of (n-1)/n V bytes; their hops are paid once per block, since each block is gathered by itself.
    """
    return 3.0 * _ring_pass_s(parameter_bytes, gang, links, growth, blocks)


def point_to_point_s(boundary_bytes: Values, gang: Gang, links: Links) -> Any:
    """One stage hands `boundary_bytes` to the next over the slowest link of the gang; 0 for one stage."""
    hop_s = np.where(np.asarray(gang.shards) > 1, np.asarray(links.latency_s, float), 0.0)
    return np.asarray(boundary_bytes, float) * seconds_per_byte(gang, links) + hop_s


def bubble_fraction(stages: Values, micro_batches: Values) -> Any:
    """Share of a pipeline's step in which a stage waits: (p-1) / (m+p-1)."""
    idle = np.asarray(stages, float) - 1.0
    return idle / (np.asarray(micro_batches, float) + idle)


def exposed_s(
    communication_s: Values, work_s: Values, overlap: Values = 0.45, last_bucket: Values = 0.15, rounding: float = 0.05
) -> Any:
    """What overlap with the backward pass leaves of the communication: from none of it to all, and never negative.

    work_s: forward and backward of one shard. overlap: the share of it that communication can hide behind (the backward
    pass is two thirds, and its first bucket must be ready first). last_bucket: the share of the communication that only
    starts when backward has ended. The corner between hidden and exposed is rounded by that share of the hiding time.
    """
    communication_s = np.asarray(communication_s, float)
    hiding_s = np.asarray(overlap, float) * np.asarray(work_s, float)
    early_s = (1.0 - np.asarray(last_bucket, float)) * communication_s
    corner_s = rounding * hiding_s
    left_s = 0.5 * (early_s - hiding_s + np.hypot(early_s - hiding_s, corner_s))
    at_rest_s = 0.5 * (np.hypot(hiding_s, corner_s) - hiding_s)
    return communication_s - early_s + np.maximum(left_s - at_rest_s, 0.0)


def host_factor(per_node_max: Values, share: Values) -> Any:
    """Work of a shard takes this many times as long with `per_node_max` shards on its host (loading data, starting
    kernels): 1 when alone, 1 + share for two, and as much again with every doubling."""
    return 1.0 + np.asarray(share, float) * np.log2(np.maximum(np.asarray(per_node_max, float), 1.0))


def waiting_s(work_s: Values, shards: Values, spread: Values) -> Any:
    """All wait for the slowest of n shards whose work varies by `spread` (a standard deviation, as a share of it)."""
    doublings = np.log2(np.maximum(np.asarray(shards, float), 1.0))
    maximum = np.interp(doublings, np.arange(len(EXPECTED_MAXIMUM)), EXPECTED_MAXIMUM)
    return np.asarray(work_s, float) * np.asarray(spread, float) * maximum


def _ring_pass_s(volume_bytes: Values, gang: Gang, links: Links, growth: Growth, pieces: Values = 1) -> Any:
    """One pass round the ring: each of n-1 hops moves V/n bytes and pays the latency, for each piece sent by itself."""
    shards = np.asarray(gang.shards, float)
    moved_s = (shards - 1.0) / shards * np.asarray(volume_bytes, float) * seconds_per_byte(gang, links, growth)
    return moved_s + (shards - 1.0) * np.asarray(links.latency_s, float) * np.asarray(pieces, float)
