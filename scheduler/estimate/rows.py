"""The arithmetic of the cost model in columns: one row for each (workload, configuration, device type). Pure.

`columns` collects the rows, `speeds` turns all of them into seconds with intervals and into bytes at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import EstimateSource
from . import communication, memory
from .calibration import LACK_OF_FIT, Belief, Calibration, operating_point
from .columns import Columns, Numbers
from .profile import OPERATOR_CLASSES, Coefficients, FloatArray, terms
from .speed_table import IntArray, SpeedTable
from .step_time import (
    BETWEEN,
    COMPUTE,
    CROWDING,
    LAUNCH,
    MEMORY,
    OVERLAP_ACCELERATOR,
    OVERLAP_HOST,
    PARTS,
    WAITING,
    WITHIN,
    RateRows,
    exposed_s,
    optimizer_volumes,
    own_s,
    roofline,
    sensitivities,
    total_s,
)

GRADIENT_BYTES = 4.0
EVALUATION_BATCH = 64
"""Rows that the built-in trainer validates at a time, or its batch where that is larger."""
LINK_EFFICIENCY = 0.7
"""Share of a link's one-way rate that collectives reach (prior)."""
HOST_SHARE = 0.04
"""What a second shard on a host adds to the work of each, and every doubling again (measured, docs/accuracy.md)."""
HOST_LATENCY_S = 60e-6
DEVICE_LATENCY_S = 20e-6
_OPTIMIZER = OPERATOR_CLASSES.index("optimizer")


@dataclass(frozen=True)
class Units:
    """What the uncalibrated model says of one unit of work (a training step, or a batch of a replica), by row."""

    parts: FloatArray
    """[rows, 6] seconds, see `step_time.PARTS`."""
    overlap: FloatArray
    samples: FloatArray
    """Samples that all devices of the row's type get through in a unit (training: the whole gang)."""
    evaluation: FloatArray
    """[rows, 6] seconds of the whole run's validation."""
    labels: list[str]
    share: FloatArray
    """Samples a device computes at a time."""
    traffic_bytes: FloatArray
    """Bytes that a unit sends between nodes, all of them together."""


def speeds(columns: Columns, calibration: Calibration) -> SpeedTable:
    """Every configuration's seconds, interval and memory."""
    if not columns.rows:
        return SpeedTable.empty()
    grid = _Grid(columns)
    units = grid.units()
    return _Combined(grid, units, calibration).table()


def units(columns: Columns) -> Units:
    """What the uncalibrated model says by row: what a measurement is compared with."""
    return _Grid(columns).units()


class _Grid:
    """The rows as arrays."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        table = np.array(columns.rows, dtype=np.int64)
        self.work, self.rate, self.subject, self.profile = table[:, 0], table[:, 1], table[:, 2], table[:, 7]
        self.count, self.shards = table[:, 3].astype(float), table[:, 4].astype(float)
        self.nodes, self.fullest = table[:, 5].astype(float), table[:, 6].astype(float)
        self.starts = np.array([*columns.config_starts, len(table)], dtype=np.int64)
        works = columns.works
        self.training = self._each(work.training for work in works) > 0
        self.batch = self._each(float(work.batch_size) for work in works)
        self.micro = self._each(float(work.micro_batches) for work in works)
        self.tokens = self._each(work.tokens_per_sample for work in works)
        self.samples = self._each(work.samples for work in works)
        self.evaluation = self._each(work.evaluation_samples for work in works)
        self.sharded = self._each(work.strategy == "fsdp" for work in works) > 0
        self.staged = self._each(work.strategy == "pipeline" for work in works) > 0
        self.rates = RateRows.of([pair[0] for pair in columns.rates.values], self.rate)

    def _each(self, values: Any) -> FloatArray:
        """A number of every workload, by row."""
        return np.array([math.nan if value is None else float(value) for value in values])[self.work]

    def _profiles(self, value: Any) -> FloatArray:
        """A number of every profile, by row."""
        return np.array([value(profile) for profile in self.columns.profiles.values], dtype=np.float64)[self.profile]

    def computed_at_once(self) -> FloatArray:
        """Samples a device computes at a time: a replica's batch, a shard's micro-batch; each stage of a pipeline sees
        all of it."""
        members = np.where(self.staged, 1.0, self.shards)
        return np.where(self.training, self.batch / members / self.micro, self.batch)

    def units(self) -> Units:
        """Parts of one unit, uncalibrated."""
        share = self.computed_at_once()
        forward = self._pass(0, share)
        backward = np.where(self.training[:, None], self._pass(1, share), 0.0)
        per_unit = np.where(self.training, self.micro, 1.0)[:, None]
        parts = per_unit * (forward + backward)
        bubble = communication.bubble_fraction(self.shards, self.micro)
        stages = np.where(self.staged, self.shards * (1 - bubble), 1.0)
        parts[:, :WITHIN] /= stages[:, None]
        backward_s = (per_unit * backward).sum(axis=1) / stages
        parts += self._optimizer() + self._generation(share)
        crowding = communication.host_factor(self.fullest, HOST_SHARE) - 1.0
        crowding = crowding + communication.waiting_s(1.0, self.shards, WAITING)
        parts[:, CROWDING] = np.where(self.training, crowding, 0.0) * own_s(parts)
        parts[:, WITHIN] = self._traffic_s(share, within=True)
        parts[:, BETWEEN] = self._traffic_s(share, within=False)
        hidden = np.where(self.rates.asynchronous, OVERLAP_ACCELERATOR, OVERLAP_HOST)
        work_s = own_s(parts)
        with np.errstate(invalid="ignore", divide="ignore"):
            overlap = np.where(work_s > 0, hidden * backward_s / work_s, 0.0)
        done = np.where(self.training, self.batch, self.count * self.batch)
        return Units(parts, overlap, done, self._validation(), self._labels(share), share, self._moved_bytes())

    def _pass(self, which: int, samples: FloatArray, tokens: FloatArray | None = None) -> FloatArray:
        each: list[Coefficients] = [profile.coefficients[which] for profile in self.columns.profiles.values]
        basis = terms(samples, self.tokens if tokens is None else tokens)
        flops = np.einsum("rt,rct->rc", basis, np.array([part.flops for part in each])[self.profile])
        moved = np.einsum("rt,rct->rc", basis, np.array([part.moved for part in each])[self.profile])
        launches = np.array([part.launches for part in each])[self.profile]
        return roofline(np.maximum(flops, 0.0), np.maximum(moved, 0.0), launches, self.rates)

    def _optimizer(self) -> FloatArray:
        volumes = np.array([optimizer_volumes(profile) for profile in self.columns.profiles.values])[self.profile]
        own = np.where(self.training, 1.0, 0.0) / np.where(self.sharded | self.staged, self.shards, 1.0)
        compute_s = own * volumes[:, 0] / self.rates.flops_s[:, _OPTIMIZER]
        memory_s = own * volumes[:, 1] / self.rates.bytes_s[:, _OPTIMIZER]
        parts = np.zeros((len(own), len(PARTS)))
        parts[:, COMPUTE] = np.where(compute_s >= memory_s, compute_s, 0.0)
        parts[:, MEMORY] = np.where(compute_s >= memory_s, 0.0, memory_s)
        parts[:, LAUNCH] = np.where(self.training & ~self.rates.asynchronous, volumes[:, 2] * self.rates.launch_s, 0.0)
        return parts

    def _generation(self, samples: FloatArray) -> FloatArray:
        """Tokens after the first, one by one: a pass of one token each that also reads the cache of those before."""
        generated = self._each(float(work.generated_tokens) for work in self.columns.works)
        if not generated.any():
            return np.zeros((len(samples), len(PARTS)))
        parts = generated[:, None] * self._pass(0, samples, np.ones_like(samples))
        cache = samples * (self.tokens + generated / 2) * self._profiles(lambda profile: profile.kv_bytes_per_token)
        bytes_s = self.rates.bytes_s[:, OPERATOR_CLASSES.index("attention")]
        parts[:, MEMORY] += generated * cache / bytes_s
        return parts

    def _traffic_s(self, samples: FloatArray, within: bool) -> FloatArray:
        """Seconds of a unit's communication as if only the links within nodes, or only those between them, took any."""
        nodes, fullest = (1.0, self.fullest) if within else (self.nodes, 1.0)
        gang = communication.Gang(self.shards, nodes, fullest)
        links, growth = self._links(), communication.MEASURED
        trainable = self._profiles(lambda profile: profile.trainable) * GRADIENT_BYTES
        whole = self._profiles(lambda profile: profile.parameters) * GRADIENT_BYTES
        blocks = np.maximum(self._profiles(lambda profile: profile.blocks), 1.0)
        copies_s = communication.all_reduce_s(trainable, gang, links, growth)
        sharded_s = communication.fully_sharded_s(whole, gang, links, blocks, growth)
        staged_s = 2 * self.micro * communication.point_to_point_s(self._boundary() * samples, gang, links)
        seconds = np.where(self.sharded, sharded_s, np.where(self.staged, staged_s, copies_s))
        crossed = self.fullest > 1 if within else self.nodes > 1
        return np.where(self.training & crossed, seconds, 0.0)

    def _moved_bytes(self) -> FloatArray:
        """Bytes that a unit sends between nodes, all of them together."""
        trainable = self._profiles(lambda profile: profile.trainable) * GRADIENT_BYTES
        whole = self._profiles(lambda profile: profile.parameters) * GRADIENT_BYTES
        volume = np.where(self.sharded, 1.5 * whole, trainable)
        # Stages hand on what crosses from one to the next, forward and back; a chain of nodes has one crossing less.
        volume = np.where(self.staged, self.micro * self._boundary() * self.computed_at_once(), volume)
        return np.where(self.training & (self.nodes > 1), 2 * (self.nodes - 1) * volume, 0.0)

    def _boundary(self) -> FloatArray:
        """Bytes of one sample from a stage of a pipeline to the next."""
        return self._each(
            work.profile.boundary_bytes.at(1.0, work.tokens_per_sample or 0.0) if work.profile else 0.0
            for work in self.columns.works
        )

    def _links(self) -> communication.Links:
        network = self.columns.network_bytes_s
        within, between, latency = [], [], []
        for _, device in self.columns.rates.values:
            link = device.interconnect_bytes_s
            host = device.kind == "cpu" or device.emulated
            # The catalog adds both directions of a link up; a host's is measured as it is.
            one_way = network if link is None else link if host else link / 2 * LINK_EFFICIENCY
            within.append(device.measured_link_bytes_s or one_way)
            between.append(min(network, within[-1]) if host else network * LINK_EFFICIENCY)
            latency.append(HOST_LATENCY_S if host else DEVICE_LATENCY_S)
        rate = self.rate
        return communication.Links(np.array(within)[rate], np.array(between)[rate], np.array(latency)[rate])

    def _validation(self) -> FloatArray:
        """Rows that are only passed forward, all of the run's, on each shard its part."""
        batch = np.maximum(self.batch, EVALUATION_BATCH)
        own = np.where(self.training, self.evaluation / self.shards / batch, 0.0)
        return own[:, None] * self._pass(0, batch) if own.any() else np.zeros((len(own), len(PARTS)))

    def _labels(self, share: FloatArray) -> list[str]:
        tokens = [work.tokens_per_sample for work in self.columns.works]
        known: dict[tuple[float, float | None], str] = {}
        labels = []
        for size, work in zip(share.tolist(), self.work.tolist(), strict=True):
            key = (size, tokens[work])
            label = known.get(key)
            if label is None:
                label = known[key] = operating_point(*key)
            labels.append(label)
        return labels

    def memory(self, share: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(bytes needed, bytes there) of one device, by row."""
        host = np.array([device.kind == "cpu" or device.emulated for _, device in self.columns.rates.values])[self.rate]
        needed = np.empty(len(share))
        ends = [*self.columns.work_starts[1:], len(share)]
        for work, start, end in zip(self.columns.works, self.columns.work_starts, ends, strict=True):
            rows = slice(start, end)
            needed[rows] = memory.peak(work, share[rows], self.shards[rows], host[rows]).total
        devices = [device for _, device in self.columns.rates.values]
        limit = self._memory_of(device.memory_bytes for device in devices)
        cores = np.array([device.kind == "cpu" for device in devices])[self.rate]
        # A host's shards have its memory together; emulated devices stand on one host, whichever nodes they are.
        limit = np.where(cores, limit / np.minimum(self.fullest, self.count), limit)
        return needed, np.minimum(limit, self._memory_of(device.host_memory_bytes for device in devices) / self.shards)

    def _memory_of(self, values: Iterable[float | None]) -> FloatArray:
        """Bytes of each rate's device, by row; endless where it is not known."""
        return np.array([math.inf if each is None else each for each in values])[self.rate]


class _Combined:
    """Rows corrected by what was measured, and put together to configurations."""

    def __init__(self, grid: _Grid, units: Units, calibration: Calibration) -> None:
        self.grid, self.units, self.calibration = grid, units, calibration
        beliefs, index = self._beliefs()
        self.known = np.array([belief.known for belief in beliefs])[index]
        self.factors = np.exp(np.array([belief.mean for belief in beliefs]))[index]
        self.covariance = np.array([belief.covariance for belief in beliefs])[index]
        self.shift, self.variance, self.measured = self._residuals()
        self.parts = units.parts * self.factors * np.exp(self.shift)[:, None]
        self.unit_s = total_s(self.parts, units.overlap)

    def _beliefs(self) -> tuple[list[Belief], IntArray]:
        """The corrections there are, and which of them each row has: its operating point's, where that was measured
        with any number of shards, else its subject's."""
        subjects, labels = self.grid.columns.subjects.values, self.calibration.labels
        if not labels:
            return [self.calibration.belief(subject) for subject in subjects], self.grid.subject
        numbers = Numbers()
        index = []
        for subject, label in zip(self.grid.subject.tolist(), self.units.labels, strict=True):
            known = label if (subjects[subject], label) in labels else ""
            found = numbers.index.get((subject, known))
            if found is None:
                found = numbers.of((subject, known), self.calibration.belief(subjects[subject], known))
            index.append(found)
        return numbers.values, np.array(index, dtype=np.int64)

    def _residuals(self) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        """What the very operating points have shown, where they were measured."""
        size = len(self.grid.work)
        shift, variance, measured = np.zeros(size), np.full(size, LACK_OF_FIT**2), np.zeros(size, dtype=bool)
        points = self.calibration.points
        if not points:
            return shift, variance, measured
        subjects = self.grid.columns.subjects.values
        for row, (subject, label) in enumerate(zip(self.grid.subject.tolist(), self.units.labels, strict=True)):
            shards = self.grid.columns.rows[row][4] if self.grid.training[row] else 1
            if (subjects[subject], shards, label) in points:
                measured[row] = True
                shift[row], variance[row] = self.calibration.residual(subjects[subject], shards, label)
        return shift, variance, measured

    def table(self) -> SpeedTable:
        """Everything by configuration."""
        grid, first = self.grid, self.grid.starts[:-1]
        seconds, weights, unit_count = self._seconds()
        gradient = sensitivities(self.parts, self.units.overlap)
        variance = np.einsum("ri,rij,rj->r", gradient, self.covariance, gradient) + self.variance
        spread = np.add.reduceat(weights * np.sqrt(np.maximum(variance, 0.0)), first)
        share = self._shares()
        needed, limit = grid.memory(share)
        known = np.logical_and.reduceat(self.known, first)
        measured = np.logical_and.reduceat(self.measured, first)
        sources: list[EstimateSource] = [
            "measured" if m else "calibrated" if k else "roofline"
            for m, k in zip(measured.tolist(), known.tolist(), strict=True)
        ]
        return SpeedTable(
            seconds,
            seconds * np.exp(-2 * spread),
            seconds * np.exp(2 * spread),
            self._parts(seconds, weights),
            sources,
            np.maximum.reduceat(needed, first),
            (unit_count * self.units.traffic_bytes[first]).tolist(),
            needed,
            limit,
            share,
            grid.starts,
            np.logical_or.reduceat(needed > limit, first).tolist(),
            grid.columns,
        )

    def _seconds(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(seconds of each configuration, each row's weight in it, units of work)."""
        grid, first = self.grid, self.grid.starts[:-1]
        rate = self.units.samples / self.unit_s
        together = np.add.reduceat(rate, first)
        with np.errstate(invalid="ignore"):
            weights = rate / np.repeat(together, np.diff(grid.starts))
            inference_s = grid.samples[first] / together
            # Nothing is split further than into batches: the first ends no sooner than the fastest replica does it.
            batch_s = np.minimum.reduceat(self.unit_s, first) * np.minimum(1.0, grid.samples[first] / grid.batch[first])
            inference_s = np.maximum(inference_s, batch_s)
        steps = grid.samples[first] / grid.batch[first]
        evaluation = self.units.evaluation * self.factors
        training_s = steps * self._step_s() + np.maximum.reduceat(evaluation.sum(axis=1), first)
        seconds = np.where(grid.training[first], training_s, inference_s)
        return seconds, weights, np.where(grid.training[first], steps, 0.0)

    def _step_s(self) -> FloatArray:
        """Seconds of a training step, by configuration. A gang of several types finishes its work together, and then
        exchanges gradients."""
        first = self.grid.starts[:-1]
        mixed = self._mixed()
        if not mixed.any():
            return self.unit_s[first]
        exposed = exposed_s(self.parts, self.units.overlap)
        finish_s, _, _ = self._together()
        return np.where(mixed, finish_s + np.maximum.reduceat(exposed, first), self.unit_s[first])

    def _shares(self) -> FloatArray:
        """Samples a device computes at a time, by row: in a gang of several types in proportion to speed, and half a
        sample where it is too slow to help."""
        mixed = np.repeat(self._mixed(), np.diff(self.grid.starts))
        if not mixed.any():
            return self.units.share
        finish_s, slope, fixed = self._together()
        taken = (np.repeat(finish_s, np.diff(self.grid.starts)) - fixed) / slope
        known = mixed & np.isfinite(taken)  # a type of unknown speed: even shares
        return np.where(known, np.maximum(taken, 0.5) / self.grid.micro, self.units.share)

    def _mixed(self) -> npt.NDArray[np.bool_]:
        """Whether a configuration is a training gang of several types."""
        return np.asarray((np.diff(self.grid.starts) > 1) & self.grid.training[self.grid.starts[:-1]])

    def _together(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(T by configuration, s and c by row): shards that take c_k + s_k b seconds for b samples of a batch, split so
        that all finish after T, the solution of sum_k n_k (T - c_k) / s_k = batch."""
        grid, first = self.grid, self.grid.starts[:-1]
        work_s = self.unit_s - exposed_s(self.parts, self.units.overlap)
        size = self.units.share * grid.micro
        slope = np.maximum(work_s - self._fixed_s(), 1e-3 * work_s) / size
        fixed = work_s - slope * size
        together = np.add.reduceat(grid.count / slope, first)
        finish_s = (grid.batch[first] + np.add.reduceat(grid.count * fixed / slope, first)) / together
        return finish_s, slope, fixed

    def _fixed_s(self) -> FloatArray:
        """Calibrated seconds of a step that do not shrink with a shard's part of the batch."""
        nothing = np.zeros_like(self.units.share)
        parts = self.grid.micro[:, None] * (self.grid._pass(0, nothing) + self.grid._pass(1, nothing))
        parts += self.grid._optimizer()
        return np.asarray((parts * self.factors * np.exp(self.shift)[:, None]).sum(axis=1))

    def _parts(self, seconds: FloatArray, weights: FloatArray) -> FloatArray:
        """Where the seconds go; only the communication that shows."""
        first = self.grid.starts[:-1]
        shown = self.parts.copy()
        visible = exposed_s(self.parts, self.units.overlap)
        across = shown[:, BETWEEN] >= shown[:, WITHIN]
        shown[:, WITHIN] = np.where(across, 0.0, visible)
        shown[:, BETWEEN] = np.where(across, visible, 0.0)
        shares = np.add.reduceat(weights[:, None] * shown / self.unit_s[:, None], first, axis=0)
        return np.asarray(shares * seconds[:, None])
