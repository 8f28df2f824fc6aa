"""Which configurations a workload may have on a cluster, and the table of their estimates. Pure.

`estimate_table` is the one function behind the policy, the table people see and the final report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cluster.types import CPU, Snapshot
from workloads.quantities import CountRange
from workloads.spec import Resources

from ..collecting import without_collector
from ..types import Configuration, Estimate, Reason
from .calibration import Calibration
from .cost_model import DEFAULT_NETWORK_BYTES_S, Facts, configuration_price_usd_h, estimate_all
from .work import Work

MAX_CONFIGURATIONS = 256


def estimate_table(
    work: Work, resources: Resources, snapshot: Snapshot, calibration: Calibration
) -> tuple[Estimate, ...]:
    """An estimate for every configuration the user allows, in a fixed order; what the cluster lacks is in the table
    with the reason."""
    return estimate_tables([(work, resources)], snapshot, calibration)[0]


def estimate_tables(
    requests: Sequence[tuple[Work, Resources]], snapshot: Snapshot, calibration: Calibration
) -> list[tuple[Estimate, ...]]:
    """`estimate_table` of many workloads, computed together. What may be rented counts as if it were there."""
    snapshot = snapshot.with_rentable()
    tables: list[list[Estimate | None]] = []
    wanted: list[tuple[Work, list[Configuration]]] = []
    known: dict[str, _Choice] = {}
    for work, resources in requests:
        key = resources.model_dump_json()
        choice = known.get(key)
        if choice is None:
            choice = known[key] = _Choice.of(resources, snapshot)
        tables.append(list(choice.table))
        wanted.append((work, choice.possible))
    with without_collector():
        found = estimate_all(wanted, facts_of(snapshot), calibration)
        return [
            tuple(next(rest) if each is None else each for each in table)
            for table, rest in zip(tables, map(iter, found), strict=True)
        ]


@dataclass(frozen=True)
class _Choice:
    """What `Resources` admit on a cluster: `table` has None where an estimate goes, and what is not there as it is."""

    table: list[Estimate | None]
    possible: list[Configuration]

    @classmethod
    def of(cls, resources: Resources, snapshot: Snapshot) -> _Choice:
        """All configurations in a fixed order."""
        table: list[Estimate | None] = []
        possible = []
        for counts in _allowed(resources, snapshot):
            configuration = Configuration.of(counts)
            missing = _unavailable(configuration, snapshot, resources)
            if missing is None:
                possible.append(configuration)
                table.append(None)
            else:
                price_usd_h = configuration_price_usd_h(configuration, snapshot.device_types)
                table.append(Estimate(configuration, None, price_usd_h=price_usd_h, infeasible=missing))
        return cls(table, possible)


def _unavailable(configuration: Configuration, snapshot: Snapshot, resources: Resources) -> Reason | None:
    return (
        _missing(configuration, snapshot)
        or _too_few_cores(configuration, snapshot, resources.cpus_per_shard)
        or _too_little_memory(configuration, snapshot, resources.memory_per_shard)
    )


def facts_of(snapshot: Snapshot) -> Facts:
    """What the cost model needs of a cluster and of what may be rented for it: types and rates, the slowest network,
    and the devices per node."""
    snapshot = snapshot.with_rentable()
    speeds = [node.network_bytes_s for node in snapshot.nodes if node.network_bytes_s]
    per_node: dict[str, int] = {}
    totals: dict[str, int] = {}
    for node in snapshot.nodes:
        for devices in node.devices:
            per_node[devices.device_type] = max(per_node.get(devices.device_type, 0), devices.total)
            totals[devices.device_type] = totals.get(devices.device_type, 0) + devices.total
    network = min(speeds, default=DEFAULT_NETWORK_BYTES_S)
    return Facts(snapshot.device_types, network, per_node, totals, snapshot.energy, snapshot.tariff)


def allowed_types(resources: Resources, snapshot: Snapshot) -> list[str]:
    """Device types of the cluster that the user's words admit, or the types the user named."""
    match resources.devices:
        case "any":
            return sorted(snapshot.device_types)
        case "cpu":
            return [CPU]
        case "accelerator":
            return sorted(name for name, kind in snapshot.device_types.items() if kind.kind != "cpu")
        case list() as names:
            return list(dict.fromkeys(names))
        case mapping:
            return list(mapping)


def _allowed(resources: Resources, snapshot: Snapshot) -> Iterator[Mapping[str, int]]:
    if isinstance(resources.devices, dict):
        names = list(resources.devices)
        choices = [_counts(resources.devices[name], snapshot.total(name)) for name in names]
        yield from (dict(zip(names, c, strict=True)) for c in islice(_by_total(choices), MAX_CONFIGURATIONS))
        return
    names = allowed_types(resources, snapshot)
    wanted = resources.count_range
    for name in names:
        yield from ({name: count} for count in _counts(wanted, snapshot.total(name)))
    if resources.mix:
        yield from _mixes(names, wanted, snapshot)


def _mixes(names: list[str], wanted: CountRange, snapshot: Snapshot) -> Iterator[Mapping[str, int]]:
    """Configurations of two and more types whose counts add up to what is wanted, the smallest first."""
    choices = [[0, *_counts(CountRange(low=1, high=wanted.high), snapshot.total(name))] for name in names]
    mixed = (counts for counts in _by_total(choices, wanted) if sum(count > 0 for count in counts) > 1)
    yield from (dict(zip(names, counts, strict=True)) for counts in islice(mixed, MAX_CONFIGURATIONS))


def _by_total(choices: Sequence[Sequence[int]], wanted: CountRange | None = None) -> Iterator[tuple[int, ...]]:
    """All ways to take one count of each type, the smallest sum first. Made one at a time and without dead ends: who
    takes a few pays for a few, however many there are."""
    sums = [{0}]
    """From a type on: the sums that it and those after it can make."""
    for counts in reversed(choices):
        sums.insert(0, {count + rest for count in counts for rest in sums[0]})
    for total in sorted(sums[0]):
        if wanted is None or total in wanted:
            yield from _adding_up(choices, sums, total)


def _adding_up(
    choices: Sequence[Sequence[int]], sums: Sequence[set[int]], total: int, place: int = 0
) -> Iterator[tuple[int, ...]]:
    if place == len(choices):
        yield ()
        return
    for count in choices[place]:
        if total - count in sums[place + 1]:
            for rest in _adding_up(choices, sums, total - count, place + 1):
                yield (count, *rest)


def _counts(wanted: CountRange, total: int) -> list[int]:
    """Counts worth a look: all up to 16, then powers of two, up to what there is; the lowest wanted in any case."""
    high = max(wanted.low, min(wanted.high, total))
    counts = {count for count in range(wanted.low, high + 1) if count <= 16 or count & (count - 1) == 0}
    return sorted(counts | {wanted.low, high})


def _missing(configuration: Configuration, snapshot: Snapshot) -> Reason | None:
    for name, count in configuration.groups:
        total = snapshot.total(name)
        if name not in snapshot.device_types or total == 0:
            return Reason("count", f"the cluster has no {name}")
        if count > total:
            rented = " with all that may be rented" if snapshot.node_types else ""
            return Reason("count", f"{count} {name} wanted, the cluster has {total}{rented}")
    return None


def _too_little_memory(configuration: Configuration, snapshot: Snapshot, per_shard_bytes: int | None) -> Reason | None:
    """Whether the hosts have the memory that all shards of a type want together, shard by whole shard."""
    if per_shard_bytes is None:
        return None
    for name, count in configuration.groups:
        room = sum(
            min(devices.total, int(node.memory_bytes // per_shard_bytes))
            for node in snapshot.nodes
            if (devices := node.devices_of(name))
        )
        if count > room:
            wanted = f"{per_shard_bytes / 1e9:.1f} GB of host memory a shard"
            return Reason("memory", f"{wanted}: the nodes with {name} have room for {room} of {count} shards")
    return None


def _too_few_cores(configuration: Configuration, snapshot: Snapshot, cores: float | None) -> Reason | None:
    """Whether no node has the cores beside an accelerator that each shard wants. An emulated one is itself a host's
    core: there the number only sets threads."""
    for name, _ in configuration.groups:
        kind = snapshot.device_types[name]
        if not cores or kind.kind == "cpu" or kind.emulated:
            continue
        beside = [node.devices_of(CPU) for node in snapshot.nodes if node.devices_of(name)]
        most = max((devices.total for devices in beside if devices is not None), default=0)
        if cores > most:
            return Reason("count", f"{cores:g} CPU cores wanted beside each {name}, its nodes have {most} at most")
    return None
