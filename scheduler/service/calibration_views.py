"""What the API tells of calibration: plain JSON made from what was learnt and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cluster.types import DeviceType, Snapshot

from ..client import types
from ..estimate.calibration import Calibration, Entry, Subject
from ..estimate.device_rates import DeviceRates
from ..estimate.names import calibration_name
from ..estimate.step_time import PARTS

SPREADS = 2.0
"""Standard deviations to each side: nineteen times in twenty the truth is within."""


def calibration(known: Calibration, rates: Mapping[str, DeviceRates], snapshot: Snapshot) -> types.CalibrationView:
    """Everything that is known. `snapshot` has the catalog's rates, to compare with."""
    points = dict(known.points)
    subjects = sorted({subject for subject, _, _ in points})
    entries = sorted(dict(known.entries).items())
    return {
        "subjects": [_subject(known, subject) | {"points": _points(points, subject)} for subject in subjects],
        "overheads": [_overhead(key, entry) for key, entry in entries if key[0] == "overhead"],
        "history": [_history(key, entry) for key, entry in entries if key[0] == "history"],
        "device_types": _device_types(rates, snapshot),
    }


def counts(known: Calibration, rates: Mapping[str, DeviceRates]) -> dict[str, int]:
    """How much is known: measured operating points, start-up and run times, device types."""
    return {"points": len(known.points), "times": len(known.entries), "device_types": len(rates)}


def _subject(known: Calibration, subject: Subject) -> dict[str, Any]:
    """The factor of each part that the uncalibrated model predicts, with its interval."""
    belief = known.belief(subject)
    spreads = np.sqrt(np.maximum(np.diag(belief.covariance), 0.0))
    numbers = zip(PARTS, belief.mean.tolist(), spreads.tolist(), strict=True)
    factors = {part: _factor(mean, spread) for part, mean, spread in numbers}
    return {**asdict(subject), "factors": factors}


def _factor(mean: float, spread: float) -> dict[str, float]:
    low, high = mean - SPREADS * spread, mean + SPREADS * spread
    return {"mean": math.exp(mean), "low": math.exp(low), "high": math.exp(high)}


def _points(points: Mapping[tuple[Subject, int, str], Any], subject: Subject) -> list[dict[str, Any]]:
    """The operating points that were measured, with measured / predicted before any correction."""
    return [
        {"shards": shards, "label": label, "count": point.ratio.count, "ratio": math.exp(point.ratio.mean)}
        for (of, shards, label), point in points.items()
        if of == subject
    ]


def _overhead(key: tuple[str, ...], entry: Entry) -> dict[str, Any]:
    """Seconds beside the work itself; `*` stands for any family or number of devices."""
    _, kind, family, devices = key
    return {"kind": kind, "family": family, "devices": devices, **_seconds(entry)}


def _history(key: tuple[str, ...], entry: Entry) -> dict[str, Any]:
    """Seconds of work that no model predicts; its size (rows, or bytes of the input) is None where it is not known."""
    _, kind, family, configuration, *size = key
    of = {"kind": kind, "family": family, "configuration": configuration, "size": float(size[0]) if size else None}
    return of | _seconds(entry)


def _seconds(entry: Entry) -> dict[str, Any]:
    found = _factor(entry.mean, entry.spread)
    return {"seconds": found["mean"], "low_s": found["low"], "high_s": found["high"], "count": entry.count}


def _device_types(rates: Mapping[str, DeviceRates], snapshot: Snapshot) -> list[dict[str, Any]]:
    """The cluster's device types, and those that are not there any more but were measured."""
    here = {calibration_name(kind): kind for kind in snapshot.device_types.values()}
    views = []
    for name in sorted({*here, *rates}):
        kind, found = here.get(name), rates.get(name)
        views.append(
            {
                "known_as": name,
                "name": kind.name if kind is not None else found.device_type if found is not None else name,
                "kind": kind.kind if kind is not None else None,
                "emulated_speed": kind.emulated_speed if kind is not None else None,
                "total": snapshot.total(kind.name) if kind is not None else 0,
                "catalog": None if kind is None else _catalog(kind),
                "measured": None if found is None else _measured(found),
            }
        )
    return views


def _catalog(kind: DeviceType) -> dict[str, Any]:
    """What is believed without a benchmark, in the units of one: the catalog adds up both directions of a link."""
    host = kind.kind == "cpu" or kind.emulated
    link = kind.interconnect_bytes_s
    return {
        "flops": dict(kind.peak_flops),
        "bandwidth_bytes_s": kind.memory_bandwidth_bytes_s,
        "launch_s": kind.launch_s,
        "reduce_bytes_s": link if link is None or host else link / 2,
        "source": kind.source,
    }


def _measured(found: DeviceRates) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "device_type"}
