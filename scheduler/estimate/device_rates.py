"""What `raywise calibrate` measured of whole device types, what that changes of a snapshot, and what a change of rates,
wherever it comes from, means for what was learnt. Pure.

The rates of a type are known by `calibration_name`: an emulated type never gives its rates to the hardware it stands
for, nor takes them from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from cluster.types import DeviceType, Snapshot

from .calibration import Calibration, Point, Subject
from .cost_model import DEFAULT_NETWORK_BYTES_S
from .hardware import rates
from .names import calibration_name
from .profile import OPERATOR_CLASSES, FloatArray
from .rows import LINK_EFFICIENCY
from .step_time import COMPUTE, CROWDING, LAUNCH, MEMORY, PARTS, WITHIN

ABSURD_FACTOR = 20.0
"""A measurement this far above the catalog's peak is not believed."""
SLOW_FACTOR = 200.0
"""Nor is one this far below: a device that is shared, throttled or paused for most of a measurement stays above."""
SOFTWARE_FACTOR = 10.0
"""A precision that the catalog does not have may be computed in software: so many times slower still is believed."""
SLOWEST = 1e6
"""Nothing that computes or copies at fewer FLOP/s or bytes/s is believed, also where the catalog has no peak. It is the
only lower bound of an all-reduce: two devices of a type may be on two nodes, far below their own link."""
SHORTEST_LAUNCH_S, LONGEST_LAUNCH_S = 10e-9, 0.1
"""Nor is one operator that starts faster than a core makes a function call, or that takes so long."""
_Shape = TypeVar("_Shape")
_MATMUL, _ELEMENTWISE = OPERATOR_CLASSES.index("matmul"), OPERATOR_CLASSES.index("elementwise")


@dataclass(frozen=True)
class DeviceRates:
    """Rates of one device of a type, as the benchmark body measured them (`rates` in `workloads.job`); None, or a
    precision that is missing, is not measured."""

    device_type: str
    flops: Mapping[str, float] = field(default_factory=dict)
    """FLOP/s of a large matrix product, by precision."""
    bandwidth_bytes_s: float | None = None
    """Bytes read and written a second by a large copy."""
    elementwise_bytes_s: float | None = None
    """Kept and shown; no estimate reads it yet."""
    launch_s: float | None = None
    """Seconds to start one tiny operator."""
    reduce_bytes_s: float | None = None
    """Bytes a second on each link of an all-reduce of all its shards."""
    shards: int = 1
    measured_at_s: float = 0.0
    """Unix seconds."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DeviceRates:
        """A `rates` record. Raises KeyError, TypeError, ValueError or AttributeError where it is malformed."""
        return cls(
            device_type=str(record["device_type"]),
            flops={str(name): float(rate) for name, rate in record["flops"].items()},
            bandwidth_bytes_s=_float(record["bandwidth_bytes_s"]),
            elementwise_bytes_s=_float(record.get("elementwise_bytes_s")),
            launch_s=_float(record["launch_s"]),
            reduce_bytes_s=_float(record.get("reduce_bytes_s")),
            shards=int(record.get("shards", 1)),
            measured_at_s=float(record["t"]),
        )

    def updated(self, newer: DeviceRates) -> DeviceRates:
        """What `newer` measured, and the rest as it was: one device alone says nothing of the all-reduce of two."""
        old = {name: value for name, value in asdict(self).items() if getattr(newer, name) is None}
        return replace(newer, flops={**self.flops, **newer.flops}, **old)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


LearntAgainst = Mapping[str, DeviceType]
"""The device types that calibration is in terms of, by `calibration_name` and with nothing but their rates."""


def to_json(known: Mapping[str, DeviceRates] | LearntAgainst) -> str:
    """For the store."""
    return json.dumps({name: asdict(each) for name, each in known.items()}, sort_keys=True)


def from_json(text: str | None) -> dict[str, DeviceRates]:
    """What `to_json` wrote; rates of another shape are left out: they can be measured again."""
    return _read(text, DeviceRates)


def against_from_json(text: str | None) -> dict[str, DeviceType]:
    """As `from_json`, for what calibration is in terms of."""
    return _read(text, DeviceType)


def _read(text: str | None, shape: Callable[..., _Shape]) -> dict[str, _Shape]:
    known = {}
    for name, each in (json.loads(text) if text else {}).items():
        try:
            known[name] = shape(**each)
        except TypeError:
            continue
    return known


def believable(found: DeviceRates, device: DeviceType) -> tuple[DeviceRates | None, list[str]]:
    """What of a measurement is kept, None where nothing is, and a sentence for each number that is refused: not finite,
    or far above or below the rates of `device`, which are the catalog's (a host core's)."""
    flops, refused = {}, []
    for precision, rate in found.flops.items():
        if _sane(rate, *_product_limits(device, precision)):
            flops[precision] = rate
        else:
            refused.append(_sentence(device, f"a matrix product in {precision}", f"{rate:.3g} FLOP/s"))
    memory, link = _limits(device.memory_bandwidth_bytes_s), _limits(device.interconnect_bytes_s)
    limits = {
        "bandwidth_bytes_s": ("a copy", memory, "bytes/s"),
        "elementwise_bytes_s": ("element-wise operators", memory, "bytes/s"),
        "reduce_bytes_s": ("an all-reduce", (SLOWEST, link[1]), "bytes/s"),
        "launch_s": ("starting an operator", (SHORTEST_LAUNCH_S, LONGEST_LAUNCH_S), "s"),
    }
    kept: dict[str, float | None] = {}
    for name, (what, (least, most), unit) in limits.items():
        value = kept[name] = getattr(found, name)
        if value is not None and not _sane(value, least, most):
            kept[name] = None
            refused.append(_sentence(device, what, f"{value:.3g} {unit}"))
    if not flops and all(value is None for value in kept.values()):
        return None, refused
    return replace(found, flops=flops, **kept), refused  # type: ignore[arg-type]


def _product_limits(device: DeviceType, precision: str) -> tuple[float, float]:
    """Least and most FLOP/s of a matrix product. A precision that the catalog lacks may be as fast as its fastest, or
    computed in software by its slowest."""
    peaks = device.peak_flops
    if precision in peaks or not peaks:
        return _limits(peaks.get(precision))
    least, _ = _limits(min(peaks.values()))
    return least / SOFTWARE_FACTOR, _limits(max(peaks.values()))[1]


def _limits(peak: float | None) -> tuple[float, float]:
    """Least and most that is believed of a rate with this peak."""
    return (peak / SLOW_FACTOR, ABSURD_FACTOR * peak) if peak else (SLOWEST, math.inf)


def _sane(value: float, least: float, most: float) -> bool:
    return math.isfinite(value) and least <= value <= most


def _sentence(device: DeviceType, what: str, measured: str) -> str:
    return f"{what} at {measured} on {device.name}: not believed"


def with_measured_rates(snapshot: Snapshot, known: Mapping[str, DeviceRates]) -> Snapshot:
    """The snapshot with what was measured of its device types; every estimate is made on such a one."""
    types = {name: _measured(kind, known.get(calibration_name(kind))) for name, kind in snapshot.device_types.items()}
    return replace(snapshot, device_types=types) if known else snapshot


def _measured(device: DeviceType, found: DeviceRates | None) -> DeviceType:
    """A device type with its measured rates.

    Real accelerators keep the catalog's peaks: `hardware.rates` takes `measured_*` in their place, with other
    fractions, and `rows` takes the measured link as it is. The rates of a core, and of what is emulated on one, are
    measured ones already, from the start of the service, and `hardware.CPU_COMPUTE` and `CPU_BANDWIDTH` are fractions
    of just that: the newer measurement takes the place of the older. So does that of the link, which `rows` reads as
    one-way for hosts.
    """
    if found is None or found.measured_at_s < device.rates_at_s:
        return device
    launch_s = device.launch_s if found.launch_s is None else found.launch_s
    if device.kind != "cpu" and not device.emulated:
        return replace(
            device,
            launch_s=launch_s,
            measured_flops={**device.measured_flops, **found.flops},
            measured_bandwidth_bytes_s=found.bandwidth_bytes_s or device.measured_bandwidth_bytes_s,
            measured_link_bytes_s=found.reduce_bytes_s or device.measured_link_bytes_s,
        )
    return replace(
        device,
        launch_s=launch_s,
        peak_flops={**device.peak_flops, **found.flops},
        memory_bandwidth_bytes_s=found.bandwidth_bytes_s or device.memory_bandwidth_bytes_s,
        interconnect_bytes_s=found.reduce_bytes_s or device.interconnect_bytes_s,
    )


def carry_over(calibration: Calibration, before: DeviceType, after: DeviceType) -> None:
    """Put what was learnt against a type's rates `before` into terms of those `after`: what was measured is worth as
    much as it was, only the prediction it is compared with is another. (Where an operator is bound by arithmetic with
    the one and by memory with the other, this is an approximation; the next run of the workload puts it right.)"""
    name = calibration_name(after)

    def factors(subject: Subject, point: Point) -> FloatArray | None:
        # Rows that a core tokenises in a second are sampled, not computed from its rates.
        if subject.device != name or subject.kind == "preprocess":
            return None
        ratio = _seconds_ratio(before, after, subject.precision)
        return None if ratio is None else _crowded(ratio, np.array(point.parts))

    calibration.rescale(factors)


def in_terms_of(calibration: Calibration, against: LearntAgainst, snapshot: Snapshot) -> dict[str, DeviceType]:
    """Put what was learnt against other rates than those of `snapshot`, which has the measured ones, into terms of
    these: the host was measured anew, a benchmark has run, or the catalog has other numbers. Returns what it is learnt
    against from now on. A type that is not in `against` was not there before, or nobody kept its rates then."""
    now = dict(against)
    for device in snapshot.device_types.values():
        name, rates_now = calibration_name(device), _rates_only(device)
        if against.get(name, rates_now) != rates_now:
            carry_over(calibration, against[name], rates_now)
        now[name] = rates_now
    return now


def _rates_only(device: DeviceType) -> DeviceType:
    """What predictions of speed are made from: neither prices nor memory, which change more often."""
    return DeviceType(
        device.name,
        device.kind,
        memory_bandwidth_bytes_s=device.memory_bandwidth_bytes_s,
        peak_flops=dict(device.peak_flops),
        interconnect_bytes_s=device.interconnect_bytes_s,
        launch_s=device.launch_s,
        measured_flops=dict(device.measured_flops),
        measured_bandwidth_bytes_s=device.measured_bandwidth_bytes_s,
        measured_link_bytes_s=device.measured_link_bytes_s,
        emulated_speed=device.emulated_speed,
    )


def _seconds_ratio(before: DeviceType, after: DeviceType, precision: str) -> FloatArray | None:
    """Seconds after / before of each part; None where either has no rates for the precision."""
    old, new = rates(before, precision), rates(after, precision)
    if old is None or new is None:
        return None
    ratio = np.ones(len(PARTS))
    ratio[COMPUTE] = old.flops_s[_MATMUL] / new.flops_s[_MATMUL]
    with np.errstate(invalid="ignore"):
        ratio[MEMORY] = old.bytes_s[_ELEMENTWISE] / new.bytes_s[_ELEMENTWISE]
    ratio[LAUNCH] = new.launch_s / old.launch_s
    ratio[WITHIN] = _link_bytes_s(before) / _link_bytes_s(after)
    return np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)


def _crowded(ratio: FloatArray, parts: FloatArray) -> FloatArray:
    """What shards on one host cost each other is a share of what each does by itself."""
    own = [COMPUTE, MEMORY, LAUNCH]
    before = parts[own].sum()
    if before > 0:
        ratio[CROWDING] = (parts * ratio)[own].sum() / before
    return ratio


def _link_bytes_s(device: DeviceType) -> float:
    """What `rows` takes for the link within a node."""
    if device.measured_link_bytes_s:
        return device.measured_link_bytes_s
    if device.interconnect_bytes_s is None:
        return DEFAULT_NETWORK_BYTES_S
    host = device.kind == "cpu" or device.emulated
    return device.interconnect_bytes_s if host else device.interconnect_bytes_s / 2 * LINK_EFFICIENCY
