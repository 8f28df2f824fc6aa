"""One process of a measurement, started by `measure.py`: runs real steps as a shard of a workload does.

The step is that of the built-in training and inference: fused AdamW, clipped gradients, autocast for 16-bit, DDP
between shards, one thread a shard on the CPU. Rank 0 prints a JSON line for each point.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from models import MODELS
from torch import nn

WARM_UP_STEPS, MIN_STEPS, MAX_STEPS, MIN_SECONDS = 2, 5, 60, 1.0
MEMORY_STEPS = 3
MAX_GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Shard:
    """One of `shards` processes: the model, and how it takes a step."""

    def __init__(self, group: dict[str, Any], rank: int) -> None:
        self.entry, self.rank, self.shards = MODELS[group["model"]], rank, int(group["shards"])
        self.training, self.precision = group["mode"] == "train", str(group["precision"])
        self.device = torch.device(group["device"], rank) if group["device"] == "cuda" else torch.device("cpu")
        self.weights = "random"

    def load_model(self) -> None:
        """Build the model and its optimizer."""
        torch.manual_seed(0)
        model = self.entry.load()
        self.weights = "random" if model is None else "pretrained"
        self.model = (self.entry.build() if model is None else model).to(self.device).train(self.training)
        self.parallel: nn.Module = self.model
        if not self.training:
            self.model.to(DTYPES.get(self.precision, torch.float32))  # as the replicas of batch inference do
            return
        if self.shards > 1:
            self.parallel = nn.parallel.DistributedDataParallel(
                self.model, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self.optimizer = new_optimizer(self.model)

    def example(self, batch: int, tokens: int | None) -> dict[str, torch.Tensor]:
        """This shard's even part of a global batch."""
        with self.device:
            inputs = self.entry.example(batch // self.shards, tokens)
        if self.training or self.precision not in DTYPES:
            return inputs
        dtype = DTYPES[self.precision]
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}

    def step(self, inputs: dict[str, torch.Tensor]) -> None:
        """One training step, or one forward pass without gradients. Returns when the device is done."""
        if self.training:
            self._train(inputs)
        else:
            with torch.inference_mode():
                self.model(**inputs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _train(self, inputs: dict[str, torch.Tensor]) -> None:
        with self._autocast():
            loss = self.parallel(**inputs)
        loss.backward()
        if not math.isfinite(float(loss.detach())):
            raise RuntimeError("the loss is not finite")
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def agree(self, value: bool) -> bool:
        """Rank 0's answer on every shard; also lets all of them start the next step together."""
        if self.shards == 1:
            return value
        flag = torch.tensor([int(value)], device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag.item())


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW as the built-in training has it: weights decay; biases and norms (vectors) do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-5, fused=True)


def time_point(shard: Shard, batch: int, tokens: int | None) -> dict[str, Any]:
    """Median and quartiles of the seconds of one step."""
    inputs = shard.example(batch, tokens)
    for _ in range(WARM_UP_STEPS):
        shard.step(inputs)
    seconds: list[float] = []
    while shard.agree(len(seconds) < MIN_STEPS or (sum(seconds) < MIN_SECONDS and len(seconds) < MAX_STEPS)):
        start = time.perf_counter()
        shard.step(inputs)
        seconds.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"seconds": middle, "low_s": low, "high_s": high, "steps": len(seconds)}


def memory_point(shard: Shard, batch: int, tokens: int | None) -> dict[str, Any]:
    """Most memory that this process held, from before the model exists until after a few steps.

    `baseline_bytes`: with torch and transformers imported; `framework_bytes`: with the model's code loaded and after a
    step of a model of no size, so with all that a framework takes whatever the model; `load_peak_bytes`: most up to
    the finished model; `peak_bytes`: most of all. The resident set on the host, what is allocated on a GPU.
    """
    found = {"baseline_bytes": held_bytes(shard.device)}
    tiny_step(shard)
    with torch.device("meta"):
        shard.entry.build()  # loads the code, takes no memory for weights
    found["framework_bytes"] = held_bytes(shard.device)
    reset_peaks(shard.device)
    shard.load_model()
    found["load_peak_bytes"] = peak_bytes(shard.device)
    inputs = shard.example(batch, tokens)
    for _ in range(MEMORY_STEPS):
        shard.step(inputs)
    found |= {"peak_bytes": peak_bytes(shard.device), "steps": MEMORY_STEPS}
    if shard.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(shard.device)
        found |= {"reserved_bytes": torch.cuda.max_memory_reserved(shard.device), "device_used_bytes": total - free}
    return largest(found, shard.shards)


def held_bytes(device: torch.device) -> int:
    """Memory in use now."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else host_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """Most memory in use since `reset_peaks`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else host_bytes("VmHWM")


def largest(found: dict[str, Any], shards: int) -> dict[str, Any]:
    """The numbers of the shard with the highest peak."""
    if shards == 1:
        return found
    every: list[Any] = [None] * shards
    dist.all_gather_object(every, found)
    return max(every, key=lambda one: int(one["peak_bytes"]))


def tiny_step(shard: Shard) -> None:
    """A step of a model of no size in the same mode and precision."""
    model = nn.Linear(2, 2).to(shard.device)
    with torch.set_grad_enabled(shard.training), shard._autocast():
        loss = model(torch.ones(2, 2, device=shard.device)).float().sum()
    if shard.training:
        optimizer = new_optimizer(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()


def host_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (most so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peaks(device: torch.device) -> None:
    """Start the peaks anew from what is held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not every container allows it; then the peak goes back to the imports, which hold little more
        print("the peak of the host's memory could not be reset", file=sys.stderr)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def join_group(group: dict[str, Any], rank: int) -> None:
    """Meet the other shards through a file, so that no port can be taken."""
    if group["shards"] == 1:
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if group["device"] == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{group['meet']}", rank=rank, world_size=group["shards"])


def run(group: dict[str, Any], rank: int) -> None:
    """All points of a group; a point that fails on a lone shard is reported, and the next one is tried."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    transformers.logging.set_verbosity_error()
    shard = Shard(group, rank)
    if shard.device.type == "cuda":
        torch.cuda.set_device(shard.device)
    join_group(group, rank)
    measure: Callable[[Shard, int, int | None], dict[str, Any]] = memory_point
    if group["task"] == "steps":
        shard.load_model()
        measure = time_point
    for batch, tokens in group["points"]:
        try:
            values = measure(shard, batch, tokens)
        except RuntimeError as error:  # also torch's out-of-memory error
            if shard.shards > 1:
                raise  # the other shards would wait for this one
            values = {"failed": str(error).splitlines()[0]}
        if rank == 0:
            print(json.dumps({"batch": batch, "tokens": tokens, "weights": shard.weights, **values}), flush=True)
    if shard.shards > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    run(json.loads(sys.argv[1]), int(sys.argv[2]))
