"""What a process in the gang knows about itself."""

from __future__ import annotations

from typing import Any

from ..job import Job, Shard


def shard_at(shards: tuple[Shard, ...], node_id: str, local_rank: int) -> Shard:
    """The shard of the `local_rank`-th worker on a node. Ray Train orders ranks by node, not by the list it was given."""
    here = [shard for shard in shards if shard.node_id == node_id]
    return here[local_rank] if local_rank < len(here) else shards[0]


def my_shard(job: Job) -> Shard:
    """The shard that this Ray Train worker is."""
    import ray
    import ray.train

    context: Any = ray.train.get_context()
    return shard_at(job.shards, ray.get_runtime_context().get_node_id(), context.get_local_rank())
