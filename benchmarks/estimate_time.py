"""How long the estimates of a whole queue take, profiles cached: 1,000 workloads x 50 configurations, computed
together, beside the same estimates one workload at a time in the same run; and where a third of the configurations have
too little memory, so that what would fit is searched. Medians of several runs.

python -m benchmarks.estimate_time
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

from cluster.catalog import Catalog
from cluster.types import Node, NodeDevices, Snapshot
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.candidates import estimate_table, estimate_tables, facts_of
from scheduler.estimate.expectation import expectation
from scheduler.estimate.model_profile import profile_config
from scheduler.estimate.profile import ModelProfile
from scheduler.estimate.work import Work
from workloads.spec import Resources

WORKLOADS = 1_000
REPEATS = 5
TYPES = ("T4", "V100-SXM2-16GB", "A100-SXM4-40GB", "L4", "H100-SXM5-80GB")
COUNT = 10
WIDER = 100
"""Batches of 800 to 7,100 rows."""


def cluster() -> Snapshot:
    """Two nodes of eight of each of five device types: fifty configurations of one to ten of a type."""
    catalog = Catalog.load()
    kinds = [catalog.device(name) for name in TYPES]
    nodes = tuple(
        Node(
            f"{kind.name}-{i}", f"{kind.name}-{i}", devices=(NodeDevices(kind.name, "GPU", 8, 8),), network_bytes_s=6e9
        )
        for kind in kinds
        for i in range(2)
    )
    return Snapshot(0.0, nodes, {kind.name: kind for kind in kinds})


def profiles() -> list[tuple[ModelProfile, ModelProfile]]:
    """Ten BERT shapes, for training and for inference."""
    from transformers import BertConfig

    shapes = [
        BertConfig(num_hidden_layers=4 + 2 * i, hidden_size=128 * (i + 1), num_attention_heads=2) for i in range(10)
    ]
    return [(profile_config(shape, training=True), profile_config(shape, training=False)) for shape in shapes]


def queue(shapes: list[tuple[ModelProfile, ModelProfile]], wider: int = 1) -> list[tuple[Work, Resources]]:
    """All different: size, length, batch (`wider` times as large)."""
    resources = Resources.model_validate({"devices": "accelerator", "count": f"1..{COUNT}"})
    works = []
    for i in range(WORKLOADS):
        train, infer = shapes[i % len(shapes)]
        kind, profile = ("train", train) if i % 2 else ("batch-infer", infer)
        size = {"samples": 1000.0 + i, "tokens_per_sample": 16.0 + i % 100, "batch_size": wider * (8 + i % 64)}
        works.append(Work(kind, profile.family, profile=profile, **size))  # type: ignore[arg-type]
    return [(work, resources) for work in works]


def taught(works: list[tuple[Work, Resources]], snapshot: Snapshot) -> Calibration:
    """A calibration with a measured step of every model on every type."""
    calibration, facts = Calibration(), facts_of(snapshot)
    for work, _ in works[:20]:
        for name in TYPES:
            found = expectation(work, name, 1, 1000.0, facts)
            assert found is not None
            found.learn(calibration, 1.3 * found.seconds)
    return calibration


def median_s(run: Callable[[], object]) -> tuple[float, float]:
    """(median, spread) of the seconds of several runs, after one that warms up."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), max(seconds) - min(seconds)


def main() -> None:
    """Print the times and their ratio."""
    snapshot = cluster()
    works = queue(profiles())
    size = f"{WORKLOADS} workloads x {len(TYPES) * COUNT} configurations"
    print(f"{platform.machine()}, Python {platform.python_version()}: {size}")
    for name, calibration in (("nothing measured", Calibration()), ("100 points measured", taught(works, snapshot))):
        together, spread = median_s(lambda c=calibration: estimate_tables(works, snapshot, c))  # type: ignore[misc]
        alone, _ = median_s(lambda c=calibration: [estimate_table(*work, snapshot, c) for work in works])  # type: ignore[misc]
        ratio = f"{alone / together:.1f} times as long"
        print(f"{name}: together {together:.2f} s (spread {spread:.2f} s), one by one {alone:.2f} s, {ratio}")
    wide = queue(profiles(), wider=WIDER)
    start = time.perf_counter()
    found = estimate_tables(wide, snapshot, Calibration())
    first = time.perf_counter() - start
    every = [each for table in found for each in table]
    over = sum(each.infeasible is not None and each.infeasible.code == "memory" for each in every) / len(every)
    again, spread = median_s(lambda: estimate_tables(wide, snapshot, Calibration()))
    print(f"{over:.0%} have too little memory: first {first:.2f} s, then {again:.2f} s (spread {spread:.2f} s)")


if __name__ == "__main__":
    main()
