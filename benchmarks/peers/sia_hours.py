"""Where the GPU-hours and the time of jobs go in Sia's simulator: the least that the work needs, and what is held on
top of it, by cause. Watches every round of every job and changes nothing.

The least is one device of the job's most efficient type at its best batch size. What is held beyond it is put down, in
this order, to a restart (devices are held, nothing is done), to a slower device type (one device of the type that it is
on), and to scaling out, which is split by its two factors: throughput per device, and progress per example, which falls
with the batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CAUSES = ("least", "restarts", "slower_type", "communication", "large_batches")
PHASES = ("waiting", "restarting", "training")
_BATCHES = 50
"""Batch sizes tried for the best one, as many as Sia's simulator tries."""


@dataclass
class Watch:
    """What was seen of all jobs of a run. Seconds."""

    types: tuple[str, ...]
    """Device types of the cluster."""
    device_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    job_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    _single: dict[tuple[str, str, int], tuple[float, float]] = field(default_factory=dict)

    def round(self, job: Any, before: Before, seconds: float) -> None:
        """One round of one job, after it was played."""
        end = job.completion_time if job.completion_time is not None else before.time_s + seconds
        passed = max(0.0, min(end - max(before.time_s, job.submission_time), seconds))
        if not before.devices:
            self.job_s["waiting"] += passed
            return
        held = job.attained_service - before.service_s
        lost = job.wasted_gpu_seconds - before.lost_s
        self.job_s["restarting"] += lost / before.devices
        self.job_s["training"] += max(0.0, passed - lost / before.devices)
        self.device_s["restarts"] += lost
        self._trained(job, before, held - lost)

    def _trained(self, job: Any, before: Before, held: float) -> None:
        """Split the seconds that devices were held and did something."""
        done = job.progress - before.progress
        if held <= 0 or done <= 0:
            self.device_s["communication"] += held
            return
        epoch = min(before.epoch, job.reference_app.max_epochs - 1)
        here, efficiency = self._best(job, before.device_type, epoch)
        least = done / max(self._best(job, name, epoch)[0] for name in self.types)
        same = done / here
        scaling = math.log(held / same)
        batches = math.log(efficiency / _efficiency(job.reference_app, before.batch, epoch))
        self.device_s["least"] += least
        self.device_s["slower_type"] += same - least
        share = batches / scaling if abs(scaling) > 1e-9 else 0.0
        self.device_s["large_batches"] += (held - same) * min(max(share, 0.0), 1.0)
        self.device_s["communication"] += (held - same) * (1.0 - min(max(share, 0.0), 1.0))

    def _best(self, job: Any, device_type: str, epoch: int) -> tuple[float, float]:
        """Steps of the initial batch size a second on one device of a type, and progress per example there."""
        key = job.app_name, device_type, epoch
        if key not in self._single:
            app = job.applications[device_type]
            found = [
                _single(app, batch, epoch) for batch in np.geomspace(app.init_batch_size, app.max_batch_size, _BATCHES)
            ]
            goodput, efficiency = max(found)
            self._single[key] = goodput * job.calibration_factor, efficiency
        return self._single[key]


@dataclass(frozen=True)
class Before:
    """A job as a round finds it."""

    time_s: float
    devices: int
    device_type: str
    service_s: float
    lost_s: float
    progress: float
    epoch: int
    batch: float

    @classmethod
    def of(cls, job: Any) -> Before:
        """As it is now."""
        devices = int(sum(job.placement))
        batch = float(job.atomic_bsz * (job.accum_steps + 1) * devices)
        lost, service = job.wasted_gpu_seconds, job.attained_service
        return cls(job.current_time, devices, job.current_cluster, service, lost, job.progress, job.epoch, batch)


def watch(jobs: list[Any], types: tuple[str, ...]) -> Watch:
    """Watch the rounds of these jobs from now on."""
    seen = Watch(types)
    for job in jobs:
        _wrap(job, seen)
    return seen


def _wrap(job: Any, seen: Watch) -> None:
    play = job.step

    def step(seconds: float, interference: float = 0.0) -> None:
        if job.completion_time is not None:
            return
        before = Before.of(job)
        play(seconds, interference=interference)
        seen.round(job, before, seconds)

    job.step = step


def _efficiency(app: Any, batch: float, epoch: int) -> float:
    """Progress per example, 1 at the initial batch size."""
    square, variance = app.get_grad_stats(min(max(batch, app.init_batch_size), app.max_batch_size), epoch)
    scale = batch / app.init_batch_size
    return float((variance + square) / (variance / scale + square) / scale)


def _single(app: Any, batch: float, epoch: int) -> tuple[float, float]:
    """Steps of the initial batch size a second on one device, and progress per example, for a batch size."""
    whole = round(batch)
    efficiency = _efficiency(app, whole, epoch)
    return float(app.get_throughput_with_accum((1,), whole)) * efficiency / app.init_batch_size, efficiency
