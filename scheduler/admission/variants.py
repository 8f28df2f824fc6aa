"""The same work with its model traced another way: another precision, gradient checkpointing. What `raywise profile`
compares; reads models' configs and traces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from workloads.loading import Submission, resolve_references
from workloads.spec import BatchInfer, Precision, Train

from ..estimate.alternatives import Variant
from ..estimate.model_profile import Operator, Untraceable, profile_model, read_config, trace_config
from ..estimate.work import Work
from .shapes import Promised, local_model

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")


def model_references(submission: Submission) -> Mapping[str, str]:
    """The model of each step that runs a built-in body on one: where it is written by an earlier step, the model that
    that step starts from."""
    promised, outputs, found = Promised(), {}, {}
    for step in submission.steps:
        outputs[step.name] = step.output or str(Path("/raywise-plan") / step.name / "output")
        spec = resolve_references(step, outputs)
        if not isinstance(spec, Train | BatchInfer) or spec.entrypoint is not None or spec.model is None:
            continue
        found[step.name] = promised.model(spec.model)
        if isinstance(spec, Train):
            promised.models[outputs[step.name].rstrip("/")] = found[step.name]
    return found


def variants(work: Work, reference: str) -> list[Variant]:
    """The other precisions and, for training, gradient checkpointing. `work` has a profile of the same model."""
    found = [_traced(work, reference, name, name, False) for name in PRECISIONS if name != work.precision]
    if work.training and work.profile is not None and not work.profile.checkpointed:
        found.append(_traced(work, reference, "checkpointing", _precision(work), True))
    return found


def _precision(work: Work) -> Precision:
    return next(name for name in PRECISIONS if name == work.precision)


def _traced(
    work: Work,
    reference: str,
    name: Literal["fp32", "bf16", "fp16", "checkpointing"],
    precision: Precision,
    checkpointing: bool,
) -> Variant:
    try:
        profile, host_profile = (
            profile_model(
                local_model(reference),
                training=work.training,
                precision=precision,
                checkpointing=checkpointing,
                accelerator=accelerator,
            )
            for accelerator in (True, False)
        )
    except Untraceable as error:
        return Variant(name, None, f"the model cannot be traced so ({error})")
    on_host = host_profile if work.host_profile is not None else None
    return Variant(name, replace(work, precision=precision, profile=profile, host_profile=on_host))


def traced_operators(work: Work, reference: str, *, host: bool) -> Sequence[Operator]:
    """The operators that `work`'s profile is the sum of: on a host where it has a path of its own there."""
    from ..estimate.tracing import Variant as Traced

    accelerator = not (host and work.host_profile is not None)
    variant = Traced(work.training, _precision(work), False, accelerator, "encoder")
    return trace_config(read_config(local_model(reference)), variant).operators
