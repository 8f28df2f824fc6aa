"""What may be changed of a workload after it was submitted, and whether a change is right: by the models of the spec
itself, and against the cluster. Decides and stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cluster.types import Snapshot
from workloads.errors import Problem, SpecError
from workloads.loading import KINDS
from workloads.quantities import exact_usd_text, usd_text
from workloads.refusals import nearest, problem_of
from workloads.spec import WorkloadSpec

from ..estimate.calibration import Calibration
from ..estimate.candidates import estimate_table
from ..store import Record
from . import checks

CHANGEABLE = ("priority", "deadline", "budget_usd", "objective", "queue", "resources")
"""Fields of a spec; of `resources` only `count`. A deadline is that long from the moment of the change on."""
LONGEST_S = 10 * 365 * 86400 - 1.0
"""A spec has no longer deadline."""
OF_ALL_STEPS = ("priority", "deadline", "objective", "queue")
"""What a change of a whole pipeline may set."""


@dataclass(frozen=True)
class Change:
    """What to store of one workload, and what it is in words: each field before and after."""

    workload_id: str
    fields: Mapping[str, Any]
    told: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def check_names(asked: Mapping[str, Any], *, pipeline: bool) -> None:
    """Raise SpecError for every field that cannot be changed, or is none."""
    problems = (
        [] if asked else [Problem("nothing is to be changed", "body", f"can be changed: {', '.join(CHANGEABLE)}")]
    )
    for name in asked:
        if name not in CHANGEABLE:
            problems.append(_not_changeable(name))
        elif pipeline and name not in OF_ALL_STEPS:
            problems.append(Problem("is changed of one workload, not of a pipeline", name, "name one of its steps"))
    resources = asked.get("resources")
    if isinstance(resources, Mapping):
        others = [name for name in resources if name != "count"]
        problems += [Problem("cannot be changed: only count can", f"resources.{name}") for name in others]
        problems += [] if resources else [Problem("nothing is to be changed", "resources", "set resources.count")]
    elif "resources" in asked:
        problems.append(Problem("expected a mapping of fields", "resources", "such as {count: 1..4}"))
    if problems:
        raise SpecError(problems)


def _not_changeable(name: str) -> Problem:
    known = {each for model in KINDS.values() for each in model.model_fields}
    if name in known:
        return Problem("cannot be changed after it was submitted", name, f"can be changed: {', '.join(CHANGEABLE)}")
    return Problem(f"unknown field {name!r}", name, nearest(name, CHANGEABLE))


def change(
    record: Record,
    asked: Mapping[str, Any],
    *,
    snapshot: Snapshot,
    calibration: Calibration,
    spent_usd: float | None,
    now_s: float,
) -> Change:
    """The change of one workload. `spent_usd` is what it has cost so far. Raises SpecError with everything wrong."""
    spec = _changed_spec(record, asked)
    _check_budget(spec, asked, spent_usd)
    if "resources" in asked or not record.attempt:
        _check_against_cluster(record, spec, asked, snapshot, calibration)
    plain = spec.model_dump(mode="json")
    stored: dict[str, Any] = {}
    if "deadline" in asked:
        until_s = None if spec.deadline is None else now_s + spec.deadline
        stored["deadline_s"] = until_s
        plain["deadline"] = None if until_s is None else min(until_s - record.submitted_s, LONGEST_S)
    if "budget_usd" in asked:
        stored["budget_usd"] = spec.budget_usd
    return Change(record.id, {"spec": {**record.spec, **plain}, **stored}, _told(record.spec, plain, asked))


def _told(before: Mapping[str, Any], after: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    told = {name: (before.get(name), after.get(name)) for name in asked if name != "resources"}
    if "resources" in asked:
        counts = [(each.get("resources") or {}).get("count") for each in (before, after)]
        told["resources.count"] = (counts[0], counts[1])
    return told


def _changed_spec(record: Record, asked: Mapping[str, Any]) -> WorkloadSpec:
    """Validated as when it was submitted; the rest of the spec is as it is."""
    model = KINDS[record.kind]
    resources = {**dict(record.spec.get("resources") or {}), **dict(asked.get("resources") or {})}
    data = {**record.spec, **asked, "resources": resources}
    try:
        return model.model_validate(data)  # type: ignore[return-value]
    except ValidationError as error:
        problems = [problem_of(model, KINDS, data, item, "") for item in error.errors()]
        raise SpecError(list(dict.fromkeys(problems))) from None


def _check_budget(spec: WorkloadSpec, asked: Mapping[str, Any], spent_usd: float | None) -> None:
    if "budget_usd" not in asked or spec.budget_usd is None or spent_usd is None or spent_usd < spec.budget_usd:
        return
    message = f"it has cost {usd_text(spent_usd)} already, {exact_usd_text(spec.budget_usd)} is not above that"
    raise SpecError(Problem(message, "budget_usd", "give it more, or pause or cancel it"))


def _check_against_cluster(
    record: Record, spec: WorkloadSpec, asked: Mapping[str, Any], snapshot: Snapshot, calibration: Calibration
) -> None:
    """There must be a configuration; of one that has not begun also one within new limits."""
    if record.work is None:
        return
    estimates = estimate_table(record.work, spec.resources, snapshot, calibration)
    problems = checks.feasibility(estimates, snapshot) if "resources" in asked else []
    if not problems and not record.attempt:
        limits = {name: getattr(spec, name) if name in asked else None for name in ("deadline", "budget_usd")}
        problems = checks.limits(spec.model_copy(update=limits), estimates)
    if problems:
        raise SpecError(problems)
