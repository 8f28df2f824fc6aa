"""How long a job still needs in every configuration, from what the simulator lets a scheduler measure: steps of jobs of
the family as far as they ran, and how their gradients change from epoch to epoch.

The throughput is Sia's own model (Pollux, OSDI 2021, section 3.2), fitted to all steps of a family on a device type.
Where a configuration was measured, the measurement counts: the model is off in places. Progress per example
is Pollux's too, but with the gradients that each epoch had for the jobs before, not those of the present epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UNKNOWN_S = {"dgx-ext": 3600.0, "rtx": 7200.0, "aws": 10800.0}
"""One device, a family of which nothing was measured: only the order of the types matters."""
GRID = 24
"""What is left is summed over so many parts of a job's work."""
HORIZON_S = 1500.0
"""A placement is judged by its speed for so long at most: after that it is likely to be another one."""
RENEWED = 0.1
"""What an epoch's gradients are like depends on the batch size too: what changed by this share replaces the old."""
BATCHES = 50
EPS = 1e-8
"""Batch sizes tried, and the slack in rounding them: as in Sia's simulator."""


@dataclass
class Family:
    """What is learnt of jobs that run the same model."""

    profiles: dict[str, dict[tuple[int, int, int], tuple[float, float]]]
    """By device type, measured step and synchronisation seconds by (nodes, replicas, batch)."""
    fitted: dict[str, Any]
    """By device type, the throughput model; None where nothing was measured."""
    gradients: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    """By epoch: progress when it was first seen, squared norm and variance of the gradients."""
    renewals: int = 0
    """How often `gradients` changed."""
    work: float | None = None
    """Steps (of the initial batch size) that the last job to end needed."""

    def saw(self, job: Any) -> None:
        """The gradients of a job that runs."""
        if job.grad_params is not None and job.placement:
            square, variance = (float(each) for each in job.grad_params)
            began, *before = self.gradients.get(int(job.epoch), (float(job.progress), 0.0, 1.0))
            if abs(square / variance - before[0] / before[1]) > RENEWED * square / variance:
                self.gradients[int(job.epoch)] = began, square, variance
                self.renewals += 1

    @property
    def first(self) -> tuple[float, float] | None:
        """Gradients of the earliest epoch that was seen."""
        return self.gradients[min(self.gradients)][1:] if self.gradients else None


class Estimates:
    """Remaining seconds by job and configuration."""

    def __init__(self, goodput: Any, configurations: Sequence[tuple[str, int, int]], ratios: Mapping[str, Any]) -> None:
        """`goodput`: the simulator's module; configurations are (device type, nodes, replicas); `ratios`: how the
        speeds of device types compare, by family, as Sia knows them."""
        self._model, self._ratios = goodput.GoodputFunction, ratios
        kinds = np.array([kind for kind, *_ in configurations])
        self._nodes = np.array([nodes for _, nodes, _ in configurations], dtype=float)
        self._counts = np.array([count for *_, count in configurations], dtype=float)
        self._of = {str(kind): np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds)}
        unknown = np.array([UNKNOWN_S.get(str(kind), 7200.0) for kind in kinds])
        self._unknown_s = np.where(self._counts == 1, unknown, np.inf)
        self._tables: dict[Any, Any] = {}

    def seconds(self, job: Any, family: Family, work: float) -> Any:
        """Remaining seconds by configuration; `work`: steps of the job in all."""
        known = [kind for kind in self._of if family.fitted[kind] is not None]
        if not family.gradients or not known:
            return self._unknown_s
        seconds = np.full(len(self._counts), np.inf)
        for kind, at in self._of.items():
            # A type without measurements: another's, by the ratio of their speeds.
            source = kind if kind in known else known[0]
            ratio = 1.0 if kind in known else self._ratios[job.app_name][kind][source]
            seconds[at] = self._left(job, family, work, source, kind) / ratio
        return seconds

    def _left(self, job: Any, family: Family, work: float, source: str, target: str) -> Any:
        """Remaining seconds in the target's configurations, with the source's model."""
        key = job.app_name, source, target, family.fitted[source], family.renewals, work
        if key not in self._tables:
            steps = np.linspace(0.0, work, GRID + 1)
            each = self._slowness(job, family, source, target, (steps[1:] + steps[:-1]) / 2)
            possible = np.isfinite(each).all(axis=0)
            after = np.cumsum(np.where(possible, each, 0.0)[::-1], axis=0)[::-1] * (work / GRID)
            self._tables[key] = np.vstack([after, np.zeros_like(after[:1])]), possible
        table, possible = self._tables[key]
        at = min(max(job.progress, 0.0) / work * GRID, GRID - 1e-3)
        left = table[int(at)] + (at - int(at)) * (table[int(at) + 1] - table[int(at)])
        return np.where(possible, _at_the_next_speed(table, left, at), np.inf)

    def _slowness(self, job: Any, family: Family, source: str, target: str, progress: Any) -> Any:
        """[len(progress), configurations of the target] seconds of one step of the initial batch size, at the best
        batch size for each: those that the simulator's `GoodputFunction.optimize` would try."""
        app = job.applications[source]
        nodes, counts = self._nodes[self._of[target]], self._counts[self._of[target]]
        least = np.maximum(app.init_batch_size, app.min_local_bsz * counts)
        local = np.geomspace(np.minimum(least, app.max_batch_size), app.max_batch_size, BATCHES) / counts
        extra = np.ceil(local / app.max_local_bsz - EPS) - 1
        extra = np.where((counts == 1) & (local > app.init_batch_size + EPS), np.maximum(extra, 1), extra)
        micro = np.ceil(local / (extra + 1) - EPS)
        possible = (app.min_local_bsz <= micro) & (micro <= app.max_local_bsz) & (least <= app.max_batch_size)
        model = self._model(family.fitted[source], (1.0, 1.0), app.init_batch_size)
        throughput = np.where(possible, model.throughput(nodes, counts, micro, extra), 0.0)
        scale = counts * micro * (extra + 1) / app.init_batch_size
        seen = np.array(sorted(family.gradients.values()))
        square, variance = (np.interp(progress, seen[:, 0], seen[:, column])[:, None, None] for column in (1, 2))
        efficiency = (variance + square) / (variance + square * scale)
        goodput = (throughput * efficiency).max(axis=1) / app.init_batch_size * job.calibration_factor
        slowness = np.divide(1.0, goodput, out=np.full(goodput.shape, np.inf), where=goodput > 0)
        return slowness * misfits(family.profiles[source], model, nodes, counts) if source == target else slowness


def _at_the_next_speed(table: Any, left: Any, at: float) -> Any:
    """Remaining seconds at the speed of the next `HORIZON_S`, where the end is farther away; `at`: row of the table."""
    found = left.copy()
    for column in np.flatnonzero(left > HORIZON_S):
        reached = np.interp(left[column] - HORIZON_S, table[::-1, column], np.arange(GRID, -1.0, -1.0))
        found[column] = HORIZON_S * (GRID - at) / max(reached - at, 1e-9)
    return found


def misfits(
    measured: Mapping[tuple[int, int, int], tuple[float, float]], model: Any, nodes: Sequence[float], counts: Any
) -> Any:
    """By configuration, how much slower its measured steps were than the model that was fitted to all of them: the
    geometric mean over batch sizes; 1 where nothing was measured."""
    logs: dict[tuple[int, int], list[float]] = {}
    for (on, replicas, batch), (step_s, _) in measured.items():
        fitted_s = replicas * batch / float(model.throughput(on, replicas, batch, 0))
        logs.setdefault((int(on), int(replicas)), []).append(float(np.log(step_s / fitted_s)))
    there = zip(nodes, counts, strict=True)
    return np.array([np.exp(np.mean(logs.get((int(on), int(count)), [0.0]))) for on, count in there])
