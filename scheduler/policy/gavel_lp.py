"""The linear programs of Gavel's policies: which share of its time each job should spend on each device type. Pure.

Narayanan et al., "Heterogeneity-Aware Cluster Scheduling Policies for Deep Learning Workloads", OSDI 2020, section 4.
Solved by HiGHS with its interior-point method and without crossover to a vertex: most of these programs have many
optima, and Gavel's own solver (ECOS, interior-point as well) gives one from their middle, where no job is starved for
no reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_SMALL = 1e-9
_TOLERANCE = 1e-6
"""How far a solution may be outside its constraints, relative to their size."""


@dataclass(frozen=True)
class Jobs:
    """Jobs as rows, device types as columns."""

    speeds: Matrix
    """Share of the whole work that is done in a second; 0 where a type is impossible."""
    units: Matrix
    """By job: steps or rows of the whole work; 1 where that is not known."""
    counts: Matrix
    """Devices held at once."""
    supply: Matrix
    """Devices there are, by type."""
    weights: Matrix
    """By job: how much more than another one it should get."""
    remaining: Matrix
    """By job: share of the work still to do."""
    age_s: Matrix
    """By job: seconds since it came."""
    done_alone_s: Matrix
    """By job: seconds that it would have spent on its own share of the cluster for what it has done."""
    prices: Matrix
    """By type: of one device; all alike where one is not known."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Where a job can run at all."""
        return self.speeds > 0


def max_min_fairness(jobs: Jobs) -> Matrix:
    """Least attained service, knowing how fast each job is on each type: the least of the jobs' throughputs, relative
    to the one with an equal share of every type, is made as large as possible (section 4.1)."""
    share = jobs.supply / jobs.supply.sum()
    equal = (jobs.speeds * share).sum(axis=1)
    return _max_min(jobs, jobs.speeds * jobs.counts / (jobs.weights * equal)[:, None])


def max_min_fairness_agnostic(jobs: Jobs) -> Matrix:
    """The same as if every type were equally fast."""
    ones = jobs.usable.astype(np.float64)
    return _max_min(jobs, ones * jobs.counts / jobs.weights[:, None])


def finish_time_fairness(jobs: Jobs) -> Matrix:
    """The largest of the jobs' finish times, relative to the one on a cluster of 1/n of the size, is made as small as
    possible (section 4.2).

    For a ratio rho every job needs a certain throughput; the best rho is the least for which all needs can be met. Each
    solution attains a smaller ratio than the one it was made for, until nothing is gained.
    """
    alone_s = jobs.done_alone_s + jobs.remaining / (jobs.speeds * isolated(jobs)).sum(axis=1)

    def attained(shares: Matrix) -> float:
        speed = np.maximum((jobs.speeds * shares).sum(axis=1), 1e-15)
        return float(((jobs.age_s + jobs.remaining / speed) / alone_s).max())

    best = isolated(jobs)
    ratio = attained(best)
    for _ in range(60):
        slack_s = np.maximum(ratio * alone_s - jobs.age_s, 1e-6)
        shares = _max_min(jobs, jobs.speeds * (slack_s / jobs.remaining)[:, None])
        reached = attained(shares)
        if reached >= ratio * (1 - 1e-5):
            return np.where(jobs.speeds > 0, best if reached > ratio else shares, 0.0)
        best, ratio = shares, reached
    return np.where(jobs.speeds > 0, best, 0.0)


def min_makespan(jobs: Jobs) -> Matrix:
    """All jobs can be done within the least time, up to 5% (section 4.2): the time is what Gavel's own search over
    1e2 to 1e6 seconds ends with, and the rest is left open as there."""
    needs = jobs.speeds / jobs.remaining[:, None]
    least = _max_min(jobs, needs * 1e5)
    speed = float((needs * least).sum(axis=1).min())
    if speed <= 0:
        return least
    low_s, high_s = 100.0, 1e6
    while 1 / speed > high_s:
        low_s, high_s = high_s, high_s * 10
    while 1.05 * low_s < high_s:
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (low_s, middle_s) if middle_s * speed >= 1 else (middle_s, high_s)
    return _reach(jobs, needs * high_s)


def max_throughput_per_cost(jobs: Jobs) -> Matrix:
    """The sum of the jobs' throughputs, each over the price of a device, is made as large as possible (section 4.2).
    Throughput is steps in a second, where they are known, else the share of its own work that a job does."""
    values = jobs.speeds * jobs.units[:, None] / jobs.prices
    return _solve(_Program(jobs, values, -values[jobs.usable] / max(float(values.max()), 1e-30)))


def first_come(jobs: Jobs) -> Matrix:
    """First come, first served: all of its time on the type where it is fastest among those with room, for as many jobs
    as find room. Nobody overtakes one that is too wide; one that no free type can run at all is passed over."""
    found, left = np.zeros(jobs.speeds.shape), jobs.supply.copy()
    for row in range(len(found)):
        room = np.where(jobs.usable[row], jobs.counts[row], jobs.counts[row].max()) <= left
        if not room.any():
            break
        best = int(np.where(room, jobs.speeds[row], 0.0).argmax())
        if room[best] and jobs.usable[row, best]:
            found[row, best] = 1.0
            left[best] -= jobs.counts[row, best]
    return found


def isolated(jobs: Jobs) -> Matrix:
    """Every job on its own 1/n of each type."""
    shares = jobs.supply / len(jobs.speeds) / np.maximum(jobs.counts, 1.0)
    return np.asarray(shares / np.maximum(shares.sum(axis=1), 1.0)[:, None])


def _max_min(jobs: Jobs, values: Matrix) -> Matrix:
    """Shares that make the least of `(values * shares).sum(axis=1)` as large as possible."""
    return _solve(_Program(jobs, values, np.zeros(int(jobs.usable.sum())), "most"))


def _reach(jobs: Jobs, values: Matrix) -> Matrix:
    """Shares from the middle of those with `(values * shares).sum(axis=1)` of at least 1 for every job."""
    return _solve(_Program(jobs, values, np.zeros(int(jobs.usable.sum())), "one"))


@dataclass(frozen=True)
class _Program:
    """Gavel's constraints (a job has one time, a type its supply) with an objective on top: the least cost, or the
    largest least value (`most`), or every value at least 1 (`one`)."""

    jobs: Jobs
    values: Matrix
    costs: Matrix
    least: str = ""

    def build(self) -> highspy.HighsLp:
        jobs = self.jobs
        job, kind = np.nonzero(jobs.usable)
        (m, n), pairs = jobs.speeds.shape, len(job)
        pair = np.arange(pairs)
        rows, columns = [job, m + kind], [pair, pair]
        values = [np.ones(pairs), jobs.counts[job, kind]]
        extra = self.least == "most"
        if self.least:
            rows, columns = [*rows, m + n + job], [*columns, pair]
            values = [*values, self.values[job, kind]]
        if extra:
            rows, columns = [*rows, m + n + np.arange(m)], [*columns, np.full(m, pairs)]
            values = [*values, np.full(m, -1.0)]
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = pairs + extra, m + n + (m if self.least else 0)
        lp.col_cost_ = np.append(self.costs, -1.0) if extra else self.costs
        lp.col_lower_ = np.zeros(lp.num_col_)
        lp.col_upper_ = np.full(lp.num_col_, highspy.kHighsInf)
        floors = np.full(m if self.least else 0, 0.0 if extra else 1.0)
        lp.row_lower_ = np.concatenate([np.full(m + n, -highspy.kHighsInf), floors])
        lp.row_upper_ = np.concatenate([np.ones(m), jobs.supply, np.full(len(floors), highspy.kHighsInf)])
        row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
        order = np.lexsort((column, row))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.concatenate([[0], np.bincount(row, minlength=lp.num_row_).cumsum()])
        lp.a_matrix_.index_, lp.a_matrix_.value_ = column[order], value[order]
        return lp


def _solve(program: _Program) -> Matrix:
    """The shares, from the middle of the optima. Simplex takes over where the interior-point method gives nothing
    usable."""
    lp = program.build()
    found = np.zeros(program.jobs.speeds.shape)
    for solver in ("ipm", "simplex"):
        highs = highspy.Highs()  # type: ignore[no-untyped-call]
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("solver", solver)
        highs.setOptionValue("run_crossover", "off")
        highs.setOptionValue("presolve", "off")
        highs.passModel(lp)
        highs.run()
        pairs = np.array(highs.getSolution().col_value, dtype=np.float64)[: int(program.jobs.usable.sum())]
        if len(pairs) == int(program.jobs.usable.sum()):
            found[program.jobs.usable] = np.clip(pairs, 0.0, 1.0)
            if _holds(program.jobs, found):
                return found
    return np.zeros_like(found)


def _holds(jobs: Jobs, shares: Matrix) -> bool:
    used = (shares * jobs.counts).sum(axis=0)
    within = bool((used <= jobs.supply * (1 + _TOLERANCE) + _TOLERANCE).all())
    return within and bool((shares.sum(axis=1) <= 1 + _TOLERANCE).all()) and bool(shares.any())
