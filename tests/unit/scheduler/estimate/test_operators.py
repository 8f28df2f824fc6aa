"""Where a step's seconds go by operator: each by its own roofline, all of them together the step as it is estimated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.types import DeviceType
from making import A100, CPU, NO_RATES, PROFILE, T4, configuration, inference, training
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.expectation import expectation
from scheduler.estimate.model_profile import Operator
from scheduler.estimate.operators import StepTimes, step_times
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.work import Work

FACTS = Facts({kind.name: kind for kind in (T4, A100, CPU, NO_RATES)}, devices_per_node={"T4": 2})
OPERATORS = (
    Operator("mm", "matmul", "forward", Cost(Volume(per_sample=(0.0, 2e9, 0.0)), Volume((4e6, 0.0, 0.0)), 4.0)),
    Operator("gelu", "elementwise", "forward", Cost(Volume(), Volume(per_sample=(0.0, 1e8, 0.0)), 2.0)),
    Operator("bmm", "matmul", "backward", Cost(Volume(per_sample=(0.0, 4e9, 0.0)), Volume((4e6, 0.0, 0.0)), 8.0)),
    Operator("add", "elementwise", "backward", Cost(Volume(), Volume(per_sample=(0.0, 2e8, 0.0)), 4.0)),
    Operator("arange", "elementwise", "backward", Cost(Volume(), Volume((8.0, 0.0, 0.0)), 1.0)),
)


def profile(*operators: Operator) -> ModelProfile:
    """The profile that is the sum of these."""
    passes: dict[str, dict[str, Cost]] = {"forward": {}, "backward": {}}
    for each in operators:
        part = passes[each.part]
        part[each.operator_class] = part.get(each.operator_class, Cost()) + each.cost
    return replace(PROFILE, **passes)  # type: ignore[arg-type]


def asked(work: Work, device: str, count: int = 1, calibration: Calibration | None = None) -> StepTimes:
    found = step_times(work, OPERATORS, device, count, FACTS, calibration or Calibration())
    assert found is not None
    return found


TRAINING = training(samples=1000.0, profile=profile(*OPERATORS), evaluation_samples=100.0)
INFERENCE = inference(samples=1000.0, profile=profile(*OPERATORS[:2]))


@pytest.mark.parametrize(
    ("work", "device", "count"),
    [(TRAINING, "T4", 1), (TRAINING, "T4", 4), (TRAINING, "cpu", 2), (INFERENCE, "A100", 2), (INFERENCE, "cpu", 1)],
    ids=["a GPU trains", "a gang over two nodes trains", "cores train", "GPUs infer", "a core infers"],
)
def test_the_operators_add_up_to_the_step_as_it_is_estimated(work: Work, device: str, count: int) -> None:
    operators = OPERATORS if work.training else OPERATORS[:2]
    found = step_times(work, operators, device, count, FACTS, Calibration())
    assert found is not None
    assert sum(each.seconds for each in found.operators) == pytest.approx(found.step_s)
    steps_alone = replace(work, evaluation_samples=0.0)
    parts = estimate(steps_alone, configuration(**{device: count}), FACTS, Calibration()).breakdown
    assert parts is not None
    whole_s = parts.compute_s + parts.memory_s + parts.launch_s + parts.communication_s
    assert found.step_s * found.steps == pytest.approx(whole_s)
    assert found.steps == pytest.approx(work.samples / (10 if work.training else 10 * count))  # type: ignore[operator]
    times = [each.seconds for each in found.operators]
    assert times == sorted(times, reverse=True)


def test_one_operator_a_class_needs_no_scale() -> None:
    single = (OPERATORS[0], OPERATORS[1], OPERATORS[2], OPERATORS[3])
    work = replace(TRAINING, profile=profile(*single))
    found = step_times(work, single, "T4", 1, FACTS, Calibration())
    assert found is not None and found.scale == pytest.approx(1.0)


def test_each_operator_has_a_bound_of_its_own() -> None:
    facts = replace(FACTS, device_types={"cpu": replace(CPU, memory_bandwidth_bytes_s=10e9)})
    found = step_times(TRAINING, OPERATORS, "cpu", 2, facts, Calibration())
    assert found is not None
    bounds = {each.name: each.bound for each in found.operators}
    assert bounds == {
        "mm": "compute",
        "bmm": "compute",
        "gelu": "memory",
        "add": "memory",
        "arange": "launch",
        "AdamW and clipping": "memory",
        "all-reduce": "communication",
    }


def test_volumes_are_those_of_a_device() -> None:
    two = {each.name: each for each in asked(TRAINING, "T4", 2).operators}
    assert two["mm"].flops == pytest.approx(2e9 * 50 * 5)
    assert two["gelu"].moved_bytes == pytest.approx(1e8 * 50 * 5)
    parts = replace(TRAINING, micro_batches=5)
    again = {each.name: each for each in asked(parts, "T4", 2).operators}
    assert again["mm"].flops == pytest.approx(two["mm"].flops) and again["mm"].launches == 5 * two["mm"].launches


def test_launches_show_only_where_the_device_has_no_work_to_hide_them() -> None:
    busy = asked(TRAINING, "T4").operators
    assert "launch" not in {each.bound for each in busy}
    many = tuple(replace(each, cost=replace(each.cost, launches=1e6)) for each in OPERATORS)
    found = step_times(replace(TRAINING, profile=profile(*many)), many, "T4", 1, FACTS, Calibration())
    assert found is not None
    assert {each.bound for each in found.operators if each.phase in ("forward", "backward")} == {"launch"}


@pytest.mark.parametrize(
    ("strategy", "name"),
    [("ddp", "all-reduce"), ("fsdp", "all-gather and reduce-scatter"), ("pipeline", "point to point")],
)
def test_communication_is_a_row_too(strategy: str, name: str) -> None:
    whole = replace(TRAINING.profile, boundary_bytes=Volume(per_sample=(0.0, 1e3, 0.0)))  # type: ignore[type-var]
    work = replace(TRAINING, strategy=strategy, profile=whole, micro_batches=2)  # type: ignore[arg-type]
    rows = {each.phase: each for each in asked(work, "T4", 4).operators}
    assert rows["communication"].name == name and rows["communication"].seconds > 0
    assert not [each for each in asked(TRAINING, "T4", 1).operators if each.phase == "communication"]


def test_measurements_scale_the_step() -> None:
    calibration = Calibration()
    expected = expectation(TRAINING, "T4", 1, 1000.0, FACTS)
    assert expected is not None
    for _ in range(5):
        assert expected.learn(calibration, 2 * expected.seconds)
    before, after = asked(TRAINING, "T4"), asked(TRAINING, "T4", calibration=calibration)
    assert after.step_s > 1.5 * before.step_s
    assert sum(each.seconds for each in after.operators) == pytest.approx(after.step_s)


def test_it_is_told_where_it_does_not_fit_either() -> None:
    tight: DeviceType = replace(T4, memory_bytes=1e6)
    facts = replace(FACTS, device_types={"T4": tight})
    found = step_times(TRAINING, OPERATORS, "T4", 1, facts, Calibration())
    assert found == asked(TRAINING, "T4")


def test_nothing_is_made_up_of_a_device_without_rates() -> None:
    assert step_times(TRAINING, OPERATORS, "Z9", 1, FACTS, Calibration()) is None
    assert step_times(replace(TRAINING, profile=None), OPERATORS, "T4", 1, FACTS, Calibration()) is None
