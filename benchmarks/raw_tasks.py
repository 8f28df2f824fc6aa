"""Raw Ray tasks, the other side of a task array: `python -m benchmarks.raw_tasks KIND ITEMS` prints items a second.

Each task holds one device, so that as many workers as there are devices do all of them; those have run before the clock
starts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import ray

DEVICES = 4
SHELL = ["bash", "-c", "true"]


def double(item: int) -> int:
    """A tiny task."""
    return item * 2


def shell(item: int) -> str:
    """A task that starts a process and reads what it prints."""
    del item
    return subprocess.run(SHELL, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Warm up, run, print."""
    kind, items = sys.argv[1], int(sys.argv[2])
    ray.init(log_to_driver=False)
    task: Any = ray.remote(num_cpus=0, resources={"T4": 1})(double if kind == "python" else shell)
    ray.get([task.remote(number) for number in range(DEVICES * 25)])
    begun_s = time.perf_counter()
    ray.get([task.remote(number) for number in range(items)])
    print(items / (time.perf_counter() - begun_s))
    ray.shutdown()


if __name__ == "__main__":
    main()
