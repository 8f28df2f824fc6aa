"""Step times and peak memory of real models on this machine, for the estimates to be checked against.

    python benchmarks/estimates/measure.py --out FILE [--quick] [--only steps|memory] [--device cpu|cuda]

Step times: one fresh set of processes (one a shard) for each model, mode, precision and shard count. Memory: one for
each point. Needs Python, torch and transformers alone. Writes JSON:

- `machine`: what it ran on; `date`; `quick`;
- `points`: model, family, mode (train, infer), precision, shards, batch (global, split evenly over the shards),
  tokens (null for images), device, weights, seconds (median), low_s and high_s (quartiles), steps;
- `memory`: the same names up to weights, then baseline_bytes, framework_bytes, load_peak_bytes, peak_bytes (see
  `measured.memory_point`); on a GPU reserved_bytes and device_used_bytes too.

A point that could not be measured has `failed` with the reason in place of numbers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from models import MODELS

WORKER = Path(__file__).with_name("measured.py")
GROUP_TIMEOUT_S = 300
QUICK_GROUPS, QUICK_POINTS, QUICK_MEMORY = 3, 2, 3
MEMORY_AT_ONCE = 2


@dataclass(frozen=True)
class Group:
    """Points that share everything but batch and length."""

    model: str
    mode: str
    precision: str
    shards: int
    sizes: str
    """`BATCHxTOKENS` or `BATCH`, with spaces between."""

    def points(self) -> list[tuple[int, int | None]]:
        """(batch, tokens) of each size."""
        pairs = [size.partition("x") for size in self.sizes.split()]
        return [(int(batch), int(tokens) if tokens else None) for batch, _, tokens in pairs]

    def heading(self) -> dict[str, Any]:
        """What all its points carry."""
        family = MODELS[self.model].family
        return {"model": self.model, "family": family, "mode": self.mode, "precision": self.precision}


CPU_STEPS = (
    Group("minilm", "train", "fp32", 1, "1x16 1x64 4x32 8x16 8x64 8x128 16x32 32x16 32x32"),
    Group("convnet", "train", "fp32", 2, "4 8 16 32"),
    Group("gpt2-small-ish", "infer", "fp32", 1, "1x16 1x128 4x32 8x64 16x16 16x64 32x32"),
    Group("minilm", "train", "fp32", 2, "4x32 8x16 8x64 8x128 16x32 32x32"),
    Group("minilm", "infer", "fp32", 1, "1x16 1x128 4x32 8x64 16x16 16x128 32x32 32x64"),
    Group("minilm", "infer", "fp32", 2, "8x64 16x32 32x32"),
    Group("gpt2-small-ish", "train", "fp32", 1, "1x16 1x64 4x32 8x16 8x64 4x128 16x32 32x16"),
    Group("gpt2-small-ish", "train", "fp32", 2, "4x32 8x16 8x64 8x128 16x32 32x16"),
    Group("gpt2-small-ish", "infer", "fp32", 2, "8x64 32x32"),
    Group("convnet", "train", "fp32", 1, "1 4 8 16 32"),
    Group("convnet", "infer", "fp32", 1, "1 4 8 16 32"),
    Group("convnet", "infer", "fp32", 2, "8 32"),
    Group("minilm", "train", "bf16", 1, "1x16 4x16"),
    Group("minilm", "infer", "bf16", 1, "1x16 4x32 8x32"),
    Group("gpt2-small-ish", "train", "bf16", 1, "1x16"),
    Group("convnet", "train", "bf16", 1, "1"),
)
CPU_MEMORY = (
    Group("minilm", "train", "fp32", 1, "4x64 16x64 64x64 2x256"),
    Group("minilm", "train", "fp32", 2, "32x64"),
    Group("gpt2-small-ish", "train", "fp32", 1, "8x64 4x256"),
    Group("gpt2-small-ish", "train", "fp32", 2, "16x64"),
    Group("convnet", "train", "fp32", 1, "16 128"),
    Group("convnet", "train", "fp32", 2, "64"),
    Group("bert-base", "train", "fp32", 1, "2x256 8x64"),
    Group("bert-base", "infer", "fp32", 1, "4x256"),
    Group("minilm", "infer", "fp32", 1, "32x128 4x256"),
    Group("gpt2-small-ish", "infer", "fp32", 1, "4x256 32x32"),
    Group("convnet", "infer", "fp32", 1, "16 128"),
    Group("minilm", "train", "bf16", 1, "4x32"),
)
"""Other sizes than those that the slack of `scheduler.estimate.memory` was chosen on."""
_TEXT_SIZES = "1x128 8x128 32x32 32x128 64x128 16x512 128x128"
_IMAGE_SIZES = "1 8 32 128 256"
CUDA_STEPS = tuple(
    Group(model, mode, precision, 1, _IMAGE_SIZES if model == "convnet" else _TEXT_SIZES)
    for model in ("bert-base", "minilm", "gpt2-small-ish", "convnet")
    for mode in ("train", "infer")
    for precision in ("fp32", "bf16")
)
CUDA_MEMORY = (
    Group("bert-base", "train", "fp32", 1, "1x128 32x128 16x512"),
    Group("bert-base", "train", "bf16", 1, "1x128 32x128 16x512"),
    Group("bert-base", "infer", "fp32", 1, "1x128 64x128"),
    Group("bert-base", "infer", "bf16", 1, "1x128 64x128"),
    Group("gpt2-small-ish", "train", "fp32", 1, "32x128 8x1024"),
    Group("gpt2-small-ish", "train", "bf16", 1, "32x128"),
    Group("convnet", "train", "fp32", 1, "256"),
)
PLANS = {("cpu", "points"): CPU_STEPS, ("cpu", "memory"): CPU_MEMORY}
PLANS |= {("cuda", "points"): CUDA_STEPS, ("cuda", "memory"): CUDA_MEMORY}


def machine(device: str) -> dict[str, Any]:
    """What the measurements ran on."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if device == "cuda" else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def measure_group(group: Group, task: str, device: str, points: list[tuple[int, int | None]]) -> Iterator[Any]:
    """Run points in fresh processes, one a shard; yields each as it is measured, and the rest as failed."""
    left = list(points)
    heading = {**group.heading(), "shards": group.shards, "device": device}
    with tempfile.TemporaryDirectory() as folder:
        order = {**heading, "task": task, "points": points, "meet": f"{folder}/meet"}
        workers = [_start(order, rank, Path(folder, f"{rank}.log")) for rank in range(group.shards)]
        timer = threading.Timer(GROUP_TIMEOUT_S, _stop, (workers,))
        timer.start()
        try:
            for line in workers[0].stdout or ():
                point = json.loads(line)
                left.remove((point["batch"], point["tokens"]))
                yield {**heading, **point}
            codes = [worker.wait() for worker in workers]
        finally:
            timer.cancel()
            _stop(workers)
        reason = f"processes ended with {codes}: {_last_line(Path(folder, '0.log'))}"
    for batch, tokens in left:
        yield {**heading, "batch": batch, "tokens": tokens, "failed": reason}


def _start(order: dict[str, Any], rank: int, log: Path) -> subprocess.Popen[str]:
    settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(order), str(rank)],
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=errors,
            text=True,
            env={**os.environ, **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"},
        )


def _stop(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else f"no message within {GROUP_TIMEOUT_S} s"


def measure_all(part: str, device: str, quick: bool) -> Iterator[Any]:
    """All points of `points` (step times) or `memory`."""
    groups = PLANS[device, part]
    if part == "points":
        for group in groups[:QUICK_GROUPS] if quick else groups:
            yield from measure_group(group, "steps", device, group.points()[: QUICK_POINTS if quick else None])
        return
    singles = [(group, point) for group in groups for point in group.points()]
    if quick:
        singles = singles[:: -(-len(singles) // QUICK_MEMORY)]
    # Sizes do not depend on what else runs, times do; one GPU's memory is shared.
    with ThreadPoolExecutor(MEMORY_AT_ONCE if device == "cpu" else 1) as pool:
        for found in pool.map(lambda one: list(measure_group(one[0], "memory", device, [one[1]])), singles):
            yield from found


def describe(number: int, point: dict[str, Any]) -> str:
    """One line of progress."""
    size = f"{point['batch']}x{point['tokens']}" if point["tokens"] else str(point["batch"])
    kind = f"{point['model']:<15} {point['mode']:<5} {point['precision']} {point['shards']} shards {size:>7}"
    if "failed" in point:
        return f"{number:>3} {kind}  FAILED: {point['failed']}"
    if "seconds" in point:
        spread = f"{point['low_s'] * 1e3:.1f} - {point['high_s'] * 1e3:.1f}"
        return f"{number:>3} {kind}  {point['seconds'] * 1e3:9.1f} ms ({spread}, {point['steps']} steps)"
    above = (point["peak_bytes"] - point["framework_bytes"]) / 2**20
    return f"{number:>3} {kind}  peak {point['peak_bytes'] / 2**20:8.1f} MiB, {above:8.1f} above the framework"


def main() -> int:
    """Measure, print a line for each point, and write the file as points come in; 1 where a point failed."""
    options = _options()
    parts = {"steps": ["points"], "memory": ["memory"]}.get(options.only, ["points", "memory"])
    results: dict[str, Any] = {"machine": machine(options.device), "date": options.date, "quick": options.quick}
    if options.only and options.out.is_file():
        old = json.loads(options.out.read_text())
        results = {**old, **results}
    started, failed = time.monotonic(), 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        results[part] = []
        for number, point in enumerate(measure_all(part, options.device, options.quick), start=1):
            results[part].append(point)
            failed += "failed" in point
            print(describe(number, point), flush=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{time.monotonic() - started:.0f} s, {failed} failed, written to {options.out}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu.json")
    parser.add_argument("--quick", action="store_true", help="a few points, to see that it works")
    parser.add_argument("--only", choices=("steps", "memory"), help="keeps the other part of an existing file")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    parser.add_argument("--date", default=today, help="written into the file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
