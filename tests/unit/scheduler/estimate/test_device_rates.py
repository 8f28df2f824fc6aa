"""Measured rates of device types: what is believed, what they change of a snapshot, and what they do not touch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.types import DeviceType, Snapshot
from making import A100, CPU, T4, inference, node, snapshot, training
from scheduler.estimate.calibration import Calibration, Subject
from scheduler.estimate.candidates import facts_of
from scheduler.estimate.device_rates import (
    DeviceRates,
    believable,
    carry_over,
    from_json,
    to_json,
    with_measured_rates,
)
from scheduler.estimate.expectation import expectation
from scheduler.estimate.hardware import rates
from scheduler.estimate.names import calibration_name
from scheduler.estimate.step_time import PARTS

FOUND = DeviceRates("T4", {"fp32": 4e12, "fp16": 30e12}, 200e9, 180e9, 5e-6, 6e9, 2, 1000.0)
EMULATED = replace(
    T4, emulated_speed=0.5, peak_flops={"fp32": 25e9}, memory_bandwidth_bytes_s=5e9, interconnect_bytes_s=None
)
HOST = DeviceRates("T4", {"fp32": 20e9, "bf16": 1e9}, 4e9, None, 3e-6, 1e9, 2, 1000.0)


def where(*types: DeviceType) -> Snapshot:
    return replace(
        snapshot(node("a", *((kind.name, 2) for kind in types))), device_types={kind.name: kind for kind in types}
    )


def test_an_accelerator_keeps_its_peaks_and_gets_measured_rates_beside_them() -> None:
    kind = with_measured_rates(where(T4, A100), {"T4": FOUND}).device_types["T4"]
    assert kind == replace(
        T4,
        measured_flops={"fp32": 4e12, "fp16": 30e12},
        measured_bandwidth_bytes_s=200e9,
        measured_link_bytes_s=6e9,
        launch_s=5e-6,
    )
    achieved = rates(kind, "fp32")
    assert achieved is not None
    assert achieved.flops_s[0] == pytest.approx(0.85 * 4e12)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(replace(EMULATED), "T4~emulated@0.5"), (replace(EMULATED, name="cpu", kind="cpu", emulated_speed=None), "cpu")],
    ids=["an emulated device", "a core"],
)
def test_the_newer_measurement_of_a_host_takes_the_place_of_the_older(kind: DeviceType, name: str) -> None:
    after = with_measured_rates(where(kind), {name: HOST}).device_types[kind.name]
    assert after == replace(
        kind,
        peak_flops={"fp32": 20e9, "bf16": 1e9},
        memory_bandwidth_bytes_s=4e9,
        interconnect_bytes_s=1e9,
        launch_s=3e-6,
    )
    before, now = rates(kind, "fp32"), rates(after, "fp32")
    assert before is not None
    assert now is not None
    assert now.flops_s / before.flops_s == pytest.approx(np.full(len(now.flops_s), 20 / 25))


def test_an_emulated_type_never_mixes_with_the_hardware_it_stands_for() -> None:
    known = {"T4": FOUND, "T4~emulated@0.25": HOST}
    assert with_measured_rates(where(EMULATED), known).device_types["T4"] == EMULATED
    assert with_measured_rates(where(T4), {"T4~emulated@0.5": HOST}).device_types["T4"] == T4


def test_what_was_not_measured_stays() -> None:
    alone = replace(FOUND, flops={}, launch_s=None, reduce_bytes_s=None)
    kind = with_measured_rates(where(T4), {"T4": alone}).device_types["T4"]
    assert kind == replace(T4, measured_bandwidth_bytes_s=200e9)
    untouched = where(T4)
    assert with_measured_rates(untouched, {}) is untouched


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a product above twenty times the peak", {"flops": {"fp32": 161e12, "fp16": 1e12}}, {"flops": {"fp16": 1e12}}),
    ("a precision the catalog lacks, above twenty times its best", {"flops": {"int8": 2e15}}, {"flops": {}}),
    ("no speed at all", {"flops": {"fp32": 0.0}}, {"flops": {}}),
    ("a product at one FLOP a second", {"flops": {"fp32": 1.0, "fp16": 1e12}}, {"flops": {"fp16": 1e12}}),
    ("a product below a 200th of its peak", {"flops": {"fp32": 39e9}}, {"flops": {}}),
    ("a precision the catalog lacks, below a 2000th", {"flops": {"bf16": 3.9e9}}, {"flops": {}}),
    ("a copy at three bytes a second", {"bandwidth_bytes_s": 3.0}, {"bandwidth_bytes_s": None}),
    ("element-wise below a 200th", {"elementwise_bytes_s": 1.4e9}, {"elementwise_bytes_s": None}),
    ("an all-reduce at a thousand bytes a second", {"reduce_bytes_s": 1e3}, {"reduce_bytes_s": None}),
    ("an operator that starts in a nanosecond", {"launch_s": 1e-9}, {"launch_s": None}),
    ("a negative copy", {"bandwidth_bytes_s": -1.0}, {"bandwidth_bytes_s": None}),
    ("a copy that is no number", {"bandwidth_bytes_s": math.nan}, {"bandwidth_bytes_s": None}),
    ("an endless copy", {"bandwidth_bytes_s": math.inf}, {"bandwidth_bytes_s": None}),
    ("element-wise above twenty times the memory", {"elementwise_bytes_s": 7e12}, {"elementwise_bytes_s": None}),
    ("an all-reduce above twenty times the link", {"reduce_bytes_s": 1e12}, {"reduce_bytes_s": None}),
    ("an operator that takes a second to start", {"launch_s": 1.0}, {"launch_s": None}),
    ("an operator that takes no time to start", {"launch_s": 0.0}, {"launch_s": None}),
]


@pytest.mark.parametrize(("wrong", "left"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_an_absurd_number_is_refused_and_the_others_are_kept(wrong: dict[str, Any], left: dict[str, Any]) -> None:
    kept, refused = believable(replace(FOUND, **wrong), T4)
    assert kept == replace(FOUND, **left)
    assert len(refused) == 1
    assert refused[0].endswith("on T4: not believed")


def test_a_measurement_of_nothing_but_nonsense_is_refused_whole() -> None:
    kept, refused = believable(DeviceRates("T4", {"fp32": math.nan}, launch_s=-1.0), T4)
    assert kept is None
    assert len(refused) == 2


def test_all_of_a_sane_measurement_is_believed_also_where_the_catalog_knows_nothing() -> None:
    assert believable(FOUND, T4) == (FOUND, [])
    assert believable(FOUND, DeviceType("T4", "gpu")) == (FOUND, [])


SLOW: list[tuple[str, DeviceType, dict[str, Any]]] = [
    ("a throttled device", T4, {"flops": {"fp32": 41e9}, "bandwidth_bytes_s": 1.6e9}),
    ("fp32 of a type that is rated in bf16 alone", replace(T4, peak_flops={"bf16": 990e12}), {"flops": {"fp32": 6e12}}),
    ("bf16 in software on a core", EMULATED, {"flops": {"bf16": 25e9 / 300}}),
    ("an all-reduce over a slow network", A100, {"reduce_bytes_s": 50e6}),
    ("a core at a thousandth of its speed", replace(EMULATED, peak_flops={"fp32": 50e6}), {"flops": {"fp32": 20e6}}),
]


@pytest.mark.parametrize(("kind", "measured"), [row[1:] for row in SLOW], ids=[row[0] for row in SLOW])
def test_what_is_only_slow_is_believed(kind: DeviceType, measured: dict[str, Any]) -> None:
    found = DeviceRates(kind.name, **measured)
    assert believable(found, kind) == (found, [])


def test_a_type_without_rates_in_the_catalog_has_a_lower_bound_too() -> None:
    kept, refused = believable(replace(FOUND, flops={"fp32": 1.0}, bandwidth_bytes_s=3.0), DeviceType("T4", "gpu"))
    assert kept == replace(FOUND, flops={}, bandwidth_bytes_s=None)
    assert refused == [
        "a matrix product in fp32 at 1 FLOP/s on T4: not believed",
        "a copy at 3 bytes/s on T4: not believed",
    ]


def test_a_device_alone_does_not_forget_the_all_reduce_of_two() -> None:
    alone = DeviceRates("T4", {"fp32": 5e12}, 210e9, None, 6e-6, None, 1, 2000.0)
    assert FOUND.updated(alone) == DeviceRates("T4", {"fp32": 5e12, "fp16": 30e12}, 210e9, 180e9, 6e-6, 6e9, 1, 2000.0)


def test_rates_survive_the_store_and_another_shape_is_left_out() -> None:
    known = {"T4": FOUND, "cpu": DeviceRates("cpu")}
    assert from_json(to_json(known)) == known
    assert from_json(None) == {}
    assert from_json('{"T4": {"speed": 3}, "cpu": {"device_type": "cpu"}}') == {"cpu": DeviceRates("cpu")}


@pytest.mark.parametrize("work", [inference(), training(batch_size=64)], ids=["inference", "training"])
@pytest.mark.parametrize(("kind", "found"), [(T4, FOUND), (EMULATED, HOST)], ids=["a GPU", "an emulated one"])
def test_what_was_learnt_is_worth_as_much_against_the_new_rates(
    work: Any, kind: DeviceType, found: DeviceRates
) -> None:
    """Learn against the old rates and carry over, or learn against the new ones: the same belief."""
    old = where(kind)
    name = "T4" if kind is T4 else "T4~emulated@0.5"
    new = with_measured_rates(old, {name: found})
    carried, direct = Calibration(), Calibration()
    for count in (1, 2):
        for calibration, cluster in ((carried, old), (direct, new)):
            expected = expectation(work, "T4", count, 1000.0, facts_of(cluster))
            assert expected is not None
            assert expected.learn(calibration, 3.0 / count)
    carry_over(carried, kind, new.device_types["T4"])
    subject = next(iter(direct.points))[0]
    assert carried.belief(subject).mean == pytest.approx(direct.belief(subject).mean, abs=0.02)
    assert set(carried.points) == set(direct.points)


def test_other_types_and_tokenising_keep_what_was_learnt_of_them() -> None:
    calibration = Calibration()
    others = [Subject("train", "bert", "A100", "fp32"), Subject("preprocess", "tokenise", "cpu", "fp32")]
    for subject in others:
        assert calibration.observe(subject, 1, "", 2.0, (1.0, *[0.0] * (len(PARTS) - 1)))
    before = dict(calibration.points)
    carry_over(calibration, CPU, replace(CPU, peak_flops={"fp32": 1e9}))
    carry_over(calibration, T4, replace(T4, measured_flops={"fp32": 1e12}))
    assert calibration.points == before


def test_the_newer_of_the_hosts_and_the_benchmarks_measurement_counts() -> None:
    core = replace(T4, emulated_speed=0.5, peak_flops={"fp32": 10e9}, rates_at_s=500.0)
    snapshot = Snapshot(0.0, (), {"T4": core})
    name = calibration_name(core)
    for at_s, expected in ((1000.0, 20e9), (100.0, 10e9)):
        known = {name: replace(HOST, measured_at_s=at_s)}
        assert with_measured_rates(snapshot, known).device_types["T4"].peak_flops["fp32"] == expected
