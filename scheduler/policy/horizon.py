"""Who decides when everything is done. Pure numpy, deterministic.

Shortest first leaves the long ones for last, and then most devices stand idle. How much a workload's work weighs on the
end of everything is a dual variable. Let z be the seconds that each workload spends on each of its configurations:

    least H  with  sum_c z_jc / seconds_jc = 1 for each workload,  sum_c z_jc <= H,  held device-seconds <= devices x H

and let mu_j be the seconds that H grows by if all of workload j had to be done once more. On configuration c it takes
mu_j / seconds_jc off H in a second: about as much for everybody on the types that suit them, more for those that are
so long that they must go on without a pause. Added to the bids it makes no difference where it is equal, and so does
not change who of equals goes first; it sends each to the types that it is good on, and keeps long ones from being left.

The dual is solved by multiplicative weights over devices and workloads (Arora, Hazan, Kale 2012): whatever is busy for
longest weighs more. Unlike a vertex of the linear program, the answer is smooth: it hardly changes from cycle to cycle,
and nothing moves for nothing.
"""

from __future__ import annotations

import numpy as np

from .board import Floats, Ints

ROUNDS = 200

SMOOTH = 0.07
"""Busy times within this share of the longest are taken to be about as long."""
CELLS = 40_000
"""Workloads x configurations. Of more, no single one decides when all are done, and none is weighed."""


def weights_s(seconds: Floats, use: Ints, supply: Ints) -> Floats:
    """mu of each workload, in seconds. `seconds`: workloads x configurations, inf where impossible; `use`: devices of
    each configuration by type; `supply`: devices by type."""
    found = np.zeros(len(seconds))
    times = np.where((use <= supply).all(axis=1), seconds, np.inf)
    able = np.isfinite(times).any(axis=1)
    if able.any() and times.size <= CELLS:
        share = use / np.maximum(supply, 1)
        found[able] = _dual(np.where(np.isfinite(times[able]), times[able], 1e18), share)
    return found


def _dual(times: Floats, share: Floats) -> Floats:
    jobs, types = len(times), share.shape[1]
    rows = np.arange(jobs)
    start = np.concatenate([np.full(types, 0.5 / types), np.full(jobs, 0.5 / jobs)])
    even = np.concatenate([np.ones(types), np.full(jobs, 1.0 / jobs)])
    weight, busy, mu, longest = start, np.zeros(types + jobs), np.zeros(jobs), 0.0
    for turn in range(1, ROUNDS + 1):
        price = share @ weight[:types]
        priced = times * (price[None, :] + weight[types:, None])
        best = priced.argmin(axis=1)
        found = priced[rows, best]
        spent = times[rows, best]
        longest = max(longest, float(found.sum()))
        step = 2.0 / (turn + 1)
        busy = busy + step * (np.concatenate([spent @ share[best], spent]) - busy)
        mu = mu + step * (found - mu)
        scaled = busy / longest
        weight = even * np.exp((scaled - scaled.max()) / max(SMOOTH, 0.3 / turn**0.5))
        weight = weight / weight.sum()
    return np.asarray(mu * longest / max(float(mu.sum()), 1e-12))
