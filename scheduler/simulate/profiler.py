"""What the scheduler is told of a trace's jobs: the truth, times an error that measuring takes away."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from workloads.spec import WorkloadSpec

from ..engine import Upstream
from ..estimate.work import Work
from .types import TraceJob


class TraceProfiler:
    """Says how long a job of the trace takes on each configuration: what is true, times an error of its own for each
    family and configuration, until `learn` is told of it."""

    def __init__(self, jobs: Mapping[str, TraceJob], noise: float, seed: int) -> None:
        """`jobs` by the name of their spec."""
        self._jobs, self._noise, self._seed = jobs, noise, seed
        self._learnt: set[tuple[str, str]] = set()

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        """The work in numbers."""
        del upstream
        return self.work_of(spec.name)

    def work_of(self, name: str) -> Work:
        """As `work`, by the name of the spec."""
        job = self._jobs[name]
        seconds = {str(c): s * self.error(job.family, str(c)) for c in job.configurations if (s := job.seconds(c))}
        return Work(job.kind, job.family, samples=job.work, declared_by=seconds, startup_s=job.startup_s)

    def error(self, family: str, configuration: str) -> float:
        """Predicted / true; the same in every run with the same seed."""
        if self._noise <= 0 or (family, configuration) in self._learnt:
            return 1.0
        key = zlib.crc32(f"{family}\t{configuration}".encode())
        return float(np.exp(self._noise * np.random.default_rng([self._seed, key]).standard_normal()))

    def knows(self, family: str, configuration: str) -> bool:
        """Whether there is nothing to learn of it any more."""
        return self._noise <= 0 or (family, configuration) in self._learnt

    def learn(self, family: str, configuration: str) -> None:
        """This family was measured on this configuration."""
        self._learnt.add((family, configuration))
