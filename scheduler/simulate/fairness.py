"""How long a job would take with an equal share of the cluster: what finish-time fairness compares with. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .types import TraceJob


def fair_seconds(
    jobs: Mapping[str, TraceJob], lives: Mapping[str, tuple[float, float]], totals: Mapping[str, int]
) -> dict[str, float | None]:
    """By job: the seconds it takes where each of the N jobs that live beside it on average, itself counted, has a N-th
    of every device type's time (Mahajan et al., Themis, NSDI 2020; over several types as in Gavel). `lives`: when each
    came and went. None where no configuration of it can be held."""
    edges = np.array(sorted({edge for life in lives.values() for edge in life}))
    change = np.zeros(len(edges))
    for begin, end in lives.values():
        change[np.searchsorted(edges, begin)] += 1
        change[np.searchsorted(edges, end)] -= 1
    present = np.cumsum(change)
    area = np.concatenate([[0.0], np.cumsum(present[:-1] * np.diff(edges))]) if len(edges) else np.zeros(0)
    found: dict[str, float | None] = {}
    for name, job in jobs.items():
        begin, end = lives[name]
        sharing = 1.0
        if end > begin:
            total = area[np.searchsorted(edges, end)] - area[np.searchsorted(edges, begin)]
            sharing = max(1.0, float(total) / (end - begin))
        found[name] = _equal_share_s(job, totals, sharing)
    return found


def _equal_share_s(job: TraceJob, totals: Mapping[str, int], sharing: float) -> float | None:
    """Each type's devices serve the job a share of the time; no more than all of it together, the fastest first."""
    choices = []
    for configuration in job.configurations:
        seconds = job.seconds(configuration)
        share = min(totals.get(name, 0) / (sharing * count) for name, count in configuration.groups)
        if seconds is not None and all(totals.get(name, 0) >= count for name, count in configuration.groups):
            choices.append((1 / seconds, min(1.0, share)))
    rate, left = 0.0, 1.0
    for speed, share in sorted(choices, reverse=True):
        rate += speed * min(share, left)
        left -= min(share, left)
    return 1 / rate + job.startup_s if rate > 0 else None
