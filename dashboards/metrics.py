"""Prometheus metrics of the service, made anew from the store at every scrape. Documented in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scheduler.engine import Engine
from scheduler.store import Store

Counts = Mapping[tuple[str, str, str], tuple[int, float]]
"""By state, kind and queue: how many workloads, and the dollars of their ended attempts."""


def render_metrics(store: Store, engine: Engine) -> str:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(store, engine))
    return generate_latest(registry).decode()


class _Collector:
    def __init__(self, store: Store, engine: Engine) -> None:
        self._store, self._engine = store, engine

    def collect(self) -> Iterable[Metric]:
        counts = self._store.counts()
        yield _workloads(counts)
        yield _money(counts)
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


def _workloads(counts: Counts) -> Metric:
    labels = ["state", "kind", "queue"]
    family = GaugeMetricFamily("raywise_workloads", "Workloads by state, kind and queue", labels=labels)
    for names, (count, _) in counts.items():
        family.add_metric(names, count)
    return family


def _money(counts: Counts) -> Metric:
    family = CounterMetricFamily("raywise_spent_usd", "Dollars of ended attempts", labels=["kind", "queue"])
    spent: dict[tuple[str, str], float] = {}
    for (_, kind, queue), (_, usd) in counts.items():
        spent[kind, queue] = spent.get((kind, queue), 0.0) + usd
    for names, usd in sorted(spent.items()):
        family.add_metric(names, usd)
    return family
