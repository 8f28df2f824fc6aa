"""Holds exactly the devices the plan gave to a job: one placement group a run, one bundle a shard, on its node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from ..errors import WorkloadFailed
from ..job import Shard

GANG_TIMEOUT_S = 300.0


def on_node(node_id: str) -> dict[str, str]:
    """The label selector that only this node satisfies."""
    return {"ray.io/node-id": f"in({node_id})"}


def merged(shards: Sequence[Shard]) -> dict[str, float]:
    """The resources of all shards together, for a body that uses them in one process."""
    total: dict[str, float] = {}
    for shard in shards:
        for name, amount in shard.resources.items():
            total[name] = total.get(name, 0.0) + amount
    return total


@contextmanager
def gang(name: str, bundles: Sequence[Mapping[str, float]], node_ids: Sequence[str]) -> Iterator[PlacementGroup]:
    """All bundles at once, each on its node, under `name`; given back at the end.

    Raises WorkloadFailed (retryable) when the devices do not become free in time.
    """
    group = placement_group(
        [dict(bundle) for bundle in bundles],
        strategy="PACK",
        name=name,
        bundle_label_selector=[on_node(node_id) for node_id in node_ids],
    )
    try:
        if not group.wait(GANG_TIMEOUT_S):
            raise WorkloadFailed(f"the placed devices were not free within {GANG_TIMEOUT_S:.0f} s", retryable=True)
        yield group
    finally:
        remove_placement_group(group)


def remote_options(resources: Mapping[str, float]) -> dict[str, Any]:
    """Ray's options for a process that takes these resources and nothing else."""
    named = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
    if named:
        options["resources"] = named
    if "memory" in resources:
        options["memory"] = resources["memory"]
    return options


def in_bundle(group: PlacementGroup, index: int = -1) -> PlacementGroupSchedulingStrategy:
    """Schedule into one bundle of the gang; -1 is any of them."""
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Schedule onto the driver's own node, where the progress file is."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
