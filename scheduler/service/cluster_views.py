"""What the API tells of devices, nodes and queues."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from cluster.types import Node, Snapshot

from ..client import types
from ..states import HOLDS_DEVICES
from ..store import Record
from ..types import QueueRules


def devices(
    snapshot: Snapshot, congestion_usd_h: Mapping[str, float] | None = None, warnings: Sequence[str] = ()
) -> types.DevicesView:
    """Device types with their counts and prices, and the nodes that carry them. `warnings` are told beside those of
    the snapshot."""
    return {
        "device_types": [_device_type(snapshot, name) for name in sorted(snapshot.device_types)],
        "nodes": [_node(node) for node in snapshot.nodes],
        "energy": asdict(snapshot.energy),
        "tariff": asdict(snapshot.tariff),
        "congestion_usd_h": dict(congestion_usd_h or {}),
        "warnings": [*snapshot.warnings, *warnings],
    }


def _device_type(snapshot: Snapshot, name: str) -> types.DeviceTypeView:
    kind = snapshot.device_types[name]
    return {
        "name": name,
        "kind": kind.kind,
        "emulated": kind.emulated,
        "emulated_speed": kind.emulated_speed,
        "total": snapshot.total(name),
        "free": snapshot.free(name),
        "price_usd_h": kind.price_usd_h,
        "price_source": kind.price_source,
        "price_as_of": kind.price_as_of,
        "market": kind.market,
        "spot_price_usd_h": kind.spot_price_usd_h,
        "interruptions_per_h": kind.interruptions_per_h,
        "power_watts": kind.power_watts,
        "memory_bytes": kind.memory_bytes,
        "peak_flops": dict(kind.peak_flops),
    }


def _node(node: Node) -> types.NodeView:
    return {
        "node_id": node.node_id,
        "name": node.name,
        "node_type": node.node_type,
        "is_head": node.is_head,
        "market": node.market,
        "leaves_s": node.leaves_s,
        "devices": [{"type": held.device_type, "total": held.total, "free": held.free} for held in node.devices],
    }


def nodes(
    snapshot: Snapshot, holding: Sequence[Record], month_usd: float = 0.0, saved_usd: float = 0.0
) -> types.NodesView:
    """Each node with what runs on it, and what could be rented. `month_usd` is what rented nodes have cost this month,
    `saved_usd` what those on spot would have cost more on demand."""
    held = _held_by_node(holding)
    seen: list[types.NodeWithWork] = []
    for node in snapshot.nodes:
        kind = snapshot.type_of(node)
        price = None if kind is None else kind.price_usd_h
        work = held.get(node.node_id, [])
        seen.append({**_node(node), "price_usd_h": price, "memory_bytes": node.memory_bytes, "workloads": work})
    rentable: list[types.RentableView] = [
        {
            "name": each.name,
            "devices": dict(each.devices),
            "price_usd_h": each.price_usd_h,
            "market": each.market,
            "present": len(snapshot.rented(each.name)),
            "launching": each.launching,
            "most": each.most,
            "unavailable_until_s": each.unavailable_until_s,
            "unavailable_why": each.unavailable_why,
        }
        for each in snapshot.node_types
    ]
    return {
        "nodes": seen,
        "rentable": rentable,
        "rented_usd_h": snapshot.rented_usd_h(),
        "rent_cap_usd_h": snapshot.rent_cap_usd_h,
        "rented_month_usd": month_usd,
        "spot_saved_month_usd": saved_usd,
        "rent_cap_usd_month": snapshot.rent_cap_usd_month,
    }


def _held_by_node(holding: Sequence[Record]) -> dict[str, list[types.Holding]]:
    by_node: dict[str, list[types.Holding]] = defaultdict(list)
    for record in holding:
        if record.placement is None:
            continue
        there: dict[str, Counter[str]] = defaultdict(Counter)
        for device_type, node_id in record.placement.devices:
            there[node_id][device_type] += 1
        for node_id, counts in there.items():
            by_node[node_id].append({"id": record.id, "name": record.name, "devices": dict(counts)})
    return by_node


def queues(
    rules: Mapping[str, QueueRules],
    live: Sequence[Record],
    today_usd: Mapping[str, float],
    month_usd: Mapping[str, float],
    day: str,
) -> types.QueuesView:
    """Queues that have rules, work, or costs this month. `day` is today's (UTC)."""
    by_queue: dict[str, list[Record]] = defaultdict(list)
    for record in live:
        by_queue[record.queue].append(record)
    names = sorted({*rules, *by_queue, *month_usd})
    spent = {name: (today_usd.get(name, 0.0), month_usd.get(name, 0.0)) for name in names}
    found = [_queue(name, rules.get(name, QueueRules()), by_queue[name], *spent[name]) for name in names]
    return {"queues": found, "day": day, "month": day[:7]}


def _queue(
    name: str, rules: QueueRules, records: Sequence[Record], today_usd: float, month_usd: float
) -> types.QueueView:
    running = [record for record in records if record.state in HOLDS_DEVICES and record.placement is not None]
    holds: Counter[str] = Counter()
    for record in running:
        assert record.placement is not None
        holds.update(dict(record.placement.configuration.groups))
    paused = sum(record.paused for record in records if record.state not in HOLDS_DEVICES)
    return {
        "name": name,
        "rules": asdict(rules),
        "running": len(running),
        "waiting": len(records) - len(running) - paused,
        "paused": paused,
        "holds": dict(sorted(holds.items())),
        "holds_usd_h": sum(record.price_usd_h or 0.0 for record in running),
        "today_usd": today_usd,
        "month_usd": month_usd,
        "limit_usd_month": rules.limit_usd_month,
    }
