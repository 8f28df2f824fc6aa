"""Our allocation core inside Sia's own simulator, beside Sia: the same jobs, machines, rounds, restarts and speeds.

Ours knows what Sia knows (throughput and gradients as measured so far, the ratio of speeds between device types,
restart seconds) and two things that Sia does not use: which jobs are of one family, so that what was measured of one
tells of the others (see sia_estimates.py), and the declared epochs of a job, so that what is left is known.
`--no-declared-epochs` takes the second away: what is left is then guessed by what jobs of the family needed in all or,
before one has ended, taken to be as much as was done.

python -m benchmarks.peers.sia_adapter SIMULATOR TRACE [TRACE ...] [--policy raywise|sia|both]
    [--setting least-jct|thrifty] [--rule NAME=VALUE] [--no-declared-epochs]

TRACE is a workload file, or a name such as philly-1 for one of the simulator's own. Prints one JSON object per run.
Needs an environment of its own: see sia_simulator.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))
from benchmarks.peers import sia_estimates, sia_simulator  # noqa: E402


def _core() -> Any:
    """The allocation core by its file: its package needs what is not installed beside the simulator."""
    name = "raywise_allocation"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scheduler" / "policy" / "allocation.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


allocation = _core()
DEFAULTS = {
    "p_fairness": -0.5,
    "lambda_a": 0.01,
    "lambda_n": 1.1,
    "project_throughputs": True,
    "share_max_replicas": True,
}
"""Of Sia, as in its run_experiment.sh."""
SETTINGS = {
    "least-jct": allocation.Rules(),
    "thrifty": allocation.Rules(device=0.055),
}
"""Chosen on philly-1 and saturn-1: the least mean JCT, and the least with no more GPU-hours than Sia."""
FIRST_GUESS = 3000.0
"""Steps of a job that just started, of a family of which none has ended, where epochs are not declared."""


@dataclass
class Stays:
    """How long placements last, per family and device type."""

    held_s: dict[tuple[str, str], float] = field(default_factory=dict)
    changes: dict[tuple[str, str], int] = field(default_factory=dict)

    def saw(self, family: str, device_type: str, seconds: float, changed: bool) -> None:
        """A job held devices for so long, and then was moved, or not."""
        key = family, device_type
        self.held_s[key] = self.held_s.get(key, 0.0) + seconds
        self.changes[key] = self.changes.get(key, 0) + changed

    def expected_s(self, family: str, device_type: str) -> float:
        """Seconds until the next change of a placement on this type."""
        key = family, device_type
        return float(allocation.expected_stay_s(self.held_s.get(key, 0.0), self.changes.get(key, 0)))


def raywise_policy(simulator: Any, rules: Any, *, declared: bool) -> Any:
    """An object with the simulator's policy interface that decides with our core."""

    class Raywise(simulator.sia.SiaPolicy):  # type: ignore[misc]
        """Sia's class for its list of configurations and its placement on nodes; the decision is ours."""

        def __init__(self) -> None:
            super().__init__(**DEFAULTS)
            self.decision_s: list[float] = []
            self._prices: Any = None
            self._current: dict[str, int] = {}
            self._families: dict[str, sia_estimates.Family] = {}
            self._stays = Stays()

        def bind(self, cluster: Any) -> None:
            """The jobs, and their families' shared measurements."""
            self._cluster = cluster
            self._jobs = {job.name: job for job in cluster.jobs}
            for job in cluster.jobs:
                family = self._families.setdefault(
                    job.app_name,
                    sia_estimates.Family({t: {} for t in job.applications}, dict.fromkeys(job.applications)),
                )
                job.profiles, job.perf_params = family.profiles, family.fitted
            self._types = list(self.cluster_ordering)
            self._configurations = [self.idx_to_config_map[i] for i in range(self.total_num_configs)]
            ratios = cluster.cluster_throughput_ratios
            self._estimates = sia_estimates.Estimates(simulator.goodput, self._configurations, ratios)
            self._counts = np.array([count for *_, count in self._configurations])
            self._of = {t: np.array([i for i, c in enumerate(self._configurations) if c[0] == t]) for t in self._types}
            self._use = np.zeros((len(self._configurations), len(self._types)), dtype=np.int64)
            for column, name in enumerate(self._types):
                self._use[self._of[name], column] = self._counts[self._of[name]]
            self._supply = np.array([self.cluster_total_gpus[t] for t in self._types], dtype=np.int64)

        def optimize(self, jobs: Any, nodes: Any, previous: Any) -> Any:  # noqa: ARG002
            """Device type and nodes for every job."""
            names = list(jobs)
            self._learn(jobs)
            began = time.perf_counter()
            demand = self._demand(names)
            found = allocation.allocate(demand, self._use, self._supply, rules, self._prices).solution
            self.decision_s.append(time.perf_counter() - began)
            self._prices = found.prices
            for name, before, after in zip(names, demand.current, found.choice, strict=True):
                if before != allocation.WAIT:
                    held = self._configurations[before][0]
                    self._stays.saw(self._jobs[name].app_name, held, sia_simulator.ROUND_S, bool(before != after))
                self._hint(self._jobs[name])
            self._current = {n: int(c) for n, c in zip(names, found.choice, strict=True) if c != allocation.WAIT}
            return self._place(names)

        def _learn(self, jobs: Any) -> None:
            """What running and ended jobs showed."""
            for name in [name for name in self._current if name not in jobs]:
                del self._current[name]
                self._families[self._jobs[name].app_name].work = self._jobs[name].progress
            for name in jobs:
                self._families[self._jobs[name].app_name].saw(self._jobs[name])

        def _hint(self, job: Any) -> None:
            """A new job chooses its first batch size by the family's early gradients."""
            if job.grad_params is None:
                job.grad_params = self._families[job.app_name].first

        def _work(self, job: Any) -> float:
            """Steps of the initial batch size from start to end."""
            if declared:
                return float(job.reference_app.get_progress(job.reference_app.max_epochs))
            guess = self._families[job.app_name].work or max(2 * job.progress, FIRST_GUESS)
            return float(max(guess, 1.02 * job.progress + 1))

        def _demand(self, names: list[str]) -> Any:
            shape = len(names), len(self._configurations)
            seconds, doublings, stay_s = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
            for row, name in enumerate(names):
                job = self._jobs[name]
                remaining = self._estimates.seconds(job, self._families[job.app_name], self._work(job))
                tried = {t: {replicas for _, replicas, _ in job.profiles[t]} for t in self._types}
                most = max((max(counts) for counts in tried.values() if counts), default=0)
                seconds[row] = np.where(self._counts <= max(1, 2 * most), remaining, np.inf)
                for t in self._types:
                    untried = np.array(
                        [count not in tried[t] and count > most > 0 for count in self._counts[self._of[t]]]
                    )
                    doublings[row, self._of[t]] = np.where(
                        untried, np.log2(self._counts[self._of[t]] / max(most, 1)), 0
                    )
                    stay_s[row, self._of[t]] = self._stays.expected_s(job.app_name, t)
            single = np.where((self._counts == 1)[None] & np.isfinite(seconds), seconds, 0.0)
            current = np.array([self._current.get(name, allocation.WAIT) for name in names], dtype=np.int64)
            return allocation.Demand(
                seconds=seconds,
                base_s=single.max(axis=1),
                current=current,
                restart_s=np.array([float(self._jobs[name].reference_app.rescale_time) for name in names]),
                starting_s=np.array([float(self._jobs[name].rescale_time) for name in names]),
                stay_s=stay_s,
                doublings=doublings,
                weight=np.ones(len(names)),
                pinned=np.zeros(len(names), dtype=bool),
                overdue=np.zeros(len(names), dtype=bool),
            )

        def _place(self, names: list[str]) -> Any:
            placed: dict[str, Any] = dict.fromkeys(names, (None, ()))
            for t in self._types:
                wanted = {
                    n: self._configurations[c][1:] for n, c in self._current.items() if self._configurations[c][0] == t
                }
                free = np.full(self.cluster_num_nodes[t], self.cluster_ngpus_per_node[t], dtype=np.int64)
                if wanted:
                    placed |= {n: (t, where) for n, where in self.alloc_to_placement(t, wanted, {}, free).items()}
            return placed

    return Raywise()


def _sia_policy(simulator: Any) -> Any:
    """Sia as published, its integer program solved with GLPK."""
    import cvxpy  # type: ignore[import-not-found,unused-ignore]

    def solve(problem: Any, *_args: Any, **_options: Any) -> Any:
        return _solve(problem, solver=cvxpy.GLPK_MI)

    _solve = cvxpy.Problem.solve
    if getattr(_solve, "__name__", "") != "solve_with_glpk":
        solve.__name__ = "solve_with_glpk"
        cvxpy.Problem.solve = solve
    return simulator.sia.SiaPolicy(restart_penalty=30, **DEFAULTS)


def run(
    simulator: Any, policy: str, trace: str, path: Path, *, rules: Any, declared: bool, jobs: int | None = None
) -> dict[str, Any]:
    """One run as a plain record."""
    workload = Path(trace) if trace.endswith(".csv") else path / "workloads" / _file(trace)
    began = time.perf_counter()
    with sia_simulator.silent():
        ours = policy == "raywise"
        chosen = raywise_policy(simulator, rules, declared=declared) if ours else _sia_policy(simulator)
    result = sia_simulator.simulate(simulator, chosen, workload, jobs)
    record = {"policy": policy, "trace": trace, "declared_epochs": policy == "raywise" and declared}
    record |= dataclasses.asdict(result) | {"wall_s": round(time.perf_counter() - began, 1)}
    if policy == "raywise":
        record["rules"] = dataclasses.asdict(rules)
        record["decision_ms"] = round(1e3 * float(np.mean(chosen.decision_s)), 1)
    return record


def _file(trace: str) -> str:
    name, _, number = trace.rpartition("-")
    return f"{name}/workload-{number}.csv"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", type=Path)
    parser.add_argument("traces", nargs="+")
    parser.add_argument("--policy", choices=["raywise", "sia", "both"], default="raywise")
    parser.add_argument("--setting", choices=list(SETTINGS), default="least-jct")
    parser.add_argument("--no-declared-epochs", action="store_true")
    parser.add_argument(
        "--rule", action="append", default=[], metavar="NAME=VALUE", help="of allocation.Rules, over the setting"
    )
    parser.add_argument("--jobs", type=int, help="only the first so many jobs")
    arguments = parser.parse_args()
    path = arguments.simulator.resolve()
    simulator = sia_simulator.load(path)
    changed = {name: float(value) for name, _, value in (rule.partition("=") for rule in arguments.rule)}
    rules = dataclasses.replace(SETTINGS[arguments.setting], **changed)
    policies = ["raywise", "sia"] if arguments.policy == "both" else [arguments.policy]
    for trace in arguments.traces:
        for policy in policies:
            declared = not arguments.no_declared_epochs
            record = run(simulator, policy, trace, path, rules=rules, declared=declared, jobs=arguments.jobs)
            record["setting"] = arguments.setting if policy == "raywise" else None
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
