"""What would make a configuration fit is searched for once: the memo says what a new search would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from cluster.types import DeviceType
from making import CPU, PROFILE, T4, configuration, inference, training
from scheduler.estimate import cost_model
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.profile import Volume
from scheduler.estimate.work import Work

MODEL = replace(PROFILE, activation_bytes=Volume(per_sample=(0.0, 1e6, 0.0)))
DEEP = replace(MODEL, blocks=8, boundary_bytes=Volume(per_sample=(0.0, 1e4, 0.0)))
SMALL = replace(T4, memory_bytes=2.6e9)
WORK = training(batch_size=64, profile=MODEL)
"""50 MB of activations a sample: half a batch fits on the small T4, a quarter where it is emulated."""
Case = tuple[Work, DeviceType, dict[str, Any]]
CASES: dict[str, Case] = {
    "a GPU": (WORK, SMALL, {}),
    "an emulated one of its memory": (WORK, replace(SMALL, emulated_speed=0.5), {}),
    "a core of its memory": (WORK, replace(CPU, name="T4", memory_bytes=2.6e9), {}),
    "less memory": (WORK, replace(SMALL, memory_bytes=1.8e9), {}),
    "a host whose memory is shared": (WORK, replace(SMALL, emulated_speed=0.5, host_memory_bytes=1.8e9), {}),
    "more devices": (WORK, SMALL, {"totals": {"T4": 8}}),
    "more cores on two hosts": (WORK, replace(CPU, name="T4", memory_bytes=2.6e9), {"totals": {"T4": 8}, "devices_per_node": {"T4": 1}}),
    "more cores on one host": (WORK, replace(CPU, name="T4", memory_bytes=2.6e9), {"totals": {"T4": 8}, "devices_per_node": {"T4": 8}}),
    "a larger batch": (replace(WORK, batch_size=96), SMALL, {}),
    "a longer row": (replace(WORK, longest_tokens=100.0), SMALL, {}),
    "micro-batches": (replace(WORK, batch_size=512, micro_batches=4), SMALL, {}),
    "inference": (inference(batch_size=64, profile=MODEL), SMALL, {}),
    "a model with blocks": (replace(WORK, profile=DEEP, batch_size=1, longest_tokens=5000.0), SMALL, {}),
    "a larger model": (replace(WORK, profile=replace(MODEL, parameters=60_000_000, trainable=60_000_000)), SMALL, {}),
    "another path on hosts": (replace(WORK, host_profile=DEEP), replace(SMALL, emulated_speed=0.5), {}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    cost_model._remedies.clear()
    yield
    cost_model._remedies.clear()


def said(case: Case) -> str:
    """Why the case does not fit, and what would."""
    work, device, facts = case
    found = estimate(work, configuration(T4=1), Facts({"T4": device}, **({"totals": {"T4": 1}} | facts)), Calibration())
    assert found.infeasible is not None
    return found.infeasible.message


def alone(case: Case) -> str:
    """The same with nothing remembered."""
    cost_model._remedies.clear()
    return said(case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_remembered_is_what_was_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first = alone(case)
    assert "fits with" in first
    assert len(cost_model._remedies) == 1

    def never(*_: object) -> str:
        raise AssertionError("searched for again")

    monkeypatch.setattr(cost_model, "remedy", never)
    assert said(case) == first


def test_no_case_gets_the_remedy_of_another() -> None:
    expected = {name: alone(case) for name, case in CASES.items()}
    for one, other in permutations(CASES, 2):
        alone(CASES[one])
        assert said(CASES[other]) == expected[other], f"{other} after {one}"


def test_a_device_and_its_emulation_have_remedies_of_their_own() -> None:
    assert alone(CASES["a GPU"]).endswith("fits with micro-batches of 32 (batch_size: 32)")
    assert said(CASES["an emulated one of its memory"]).endswith("fits with micro-batches of 16 (batch_size: 16)")


def test_the_memo_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "KEPT_REMEDIES", 3)
    expected = [alone(case) for case in CASES.values()]
    for _ in range(2):
        for case, message in zip(CASES.values(), expected, strict=True):
            assert said(case) == message
            assert len(cost_model._remedies) <= 3
