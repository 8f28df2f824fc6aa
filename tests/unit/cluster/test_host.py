"""Measuring the host, and standing in for a device."""

from __future__ import annotations

import time

import torch

from cluster.catalog import Catalog
from cluster.host import HostRates, emulate, host_cpu, measure_host


def test_a_measurement_is_quick_and_plausible() -> None:
    threads = torch.get_num_threads()
    start = time.perf_counter()
    rates = measure_host()
    assert time.perf_counter() - start < 5  # under a second on an idle machine
    assert torch.get_num_threads() == threads
    assert 1e8 < rates.core_flops < 1e13
    assert 1e8 < rates.core_bandwidth_bytes_s < 1e12
    assert rates.cores >= 1
    assert rates.memory_bytes > 1e8


def test_rates_survive_their_cache(host_rates: HostRates) -> None:
    assert HostRates.from_json(host_rates.to_json()) == host_rates


def test_an_emulated_device_keeps_memory_and_price_and_takes_the_hosts_rates(
    catalog: Catalog, host_rates: HostRates
) -> None:
    real = catalog.device("T4")
    device = emulate(real, host_rates, 0.5)
    assert device.peak_flops == {"fp32": 25e9}
    assert device.memory_bandwidth_bytes_s == 5e9
    assert (device.name, device.memory_bytes, device.price_usd_h) == (real.name, real.memory_bytes, real.price_usd_h)
    assert device.emulated


def test_only_the_generic_cpu_takes_the_hosts_rates(catalog: Catalog, host_rates: HostRates) -> None:
    assert host_cpu(catalog.device("cpu"), host_rates).peak_flops == {"fp32": 50e9}
    assert host_cpu(catalog.device("cpu"), None).peak_flops == {}
    assert host_cpu(catalog.device("Xeon-8375C"), host_rates) == catalog.device("Xeon-8375C")
