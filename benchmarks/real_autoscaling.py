"""The same queue on the same kinds of nodes, rented by Ray's own autoscaler: by Ray alone, and as Raywise wants them.

    python -m benchmarks.real_autoscaling [--json FILE]

All is real but the clouds: Ray processes on this machine, Ray's autoscaler v2, a provider that launches nodes when they
are asked for, at the prices of AWS machines (the catalog has their sources). Times are a tenth of what clouds take: a
boot of 5 s, and nodes that Ray gives back after 30 s of idleness where its default is 5 min. Dollars are those of every
launched machine from its launch to its end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.local import LocalCluster
from cluster.local_autoscaling import INSTANCES
from cluster.local_provider import Instance, Instances
from scheduler.cli.lifecycle import start_detached, stop
from scheduler.client import Client
from scheduler.service.home import Home

TYPES = {
    "t4-spot": "{name: t4-spot, device: T4, emulated_speed: 0.25, instance: aws/g4dn.xlarge, market: spot, "
    "rent: {most: 4, launch_s: 5}}",
    "t4": "{name: t4, device: T4, emulated_speed: 0.25, instance: aws/g4dn.xlarge, rent: {most: 3, launch_s: 5}}",
    "t4x4": "{name: t4x4, device: T4, count: 4, emulated_speed: 0.25, instance: aws/g4dn.12xlarge, "
    "rent: {most: 1, launch_s: 5}}",
    "a100": "{name: a100, device: A100-SXM4-40GB, emulated_speed: 1.0, instance: gcp/a2-highgpu-1g, "
    "rent: {most: 1, launch_s: 5}}",
}
COUNTS = {"t4-spot": 1, "t4": 1, "t4x4": 4, "a100": 1}
ANY = "accelerator"
"""What a job asks Ray for that may run on whatever: every node has as much of it as it has devices."""
RAY_IDLE_S = 30.0
GIVE_UP_S = 240.0


@dataclass(frozen=True)
class Work:
    """One command of the queue: it comes so long after the first, and takes as long on whatever device."""

    name: str
    at_s: float
    seconds: float


QUEUE = (
    *(Work(f"first-{n}", 0.0, 20.0) for n in range(6)),
    *(Work(f"later-{n}", 60.0, 20.0) for n in range(4)),
)


@dataclass(frozen=True)
class Outcome:
    """What became of the queue. `finished` of its commands had ended `makespan_s` after the first was submitted; None
    where not all did."""

    scheduler: str
    finished: int
    makespan_s: float | None
    mean_s: float | None
    usd: float
    launches: dict[str, int]
    refused: bool


def prices() -> dict[str, float]:
    """Dollars an hour of each kind of node."""
    snapshot = definition(tuple(TYPES)).snapshot(None, Catalog.load())
    return {kind.name: kind.price_usd_h for kind in snapshot.node_types}


def cluster_yaml(order: tuple[str, ...]) -> str:
    """The cluster, its kinds of nodes in this order."""
    return "head: {cpus: 2}\nnodes:\n" + "".join(f"  - {TYPES[name]}\n" for name in order)


def definition(order: tuple[str, ...]) -> ClusterDefinition:
    """As it is read."""
    return ClusterDefinition.parse(yaml.safe_load(cluster_yaml(order)), Catalog.load())


def ray_alone(
    folder: Path, order: tuple[str, ...], scenario: Path, name: str, *, refused: bool, asks_for: str = ANY
) -> Outcome:
    """Every command as a Ray Job that asks for one accelerator, or for one of a type."""
    more = {each: {ANY: float(COUNTS[each])} for each in order}
    cluster = LocalCluster.start(
        definition(order), folder, gpus=(), scenario=scenario, more_resources=more, idle_s=RAY_IDLE_S
    )
    try:
        from ray.job_submission import JobSubmissionClient

        token = cluster.token_path.read_text(encoding="ascii").strip()
        client = JobSubmissionClient(cluster.dashboard_url, headers={"Authorization": f"Bearer {token}"})

        def submit(work: Work) -> str:
            entrypoint = f"sleep {work.seconds}"
            return str(
                client.submit_job(entrypoint=entrypoint, entrypoint_num_cpus=0, entrypoint_resources={asks_for: 1.0})
            )

        def ended() -> dict[str, float]:
            return {
                each.submission_id: each.end_time / 1000
                for each in client.list_jobs()
                if each.submission_id and each.status.is_terminal() and each.end_time
            }

        return _play(name, Instances(folder / INSTANCES), submit, ended, refused)
    finally:
        cluster.stop()


def raywise(folder: Path, order: tuple[str, ...], scenario: Path, refused: bool) -> Outcome:
    """Every command through the service, which may run it on any type."""
    home, file = Home(folder), folder / "cluster.yaml"
    folder.mkdir()
    file.write_text(cluster_yaml(order))
    start_detached(home, cluster=file, scenario=scenario)
    try:
        with Client(home=folder) as client:

            def submit(work: Work) -> str:
                spec = {
                    "kind": "command",
                    "name": work.name,
                    "command": f"sleep {work.seconds}",
                    "expected_runtime": f"{work.seconds}s",
                    "resources": {"devices": ["T4", "A100-SXM4-40GB"], "count": 1},
                }
                return str(client.submit(spec)["id"])

            def ended() -> dict[str, float]:
                return {each["id"]: each["ended_s"] for each in client.workloads() if each["ended_s"]}

            return _play("Raywise", Instances(home.cluster / INSTANCES), submit, ended, refused)
    finally:
        stop(home)


def _play(
    name: str, instances: Instances, submit: Callable[[Work], str], ended: Callable[[], dict[str, float]], refused: bool
) -> Outcome:
    """Submit the queue as it comes, wait for its end, and then until all nodes have been given back."""
    begin_s, submitted = time.time(), dict[str, float]()
    left = sorted(QUEUE, key=lambda each: each.at_s)
    ends: dict[str, float] = {}
    while time.time() - begin_s < GIVE_UP_S:
        while left and time.time() - begin_s >= left[0].at_s:
            at_s = time.time()
            submitted[submit(left.pop(0))] = at_s
        ends = ended()
        if not left and len(ends) == len(QUEUE):
            break
        time.sleep(0.5)
    done = not left and len(ends) == len(QUEUE)
    while done and not all(each.ended_s for each in instances.all()) and time.time() - begin_s < 3 * GIVE_UP_S:
        time.sleep(0.5)
    waited = [at_s - submitted[each] for each, at_s in ends.items()]
    usd_h, now_s = prices(), time.time()
    launched: list[Instance] = instances.all()
    return Outcome(
        name,
        len(ends),
        max(ends.values()) - begin_s if done else None,
        sum(waited) / len(waited) if done else None,
        sum(((each.ended_s or now_s) - each.launched_s) / 3600 * usd_h[each.node_type] for each in launched),
        dict(Counter(each.node_type for each in launched)),
        refused,
    )


def main() -> None:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cheapest_first = tuple(TYPES)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="raywise-benchmark-") as temporary:
        root = Path(temporary)
        good, bad = root / "good.yaml", root / "bad.yaml"
        good.write_text("types: {}\n")
        for number, (label, order, asks_for) in enumerate(
            (
                ("Ray, users name no type", cheapest_first, ANY),
                ("Ray, users name the T4", cheapest_first, "T4"),
            )
        ):
            folder = root / f"ray-{number}"
            outcomes.append(ray_alone(folder, order, good, label, refused=False, asks_for=asks_for))
            _say(outcomes[-1])
        outcomes.append(raywise(root / "raywise", cheapest_first, good, refused=False))
        _say(outcomes[-1])
        taken = max(outcomes[0].launches, key=lambda each: outcomes[0].launches[each] * COUNTS[each])
        bad.write_text(f"types: {{{taken}: {{refuse: true}}}}\n")
        label = f"Ray, users name no type, no {taken} to be had"
        outcomes.append(ray_alone(root / "ray-refused", cheapest_first, bad, label, refused=True))
        _say(outcomes[-1])
        outcomes.append(raywise(root / "raywise-refused", cheapest_first, bad, refused=True))
        _say(outcomes[-1])
        shutil.rmtree(root, ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")


def _say(outcome: Outcome) -> None:
    makespan = "never" if outcome.makespan_s is None else f"{outcome.makespan_s:.0f} s"
    mean = "-" if outcome.mean_s is None else f"{outcome.mean_s:.0f} s"
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(outcome.launches.items()))
    sys.stdout.write(
        f"| {outcome.scheduler} | {outcome.finished} of {len(QUEUE)} | {makespan} | {mean} | ${outcome.usd:.4f} "
        f"| {kinds} |\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
