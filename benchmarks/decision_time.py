"""How long one plan takes, beside the first-fit baseline in the same run: medians of several situations.

python benchmarks/decision_time.py
"""

from __future__ import annotations

import platform
import random
import statistics
import time

from cluster.types import DeviceType, Node, NodeDevices, Snapshot
from scheduler.policy import create
from scheduler.types import Configuration, Estimate, Money, Situation, WorkloadView

REPEATS = 5
TYPES = {"T4": (0.53, 1.0), "V100": (3.06, 3.0), "A100": (3.67, 6.0)}
"""Price and relative speed."""


def situation(workloads: int, devices: int, seed: int) -> Situation:
    """A queue of workloads in front of idle nodes of eight devices."""
    rng = random.Random(seed)
    names = list(TYPES)
    nodes = tuple(
        Node(f"n{i}", f"n{i}", devices=(NodeDevices(names[i % 3], names[i % 3], 8, 8),)) for i in range(devices // 8)
    )
    types = {name: DeviceType(name, "gpu", price_usd_h=price) for name, (price, _) in TYPES.items()}
    views = tuple(_view(f"w{i}", rng) for i in range(workloads))
    return Situation(1, 1000.0, seed, Snapshot(1000.0, nodes, types), views)


def _view(name: str, rng: random.Random) -> WorkloadView:
    seconds, estimates = rng.uniform(60, 36000), []
    for device_type, (price, speed) in TYPES.items():
        for count in (1, 2, 4, 8):
            time_s = seconds / speed / count**0.9
            usd = time_s / 3600 * count * price
            configuration = Configuration.of({device_type: count})
            estimates.append(
                Estimate(configuration, time_s, money=Money(usd), price_usd_h=count * price, source="roofline")
            )
    objective = rng.choice(("cost", "balanced", "time"))
    return WorkloadView(name, name, objective=objective, queued_s=rng.uniform(0, 1000), estimates=tuple(estimates))


def main() -> None:
    """Print a table."""
    print(f"{platform.machine()}, Python {platform.python_version()}, {REPEATS} situations each, seconds a plan")
    print(f"{'workloads':>10} {'devices':>8} {'market':>10} {'spread':>10} {'first-fit':>10} {'ratio':>7}")
    for workloads, devices in ((16, 64), (64, 256), (256, 768), (1024, 768)):
        cases = [situation(workloads, devices, seed) for seed in range(REPEATS)]
        market, fit = _times("market", cases), _times("first-fit", cases)
        ratio = statistics.median(market) / statistics.median(fit)
        print(
            f"{workloads:>10} {devices:>8} {statistics.median(market):>10.4f} {max(market) - min(market):>10.4f} "
            f"{statistics.median(fit):>10.4f} {ratio:>7.1f}"
        )


def _times(policy: str, cases: list[Situation]) -> list[float]:
    times = []
    for case in cases:
        start = time.perf_counter()
        create(policy).plan(case)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
