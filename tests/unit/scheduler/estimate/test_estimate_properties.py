"""What holds for every estimate, whatever the model, the cluster and what was measured before."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.types import DeviceType, EnergyRates, Tariff
from making import A100, CPU, NO_RATES, T4, configuration
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate, estimate_all
from scheduler.estimate.expectation import expectation
from scheduler.estimate.profile import OPERATOR_CLASSES, Cost, ModelProfile, Volume
from scheduler.estimate.work import Work
from scheduler.types import Configuration, Estimate

TYPES: dict[str, DeviceType] = {
    "cpu": replace(CPU, memory_bandwidth_bytes_s=10e9),
    "T4": replace(T4, power_watts=70.0),
    "A100": A100,
    "spot": replace(T4, name="spot", market="spot", price_usd_h=0.15, power_watts=70.0),
    "emulated": replace(A100, name="emulated", emulated_speed=0.5, peak_flops={"fp32": 25e9}),
    "Z9": NO_RATES,
}
FACTS = Facts(
    TYPES, 1e9, {"cpu": 4, "T4": 2, "A100": 8, "spot": 1}, {"cpu": 8, "T4": 8}, EnergyRates(0.2), Tariff(0.02, 0.1)
)
CHECKED = settings(max_examples=60, deadline=None, derandomize=True)

amounts = st.floats(0.0, 1e7)
volumes = st.builds(
    Volume, st.tuples(amounts, amounts, st.floats(0.0, 1e3)), st.tuples(amounts, amounts, st.floats(0.0, 1e3))
)
costs = st.builds(Cost, volumes, volumes, st.integers(0, 2000).map(float))
passes = st.fixed_dictionaries(
    {"matmul": st.builds(Cost, st.just(Volume(per_sample=(0.0, 1e6, 0.0))), volumes, st.integers(0, 2000).map(float))},
    optional={name: costs for name in OPERATOR_CLASSES if name not in ("matmul", "optimizer")},
)
profiles = st.builds(
    ModelProfile,
    st.just("model"),
    st.integers(1_000_000, 200_000_000),
    st.integers(1_000, 1_000_000),
    precision=st.sampled_from(["fp32", "16-bit"]),
    forward=passes,
    backward=passes,
    activation_bytes=st.builds(Volume, per_sample=st.tuples(st.just(0.0), st.floats(0.0, 1e5), st.just(0.0))),
    boundary_bytes=st.just(Volume(per_sample=(0.0, 1e3, 0.0))),
    blocks=st.integers(0, 12),
    kv_bytes_per_token=st.floats(0.0, 1e4),
)


def works(kinds: tuple[str, ...] = ("train", "batch-infer")) -> st.SearchStrategy[Work]:
    return st.builds(
        Work,
        st.sampled_from(kinds),
        st.sampled_from(["model", "other"]),
        st.sampled_from(["fp32", "fp16", "bf16"]),
        samples=st.floats(100.0, 1e6),
        evaluation_samples=st.sampled_from([0.0, 1000.0]),
        tokens_per_sample=st.floats(1.0, 512.0),
        batch_size=st.integers(1, 256),
        profile=profiles,
        host_profile=st.none() | profiles,
        strategy=st.sampled_from(["ddp", "fsdp", "pipeline"]),
        micro_batches=st.integers(1, 4),
        generated_tokens=st.sampled_from([0, 0, 30]),
        checkpoint_every_s=st.sampled_from([None, 60.0]),
        output_bytes=st.sampled_from([0.0, 1e9]),
    )


counts = st.sampled_from([1, 2, 3, 4, 8])
configurations = st.dictionaries(st.sampled_from(sorted(TYPES)), counts, min_size=1, max_size=3).map(Configuration.of)
alone = [
    Work("preprocess", "tokenise", samples=1e5, rows_per_core_s=100.0, output_bytes=1e8),
    Work("command", "mine", declared_s=60.0),
    Work("command", "other"),
]


def measured(work: Work, ratios: list[float]) -> Calibration:
    """What single devices have shown with this very work."""
    calibration = Calibration()
    for name, ratio in zip(("T4", "cpu", "A100"), ratios, strict=False):
        expected = expectation(work, name, 1, 100.0, FACTS)
        assert expected is not None
        assert expected.learn(calibration, ratio * expected.seconds)
    return calibration


ratios = st.lists(st.floats(0.2, 5.0), max_size=3)


def numbers(found: Estimate) -> dict[str, Any]:
    """All fields, with money and breakdown apart, numbers within rounding."""
    flat: dict[str, Any] = {}
    for key, value in asdict(found).items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return {key: pytest.approx(v, rel=1e-9, abs=1e-12) if isinstance(v, float) else v for key, v in flat.items()}


def plain(found: Estimate) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in asdict(found).items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


@CHECKED
@given(works(), configurations, ratios)
def test_the_breakdown_adds_up(work: Work, wanted: Configuration, told: list[float]) -> None:
    found = estimate(work, wanted, FACTS, measured(work, told))
    if found.seconds is None:
        assert (found.breakdown, found.money, found.low_s) == (None, None, None)
        return
    assert found.breakdown is not None
    parts = asdict(found.breakdown)
    assert sum(parts.values()) == pytest.approx(found.seconds)
    assert min(parts.values()) >= 0
    assert found.low_s is not None and found.high_s is not None
    assert 0 < found.low_s <= found.seconds <= found.high_s
    assert found.bound in ("compute", "memory", "launch", "communication")


@CHECKED
@given(st.lists(st.tuples(works() | st.sampled_from(alone), st.lists(configurations, max_size=4)), max_size=5), ratios)
def test_many_at_once_are_as_one_by_one(requests: list[tuple[Work, list[Configuration]]], told: list[float]) -> None:
    modelled = [work for work, _ in requests if work.profile is not None]
    calibration = measured(modelled[0], told) if modelled else Calibration()
    together = estimate_all(requests, FACTS, calibration)
    assert [len(answers) for answers in together] == [len(wanted) for _, wanted in requests]
    for (work, wanted), answers in zip(requests, together, strict=True):
        for one, answer in zip(wanted, answers, strict=True):
            assert plain(answer) == numbers(estimate(work, one, FACTS, calibration))


def roomy(**changes: Any) -> Facts:
    """A cluster of so much memory that nothing is refused for it."""
    types = {name: replace(kind, memory_bytes=None, **changes) for name, kind in TYPES.items()}
    return replace(FACTS, device_types=types)


def seconds(work: Work, wanted: Configuration, facts: Facts) -> float:
    found = estimate(work, wanted, facts, Calibration()).seconds
    assert found is not None
    return found


even = st.builds(
    lambda name, count: configuration(**{name: count}), st.sampled_from(["cpu", "T4", "A100", "emulated"]), counts
)


@CHECKED
@given(works(), even, st.sampled_from(["forward", "backward"]), st.data())
def test_more_work_is_never_faster(work: Work, wanted: Configuration, which: str, data: st.DataObject) -> None:
    assert work.profile is not None
    work = replace(work, host_profile=None)
    before: dict[str, Cost] = dict(getattr(work.profile, which))
    name = data.draw(st.sampled_from(sorted(before)))
    factor = data.draw(st.floats(1.0, 100.0))
    field = data.draw(st.sampled_from(["flops", "moved_bytes", "launches"]))
    old = getattr(before[name], field)
    more = old * factor if field == "launches" else old.scaled(factor)
    one: dict[str, Any] = {field: more}
    all_: dict[str, Any] = {which: before | {name: replace(before[name], **one)}}
    assert work.profile is not None
    profile = replace(work.profile, **all_)
    slow = seconds(replace(work, profile=profile), wanted, roomy())
    assert slow >= seconds(work, wanted, roomy()) * (1 - 1e-9)


@CHECKED
@given(works(), even, st.floats(1.0, 100.0), st.sampled_from(["memory", "link", "network", "peaks"]))
def test_better_hardware_is_never_slower(work: Work, wanted: Configuration, factor: float, what: str) -> None:
    before = roomy()
    if what == "network":
        after = replace(before, network_bytes_s=factor * before.network_bytes_s)
    else:
        after = replace(before, device_types={n: better(kind, factor, what) for n, kind in before.device_types.items()})
    assert seconds(work, wanted, after) <= seconds(work, wanted, before) * (1 + 1e-9)


def better(kind: DeviceType, factor: float, what: str) -> DeviceType:
    """The device type with one of its rates `factor` times as high."""
    if what == "peaks":
        return replace(kind, peak_flops={name: factor * peak for name, peak in kind.peak_flops.items()})
    name = {"memory": "memory_bandwidth_bytes_s", "link": "interconnect_bytes_s"}[what]
    rate = getattr(kind, name)
    changed: dict[str, Any] = {name: None if rate is None else factor * rate}
    return replace(kind, **changed)


@CHECKED
@given(works(("batch-infer",)), configurations, st.sampled_from(["cpu", "T4", "A100"]))
def test_another_replica_never_slows_the_others(work: Work, wanted: Configuration, name: str) -> None:
    held = {kind: count for kind, count in wanted.groups if kind not in ("Z9", "spot")}
    more = held | {name: held.get(name, 0) + 1}
    if held:
        assert seconds(work, configuration(**more), roomy()) <= seconds(work, configuration(**held), roomy()) * (
            1 + 1e-9
        )


@CHECKED
@given(works(), even, st.floats(1.0, 100.0))
def test_twice_the_samples_are_twice_the_work(work: Work, wanted: Configuration, factor: float) -> None:
    assert work.samples is not None
    batches = float(work.batch_size * wanted.devices)  # with fewer samples than that, some replicas have none
    work = replace(work, evaluation_samples=0.0, checkpoint_every_s=None, samples=max(work.samples, batches))
    longer = replace(work, samples=factor * (work.samples or 0.0))
    one, many = (estimate(each, wanted, roomy(), Calibration()) for each in (work, longer))
    assert one.seconds is not None and many.seconds is not None
    assert many.seconds - many.startup_s == pytest.approx(factor * (one.seconds - one.startup_s), rel=1e-6)
