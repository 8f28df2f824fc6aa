"""How long a job would take with an equal share of the cluster: what finish-time fairness compares with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..types import Configuration
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
    """Each type has so many devices' time for the job, and the job has all of its own time, once: taken by the speed of
    a configuration, or by its speed a device, whichever gets more done."""
    choices = []
    for configuration in job.configurations:
        seconds = job.seconds(configuration)
        if seconds is not None and all(totals.get(name, 0) >= count for name, count in configuration.groups):
            choices.append((1 / seconds, configuration))
    by_speed = sorted(choices, reverse=True)
    by_device = sorted(choices, key=lambda choice: (-choice[0] / choice[1].devices, choice[1]))
    rate = max(_rate(order, totals, sharing) for order in (by_speed, by_device))
    return 1 / rate + job.startup_s if rate > 0 else None


def _rate(order: Sequence[tuple[float, Configuration]], totals: Mapping[str, int], sharing: float) -> float:
    """Share of the work done in a second where configurations take their part of what is left in this order."""
    devices = {name: total / sharing for name, total in totals.items()}
    rate, left = 0.0, 1.0
    for speed, configuration in order:
        share = min(left, *(devices[name] / count for name, count in configuration.groups))
        rate, left = rate + speed * share, left - share
        for name, count in configuration.groups:
            devices[name] -= share * count
    return rate
