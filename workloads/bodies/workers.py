"""What a process in the gang knows about itself."""

from __future__ import annotations

import logging
from typing import Any

from ..job import Job, Shard


def shard_at(shards: tuple[Shard, ...], node_id: str, local_rank: int) -> Shard:
    """The shard of a node's `local_rank`-th worker: Ray Train orders ranks by node, not by the list it was given.

    It counts them by address: on nodes that share one, the ranks of one node follow each other, but may begin anywhere.
    """
    here = [shard for shard in shards if shard.node_id == node_id]
    return here[local_rank % len(here)] if here else shards[0]


def my_shard(job: Job) -> Shard:
    """The shard that this Ray Train worker is."""
    import ray
    import ray.train

    context: Any = ray.train.get_context()
    return shard_at(job.shards, ray.get_runtime_context().get_node_id(), context.get_local_rank())


def quiet_ray_train() -> None:
    """Keep Ray Train's own INFO lines (one for every report) out of the workload's log; its log files keep them.

    Ray Train sets its loggers up anew in every worker, so this is done in the worker.
    """
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("ray.train")] + ["ray.train"]:
        for handler in logging.getLogger(name).handlers:
            if handler.get_name() == "console":
                handler.setLevel(logging.WARNING)
