"""Loads the simulator published with Sia (SOSP 2023, github siasosp23/artifacts, folder `sia-simulator`) from a path,
and makes it quick: nothing is computed twice, and its throughput model is fitted with exact gradients. What it
simulates is unchanged. Its modules are untyped, so they pass through here as `Any`.

Needs, in an environment of its own: numpy, pandas, scipy, cvxpy, cvxopt (for GLPK), autograd, psutil, rich.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from benchmarks.peers import sia_hours

ROUND_S = 60


@dataclass(frozen=True)
class Simulator:
    """Its modules, patched."""

    config: Any
    applications: Any
    goodput: Any
    job: Any
    cluster: Any
    sia: Any


@dataclass(frozen=True)
class Result:
    """One policy on one trace. Hours."""

    mean_jct_h: float
    p99_jct_h: float
    makespan_h: float
    gpu_hours_per_job: float
    restarts_per_job: float
    gpu_hours_by_cause: dict[str, float]
    """Of a job; see sia_hours.py."""
    jct_h_by_phase: dict[str, float]
    """Of a job: waiting, restarting, training."""
    by_family: dict[str, dict[str, float]]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Its progress is printed line by line; nobody reads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def load(path: Path) -> Simulator:
    """The simulator at a path. Raises SystemExit with a hint where it is not there."""
    if not (path / "multi_simulator.py").is_file():
        raise SystemExit(f"{path}: no multi_simulator.py here; give the folder `sia-simulator` of siasosp23/artifacts")
    sys.path.insert(0, str(path))
    if not hasattr(pd.DataFrame, "append"):  # written for pandas 1
        pd.DataFrame.append = lambda self, other, ignore_index=False: pd.concat(  # type: ignore[attr-defined]
            [self, other], ignore_index=ignore_index
        )
    names = ("simulator_config", "applications", "goodput", "job", "cluster", "sia")
    simulator = Simulator(*(importlib.import_module(name) for name in names))
    application = simulator.applications.Application
    application.get_max_local_bsz = functools.cache(application.get_max_local_bsz)
    simulator.job.fit_perf_params = functools.partial(_fit, simulator.goodput.PerfParams)
    simulator.config.sia_solver_verbose = False
    return simulator


def simulate(simulator: Simulator, policy: Any, workload: Path, jobs: int | None = None) -> Result:
    """Play a workload to its end. `jobs`: only the first ones."""
    table = pd.read_csv(workload).iloc[:jobs]
    config = simulator.config
    per_node = {name: config.cluster_ngpus_per_node[name] for name in config.cluster_nnodes}
    with silent():
        policy.populate_valid_configs(config.cluster_nnodes, per_node, config.cluster_max_physical_nnodes)
        cluster = simulator.cluster.Cluster(
            table, policy, config.cluster_nnodes, per_node, max_physical_nodes=config.cluster_max_physical_nnodes
        )
        cluster.step_log = lambda: None
        if hasattr(policy, "bind"):
            policy.bind(cluster)
        seen = sia_hours.watch(cluster.jobs, tuple(config.cluster_nnodes))
        while not cluster.all_complete():
            cluster.step(ROUND_S)
    return _result(cluster.jobs, seen)


def _result(jobs: list[Any], seen: sia_hours.Watch) -> Result:
    hours = np.array([job.completion_time - job.submission_time for job in jobs]) / 3600
    devices = np.array([job.attained_service for job in jobs]) / 3600
    restarts = np.array([job.num_restarts or 0 for job in jobs])
    family = np.array([job.app_name for job in jobs])
    by_family = {
        str(name): {
            "jobs": int((family == name).sum()),
            "mean_jct_h": round(float(hours[family == name].mean()), 3),
            "gpu_hours_per_job": round(float(devices[family == name].mean()), 2),
            "restarts_per_job": round(float(restarts[family == name].mean()), 1),
        }
        for name in sorted(set(family))
    }
    return Result(
        round(float(hours.mean()), 4),
        round(float(np.percentile(hours, 99)), 2),
        round(max(job.completion_time for job in jobs) / 3600, 2),
        round(float(devices.mean()), 2),
        round(float(restarts.mean()), 2),
        {cause: round(seconds / 3600 / len(jobs), 3) for cause, seconds in seen.device_s.items()},
        {phase: round(seconds / 3600 / len(jobs), 4) for phase, seconds in seen.job_s.items()},
        by_family,
    )


# -------------------- the throughput model of Pollux, fitted with exact gradients

_fitted: dict[tuple[bytes, ...], Any] = {}


def _fit(kind: Any, nodes: Any, replicas: Any, batch: Any, compute_s: Any, step_s: Any) -> Any:
    """The seven parameters of Pollux (OSDI 2021, section 3.2) for measured steps: the same objective, start, bounds and
    optimiser as `fit_perf_params`, which differentiates it anew on every call."""
    key = tuple(np.asarray(column).tobytes() for column in (nodes, replicas, batch, compute_s, step_s))
    if key not in _fitted:
        start, low, high = [0.1, 0.01] * 3 + [1.001], [1e-8] * 6 + [1.0], [np.inf] * 6 + [10.0]
        several, gang = nodes > 1, replicas > 1
        fixed = []
        if len(np.unique(batch)) == 1:
            start[0] = low[0] = high[0] = float(np.mean(compute_s)) / 2
        if not several.any():
            fixed += [2, 3]
        if not (~several & gang).any():
            fixed += [4, 5]
        if not (replicas > 2).any():
            fixed += [3, 5]
        for index in fixed:
            start[index] = high[index] = low[index]
        more = np.maximum(replicas - 2.0, 1e-8)
        data = (several, ~several & gang, more, np.asarray(batch, dtype=float), np.log(compute_s), np.log(step_s))
        bounds = optimize.Bounds(low, high, keep_feasible=True)
        found = optimize.minimize(_misfit, start, args=data, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-5).x
        if not several.any():
            found[2], found[3] = max(found[2], 1.1 * found[4]), max(found[3], 1.1 * found[5])
        _fitted[key] = kind(*found)
    return _fitted[key]


def _misfit(
    parameters: Any, several: Any, single: Any, more: Any, batch: Any, log_compute: Any, log_step: Any
) -> tuple[float, Any]:
    """Root mean squared log errors of compute and step, with Pollux's penalties; and the gradient."""
    compute_0, compute_1, between_0, between_1, within_0, within_1, overlap = parameters
    compute = compute_0 + compute_1 * batch
    network = np.where(several, between_0 + between_1 * more, 1e-8 + 1e-8 * more)
    network = np.where(single, within_0 + within_1 * more, network)
    log_c, log_n = np.log(compute), np.log(network)
    top = np.maximum(log_c, log_n)
    share_c, share_n = np.exp(overlap * (log_c - top)), np.exp(overlap * (log_n - top))
    predicted = top + np.log(share_c + share_n) / overlap
    share_c = share_c / (share_c + share_n)
    off_c, off_s = log_c - log_compute, predicted - log_step
    error_c, error_s = np.sqrt((off_c**2).mean()), np.sqrt((off_s**2).mean())
    by_c = off_c / (len(batch) * error_c) if error_c > 0 else np.zeros(len(batch))
    by_s = off_s / (len(batch) * error_s) if error_s > 0 else np.zeros(len(batch))
    to_c, to_n = (by_c + by_s * share_c) / compute, by_s * (1 - share_c) / network
    by_overlap = (by_s * (share_c * log_c + (1 - share_c) * log_n - predicted) / overlap).sum()
    gradient = [to_c.sum(), (to_c * batch).sum()]
    gradient += [to_n[several].sum(), (to_n * more)[several].sum(), to_n[single].sum(), (to_n * more)[single].sum()]
    ratio_b, ratio_w = between_1 / between_0, within_1 / within_0
    gradient[2] -= 0.02 * ratio_b**2 / between_0
    gradient[3] += 0.02 * ratio_b / between_0
    gradient[4] -= 0.02 * ratio_w**2 / within_0
    gradient[5] += 0.02 * ratio_w / within_0
    value = error_c + error_s + 1e-3 * (overlap - 1) ** 2 + 1e-2 * (ratio_b**2 + ratio_w**2)
    return float(value), np.array([*gradient, by_overlap + 2e-3 * (overlap - 1)])
