"""Random worlds drawn from what calibration believes of the world: its intervals hold, and measurements pay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from statistics import fmean

import numpy as np
import pytest

from cluster.types import DeviceType
from making import A100, CPU, T4, configuration
from scheduler.estimate.calibration import (
    FIRST_SPREAD,
    LACK_OF_FIT,
    LEVEL_SPREADS,
    PART_SCALES,
    POINT_SPREAD,
    Calibration,
    Subject,
)
from scheduler.estimate.columns import Columns
from scheduler.estimate.cost_model import Facts
from scheduler.estimate.expectation import Expectation, expectation
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.rows import speeds
from scheduler.estimate.step_time import PARTS, total_s
from scheduler.estimate.work import Work

TYPES: dict[str, DeviceType] = {
    "cpu": replace(CPU, memory_bandwidth_bytes_s=10e9),
    "T4": replace(T4, memory_bytes=None),
    "A100": replace(A100, memory_bytes=None),
}
FACTS = Facts(TYPES, 1e9, {"cpu": 8, "T4": 4, "A100": 2})
DEVICES, COUNTS, BATCHES = tuple(TYPES), (1, 2, 4), (4, 32, 256)
SAMPLES = 10_000.0


def model(name: str, flops: float, moved: float, launches: float) -> ModelProfile:
    passing = {
        "matmul": Cost(Volume(per_sample=(0.0, flops, 0.0)), Volume((1e7, 0.0, 0.0)), launches / 2),
        "elementwise": Cost(moved_bytes=Volume(per_sample=(0.0, moved, 0.0)), launches=launches / 2),
    }
    return ModelProfile(name, 20_000_000, 20_000_000, forward=passing, backward=passing)  # type: ignore[arg-type]


MODELS = (model("busy", 1e8, 1e4, 100), model("wide", 1e6, 2e5, 200), model("small", 1e5, 1e3, 1000))
Case = tuple[Work, str, int]


def cases() -> list[Case]:
    """Every model on every device, for training and for inference."""
    found: list[Case] = []
    for profile, device, batch in product(MODELS, DEVICES, BATCHES):
        common = {"samples": SAMPLES, "tokens_per_sample": 64.0, "batch_size": batch, "profile": profile}
        found += [(Work("train", profile.family, **common), device, count) for count in COUNTS]  # type: ignore[arg-type]
        found.append((Work("batch-infer", profile.family, **common), device, 1))  # type: ignore[arg-type]
    return found


@dataclass
class Truth:
    """What every piece of work really takes: effects are drawn when they are first met."""

    random: np.random.Generator
    effects: dict[tuple[str, ...], np.ndarray[tuple[int], np.dtype[np.float64]]] = field(default_factory=dict)
    lacks: dict[tuple[Subject, int, str], float] = field(default_factory=dict)

    def seconds(self, expected: Expectation) -> float:
        theta = np.zeros(len(PARTS))
        subject, label = expected.subject, expected.label
        names = (*subject.levels(), ("point", *subject.levels()[-1][1:], label))
        for name, spread in zip(names, (*LEVEL_SPREADS, POINT_SPREAD), strict=True):
            if name not in self.effects:
                self.effects[name] = self.random.normal(0.0, spread, len(PARTS)) * PART_SCALES
            theta = theta + self.effects[name]
        key = (subject, expected.shards, label)
        lack = self.lacks.setdefault(key, float(self.random.normal(0.0, LACK_OF_FIT)))
        corrected = np.array(expected.parts) * np.exp(theta)
        return float(total_s(corrected, np.array(expected.overlap))) * math.exp(lack)


@cache
def everything() -> list[tuple[Case, Expectation]]:
    """All cases with what the uncalibrated model says of them."""
    found = [(case, expectation(*case, SAMPLES, FACTS)) for case in cases()]
    return [(case, expected) for case, expected in found if expected is not None]


@dataclass
class Outcome:
    """Log errors and widths of the predictions of one world, and the share of them whose interval held."""

    error: float
    width: float
    covered: float


def played(seed: int, measured: int, outliers: int = 0) -> Outcome:
    """Measure so many random cases of a world, a few of them on a paused machine, and predict all the others."""
    random = np.random.default_rng(seed)
    truth, calibration = Truth(random), Calibration()
    order = random.permutation(len(everything())).tolist()
    for number, index in enumerate(order[:measured]):
        _, expected = everything()[index]
        seconds = truth.seconds(expected) * math.exp(float(random.normal(0.0, FIRST_SPREAD)))
        assert expected.learn(calibration, seconds * (10.0 if number < outliers else 1.0))
    rest = [everything()[index] for index in order[measured:]]
    columns = Columns(TYPES, FACTS.network_bytes_s, FACTS.devices_per_node)
    for (work, device, count), _ in rest:
        columns.add(work, [configuration(**{device: count})])
    table = speeds(columns, calibration)
    true_s = np.array([truth.seconds(expected) for _, expected in rest])
    held = (table.low_s <= true_s) & (true_s <= table.high_s)
    return Outcome(
        float(np.abs(np.log(table.seconds / true_s)).mean()),
        float(np.log(table.high_s / table.low_s).mean() / 4),
        float(held.mean()),
    )


WORLDS = range(25)


@pytest.mark.parametrize("measured", [0, 3, 10, 30])
def test_the_truth_lies_in_the_interval(measured: int) -> None:
    outcomes = [played(seed, measured) for seed in WORLDS]
    assert fmean(outcome.covered for outcome in outcomes) >= 0.85


def test_measurements_pay() -> None:
    found = [[played(seed, measured) for seed in WORLDS] for measured in (0, 3, 10, 30)]
    errors = [fmean(outcome.error for outcome in outcomes) for outcomes in found]
    widths = [fmean(outcome.width for outcome in outcomes) for outcomes in found]
    assert errors == sorted(errors, reverse=True)
    assert widths == sorted(widths, reverse=True)
    assert errors[-1] < 0.65 * errors[0]


def test_a_paused_machine_costs_little() -> None:
    clean, poisoned = (fmean(played(seed, 20, bad).error for seed in WORLDS) for bad in (0, 1))
    assert poisoned < 1.35 * clean


def test_inference_replicas_are_cases_too() -> None:
    """The worlds have both kinds of work, and as many of each device."""
    found = [case for case, _ in everything()]
    assert len(found) == len(cases())
    assert {work.kind for work, _, _ in found} == {"train", "batch-infer"}
    assert [sum(device == name for _, device, _ in found) for name in DEVICES] == [len(found) // 3] * 3
