"""What could be changed about a workload, each as another `Work` on another configuration: `advice` estimates them all.
Pure.

Some come from the caller, who traced the model another way (precision, gradient checkpointing); the rest follow from
the volumes alone (compiled, quantised, other batches) or from the cluster (other counts, other device types).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..types import Configuration
from .cost_model import Facts
from .hardware import rates, weight_bytes
from .profile import OPERATOR_CLASSES, Cost, ModelProfile, OperatorClass, Pass, Volume
from .work import Work

FUSED_ELEMENTWISE = 0.7
"""What compiling leaves of the element-wise operators' bytes and launches. Ivanov et al. ("Data Movement Is All You
Need", MLSys 2021) take 22.91% off all the bytes that a BERT-large step moves, by fusion; our trace of that step
(batch 8, length 512) has 66% of its bytes in element-wise operators with fused attention and 81% without: 1 - 0.23 /
0.74. A chain of k kernels that becomes one loses as large a part of its launches."""
ASSUMED_COUNT = 8
"""Devices of a type that no cluster is known to have: those of one machine."""
LARGEST_BATCH = 4096
BATCH_TIMES = 4
"""Training batches are looked at up to so many times larger or smaller: further off it is another training run, whose
learning rate no rule carries over (Goyal et al., "Accurate, Large Minibatch SGD", 2017, and what came after it)."""
_MATMUL: OperatorClass = "matmul"
_PRODUCTS = OPERATOR_CLASSES.index(_MATMUL)


@dataclass(frozen=True)
class Variant:
    """The same work with its model traced another way, or why it could not be."""

    name: Literal["fp32", "bf16", "fp16", "checkpointing"]
    work: Work | None
    reason: str = ""


@dataclass(frozen=True)
class Alternative:
    """One thing changed. `refused` says why it is no help, whatever the arithmetic would say."""

    change: str
    configuration: Configuration
    work: Work | None
    setting: str = ""
    """How the user asks for it in YAML; empty where no field exists yet."""
    assumption: str = ""
    """What its numbers rest on beside the estimate, and what else it changes."""
    refused: str = ""


def alternatives(
    work: Work, configuration: Configuration, facts: Facts, variants: Sequence[Variant]
) -> Iterator[list[Alternative]]:
    """Everything that could be changed. Each list is of one change in several sizes, the nearest first."""
    yield from _traced(work, configuration, facts, variants)
    yield [_compiled(work, configuration)]
    if not work.training:
        yield [_quantised(work, configuration, facts)]
    yield from _batches(work, configuration)
    if work.training:
        yield from _gang(work, configuration)
    yield from _counts(work, configuration, facts)
    yield from _device_types(work, configuration, facts)


def _traced(
    work: Work, configuration: Configuration, facts: Facts, variants: Sequence[Variant]
) -> Iterator[list[Alternative]]:
    for variant in variants:
        if variant.name == "checkpointing":
            yield _checkpointed(variant, work, configuration)
        elif variant.name != work.precision and not _same_as_another(variant, configuration, facts, variants):
            yield [_precision(variant, work, configuration, facts)]


def _precision(variant: Variant, work: Work, configuration: Configuration, facts: Facts) -> Alternative:
    refused = variant.reason or _no_faster(configuration, facts, variant.name, work.precision)
    setting = f"precision: {variant.name}"
    care = "fp16 may overflow: bf16 is safer where there is one" if variant.name == "fp16" else ""
    return Alternative(f"compute in {variant.name}", configuration, variant.work, setting, care, refused)


def _same_as_another(variant: Variant, configuration: Configuration, facts: Facts, variants: Sequence[Variant]) -> bool:
    """fp16 where bf16 is offered and as fast: bf16 is the safer of the two."""
    if variant.name != "fp16" or "bf16" not in {each.name for each in variants}:
        return False
    kinds = [facts.device_types[name] for name, _ in configuration.groups]
    return all(kind.peak_flops.get("bf16", 0.0) >= kind.peak_flops.get("fp16", 0.0) for kind in kinds)


def _no_faster(configuration: Configuration, facts: Facts, precision: str, now: str) -> str:
    """Why a precision is no gain on these devices: they have no rate for it, or a lower one than for `now`."""
    for name, _ in configuration.groups:
        kind = facts.device_types[name]
        if precision != "fp32" and not (kind.peak_flops.get(precision) or kind.measured_flops.get(precision)):
            return f"no {precision} rate is known of {kind.label}"
        there, here = rates(kind, precision), rates(kind, now)
        if there is not None and here is not None and there.flops_s[_PRODUCTS] < here.flops_s[_PRODUCTS]:
            return f"{kind.label} multiplies more slowly in {precision} than in {now}"
    return ""


def _checkpointed(variant: Variant, work: Work, configuration: Configuration) -> list[Alternative]:
    """Gradient checkpointing, alone and with smaller and smaller micro-batches."""
    change = "gradient checkpointing"
    if variant.work is None:
        return [Alternative(change, configuration, None, refused=variant.reason)]
    cost = "runs the forward pass twice, keeps only what goes into each block"
    found = [Alternative(change, configuration, variant.work, assumption=cost)]
    for count in _micro_batches(work, configuration):
        changed = replace(variant.work, micro_batches=count)
        found.append(Alternative(f"{change} and {count} micro-batches", configuration, changed, assumption=cost))
    return found


def _compiled(work: Work, configuration: Configuration) -> Alternative:
    assumption = (
        f"element-wise bytes and launches fall to {FUSED_ELEMENTWISE:.0%} (Ivanov et al., 2021); "
        "compiling itself, often a minute, is not counted"
    )
    return Alternative("compile the model (torch.compile)", configuration, compiled(work), assumption=assumption)


def compiled(work: Work) -> Work:
    """The work with its element-wise operators fused."""

    def fused(name: OperatorClass, cost: Cost) -> Cost:
        if name != "elementwise":
            return cost
        return Cost(cost.flops, cost.moved_bytes.scaled(FUSED_ELEMENTWISE), cost.launches * FUSED_ELEMENTWISE)

    return _with_passes(work, fused)


def _quantised(work: Work, configuration: Configuration, facts: Facts) -> Alternative:
    refused = _no_faster(configuration, facts, "int8", work.precision) if work.precision != "int8" else "it is int8 now"
    assumption = "weights are one byte each and all products run at the int8 rate; accuracy has to be checked"
    return Alternative("int8 weights and products", configuration, quantised(work), "", assumption, refused)


def quantised(work: Work) -> Work:
    """The work with int8 weights: the bytes that products read whatever the batch shrink with the width."""
    width = weight_bytes("int8") / weight_bytes(work.precision)

    def narrow(name: OperatorClass, cost: Cost) -> Cost:
        moved = cost.moved_bytes
        if name != _MATMUL:
            return cost
        return replace(cost, moved_bytes=replace(moved, constant=Volume(moved.constant).scaled(width).constant))

    return replace(_with_passes(work, narrow), precision="int8")


def _with_passes(work: Work, change: Callable[[OperatorClass, Cost], Cost]) -> Work:
    """The work with every operator class of its profiles changed by `change(class, cost)`."""

    def passed(part: Pass) -> Mapping[OperatorClass, Cost]:
        return {name: change(name, cost) for name, cost in part.items()}

    def changed(profile: ModelProfile | None) -> ModelProfile | None:
        if profile is None:
            return None
        return replace(profile, forward=passed(profile.forward), backward=passed(profile.backward))

    return replace(work, profile=changed(work.profile), host_profile=changed(work.host_profile))


def _batches(work: Work, configuration: Configuration) -> Iterator[list[Alternative]]:
    """Larger and smaller batches; no larger than the rows there are."""
    field = "hyperparameters.batch_size" if work.training else "batch_size"
    rows = work.samples or 0.0
    most = min(rows, BATCH_TIMES * work.batch_size) if work.training else rows / configuration.devices
    least = max(configuration.devices, work.batch_size // BATCH_TIMES) if work.training else 1
    larger = _doubled(work.batch_size * 2, min(int(most), LARGEST_BATCH))
    halved = (work.batch_size >> shift for shift in range(1, work.batch_size.bit_length()))
    smaller = [size for size in halved if size >= least]
    care = "other updates: the learning rate may have to change" if work.training else ""
    for word, sizes in (("larger", larger), ("smaller", smaller)):
        yield [
            Alternative(
                f"{word} batches ({size} rows)",
                configuration,
                replace(work, batch_size=size),
                f"{field}: {size}",
                care,
            )
            for size in sizes
        ]


def _gang(work: Work, configuration: Configuration) -> Iterator[list[Alternative]]:
    """Other ways for a training gang to share the work."""
    fewer = [count for count in (1, 2, 4, 8, 16, 32) if count < work.micro_batches]
    yield [_in_parts(work, configuration, count) for count in reversed(fewer)]
    yield [_in_parts(work, configuration, count) for count in _micro_batches(work, configuration)]
    if configuration.devices > 1 and work.strategy == "ddp":
        cost = "each shard keeps a part of weights, gradients and optimizer state"
        yield [Alternative("full sharding (FSDP)", configuration, replace(work, strategy="fsdp"), assumption=cost)]


def _in_parts(work: Work, configuration: Configuration, count: int) -> Alternative:
    word = "smaller" if count > work.micro_batches else "larger"
    changed = replace(work, micro_batches=count)
    return Alternative(f"{word} micro-batches ({count} to a step)", configuration, changed)


def _micro_batches(work: Work, configuration: Configuration) -> list[int]:
    """More parts of a shard's batch than now, down to one row each."""
    return _doubled(work.micro_batches * 2, work.batch_size // configuration.devices)


def _doubled(first: int, most: int) -> list[int]:
    sizes = []
    while first <= most:
        sizes.append(first)
        first *= 2
    return sizes


def _counts(work: Work, configuration: Configuration, facts: Facts) -> Iterator[list[Alternative]]:
    """More and fewer devices of the type, where it is one type."""
    if len(configuration.groups) != 1:
        return
    name, now = configuration.groups[0]
    word = "shards" if work.training else "replicas"
    most = facts.totals.get(name, ASSUMED_COUNT)
    if work.training:
        most = min(most, work.batch_size)
    for less_or_more, counts in (("more", range(now + 1, most + 1)), ("fewer", range(now - 1, 0, -1))):
        yield [
            Alternative(
                f"{less_or_more} {word} ({count})",
                Configuration.of({name: count}),
                work,
                f"resources.count: {count}",
            )
            for count in counts
            if count <= 16 or count & (count - 1) == 0
        ]


def _device_types(work: Work, configuration: Configuration, facts: Facts) -> Iterator[list[Alternative]]:
    """As many devices of each other type that the cluster has."""
    here = {name for name, _ in configuration.groups}
    for name, kind in sorted(facts.device_types.items()):
        count = min(configuration.devices, facts.totals.get(name, configuration.devices))
        if here == {name} or count == 0 or kind.kind not in ("cpu", "gpu"):
            continue
        other = Configuration.of({name: count})
        setting = f"resources: {{devices: [{name}], count: {count}}}"
        refused = "" if rates(kind, work.precision) is not None else f"no rates are known of {kind.label}"
        yield [Alternative(f"{kind.label} x{count}", other, work, setting, refused=refused)]
