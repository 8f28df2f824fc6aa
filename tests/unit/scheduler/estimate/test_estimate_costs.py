"""What the seconds of a configuration cost: dollars, energy, checkpoints, and interruptions on spot nodes."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from typing import Any

import pytest

from cluster.types import DeviceType, EnergyRates, Tariff
from making import PROFILE, T4, TYPES, UNPRICED, configuration, inference, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import (
    CHECKPOINT_BYTES_S,
    MOMENT_BYTES,
    STARTUP_S,
    WEIGHT_BYTES,
    Facts,
    checkpoint_seconds,
    estimate,
)
from scheduler.estimate.money import SPOT_INTERRUPTIONS_PER_H
from scheduler.estimate.work import Work
from scheduler.types import Estimate, Reason

SPOT = replace(T4, market="spot", price_usd_h=0.15, interruptions_per_h=0.5)
DECLARED = Work("train", "mine", declared_s=7200.0)


def of(
    work: Work, types: dict[str, DeviceType] = TYPES, counts: dict[str, int] | None = None, **fields: Any
) -> Estimate:
    chosen: dict[str, Any] = {"network_bytes_s": 1e9, "devices_per_node": {"T4": 2}} | fields
    facts = Facts(types, **chosen)
    return estimate(work, configuration(**(counts or {"T4": 1})), facts, Calibration())


def test_dollars_are_for_holding_storing_and_moving() -> None:
    work = training(output_bytes=3e9)
    tariff = Tariff(storage_usd_gb_month=0.02, egress_usd_gb=0.1)
    found = of(work, counts={"T4": 4}, tariff=tariff)
    assert found.money is not None and found.seconds is not None
    assert found.money.compute_usd == pytest.approx(found.seconds / 3600 * 4 * 0.5)
    assert found.money.storage_usd == pytest.approx(3 * 0.02)
    sent_gb = 100 * 2 * 4e6 / 1e9  # a ring crosses from node to node, on two nodes, twice with the gradients a step
    assert found.money.communication_usd == pytest.approx(sent_gb * 0.1)
    assert of(work, counts={"T4": 2}, tariff=tariff).money.communication_usd == 0.0  # type: ignore[union-attr]


def test_a_tariff_nobody_knows_leaves_no_money() -> None:
    tariff = Tariff(storage_usd_gb_month=None)
    assert of(training(output_bytes=1.0), tariff=tariff).money is None
    assert of(training(), tariff=tariff).money is not None, "nothing stored costs nothing"


def test_energy_of_all_devices_with_the_sites_overhead() -> None:
    types = {"T4": replace(T4, power_watts=70.0), "FPGA": replace(UNPRICED, power_watts=30.0)}
    rates = EnergyRates(usd_per_kwh=0.2, gco2e_per_kwh=400.0, overhead=1.5)
    found = of(DECLARED, types, {"T4": 2, "FPGA": 1}, energy=rates)
    kwh = (STARTUP_S["train"] + 7200.0) * (2 * 70 + 30) * 1.5 / 3.6e6
    assert found.energy is not None
    assert astuple(found.energy) == pytest.approx((kwh, 0.2 * kwh, 400 * kwh))
    assert found.money is None, "energy is known where the price is not"


def test_energy_is_none_where_watts_or_rates_are_unknown() -> None:
    types = {"T4": replace(T4, power_watts=70.0), "FPGA": UNPRICED}
    assert of(DECLARED, types, {"T4": 1, "FPGA": 1}).energy is None
    found = of(DECLARED, types).energy
    assert found is not None
    assert (found.usd, found.gco2e) == (None, None)


def test_checkpoints_take_their_time() -> None:
    model = replace(PROFILE, parameters=500_000_000, trainable=500_000_000)
    one_s = 500_000_000 * (WEIGHT_BYTES + MOMENT_BYTES) / CHECKPOINT_BYTES_S
    plain, saved = (
        of(Work("train", "x", declared_s=100.0, profile=model, checkpoint_every_s=each)) for each in (None, 30.0)
    )
    assert plain.breakdown is not None and saved.breakdown is not None
    assert [each.breakdown.checkpoint_s for each in (plain, saved)] == pytest.approx([0.0, 3 * one_s])  # type: ignore[union-attr]
    assert saved.seconds == pytest.approx(plain.seconds + 3 * one_s)  # type: ignore[operator]
    assert saved.low_s == pytest.approx(plain.low_s + 3 * one_s)  # type: ignore[operator]


def test_only_training_writes_checkpoints() -> None:
    assert checkpoint_seconds(inference(checkpoint_every_s=1.0), 100.0) == 0.0
    assert checkpoint_seconds(training(checkpoint_every_s=1.0, profile=None), 100.0) == 0.0
    assert checkpoint_seconds(training(checkpoint_every_s=10.0), 100.0) == pytest.approx(9 * 12e6 / CHECKPOINT_BYTES_S)


@pytest.mark.parametrize(("count", "nodes"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_work_without_checkpoints_begins_again_on_spot(count: int, nodes: int) -> None:
    found, steady = of(DECLARED, {"T4": SPOT}, {"T4": count}), of(DECLARED, counts={"T4": count})
    rate = nodes * 0.5 / 3600
    whole_s = STARTUP_S["train"] + 7200.0
    assert found.seconds == pytest.approx(math.expm1(rate * whole_s) / rate)
    assert found.breakdown is not None and steady.seconds is not None
    assert found.breakdown.rework_s == pytest.approx(found.seconds - steady.seconds)  # type: ignore[operator]
    assert (found.market, steady.market, steady.breakdown.rework_s) == ("spot", "on-demand", 0.0)  # type: ignore[union-attr]
    assert found.price_usd_h == count * 0.15


def test_checkpoints_save_what_was_done() -> None:
    work = Work("train", "x", declared_s=7200.0, profile=PROFILE)
    bare, saved = (of(replace(work, checkpoint_every_s=each), {"T4": SPOT}) for each in (None, 300.0))
    assert bare.breakdown is not None and saved.breakdown is not None
    assert 0 < saved.breakdown.rework_s < bare.breakdown.rework_s / 4


def test_how_often_is_assumed_where_it_is_not_known_and_said() -> None:
    unknown = replace(SPOT, interruptions_per_h=None)
    found = of(DECLARED, {"T4": unknown})
    same = of(DECLARED, {"T4": replace(SPOT, interruptions_per_h=SPOT_INTERRUPTIONS_PER_H)})
    assert (found.seconds, found.money) == (same.seconds, same.money)
    assert "not known" in found.note
    assert same.note == ""


def test_a_mix_with_one_spot_type_is_spot() -> None:
    types = {"T4": SPOT, "FPGA": UNPRICED}
    found = of(DECLARED, types, {"T4": 1, "FPGA": 1})
    assert (found.market, found.price_usd_h) == ("spot", None)
    assert found.seconds == of(DECLARED, types).seconds


def test_what_would_never_end_has_no_time_and_says_why() -> None:
    hopeless = replace(SPOT, interruptions_per_h=60.0)
    found = of(replace(DECLARED, declared_s=30 * 86400.0), {"T4": hopeless})
    assert (found.seconds, found.money, found.breakdown, found.energy) == (None, None, None, None)
    assert found.infeasible == Reason("device", "on spot it would be taken back more often than it gets anywhere")
