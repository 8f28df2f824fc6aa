"""Seconds, bytes and dollars of configurations, from first principles. Pure.

`estimate_all` is the one way: it takes all workloads with all their configurations and does the arithmetic in columns,
one row for each (workload, configuration, device type). Everything else here is words around that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cluster.types import DeviceType, EnergyRates, Market, Tariff

from ..types import Breakdown, Configuration, Energy, Estimate, EstimateSource, Money, Reason
from . import money as costs
from .calibration import Calibration, Correction, Subject
from .columns import Columns
from .items import items_s
from .memory import remedy
from .names import configuration_key
from .profile import FloatArray, ModelProfile
from .rows import speeds
from .speed_table import Row, SpeedTable
from .step_time import PARTS
from .work import Work

STARTUP_S = {"preprocess": 10.0, "train": 16.0, "batch-infer": 10.0, "serve": 10.0, "command": 3.0, "benchmark": 20.0}
"""Seconds a body takes beside its work (processes, imports, loading, writing), prior: a warm 2-core machine."""
DEFAULT_NETWORK_BYTES_S = 1.25e9
"""Between nodes where the catalog has no figure: 10 Gbit/s."""
WEIGHT_BYTES, MOMENT_BYTES = 4.0, 8.0
"""What a checkpoint has of one parameter: the fp32 weight, and AdamW's two moments where it is trained."""
LOST_BLOCK_S = 15.0
"""Work that a lost replica of inference had not written yet (prior)."""
KEPT_REMEDIES = 200_000
_remedies: dict[tuple[Any, ...], str] = {}
"""The search for what would fit takes milliseconds, and the same rows are asked about in every cycle."""
ROWS_OF_A_CORE = "cpu~rows"
"""The device type that preprocessing is learnt under: its rates are sampled, and say nothing of a core's FLOP/s."""
_NEVER_RUN = "never run yet: its first run, or expected_runtime, will tell"
CHECKPOINT_BYTES_S = 0.5e9
"""Writing a checkpoint (prior: a plain cloud disk)."""


@dataclass(frozen=True)
class Facts:
    """What the cost model knows of a cluster."""

    device_types: Mapping[str, DeviceType]
    network_bytes_s: float = DEFAULT_NETWORK_BYTES_S
    """Of the slowest node."""
    devices_per_node: Mapping[str, int] = field(default_factory=dict)
    """The most devices of each type that one node has."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Devices of each type in all."""
    energy: EnergyRates = field(default_factory=EnergyRates)
    tariff: Tariff = field(default_factory=Tariff)


def estimate(work: Work, configuration: Configuration, facts: Facts, calibration: Calibration) -> Estimate:
    """What one configuration would take for `work`."""
    return estimate_all([(work, [configuration])], facts, calibration)[0][0]


def estimate_all(
    requests: Sequence[tuple[Work, Sequence[Configuration]]], facts: Facts, calibration: Calibration
) -> list[list[Estimate]]:
    """What each configuration would take for each workload. Infeasible ones carry the reason and by how much."""
    columns = Columns(facts.device_types, facts.network_bytes_s, facts.devices_per_node)
    for work, configurations in requests:
        if _modelled(work) and configurations:
            columns.add(work, configurations)
    table = speeds(columns, calibration)
    answers: list[list[Estimate]] = []
    row = 0
    known = _Known(facts)
    for work, configurations in requests:
        holdings = known.holdings(configurations)
        if _modelled(work):
            rows = slice(row, row + len(configurations))
            found = _from_table(work, holdings, known.refusals(work, configurations), facts, table, rows)
            row = rows.stop
        else:
            found = [_alone(work, configuration, facts, calibration) for configuration in configurations]
        answers.append(_estimates(work, holdings, found, facts, calibration))
    return answers


def _modelled(work: Work) -> bool:
    """Whether the cost model predicts it from a model's profile."""
    return (
        work.profile is not None
        and work.samples is not None
        and work.tokens_per_sample is not None
        and work.declared_s is None
        and not work.declared_by
    )


class _Found(NamedTuple):
    """Seconds of the work itself on one configuration, or None with what is to be said about it."""

    seconds: float | None
    low_s: float
    high_s: float
    source: EstimateSource
    parts: tuple[float, ...] | list[float]
    moved_bytes: float = 0.0
    memory_bytes: float | None = None
    refused: Reason | None = None
    note: str = ""


_NO_PARTS = (0.0,) * len(PARTS)


def _from_table(
    work: Work,
    holdings: _Holdings,
    refusals: Sequence[Reason | None],
    facts: Facts,
    table: SpeedTable,
    rows: slice,
) -> list[_Found]:
    """What the columns say of one workload."""
    found = []
    columns = zip(
        holdings.types,
        refusals,
        range(rows.start, rows.stop),
        table.seconds[rows].tolist(),
        table.low_s[rows].tolist(),
        table.high_s[rows].tolist(),
        table.parts[rows].tolist(),
        table.memory_bytes[rows].tolist(),
        table.sources[rows],
        strict=True,
    )
    for types, refused, row, seconds, low_s, high_s, parts, memory_bytes, source in columns:
        if table.over[row]:
            refused = _over_memory(table, row, facts) or refused  # noqa: PLW2901
        moved = table.moved_bytes[row]
        if seconds == seconds:  # noqa: PLR0124 - NaN is not itself
            found.append(_Found(seconds, low_s, high_s, source, parts, moved, memory_bytes, refused, work.note))
        else:
            note = _unknown_speed(work, types)
            found.append(_Found(None, 0.0, 0.0, "unknown", _NO_PARTS, moved, memory_bytes, refused, note))
    return found


def _unknown_speed(work: Work, types: list[tuple[DeviceType, int]]) -> str:
    unknown = ", ".join(kind.name for kind, _ in types if not kind.peak_flops)
    return f"unknown speed: the catalog has no rates for {unknown}" if unknown else work.note or "unknown speed"


def _alone(work: Work, configuration: Configuration, facts: Facts, calibration: Calibration) -> _Found:
    """What is known of work that no model predicts: the user's word, a sampled rate, or earlier runs."""
    types = [(facts.device_types[name], count) for name, count in configuration.groups]
    refused = _refusal(work, types, facts) or _one_type(work, types)
    if work.declared_by:
        seconds = work.declared_by.get(str(configuration))
        refused = refused or (
            None if seconds is not None else Reason("device", "it is not said how long it would take")
        )
        found = _Found(seconds, seconds or 0.0, seconds or 0.0, "declared", _NO_PARTS)
    elif work.declared_s is not None:
        found = _Found(work.declared_s, work.declared_s, work.declared_s, "declared", _NO_PARTS)
    elif work.kind == "preprocess" and work.rows_per_core_s and work.samples is not None:
        found = _preprocess(work, configuration, calibration)
    elif work.items:
        interval_s = items_s(work, types, calibration)
        found = _never_run() if interval_s is None else _Found(*interval_s, "measured", _NO_PARTS)
    else:
        history = calibration.history_s(work.kind, work.family, configuration_key(types), work.size)
        if history is None:
            found = _never_run()
        else:
            found = _Found(history.mean, history.low, history.high, "measured", _NO_PARTS)
    return found._replace(refused=refused, note=work.note or found.note)


def _never_run() -> _Found:
    return _Found(None, 0.0, 0.0, "unknown", _NO_PARTS, note=_NEVER_RUN)


def _preprocess(work: Work, configuration: Configuration, calibration: Calibration) -> _Found:
    """Rows a core prepares in a second were sampled at admission; cores add up."""
    assert work.samples is not None and work.rows_per_core_s is not None
    cores = configuration.devices
    subject = Subject("preprocess", work.family, ROWS_OF_A_CORE, work.precision)
    belief = calibration.belief(subject)
    shift, variance = calibration.residual(subject, cores, "")
    spread = math.sqrt(float(belief.covariance[0, 0]) + variance)
    seconds = work.samples / work.rows_per_core_s / cores * math.exp(float(belief.mean[0]) + shift)
    low_s, high_s = seconds * math.exp(-2 * spread), seconds * math.exp(2 * spread)
    return _Found(seconds, low_s, high_s, "measured", (seconds, *_NO_PARTS[1:]))


@dataclass(frozen=True)
class _Holdings:
    """What is held by each of a list of configurations."""

    configurations: Sequence[Configuration]
    types: list[list[tuple[DeviceType, int]]]
    devices: list[int]
    price_usd_h: list[float | None]
    watts: FloatArray
    """NaN where a type's are not known."""
    interruptions_per_h: FloatArray
    markets: list[Market]
    notes: list[str]
    """What was assumed of interruptions."""

    @classmethod
    def of(cls, configurations: Sequence[Configuration], facts: Facts) -> _Holdings:
        """Sums over the devices of each."""
        types = [[(facts.device_types[name], n) for name, n in each.groups] for each in configurations]
        spots = [_interruptions(each, facts) for each in types]
        return cls(
            configurations,
            types,
            [each.devices for each in configurations],
            [configuration_price_usd_h(each, facts.device_types) for each in configurations],
            _numbers(_watts(each) for each in types),
            np.array([rate for rate, _ in spots]),
            ["spot" if any(kind.market == "spot" for kind, _ in each) else "on-demand" for each in types],
            [note for _, note in spots],
        )


def _watts(types: list[tuple[DeviceType, int]]) -> float | None:
    watts = [kind.power_watts for kind, _ in types]
    known = [each * n for each, (_, n) in zip(watts, types, strict=True) if each is not None]
    return sum(known) if len(known) == len(watts) else None


def _interruptions(types: list[tuple[DeviceType, int]], facts: Facts) -> tuple[float, str]:
    """(an hour, of all nodes together; what was assumed for it)."""
    rate, notes = 0.0, []
    for kind, count in types:
        if kind.market == "spot":
            per_h, note = costs.interruption_rate(kind.interruptions_per_h)
            rate += per_h * math.ceil(count / (facts.devices_per_node.get(kind.name) or count))
            notes.append(note)
    return rate, " ".join(dict.fromkeys(filter(None, notes)))


class _Known:
    """Keeps what many workloads ask of the same list of configurations."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._holdings: dict[int, _Holdings] = {}  # by the list's id; it is held, so that no id is used again
        self._refusals: dict[tuple[int, str, bool], list[Reason | None]] = {}

    def holdings(self, configurations: Sequence[Configuration]) -> _Holdings:
        """The sums over the devices of each."""
        found = self._holdings.get(id(configurations))
        if found is None:
            found = self._holdings[id(configurations)] = _Holdings.of(configurations, self.facts)
        return found

    def refusals(self, work: Work, configurations: Sequence[Configuration]) -> list[Reason | None]:
        """Why a body of this kind does not run on each, or None."""
        key = (id(configurations), work.kind, work.profile is not None)
        found = self._refusals.get(key)
        if found is None:
            types = self.holdings(configurations).types
            found = [_refusal(work, each, self.facts) or _one_type(work, each) for each in types]
            self._refusals[key] = found
        return found


def _estimates(
    work: Work, holdings: _Holdings, found: Sequence[_Found], facts: Facts, calibration: Calibration
) -> list[Estimate]:
    """The estimates of one workload: what beside the work itself takes seconds, and what all of it costs."""
    startups: dict[int, Correction] = {}
    for count in set(holdings.devices):
        if work.startup_s is not None:
            startups[count] = Correction(work.startup_s, work.startup_s, work.startup_s, known=True)
        else:
            startups[count] = calibration.overhead_s(work.kind, work.family, count, STARTUP_S[work.kind])
    starts = [startups[count] for count in holdings.devices]
    work_s = _numbers([each.seconds for each in found])
    startup_s = np.array([each.mean for each in starts])
    checkpoint_s = np.asarray(checkpoint_seconds(work, work_s))
    rework_s = _rework_s(work, work_s, startup_s, holdings.interruptions_per_h)
    seconds = startup_s + work_s + checkpoint_s + rework_s
    moved = np.array([each.moved_bytes for each in found])
    dollars = costs.money(seconds, _numbers(holdings.price_usd_h), work.output_bytes, moved, facts.tariff)
    power = costs.energy(seconds, holdings.watts, rates=facts.energy)
    spent = np.stack([np.broadcast_to(each, work_s.shape) for each in dollars], axis=1)
    priced = np.isfinite(spent).all(axis=1).tolist()
    columns = (
        holdings.configurations,
        found,
        holdings.price_usd_h,
        holdings.markets,
        holdings.notes,
        starts,
        _optional(seconds),
        checkpoint_s.tolist(),
        rework_s.tolist(),
        [Money(*each) if ok else None for each, ok in zip(spent.tolist(), priced, strict=True)],
        zip(*(_optional(each) for each in power), strict=True),
    )
    return [_one(*row) for row in zip(*columns, strict=True)]


def _numbers(values: Iterable[float | None]) -> FloatArray:
    """As an array; NaN for None."""
    return np.array([math.nan if each is None else each for each in values])


def _optional(values: FloatArray) -> list[float | None]:
    """As a list; None for what is not a finite number."""
    finite = np.isfinite(values)
    if finite.all():
        return list(values.tolist())
    return [value if ok else None for value, ok in zip(values.tolist(), finite.tolist(), strict=True)]


def _one(
    configuration: Configuration,
    found: _Found,
    price_usd_h: float | None,
    market: Market,
    spot_note: str,
    start: Correction,
    seconds: float | None,
    checkpoint_s: float,
    rework_s: float,
    spent: Money | None,
    energy: tuple[float | None, float | None, float | None],
) -> Estimate:
    work_s, low_s, high_s, source, parts, _, memory_bytes, refused, note = found
    if work_s is not None and seconds is None:
        refused = refused or Reason("device", "on spot it would be taken back more often than it gets anywhere")
    if seconds is None or (refused is not None and refused.code != "device"):
        return Estimate(
            configuration,
            None,
            startup_s=start.mean,
            memory_bytes=memory_bytes,
            price_usd_h=price_usd_h,
            infeasible=refused,
            market=market,
            note=note if refused is None else "",
        )
    added_s = checkpoint_s + rework_s
    compute, memory, launch, within, between, crowding = parts
    launch += crowding
    within += between
    return Estimate(
        configuration,
        seconds,
        start.mean,
        start.low + low_s + added_s,
        start.high + high_s + added_s,
        memory_bytes,
        spent,
        price_usd_h,
        source,
        _bound(compute, memory, launch, within),
        refused,
        Breakdown(compute, memory, launch, within, start.mean, checkpoint_s, rework_s),
        None if energy[0] is None else Energy(energy[0], energy[1], energy[2]),
        market,
        f"{note} {spot_note}".strip() if note or spot_note else "",
    )


def checkpoint_seconds(work: Work, run_s: float | FloatArray) -> Any:
    """Seconds that writing a training run's checkpoints takes in all."""
    if work.profile is None or not work.training:
        return 0.0 * run_s
    return costs.checkpoint_s(_checkpoint_bytes(work), work.checkpoint_every_s, run_s, CHECKPOINT_BYTES_S)


def _checkpoint_bytes(work: Work) -> float:
    if work.profile is None:
        return 0.0
    return work.profile.parameters * WEIGHT_BYTES + work.profile.trainable * MOMENT_BYTES


def _rework_s(work: Work, run_s: FloatArray, startup_s: FloatArray, rate: FloatArray) -> FloatArray:
    """Expected seconds of rework on spot nodes. Replicas do not end with one another, and what they have written
    stays: each loss costs a start and part of a block (an upper bound, as if all waited for it)."""
    if not rate.any():
        return np.zeros_like(run_s)
    if work.kind == "batch-infer":
        return rate / 3600 * run_s * (startup_s + LOST_BLOCK_S)
    every = work.checkpoint_every_s if work.training else None
    size = _checkpoint_bytes(work)
    rework_s = costs.spot_run_s(run_s, startup_s, every, size / CHECKPOINT_BYTES_S, rate)
    return np.where(rate > 0, rework_s, 0.0)


def _bound(compute: float, memory: float, launch: float, communication: float) -> str:
    """The largest part of the work; empty for numbers that no model made."""
    largest = max(compute, memory, launch, communication)
    if largest <= 0:
        return ""
    if largest == compute:
        return "compute"
    return "memory" if largest == memory else "launch" if largest == launch else "communication"


def configuration_price_usd_h(configuration: Configuration, device_types: Mapping[str, DeviceType]) -> float | None:
    """Dollars an hour for holding a configuration; None where a type is unknown or unpriced."""
    total = 0.0
    for name, count in configuration.groups:
        kind = device_types.get(name)
        if kind is None or kind.price_usd_h is None:
            return None
        total += count * kind.price_usd_h
    return total


def _refusal(work: Work, types: list[tuple[DeviceType, int]], facts: Facts) -> Reason | None:
    if (
        work.kind == "command"
        and not work.items
        and any(len(types) > 1 or count > facts.devices_per_node.get(kind.name, count) for kind, count in types)
    ):
        return Reason("device", "a command runs on one node, and none has all of these devices")
    for kind, _ in types:
        if work.kind == "preprocess" and kind.kind != "cpu":
            return Reason("device", "preprocessing runs on CPU actors")
        if work.profile is not None and kind.kind not in ("cpu", "gpu") and not kind.emulated:
            return Reason("device", f"the built-in bodies do not run on a {kind.kind} yet")
    return None


def _one_type(work: Work, types: list[tuple[DeviceType, int]]) -> Reason | None:
    """Uneven gangs are predicted, and not yet run."""
    if work.kind == "train" and len(types) > 1:
        return Reason("device", "the shards of a training gang are of one device type")
    return None


def _over_memory(table: SpeedTable, configuration: int, facts: Facts) -> Reason | None:
    found = table.over_memory(configuration)
    return None if found is None else _too_large(found, facts)


def _too_large(row: Row, facts: Facts) -> Reason:
    """By how much it is too large, and the nearest that fits."""
    over = row.memory_bytes - row.limit_bytes
    message = f"needs {row.memory_bytes / 1e9:.1f} GB a device, {over / 1e9:.1f} GB too much"
    most = facts.totals.get(row.device.name, row.shards)
    host = row.device.kind == "cpu" or row.device.emulated

    def room(shards: int) -> float:
        if shards == row.shards:
            return row.limit_bytes
        limit = row.device.memory_bytes or math.inf
        if row.device.kind == "cpu":
            limit /= min(shards, facts.devices_per_node.get(row.device.name) or shards)
        return min(limit, (row.device.host_memory_bytes or math.inf) / shards)

    per_node = facts.devices_per_node.get(row.device.name)
    limits = host, row.device.kind, row.device.memory_bytes, row.device.host_memory_bytes, row.limit_bytes, per_node
    key = (*_shape(row.work), *limits, row.samples, row.shards, most)
    way = _remedies.get(key)
    if way is None:
        if len(_remedies) >= KEPT_REMEDIES:
            _remedies.clear()
        way = _remedies[key] = remedy(row.work, room, host, row.samples, row.shards, most)
    return Reason("memory", f"{message}; {way}" if way else message)


def _shape(work: Work) -> tuple[Any, ...]:
    """What the memory of a work depends on."""
    return (
        *(work.kind, work.precision, work.strategy, work.micro_batches, work.generated_tokens),
        *(_identity(work.profile), _identity(work.host_profile), work.longest_tokens or work.tokens_per_sample),
    )


def _identity(profile: ModelProfile | None) -> tuple[Any, ...]:
    """A profile without its operators, which the family, the precision and the way it was traced decide."""
    if profile is None:
        return ()
    return profile.family, profile.parameters, profile.trainable, profile.activation_bytes, profile.checkpointed
