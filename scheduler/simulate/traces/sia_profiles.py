"""How fast a model trains with an adaptive batch size, from what was measured for Pollux and Sia.

    goodput(placement, b, epoch) = gain(b, epoch) / seconds of a step (placement, b)
    gain(b, epoch)               = (var + sqr) / (var / scale + sqr),  scale = b / smallest batch size

(Pollux, OSDI 2021, section 3; AdaScale's gain.) It counts in steps of the smallest batch size: `var` and `sqr` are the
variance and the squared norm of the gradient at that batch size in that epoch. A step of several micro-batches takes
the compute time of all but one without communication.

The batch size is chosen as Pollux does, at 50 points in geometric space: the best by the statistics of the batch size
that is in use, until that stays. Theirs fits a model to the steps seen so far; this knows all steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .tables import Row, read_csv, refused

Floats = npt.NDArray[np.float64]
CANDIDATES = 50
MOVES = 4
"""Changes of the batch size in one epoch, at most."""
EPS = 1e-8
"""Slack of rounding up and down, as theirs."""
PLACED = ("placement", "local_bsz", "step_time", "sync_time")
SCALED = ("num_nodes", "num_replicas", "local_bsz", "step_time", "sync_time")
CURVE = ("progress", "iteration", "metric", "grad_sqr", "grad_var")


@dataclass(frozen=True)
class Steps:
    """Measured steps of one placement, by samples per replica."""

    batch: Floats
    step_s: Floats
    sync_s: Floats
    """What of the step is waiting for the gradients of others."""

    def at(self, batch: Floats) -> tuple[Floats, Floats]:
        """(step, sync) seconds; NaN outside of what was measured."""
        outside = {"left": np.nan, "right": np.nan}
        step_s = np.interp(batch, self.batch, self.step_s, **outside)
        return step_s, np.interp(batch, self.batch, self.sync_s, **outside)


@dataclass(frozen=True)
class Machines:
    """Measurements of one model on one kind of machine. Placements are (nodes, replicas), spread evenly."""

    measured: Mapping[tuple[int, int], Steps]
    least_batch: float
    """The fewest samples per replica that were measured."""

    @cached_property
    def nodes(self) -> list[int]:
        """Numbers of nodes that were measured."""
        return sorted({nodes for nodes, _ in self.measured})

    def steps(self, nodes: int, replicas: int) -> Steps | None:
        """Measured steps, or interpolated: between numbers of replicas on as many nodes, else between numbers of nodes
        with as many replicas each. None beyond what was measured."""
        if nodes in self.nodes:
            return self._on(nodes, float(replicas))
        fewer, more = [n for n in self.nodes if n < nodes], [n for n in self.nodes if n > nodes]
        if not fewer or not more:
            return None
        each = replicas / nodes
        low, high = self._on(fewer[-1], each * fewer[-1]), self._on(more[0], each * more[0])
        return None if low is None or high is None else _between(low, high, fewer[-1], more[0], nodes)

    def _on(self, nodes: int, replicas: float) -> Steps | None:
        counts = sorted(count for there, count in self.measured if there == nodes)
        if replicas in counts:
            return self.measured[nodes, int(replicas)]
        fewer, more = [c for c in counts if c < replicas], [c for c in counts if c > replicas]
        if not fewer or not more:
            return None
        low, high = self.measured[nodes, fewer[-1]], self.measured[nodes, more[0]]
        return _between(low, high, fewer[-1], more[0], replicas)


def _between(low: Steps, high: Steps, first: float, last: float, wanted: float) -> Steps | None:
    """Linear between two placements, where both were measured."""
    batch = np.union1d(low.batch, high.batch)
    batch = batch[(batch >= max(low.batch[0], high.batch[0])) & (batch <= min(low.batch[-1], high.batch[-1]))]
    if not len(batch):
        return None
    share = (wanted - first) / (last - first)
    (step_low, sync_low), (step_high, sync_high) = low.at(batch), high.at(batch)
    return Steps(batch, (1 - share) * step_low + share * step_high, (1 - share) * sync_low + share * sync_high)


@dataclass(frozen=True)
class Profile:
    """One model: how its gradients behave, and its steps on each kind of machine."""

    batch_sizes: Floats
    progress: Floats
    """[epochs + 1] steps of the smallest batch size that are done when each epoch begins, and at the end."""
    grad_sqr: Floats
    """[epochs, batch sizes]"""
    grad_var: Floats
    machines: Mapping[str, Machines]

    @property
    def work(self) -> float:
        """Steps of the smallest batch size in all."""
        return float(self.progress[-1])

    def goodput(self, machine: str, nodes: int, replicas: int, batch: float | None = None) -> Floats | None:
        """[epochs] steps of the smallest batch size a second, with an adaptive batch size or a given one; None where
        the placement cannot be told or holds no batch."""
        machines = self.machines[machine]
        steps = machines.steps(nodes, replicas)
        smallest, largest = self.batch_sizes[0], self.batch_sizes[-1]
        least = max(smallest, machines.least_batch * replicas)
        if steps is None or (batch is None and least > largest):
            return None
        wanted = np.geomspace(least, largest, CANDIDATES) if batch is None else np.array([batch])
        local, most = wanted / replicas, steps.batch[-1]
        extra = np.ceil(local / most - EPS) - 1
        if replicas == 1:  # one micro-batch alone tells nothing of the variance
            extra = np.where(wanted > smallest + EPS, np.maximum(extra, 1), extra)
        micro = np.ceil(local / (extra + 1) - EPS)
        fits = (micro >= steps.batch[0]) & (micro <= most)
        micro = np.minimum(micro, np.floor(largest / (replicas * (extra + 1))))
        step_s, sync_s = steps.at(micro)
        whole_s = step_s + extra * (step_s - sync_s)
        batches = replicas * micro * (extra + 1)
        ok = fits & ~np.isnan(whole_s)
        return self._followed(batches, np.where(ok, whole_s, np.inf)) if bool(ok.any()) else None

    def _followed(self, batches: Floats, whole_s: Floats) -> Floats:
        """[epochs] true speeds of a job that starts at the first batch size and moves to what seems the best."""
        scale, found = batches / self.batch_sizes[0], np.zeros(len(self.grad_sqr))
        now = int(np.flatnonzero(np.isfinite(whole_s))[0])
        for epoch in range(len(found)):
            sqr = np.interp(batches, self.batch_sizes, self.grad_sqr[epoch])
            var = np.interp(batches, self.batch_sizes, self.grad_var[epoch])
            for _ in range(MOVES):
                before, now = now, int(np.argmax(_gain(var[now], sqr[now], scale) / whole_s))
                if now == before:
                    break
            found[epoch] = _gain(var[now], sqr[now], scale[now : now + 1])[0] / whole_s[now]
        return found


def _gain(var: float, sqr: float, scale: Floats) -> Floats:
    """Steps of the smallest batch size that one step is worth; never more than it has samples."""
    divisor = var / scale + sqr
    return np.divide(var + sqr, divisor, out=np.ones_like(scale), where=divisor > 0)


def read_profile(folder: Path, machines: Sequence[str]) -> Profile:
    """All that was measured of one model. Raises SpecError."""
    curves: dict[int, list[list[float]]] = {}
    for path in sorted(folder.glob("validation-*.csv")):
        size = path.stem.removeprefix("validation-")
        if not size.isdigit():
            raise refused(path, f"expected a batch size in the name, got {size!r}")
        curves[int(size)] = _curve(path)
    if not curves:
        raise refused(folder, "has no validation-*.csv", "a profile has curves by batch size and placements-*.csv")
    sizes = sorted(curves)
    epochs = min(len(curve) for curve in curves.values())
    table = np.array([curves[size][:epochs] for size in sizes])  # [batch sizes, epochs, columns]
    ends = table[:, :, 0].min(axis=0)
    return Profile(
        np.array(sizes, np.float64),
        np.concatenate([[0.0], ends]),
        table[:, :, 3].T,
        table[:, :, 4].T,
        {machine: _machines(folder, machine) for machine in machines},
    )


def _curve(path: Path) -> list[list[float]]:
    rows = read_csv(path, CURVE, "epochs")
    found = [[row.number(column) for column in CURVE] for row in rows]
    rows[0].problems.check()
    return [[math.nan if value is None else value for value in row] for row in found]


def _machines(folder: Path, machine: str) -> Machines:
    placed = read_csv(folder / f"placements-{machine}.csv", PLACED, "placements")
    points: dict[tuple[int, int], dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in placed:
        word = row.text("placement")
        if not word.isdigit() or "0" in word:
            row.wrong("placement", f"expected the replicas of each node, a digit each, got {word!r}")
            continue
        replicas = [int(digit) for digit in word]
        _note(points, row, (len(replicas), sum(replicas)), even=max(replicas) - min(replicas) <= 1)
    placed[0].problems.check()
    least = min(batch for found in points.values() for batch in found)
    known = set(points)
    scaled = read_csv(folder / f"scalability-{machine}.csv", SCALED, "runs")
    for row in scaled:
        nodes, count = row.number("num_nodes", 1, whole=True), row.number("num_replicas", 1, whole=True)
        if nodes is not None and count is not None and (int(nodes), int(count)) not in known:
            _note(points, row, (int(nodes), int(count)), even=True)
    scaled[0].problems.check()
    return Machines({key: _steps(found) for key, found in points.items()}, least)


def _note(
    points: dict[tuple[int, int], dict[float, list[tuple[float, float]]]], row: Row, key: tuple[int, int], even: bool
) -> None:
    batch, step_s = row.number("local_bsz", above=True), row.number("step_time", above=True)
    sync_s = row.number("sync_time")
    if even and batch is not None and step_s is not None and sync_s is not None:
        points[key][batch].append((step_s, sync_s))


def _steps(found: Mapping[float, Sequence[tuple[float, float]]]) -> Steps:
    batches = sorted(found)
    means = np.array([np.mean(found[batch], axis=0) for batch in batches])
    return Steps(np.array(batches), means[:, 0], means[:, 1])
