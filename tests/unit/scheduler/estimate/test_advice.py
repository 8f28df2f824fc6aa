"""What would help, on hand-made works: every gain is the difference of two estimates, and nothing is advised that the
device cannot do or that the numbers do not show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.types import DeviceType
from making import A100, CPU, PROFILE, T4, configuration, inference, training
from scheduler.estimate.advice import WORTH_PERCENT, Advice, advise
from scheduler.estimate.alternatives import FUSED_ELEMENTWISE, Variant, compiled, quantised
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.work import Work
from scheduler.types import Configuration

BOTH = Facts({"T4": T4, "A100": A100, "cpu": CPU}, devices_per_node={"T4": 4}, totals={"T4": 4, "A100": 1, "cpu": 8})
HEAVY = replace(
    PROFILE,
    forward={
        "matmul": Cost(Volume(per_sample=(0.0, 2e9, 0.0)), Volume((4e6, 0.0, 0.0), (0.0, 1e5, 0.0)), 10.0),
        "elementwise": Cost(Volume(), Volume(per_sample=(0.0, 4e8, 0.0)), 100.0),
    },
    backward={
        "matmul": Cost(Volume(per_sample=(0.0, 4e9, 0.0)), Volume((4e6, 0.0, 0.0), (0.0, 1e5, 0.0)), 20.0),
        "elementwise": Cost(Volume(), Volume(per_sample=(0.0, 8e8, 0.0)), 200.0),
    },
)
"""Products and element-wise operators that both take their time; long enough for start-up not to matter."""
LARGE = replace(HEAVY, activation_bytes=Volume(per_sample=(0.0, 40e6, 0.0)))
"""Ten samples of 50 tokens keep 20 GB: more than a T4 has."""


def trained(profile: ModelProfile = HEAVY, **fields: Any) -> Work:
    return training(samples=100_000.0, profile=profile, **fields)


def applied(**fields: Any) -> Work:
    return inference(samples=100_000.0, profile=HEAVY, **fields)


def halved(work: Work, name: str) -> Variant:
    """The work at 16 bits: half the bytes."""

    def narrow(profile: ModelProfile) -> ModelProfile:
        def cost(each: Cost) -> Cost:
            return replace(each, moved_bytes=each.moved_bytes.scaled(0.5))

        return replace(
            profile,
            precision="16-bit",
            forward={key: cost(each) for key, each in profile.forward.items()},
            backward={key: cost(each) for key, each in profile.backward.items()},
        )

    assert work.profile is not None
    return Variant(name, replace(work, precision=name, profile=narrow(work.profile)))  # type: ignore[arg-type]


def checkpointed(work: Work) -> Variant:
    assert work.profile is not None
    profile = replace(
        work.profile,
        activation_bytes=Volume(per_sample=(0.0, 4e6, 0.0)),
        checkpointed=True,
        backward=work.profile.backward,
    )
    again = {name: cost + profile.forward[name] for name, cost in profile.backward.items()}
    return Variant("checkpointing", replace(work, profile=replace(profile, backward=again)))


def asked(work: Work, where: Configuration, *variants: Variant, facts: Facts = BOTH) -> list[Advice]:
    return advise(work, where, facts, Calibration(), variants)


def one(found: list[Advice], words: str) -> Advice:
    matching = [each for each in found if words in each.alternative.change]
    assert len(matching) == 1, [each.alternative.change for each in found]
    return matching[0]


@pytest.mark.parametrize("work", [trained(), applied(), trained(LARGE)], ids=["training", "inference", "too large"])
def test_every_gain_is_the_difference_of_two_estimates(work: Work) -> None:
    where = configuration(T4=2)
    found = asked(work, where, halved(work, "fp16"), *([checkpointed(work)] if work.training else []))
    assert len(found) >= 8
    before = estimate(work, where, BOTH, Calibration())
    for each in found:
        changed = each.alternative
        assert changed.work is not None
        after = estimate(changed.work, changed.configuration, BOTH, Calibration())
        assert (each.before, each.after) == (before, after)
        if before.seconds is None or after.seconds is None:
            assert each.gain_s is None and each.gain_usd is None
        else:
            assert each.gain_s == before.seconds - after.seconds
            assert before.money is not None and after.money is not None
            assert each.gain_usd == before.money.total_usd - after.money.total_usd
            assert each.gain_percent == pytest.approx(100 * each.gain_s / before.seconds)


def test_what_helps_comes_first_and_the_rest_has_its_numbers_too() -> None:
    work = trained()
    found = asked(work, configuration(T4=2), halved(work, "fp16"), checkpointed(work))
    helps = [each.helps for each in found]
    assert helps == sorted(helps, reverse=True) and {True, False} == set(helps)
    free = [each.benefit_percent for each in found if each.helps and not each.trade_off]
    assert free == sorted(free, reverse=True)
    for each in found:
        assert each.helps == (each.benefit_percent >= WORTH_PERCENT)
        assert each.helps or each.gain_percent is not None


def test_the_spec_field_is_named_where_there_is_one() -> None:
    work = trained()
    found = asked(work, configuration(T4=2), halved(work, "fp16"), checkpointed(work))
    settings = {each.alternative.setting for each in found if each.available}
    assert {
        "precision: fp16",
        "resources.count: 4",
        "resources.count: 1",
        "resources: {devices: [A100], count: 1}",
        "resources: {devices: [cpu], count: 2}",
    } <= settings
    assert any(setting.startswith("hyperparameters.batch_size: ") for setting in settings)
    without = {each.alternative.change for each in found if not each.available}
    assert {"compile the model (torch.compile)", "full sharding (FSDP)", "gradient checkpointing"} <= without
    one_size = asked(applied(), configuration(T4=1))
    assert any(each.alternative.setting.startswith("batch_size: ") for each in one_size)


BF16 = {"fp32": 8e12, "bf16": 80e12}


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({"fp32": 8e12}, "no bf16 rate is known of GPU"),
        ({"fp32": 8e12, "fp16": 64e12}, "no bf16 rate is known of GPU"),
        ({"fp32": 8e12, "bf16": 1e12}, "GPU multiplies more slowly in bf16 than in fp32"),
        (BF16, ""),
    ],
    ids=["has fp32 alone", "has fp16 and no bf16", "has a slower bf16", "has a faster bf16"],
)
def test_bf16_is_advised_on_a_device_that(rates: dict[str, float], says: str) -> None:
    kind = replace(T4, name="GPU", peak_flops=rates)
    work = trained()
    facts = Facts({"GPU": kind}, totals={"GPU": 1})
    advice = one(asked(work, configuration(GPU=1), halved(work, "bf16"), facts=facts), "bf16")
    assert (advice.helps, advice.alternative.refused) == (not says, says)
    if not says:
        assert advice.gain_percent is not None and advice.gain_percent > 3


@pytest.mark.parametrize(
    ("rates", "offered"),
    [(BF16 | {"fp16": 80e12}, {"bf16"}), ({"fp32": 8e12, "fp16": 64e12}, {"bf16", "fp16"})],
    ids=["bf16 is as fast: fp16 is not offered", "bf16 is not there: fp16 is"],
)
def test_of_two_precisions_the_safer(rates: dict[str, float], offered: set[str]) -> None:
    work = trained()
    facts = Facts({"GPU": replace(T4, name="GPU", peak_flops=rates)}, totals={"GPU": 1})
    found = asked(work, configuration(GPU=1), halved(work, "bf16"), halved(work, "fp16"), facts=facts)
    named = {each.alternative.work.precision for each in found if each.alternative.work is not None} - {"fp32"}
    assert named == offered


def test_a_variant_that_cannot_be_traced_says_why() -> None:
    found = asked(trained(), configuration(T4=1), Variant("fp16", None, "an operator has no 16-bit kernel"))
    advice = one(found, "fp16")
    assert not advice.helps and advice.after is None and advice.gain_s is None
    assert advice.reason == "an operator has no 16-bit kernel"


def test_checkpointing_is_advised_where_it_makes_the_model_fit() -> None:
    work = trained(LARGE)
    found = asked(work, configuration(T4=1), checkpointed(work))
    advice = one(found, "checkpointing")
    assert advice.before.infeasible is not None and advice.before.infeasible.code == "memory"
    assert advice.makes_it_fit and advice.helps and advice.gain_s is None
    assert advice.alternative.change == "gradient checkpointing"
    assert advice.after is not None and advice.after.memory_bytes is not None
    assert advice.after.memory_bytes < 16e9 < (advice.before.memory_bytes or 0.0)
    fitting = [each.makes_it_fit for each in found]
    assert fitting == sorted(fitting, reverse=True)
    assert one(found, "micro-batches (2").makes_it_fit
    assert one(found, "more shards (2)").makes_it_fit
    assert "too much" in one(found, "compile").reason


def test_checkpointing_costs_time_where_everything_fits() -> None:
    work = trained()
    advice = one(asked(work, configuration(T4=1), checkpointed(work)), "checkpointing")
    assert not advice.helps and advice.gain_s is not None and advice.gain_s < 0


def test_checkpointing_takes_micro_batches_where_it_is_not_enough_alone() -> None:
    work = trained(LARGE)
    variant = checkpointed(work)
    assert variant.work is not None and variant.work.profile is not None
    wide = replace(variant.work.profile, activation_bytes=Volume(per_sample=(0.0, 38e6, 0.0)))
    less = Variant("checkpointing", replace(variant.work, profile=wide))
    advice = one(asked(work, configuration(T4=1), less), "checkpointing")
    assert advice.makes_it_fit and advice.alternative.change == "gradient checkpointing and 2 micro-batches"


def test_compiling_fuses_element_wise_operators_and_nothing_else() -> None:
    work = replace(trained(), host_profile=HEAVY)
    fused = compiled(work)
    for profile in (fused.profile, fused.host_profile):
        assert profile is not None
        for part, before in ((profile.forward, HEAVY.forward), (profile.backward, HEAVY.backward)):
            assert part["matmul"] == before["matmul"]
            moved = before["elementwise"].moved_bytes.at(10, 50)
            assert part["elementwise"].moved_bytes.at(10, 50) == pytest.approx(FUSED_ELEMENTWISE * moved)
            assert part["elementwise"].launches == pytest.approx(FUSED_ELEMENTWISE * before["elementwise"].launches)
    advice = one(asked(trained(), configuration(T4=1)), "compile")
    assert advice.helps and not advice.available and "Ivanov" in advice.alternative.assumption
    assert advice.gain_percent is not None and 0 < advice.gain_percent < 100 * (1 - FUSED_ELEMENTWISE)


@pytest.mark.parametrize(("precision", "left"), [("fp32", 0.25), ("fp16", 0.5)])
def test_int8_weights_are_a_byte_each(precision: str, left: float) -> None:
    narrow = quantised(applied(precision=precision))
    assert narrow.precision == "int8" and narrow.profile is not None
    moved, before = narrow.profile.forward["matmul"].moved_bytes, HEAVY.forward["matmul"].moved_bytes
    assert moved.constant[0] == left * before.constant[0] and moved.per_sample == before.per_sample
    assert narrow.profile.forward["elementwise"] == HEAVY.forward["elementwise"]


def test_int8_is_for_inference_on_what_has_a_rate_for_it() -> None:
    int8 = replace(T4, name="GPU", peak_flops=dict(T4.peak_flops) | {"int8": 130e12})
    facts = Facts({"GPU": int8}, totals={"GPU": 1})
    advice = one(asked(applied(), configuration(GPU=1), facts=facts), "int8")
    assert advice.helps and not advice.available
    refused = one(asked(applied(), configuration(T4=1)), "int8")
    assert not refused.helps and refused.reason == "no int8 rate is known of T4"
    assert not [each for each in asked(trained(), configuration(T4=1)) if "int8" in each.alternative.change]


def test_batches_stay_within_the_rows_there_are() -> None:
    found = asked(inference(samples=40.0, batch_size=16, profile=HEAVY), configuration(T4=2))
    assert not [each for each in found if "larger batches" in each.alternative.change]
    assert one(found, "smaller batches").alternative.work is not None


def test_counts_stay_within_what_the_cluster_has() -> None:
    counts = {
        each.alternative.configuration.devices
        for each in asked(trained(), configuration(T4=4))
        if "shards" in each.alternative.change
    }
    assert counts and max(counts) < 4


def test_an_unpriced_type_gains_no_dollars_and_an_unknown_speed_no_seconds() -> None:
    odd = DeviceType("Z9", "gpu", price_usd_h=1.0)
    cheap = replace(T4, name="GPU", price_usd_h=None)
    facts = Facts({"T4": T4, "Z9": odd, "GPU": cheap}, totals={"T4": 1, "Z9": 1, "GPU": 1})
    found = asked(trained(), configuration(T4=1), facts=facts)
    unknown, unpriced = one(found, "Z9"), one(found, "GPU")
    assert unknown.gain_s is None and not unknown.helps and unknown.reason == "no rates are known of Z9"
    assert unpriced.gain_usd is None and unpriced.gain_s == pytest.approx(0.0) and not unpriced.helps


def test_several_types_together_are_weighed_against_each_alone() -> None:
    changes = {each.alternative.change for each in asked(applied(), configuration(T4=2, A100=1))}
    assert {"T4 x3", "A100 x1", "cpu x3"} <= changes
    assert not [change for change in changes if "replicas" in change]


def test_the_gain_of_a_longer_run_leaves_start_up_out() -> None:
    advice = one(asked(replace(trained(), samples=10.0), configuration(T4=1)), "compile")
    assert advice.after is not None and advice.gain_percent is not None and advice.step_gain_percent is not None
    before, after = advice.before.breakdown, advice.after.breakdown
    assert before is not None and after is not None and before.startup_s == after.startup_s > 0
    work_s = before.compute_s + before.memory_s + before.launch_s
    left_s = after.compute_s + after.memory_s + after.launch_s
    assert advice.step_gain_percent == pytest.approx(100 * (1 - left_s / work_s))
    assert advice.step_gain_percent > advice.gain_percent
