"""A lower bound on the makespan of a trace that knows when jobs come and that a job is on one type at a time: a linear
program. Tighter than `scheduler.simulate.bounds` where both matter.

python -m benchmarks.policies.makespan_bound [--periods N]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse  # type: ignore[import-untyped]

from scheduler.simulate.traces import gavel
from scheduler.simulate.types import TraceJob

from .gavel import SHARED, TRACES, TYPES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PERIODS = 40


@dataclass(frozen=True)
class _Ways:
    """One variable each: seconds of a job on a type of device within a period."""

    job: Ints
    kind: Ints
    period: Ints
    seconds: Floats
    """That all of the job takes there."""
    devices: Floats


def least_makespan_s(jobs: Sequence[TraceJob], types: Sequence[str], totals: Sequence[int], periods: int) -> float:
    """No schedule ends sooner, also one that preempts for free. `totals`: devices of each of `types`; every
    configuration holds devices of one type, and progress within a phase does not matter. Raises ValueError where a job
    fits nowhere.

    Time is cut at moments of arrivals; after the last, one period is as long as it must be, and its length is
    minimised. In each period a job runs for no longer than the period is after it came, and the devices of a type are
    held for no longer than it is. The jobs' order within a period does not count, so this is a relaxation.
    """
    come_s = np.array([job.arrives_s for job in jobs])
    starts = np.unique(np.quantile(come_s, np.linspace(0, 1, periods + 1)))
    ends = np.append(starts[1:], np.inf)
    ways, last, there = (
        _ways(jobs, dict(zip(types, totals, strict=True)), ends),
        len(starts) - 1,
        np.array(totals, dtype=float),
    )
    of_job, job, when = _sums(ways.job, ways.period, np.ones(len(ways.job)), last + 1)
    of_type, kind, then = _sums(ways.kind, ways.period, ways.devices, last + 1)
    open_s = np.where(when < last, ends[when] - np.maximum(starts[when], come_s[job]), -starts[last])
    held_s = there[kind] * np.where(then < last, ends[then] - starts[then], -starts[last])
    ending = np.concatenate([np.where(when < last, 0.0, -1.0), np.where(then < last, 0.0, -there[kind])])
    number = np.arange(len(ways.job))
    done = sparse.csr_matrix((1.0 / ways.seconds, (ways.job, number)), shape=(len(jobs), len(number)))
    found = optimize.linprog(
        np.append(np.zeros(len(number)), 1.0),
        A_ub=sparse.hstack([sparse.vstack([of_job, of_type]), sparse.csr_matrix(ending[:, None])]).tocsr(),
        b_ub=np.concatenate([open_s, held_s]),
        A_eq=sparse.hstack([done, sparse.csr_matrix((len(jobs), 1))]).tocsr(),
        b_eq=np.ones(len(jobs)),
        method="highs-ipm",
    )
    if found.x is None:
        raise ValueError(f"no makespan was found: {found.message}")
    return float(found.x[-1])


def _ways(jobs: Sequence[TraceJob], totals: Mapping[str, int], ends: Floats) -> _Ways:
    types = list(totals)
    rows = []
    for number, job in enumerate(jobs):
        for configuration in job.configurations:
            seconds = job.seconds(configuration)
            (name, count), *others = configuration.groups
            if seconds and not others and count <= totals.get(name, 0):
                possible = np.flatnonzero(ends > job.arrives_s).tolist()
                rows += [(number, types.index(name), period, seconds, count) for period in possible]
    found = np.array(rows)
    return _Ways(*found[:, :3].astype(np.int64).T, found[:, 3], found[:, 4])


def _sums(first: Ints, period: Ints, weights: Floats, periods: int) -> tuple[sparse.csr_matrix, Ints, Ints]:
    """A row for each pair of `first` and period: what of it is held, whose it is, and when."""
    pairs, row = np.unique(first * periods + period, return_inverse=True)
    found = sparse.csr_matrix((weights, (row, np.arange(len(first)))), shape=(len(pairs), len(first)))
    return found, pairs // periods, pairs % periods


def main() -> None:
    """Print a line for each trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--periods", type=int, default=PERIODS)
    arguments = parser.parse_args()
    for name, totals in TRACES.items():
        jobs = gavel.read(SHARED / "data" / "gavel" / f"{name}.trace").jobs
        print(f"{name}: {least_makespan_s(jobs, TYPES, totals, arguments.periods) / 3600:.2f} h", flush=True)


if __name__ == "__main__":
    main()
