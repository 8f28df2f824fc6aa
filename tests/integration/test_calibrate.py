"""`raywise calibrate` as a user runs it, on a real local cluster with two emulated types and the host's cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
A100 = "A100-SXM4-40GB"


@pytest.fixture(scope="module")
def answer(service: Service) -> Any:
    """What `calibrate --json` says."""
    return service.json("calibrate")


def test_every_device_type_is_measured(answer: Any) -> None:
    measured = {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    assert set(measured) == {"cpu", "T4", A100}
    assert [each["state"] for each in answer["workloads"]] == ["succeeded"] * 3
    for found in measured.values():
        assert set(found["flops"]) == {"fp32", "bf16"}
        numbers = [*found["flops"].values(), found["bandwidth_bytes_s"], found["launch_s"]]
        assert all(number > 0 for number in numbers)
    assert measured["T4"]["reduce_bytes_s"] > 0
    assert measured[A100]["reduce_bytes_s"] is None


def test_the_t4_emulated_at_half_speed_measures_as_half_the_a100(answer: Any) -> None:
    measured = {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    fast, slow = measured[A100], measured["T4"]
    assert 1.3 < fast["flops"]["fp32"] / slow["flops"]["fp32"] < 3
    assert 1.3 < fast["bandwidth_bytes_s"] / slow["bandwidth_bytes_s"] < 3


def test_what_was_measured_is_kept_until_it_is_reset(service: Service, answer: Any) -> None:
    def kept() -> dict[str, Any]:
        types = service.json("calibrate", "--show")["device_types"]
        return {kind["name"]: kind["measured"] for kind in types}

    assert kept() == {kind["name"]: kind["measured"] for kind in answer["device_types"]}
    assert service.json("calibrate", "--reset")["forgotten"]["device_types"] == 3
    assert set(kept().values()) == {None}
