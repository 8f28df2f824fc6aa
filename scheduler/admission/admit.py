"""From a submission to workloads that may be stored, or to the table of a plan: one way for both, so that what is
planned is what would run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.catalog import Catalog
from cluster.types import Snapshot
from workloads.errors import Problem, SpecError
from workloads.loading import Submission, resolve_references
from workloads.quantities import exact_usd_text, usd_text
from workloads.remote import is_remote
from workloads.spec import WorkloadSpec

from ..estimate.calibration import Calibration
from ..estimate.candidates import estimate_table
from ..estimate.work import Work
from ..policy import Policy
from ..store import Record
from ..types import Estimate, Explanation, Situation, WorkloadView
from . import checks
from .outputs import inside_home, local_output, taken, too_long_paths, unpublishable
from .profiler import FileProfiler
from .shapes import Promised

_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


@dataclass(frozen=True)
class StepPlan:
    """One step as it would run on an idle cluster."""

    name: str
    kind: str
    needs: tuple[str, ...]
    work: Work
    estimates: tuple[Estimate, ...]
    explanation: Explanation


@dataclass(frozen=True)
class _Admitted:
    spec: WorkloadSpec
    work: Work
    estimates: tuple[Estimate, ...]
    publish: str | None = None


def new_id(name: str) -> str:
    """The name with five random characters."""
    return f"{name}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"


def admit(
    submission: Submission,
    *,
    runs: Path,
    catalog: Catalog,
    snapshot: Snapshot,
    calibration: Calibration,
    now_s: float,
    home: Path | None = None,
) -> list[Record]:
    """The workloads of a submission, ready to be stored. `home`: the service's own folder, which no workload touches.
    Raises SpecError with everything that is wrong."""
    root = new_id(submission.name)
    ids = {step.name: f"{root}-{step.name}" if submission.is_pipeline else root for step in submission.steps}
    admitted = _check_all(submission, ids, runs, catalog, snapshot, calibration, home=home)
    records = []
    for item in admitted:
        spec, workload_id = item.spec, ids[item.spec.name]
        deadlines = [limit for limit in (spec.deadline, submission.deadline) if limit is not None]
        assert spec.output is not None
        records.append(
            Record(
                id=workload_id,
                name=spec.name,
                kind=spec.kind,
                spec=spec.model_dump(mode="json"),
                state="pending",
                submitted_s=now_s,
                output=spec.output,
                publish=item.publish,
                run_dir=str(runs / workload_id),
                pipeline_id=root if submission.is_pipeline else None,
                needs=tuple(ids[need] for need in spec.needs),
                code_path=str(runs / workload_id / "code.zip") if spec.code else None,
                deadline_s=now_s + min(deadlines) if deadlines else None,
                budget_usd=spec.budget_usd,
                work=item.work,
                estimates=item.estimates,
            )
        )
    return records


def plan_steps(
    submission: Submission,
    policy: Policy,
    *,
    catalog: Catalog,
    snapshot: Snapshot,
    calibration: Calibration,
    home: Path | None = None,
) -> list[StepPlan]:
    """What the policy would choose for each step if the cluster were idle. Raises SpecError like `admit`."""
    ids = {step.name: step.name for step in submission.steps}
    runs = Path("/raywise-plan")  # nothing is written: outputs only need names
    admitted = _check_all(submission, ids, runs, catalog, snapshot, calibration, with_disk=False, home=home)
    plans = []
    for item in admitted:
        view = WorkloadView(
            item.spec.name,
            item.spec.name,
            objective=item.spec.objective,
            deadline_s=item.spec.deadline,
            budget_usd=item.spec.budget_usd,
            estimates=item.estimates,
        )
        plan = policy.plan(Situation(0, 0.0, 0, _idle(snapshot), (view,)))
        explanation = plan.explanations[item.spec.name]
        needs = tuple(item.spec.needs)
        plans.append(StepPlan(item.spec.name, item.spec.kind, needs, item.work, item.estimates, explanation))
    return plans


def _idle(snapshot: Snapshot) -> Snapshot:
    nodes = tuple(
        replace(node, devices=tuple(replace(devices, free=devices.total) for devices in node.devices))
        for node in snapshot.nodes
    )
    return replace(snapshot, nodes=nodes)


def _check_all(
    submission: Submission,
    ids: Mapping[str, str],
    runs: Path,
    catalog: Catalog,
    snapshot: Snapshot,
    calibration: Calibration,
    with_disk: bool = True,
    home: Path | None = None,
) -> list[_Admitted]:
    promised = Promised()
    profiler = FileProfiler(promised)
    outputs: dict[str, str] = {}
    published: dict[str, str | None] = {}
    admitted: list[_Admitted] = []
    problems: list[Problem] = []
    for step in submission.steps:
        prefix = f"steps.{step.name}." if submission.is_pipeline else ""
        run_dir = runs / ids[step.name]
        others = dict(outputs)
        url = step.output if step.output is not None and is_remote(step.output) else None
        named = None if url else step.output
        outputs[step.name] = named or str(run_dir / "output")
        if set(step.needs) & {problem_step(problem) for problem in problems}:
            continue  # what it needs is already refused
        try:
            spec = resolve_references(step, outputs)
            _refuse(unpublishable(url, published) if url else [])
            published[step.name] = url
            folder = local_output((None if url else spec.output) or outputs[step.name])
            if isinstance(folder, Problem):
                raise SpecError(folder)
            outputs[step.name] = folder
            promised.outputs.add(folder)
            spec = spec.model_copy(update={"output": folder})
            _refuse(too_long_paths(spec))
            _refuse(inside_home(spec, home, url or (folder if named else None)) if home is not None else [])
            if named is not None:  # one of our own is a new folder
                _refuse(taken(spec, others))
            item = replace(_check(spec, profiler, catalog, snapshot, calibration), publish=url)
            if with_disk:
                folders = {"output": outputs[step.name], "checkpoints": str(run_dir)}
                _refuse(checks.disk(item.work, folders))
            admitted.append(item)
        except SpecError as error:
            problems += [
                replace(problem, field=prefix + problem.field, file=problem.file or submission.file)
                for problem in error.problems
            ]
    if not problems and submission.is_pipeline:
        problems += _pipeline_limits(submission, admitted)
    _refuse(problems)
    return admitted


def problem_step(problem: Problem) -> str:
    """The name of the step a problem is about, or an empty text."""
    parts = problem.field.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "steps" else ""


def _check(
    spec: Any, profiler: FileProfiler, catalog: Catalog, snapshot: Snapshot, calibration: Calibration
) -> _Admitted:
    resources = checks.canonical_resources(spec.resources, catalog, snapshot)
    if isinstance(resources, Problem):
        raise SpecError(resources)
    _refuse(checks.code(spec))
    spec = spec.model_copy(update={"resources": resources})
    work = profiler.work(spec, {})
    estimates = estimate_table(work, resources, snapshot, calibration)
    _refuse(checks.feasibility(estimates, snapshot))
    _refuse(checks.limits(spec, estimates))
    return _Admitted(spec, work, estimates)


def _pipeline_limits(submission: Submission, admitted: list[_Admitted]) -> list[Problem]:
    """The pipeline's own budget and deadline against the least its steps can cost and take one after the other."""
    problems = []
    cheapest = [_least(item, "money") for item in admitted]
    fastest = [_least(item, "seconds") for item in admitted]
    if submission.budget_usd is not None and None not in cheapest:
        total = sum(value for value in cheapest if value is not None)
        if total > submission.budget_usd:
            message = f"no configuration of the steps costs {exact_usd_text(submission.budget_usd)} or less together"
            problems.append(Problem(message, "budget_usd", f"the cheapest is about {usd_text(total)}", submission.file))
    if submission.deadline is not None and None not in fastest:
        longest = max(value for value in fastest if value is not None)
        if longest > submission.deadline:
            message = f"no configuration is done within {submission.deadline:g} s"
            problems.append(
                Problem(message, "deadline", f"one step alone takes about {longest:.0f} s", submission.file)
            )
    return problems


def _least(item: _Admitted, what: str) -> float | None:
    possible = [estimate for estimate in item.estimates if estimate.infeasible is None]
    values = [(e.money.total_usd if e.money is not None else None) if what == "money" else e.seconds for e in possible]
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise SpecError(problems)
