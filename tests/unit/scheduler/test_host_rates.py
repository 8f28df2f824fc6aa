"""The cache of the machine's rates: read while they are its own, measured again where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.host import HostRates, host_cores, host_memory_bytes
from scheduler.service import runtime
from scheduler.service.home import Home


@pytest.fixture
def measured(host_rates: HostRates, monkeypatch: pytest.MonkeyPatch) -> list[HostRates]:
    """What is measured from now on, in order."""
    done: list[HostRates] = []

    def measure() -> HostRates:
        import platform

        found = replace(
            host_rates,
            machine=platform.node(),
            cores=host_cores(),
            memory_bytes=host_memory_bytes(),
            measured_s=float(len(done) + 1),
        )
        done.append(found)
        return found

    monkeypatch.setattr(runtime, "measure_host", measure)
    monkeypatch.setattr(runtime, "measure_reduce", lambda: 1e9)
    return done


def test_a_machine_is_measured_once(tmp_path: Path, measured: list[HostRates]) -> None:
    home = Home(tmp_path)
    first = runtime.host_rates(home)
    assert first == replace(measured[0], reduce_bytes_s=1e9)
    assert runtime.host_rates(home) == first
    assert len(measured) == 1


@pytest.mark.parametrize(
    "change",
    [{"machine": "the old laptop"}, {"cores": 4096}, {"memory_bytes": 1e6}, {"no such field": 1}],
    ids=["another machine", "other cores", "other memory", "another version"],
)
def test_a_home_that_moved_is_measured_again(
    tmp_path: Path, measured: list[HostRates], change: dict[str, object]
) -> None:
    home = Home(tmp_path)
    known = runtime.host_rates(home)
    home.host_file.write_text(json.dumps({**known.to_json(), **change}))
    again = runtime.host_rates(home)
    assert (len(measured), again.measured_s) == (2, 2.0)
    assert runtime.host_rates(home) == again
