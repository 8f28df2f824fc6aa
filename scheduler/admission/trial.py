"""A submission's own first steps, as a pipeline of trials: what `raywise calibrate FILE` runs. Pure.

Every training and batch-inference step with a built-in model becomes one short workload for each device type it may
run on. No output path of the user's is written to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workloads.loading import REFERENCE, Submission
from workloads.quantities import exact_usd_text, usd_text
from workloads.spec import BatchInfer, Preprocess, Train, WorkloadSpec

MAX_NAME = 48
LEAST_BATCHES = 8
"""Of a batch-inference trial: its first two blocks, of a batch each, warm up and are not timed
(`workloads.bodies.infer`). Six are then timed, in several blocks where a batch takes a twentieth of a second."""
_SHELL_TEXT = re.compile(r"\$\{[A-Za-z_]\w*\}")


@dataclass(frozen=True)
class Devices:
    """What trials may run on."""

    allowed: Mapping[str, Sequence[str]]
    """The device types of each step that are there."""
    totals: Mapping[str, int]
    on_host: Collection[str] = ()
    """Types that are the host's cores, or emulated on them: their trials would take speed from each other, and run one
    after the other."""


@dataclass(frozen=True)
class Limits:
    """How short a trial is."""

    steps: int
    rows: int


@dataclass(frozen=True)
class Trial:
    """The pipeline to submit, as a spec, and what became of the steps."""

    pipeline: dict[str, Any]
    trials: Mapping[str, tuple[str, ...]]
    """Step -> its trials."""
    left_out: Mapping[str, str]
    """Step or trial -> why."""
    budgets: Mapping[str, str] = field(default_factory=dict)
    """Step, or the pipeline -> what its trials may cost."""


@dataclass
class _Draft:
    steps: list[dict[str, Any]] = field(default_factory=list)
    trials: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    budgets: dict[str, str] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    """Step -> the workload whose output later steps use."""
    names: set[str] = field(default_factory=set)
    """All names that are taken."""
    last_on_host: str | None = None


def trial(submission: Submission, devices: Devices, limits: Limits, refused: Mapping[str, str] | None = None) -> Trial:
    """The trials of a submission. `refused` names trials that cannot run (too large for a device, too dear), with the
    reason. Together they keep to the budgets of the submission and of its steps."""
    draft = _Draft(left_out=dict(refused or {}), names={step.name for step in submission.steps})
    for step in submission.steps:
        reason = _left_out(step, draft.stand_ins)
        if reason is not None:
            draft.left_out[step.name] = reason
        elif isinstance(step, Preprocess):
            draft.steps.append(_short(step, step.name, {}, draft.stand_ins))
            draft.stand_ins[step.name] = step.name
        elif isinstance(step, Train | BatchInfer):
            _add_trials(draft, step, devices, limits)
    name = f"{submission.name[: MAX_NAME - 6].rstrip('-')}-trial"
    pipeline: dict[str, Any] = {"kind": "pipeline", "name": name, "steps": draft.steps}
    if submission.budget_usd is not None:
        pipeline["budget_usd"] = submission.budget_usd
        draft.budgets[submission.name] = f"all trials together keep to its {exact_usd_text(submission.budget_usd)}"
    return Trial(pipeline, draft.trials, draft.left_out, draft.budgets)


def _left_out(step: WorkloadSpec, stand_ins: Mapping[str, str]) -> str | None:
    """Why a step has no trial, or None."""
    if not isinstance(step, Preprocess | Train | BatchInfer):
        return f"a {step.kind} step has no short form"
    if step.entrypoint is not None:
        return "it is your own code: only whole runs of it are measured"
    missing = [need for need in step.needs if need not in stand_ins]
    return f"it needs {missing[0]}, which is left out" if missing else None


def _add_trials(draft: _Draft, step: Train | BatchInfer, devices: Devices, limits: Limits) -> None:
    wanted = {}
    for device, count in _configurations(step, devices):
        name = _name(step.name, device, count, draft.names)
        draft.names.add(name)
        if name not in draft.left_out:
            wanted[name] = device, count
    changes = _limited(step, limits) | _shared_budget(draft, step, len(wanted))
    for name, (device, count) in wanted.items():
        short = _short(step, name, changes, draft.stand_ins)
        short["resources"] = _resources(step, device, count)
        if device in devices.on_host:
            before = [draft.last_on_host] if draft.last_on_host else []
            short["needs"] = list(dict.fromkeys([*short["needs"], *before]))
            draft.last_on_host = name
        draft.steps.append(short)
    if wanted:
        draft.trials[step.name], draft.stand_ins[step.name] = tuple(wanted), next(iter(wanted))
    else:
        draft.left_out[step.name] = "no device it may run on is there"


def _configurations(step: Train | BatchInfer, devices: Devices) -> Iterator[tuple[str, int]]:
    """One device of each type; for training also two, so that the exchange of gradients is measured."""
    for device in devices.allowed.get(step.name, ()):
        yield device, 1
        if isinstance(step, Train) and devices.totals.get(device, 0) >= 2:
            yield device, 2


def _name(step: str, device: str, count: int, taken: Collection[str]) -> str:
    """`<step>-<type>-x<count>`; a long step name is cut."""
    end = f"-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-x{count}"[-MAX_NAME + 8 :]
    name, number = f"{step[: MAX_NAME - len(end)].rstrip('-')}{end}", 2
    while name in taken:
        tail = f"-{number}{end}"
        name, number = f"{step[: MAX_NAME - len(tail)].rstrip('-')}{tail}", number + 1
    return name


def _shared_budget(draft: _Draft, step: Train | BatchInfer, trials: int) -> dict[str, Any]:
    """An equal part of the step's budget for each of its trials."""
    if step.budget_usd is None or not trials:
        return {}
    share = step.budget_usd / trials
    each = "its trial keeps to" if trials == 1 else f"each of its trials keeps to {usd_text(share)},"
    draft.budgets[step.name] = f"{each} {exact_usd_text(step.budget_usd)}{' together' if trials > 1 else ''}"
    return {"budget_usd": share}


def _limited(step: Train | BatchInfer, limits: Limits) -> dict[str, Any]:
    if isinstance(step, BatchInfer):
        rows = max(limits.rows, LEAST_BATCHES * step.batch_size)
        return {"max_rows": min(rows, step.max_rows or rows)}
    most = step.text_classification.max_steps or limits.steps
    return {"hyperparameters": {**step.hyperparameters, "max_steps": min(limits.steps, most)}}


def _resources(step: Train | BatchInfer, device: str, count: int) -> dict[str, Any]:
    """Pinned to one type; what a shard wants of its host stays."""
    wanted = step.resources.model_dump(mode="json", exclude_defaults=True)
    kept = {name: value for name, value in wanted.items() if name.endswith("_per_shard")}
    return {**kept, "devices": [device], "count": count}


def _short(step: WorkloadSpec, name: str, changes: Mapping[str, Any], stand_ins: Mapping[str, str]) -> dict[str, Any]:
    """A step as a spec: its output in the service's own folder, no limit of time that is for the whole of it,
    references to those that stand in for other steps."""
    data = step.model_dump(mode="json", exclude_defaults=True)
    for field_name in ("output", "deadline", "expected_runtime", "needs"):
        data.pop(field_name, None)
    needs = list(dict.fromkeys(stand_ins[need] for need in step.needs))
    texts = _with_stand_ins(data, stand_ins)
    return {**texts, "kind": step.kind, "name": name, "needs": needs, **changes}


def _with_stand_ins(value: Any, stand_ins: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_stand_ins(item, stand_ins) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_stand_ins(item, stand_ins) for item in value]
    if not isinstance(value, str):
        return value
    # What is no parameter any more must not be taken for one when the pipeline is read again.
    text = _SHELL_TEXT.sub(lambda match: f"${match[0]}", value)
    return REFERENCE.sub(lambda match: f"${{{stand_ins.get(match[1], match[1])}.output}}", text)
