"""Runs a user's own Ray Train loop in the workers."""

from __future__ import annotations

import inspect
from typing import Any

from ..job import Job
from ..spec import Train
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
    place = {
        "input": spec.input,
        "output": job.output,
        "run_dir": job.run_dir,
        "workload_id": job.workload_id,
        "attempt": job.attempt,
        "device_type": shard.device_type,
        "emulated_speed": shard.emulated_speed,
        "threads": shard.threads,
        "model": spec.model,
        "precision": spec.precision,
        "checkpoint_every_s": spec.checkpoint_every,
    }
    arguments = ({**spec.hyperparameters, "raywise": place},)
    return function(*arguments if inspect.signature(function).parameters else ())
