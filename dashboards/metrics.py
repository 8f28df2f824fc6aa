"""Prometheus metrics of the service, made anew from the store at every scrape. Documented in docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scheduler.engine import Engine
from scheduler.store import Record, Store


def render_metrics(store: Store, engine: Engine) -> str:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(store, engine))
    return generate_latest(registry).decode()


class _Collector:
    def __init__(self, store: Store, engine: Engine) -> None:
        self._store, self._engine = store, engine

    def collect(self) -> Iterable[Metric]:
        records = self._store.select()
        yield _workloads(records)
        yield _money(records)
        cycles = CounterMetricFamily("raywise_cycles", "Cycles the engine has run")
        cycles.add_metric([], self._engine.cycle)
        yield cycles
        yield from self._devices()

    def _devices(self) -> Iterable[Metric]:
        report = self._engine.last_report
        if report is None:
            return
        snapshot = report.situation.snapshot
        labels = ["device_type", "emulated"]
        total = GaugeMetricFamily("raywise_devices", "Devices of the cluster", labels=labels)
        free = GaugeMetricFamily("raywise_devices_free", "Devices that nothing holds", labels=labels)
        price = GaugeMetricFamily("raywise_congestion_price_usd_per_hour", "Congestion price", labels=labels)
        for name, kind in snapshot.device_types.items():
            values = [name, str(kind.emulated).lower()]
            total.add_metric(values, snapshot.total(name))
            free.add_metric(values, snapshot.free(name))
            price.add_metric(values, report.plan.congestion_usd_h.get(name, 0.0))
        yield from (total, free, price)


def _workloads(records: list[Record]) -> Metric:
    family = GaugeMetricFamily("raywise_workloads", "Workloads by state and kind", labels=["state", "kind"])
    for (state, kind), count in sorted(Counter((record.state, record.kind) for record in records).items()):
        family.add_metric([state, kind], count)
    return family


def _money(records: list[Record]) -> Metric:
    family = CounterMetricFamily("raywise_spent_usd", "Dollars of ended attempts", labels=["kind"])
    spent: Counter[str] = Counter()
    for record in records:
        spent[record.kind] += record.spent_usd  # type: ignore[assignment]
    for kind, dollars in sorted(spent.items()):
        family.add_metric([kind], dollars)
    return family
