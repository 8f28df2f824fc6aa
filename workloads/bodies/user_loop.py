"""Runs a user's own Ray Train loop in the workers.

A loop that wants to save before it is stopped asks `ray.train.get_preemption_info()`, as on a node that its cloud takes
back: what the plan wants is told in the same words. The checkpoint that it reports then is the last thing it does.
"""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

from ..job import Job
from ..spec import Train
from .stop_watch import StopRequests
from .text import quiet
from .usercode import load_entrypoint
from .workers import my_shard, quiet_ray_train


def user_loop(config: dict[str, Any]) -> Any:
    """Call the entrypoint with its hyperparameters and what it must know about its place under `raywise`."""
    import ray.train
    import torch

    quiet()
    quiet_ray_train()
    job = Job.from_json(config["job"])
    spec = Train.model_validate(job.spec)
    shard = my_shard(job)
    torch.set_num_threads(max(1, shard.threads))
    function = load_entrypoint(spec.entrypoint or "")
    if ray.train.get_context().get_world_rank() == 0:
        config["relay"].write.remote("phase", {"phase": "running"})
        _pass_on_requests(job, StopRequests(config["relay"]))
    place = {
        "input": spec.input,
        "output": job.output,
        "run_dir": job.run_dir,
        "workload_id": job.workload_id,
        "attempt": job.attempt,
        "device_type": shard.device_type,
        "emulated_speed": shard.emulated_speed,
        "threads": shard.threads,
        "speed": shard.speed,
        "model": spec.model,
        "precision": spec.precision,
        "checkpoint_every_s": spec.checkpoint_every,
    }
    arguments = ({**spec.hyperparameters, "raywise": place},)
    return function(*arguments if inspect.signature(function).parameters else ())


def _pass_on_requests(job: Job, requests: StopRequests) -> None:
    """Let Ray Train say that all nodes are to be given up when the run is to end; rank 0 speaks for all."""
    import ray.train
    from ray.train.v2._internal.execution.context import get_train_context
    from ray.train.v2.api.preemption import PreemptionInfo

    told, world = get_train_context().preemption_context, ray.train.get_context().get_world_size()

    def watch() -> None:
        while not requests.come():
            time.sleep(0.5)
        deadline_ms = int((requests.deadline_s or 0.0) * 1000)
        told.preemption_info = PreemptionInfo(
            deadline_ms=deadline_ms,
            preempted_node_to_ranks={shard.node_id: list(range(world)) for shard in job.shards},
        )

    threading.Thread(target=watch, name="stop-requests", daemon=True).start()
