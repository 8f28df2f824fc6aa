"""Measuring the host, and standing in for a device."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import host
from cluster.catalog import Catalog
from cluster.host import HostRates, emulate, host_cpu, measure_host, measure_reduce


@pytest.fixture
def measured(host_rates: HostRates) -> HostRates:
    """The host of round numbers with all its rates: bf16 at a tenth of fp32, 2 us a launch, 1 GB/s between processes."""
    return replace(
        host_rates,
        core_flops_by_precision={"fp32": 50e9, "bf16": 5e9},
        core_elementwise_bytes_s=8e9,
        launch_s=2e-6,
        reduce_bytes_s=1e9,
    )


def test_a_measurement_is_plausible() -> None:
    threads = torch.get_num_threads()
    rates = measure_host()
    assert torch.get_num_threads() == threads
    assert 1e8 < rates.core_flops < 1e13
    assert 1e8 < rates.core_bandwidth_bytes_s < 1e12
    assert rates.cores >= 1
    assert rates.memory_bytes > 1e8
    assert rates.flops["fp32"] == rates.core_flops
    assert 1e6 < rates.flops["bf16"] < 1e13
    assert rates.launch_s is not None
    assert 1e-8 < rates.launch_s < 1e-2
    assert rates.core_elementwise_bytes_s is not None
    assert 1e7 < rates.core_elementwise_bytes_s < 1e12


def test_an_all_reduce_between_two_processes_is_measured() -> None:
    rate = measure_reduce()
    assert rate is not None
    assert 1e6 < rate < 1e12


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit(1)", "print('no number')", "import time; time.sleep(60)"],
    ids=["fails", "says nothing that is a number", "hangs"],
)
def test_an_all_reduce_that_does_not_work_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(program)
    monkeypatch.setattr(host.rates, "__file__", str(script))
    assert measure_reduce(timeout_s=1.0 if "sleep" in program else 30.0) is None


@pytest.mark.parametrize("name", ["host_rates", "measured"])
def test_rates_survive_their_cache(request: pytest.FixtureRequest, name: str) -> None:
    rates = request.getfixturevalue(name)
    assert HostRates.from_json(json.loads(json.dumps(rates.to_json()))) == rates


@pytest.mark.parametrize(
    "data",
    [
        {"core_flops": 50e9, "core_bandwidth_bytes_s": 10e9, "cores": 2, "memory_bytes": 16e9, "measured_s": 1.0},
        {},
        [],
        None,
    ],
    ids=["of an earlier version", "empty", "a list", "nothing"],
)
def test_another_cache_is_refused_so_that_it_is_measured_anew(data: Any) -> None:
    with pytest.raises(ValueError, match="not the rates of a host"):
        HostRates.from_json(data)


def test_rates_of_another_machine_are_known_as_such(host_rates: HostRates) -> None:
    here = replace(
        host_rates, machine=platform.node(), cores=host.host_cores(), memory_bytes=1.005 * host.host_memory_bytes()
    )
    assert here.of_this_machine
    assert not replace(here, machine="another").of_this_machine
    assert not replace(here, cores=here.cores + 1).of_this_machine
    assert not replace(here, memory_bytes=2 * here.memory_bytes).of_this_machine


def test_an_emulated_device_keeps_memory_and_price_and_takes_the_hosts_rates(
    catalog: Catalog, host_rates: HostRates
) -> None:
    real = catalog.device("T4")
    device = emulate(real, host_rates, 0.5)
    assert device.peak_flops == {"fp32": 25e9}
    assert device.memory_bandwidth_bytes_s == 5e9
    assert (device.name, device.memory_bytes, device.price_usd_h) == (real.name, real.memory_bytes, real.price_usd_h)
    assert device.emulated


def test_an_emulated_device_computes_slower_by_its_speed_and_talks_as_fast_as_the_host(
    catalog: Catalog, measured: HostRates
) -> None:
    device = emulate(catalog.device("T4"), measured, 0.5)
    assert device.peak_flops == {"fp32": 25e9, "bf16": 2.5e9}
    assert device.launch_s == 4e-6
    assert device.interconnect_bytes_s == 1e9


def test_what_was_not_measured_stays_unknown(catalog: Catalog, host_rates: HostRates) -> None:
    for device in (emulate(catalog.device("T4"), host_rates, 0.5), host_cpu(catalog.device("cpu"), host_rates)):
        assert (device.launch_s, device.interconnect_bytes_s) == (None, None)


def test_the_cpu_type_has_the_rates_of_a_core(catalog: Catalog, measured: HostRates) -> None:
    device = host_cpu(catalog.device("cpu"), measured)
    assert device.peak_flops == {"fp32": 50e9, "bf16": 5e9}
    assert (device.launch_s, device.interconnect_bytes_s) == (2e-6, 1e9)


def test_only_the_generic_cpu_takes_the_hosts_rates(catalog: Catalog, host_rates: HostRates) -> None:
    assert host_cpu(catalog.device("cpu"), host_rates).peak_flops == {"fp32": 50e9}
    assert host_cpu(catalog.device("cpu"), None).peak_flops == {}
    assert host_cpu(catalog.device("Xeon-8375C"), host_rates) == catalog.device("Xeon-8375C")
