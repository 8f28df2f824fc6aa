"""`raywise profile`: where the time of each step with a model goes, operator by operator, and what would help. Uses
what a service of this home has learnt, and needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.types import CPU, DeviceType, Snapshot
from dashboards import profile_tables
from scheduler.admission import StepPlan, plan_steps
from scheduler.admission.checks import canonical_resources
from scheduler.admission.variants import model_references, traced_operators, variants
from scheduler.estimate.advice import Advice, advise
from scheduler.estimate.candidates import facts_of
from scheduler.estimate.cost_model import Facts
from scheduler.estimate.operators import StepTimes, step_times
from scheduler.estimate.work import Work
from scheduler.policy import create
from scheduler.service import views
from scheduler.types import Configuration, Estimate
from workloads.errors import Problem, SpecError
from workloads.loading import Submission, load_file
from workloads.spec import BatchInfer, Resources, Train, WorkloadSpec

from .common import CatalogOption, HomeOption, JsonFlag, SetOption, console, friendly, home_of, print_json
from .offline import OfflineCluster

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file with a workload or a pipeline.")]


def profile(
    file: FileArgument,
    set_: SetOption = None,
    step: Annotated[str | None, typer.Option(help="Only this step of a pipeline.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Look at this device type: one of the cluster, or any of the catalog.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Look at so many devices.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="Look at the cluster of this definition.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Operators to show.")] = 10,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Show where each step's time goes, by operator, what binds it, and what would help by how much."""
    with friendly():
        submission = load_file(file, set_ or [])
        place = OfflineCluster.of(cluster, home_of(home), catalog)
        answer = _Question(submission, place, step, device, count).answer()
    if json_:
        print_json(answer)
        return
    for line in profile_tables.everything(answer, top):
        console.print(line)


def _device_type(place: OfflineCluster, name: str) -> DeviceType:
    """The cluster's device type of this name, else the catalog's. Raises SpecError."""
    found = canonical_resources(Resources(devices=[name]), place.catalog, place.snapshot)
    if isinstance(found, Problem):
        raise SpecError(replace(found, field="--device"))
    assert isinstance(found.devices, list)
    return place.snapshot.device_types.get(found.devices[0]) or place.catalog.device(found.devices[0])


def _facts(place: OfflineCluster, device: DeviceType | None) -> Facts:
    """The cluster's; for a type that it does not have, the catalog's: all GPUs with a price and rates."""
    facts = facts_of(place.snapshot)
    if device is None or device.name in facts.device_types:
        return facts
    priced = {kind.name: kind for kind in place.catalog.device_types.values() if kind.price_usd_h and kind.peak_flops}
    types = {name: kind for name, kind in priced.items() if kind.kind == "gpu"}
    types |= {name: kind for name, kind in facts.device_types.items() if name == CPU}
    totals = {name: total for name, total in facts.totals.items() if name == CPU}
    return replace(facts, device_types=types | {device.name: device}, devices_per_node={}, totals=totals)


@dataclass(frozen=True)
class _Question:
    """What was asked: which steps, on what."""

    submission: Submission
    place: OfflineCluster
    step: str | None
    device: str | None
    count: int | None

    def answer(self) -> dict[str, Any]:
        """All steps that were asked for. Raises SpecError."""
        self._check_step()
        device = None if self.device is None else _device_type(self.place, self.device)
        references = model_references(self.submission)
        plans = {plan.name: plan for plan in self._plans()}
        steps = [
            self._step(spec, plans[spec.name], references.get(spec.name), device)
            for spec in self.submission.steps
            if self.step in (None, spec.name)
        ]
        emulated = sorted(name for name, kind in self.place.snapshot.device_types.items() if kind.emulated)
        where = self.place.name if device is None or device.name in self.place.snapshot.device_types else "the catalog"
        return {"name": self.submission.name, "cluster": where, "emulated": emulated, "steps": steps}

    def _check_step(self) -> None:
        names = [spec.name for spec in self.submission.steps]
        if self.step is None or self.step in names:
            return
        close = get_close_matches(self.step, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
        raise SpecError(Problem(f"there is no step {self.step!r}", "--step", hint, self.submission.file))

    def _plans(self) -> list[StepPlan]:
        """What `raywise plan` would say. Where it would refuse, or a device is asked about: what it would say
        where there is room for anything. Raises SpecError for what is wrong with the spec itself."""
        if self.device is None:
            try:
                return self._planned(self.submission, self.place.snapshot)
            except SpecError as refused:
                try:
                    return self._planned(self.submission, _with_room(self.place.snapshot))
                except SpecError:
                    raise refused from None
        return self._planned(self._anywhere(), _with_room(self.place.snapshot))

    def _anywhere(self) -> Submission:
        """The submission with those steps free to run on any device whose own is being replaced."""
        free = {"resources": Resources(), "deadline": None, "budget_usd": None}
        steps = tuple(spec.model_copy(update=free) if self._asked(spec) else spec for spec in self.submission.steps)
        return replace(self.submission, steps=steps, deadline=None, budget_usd=None)

    def _asked(self, spec: WorkloadSpec) -> bool:
        return isinstance(spec, Train | BatchInfer) and spec.entrypoint is None and self.step in (None, spec.name)

    def _planned(self, submission: Submission, snapshot: Snapshot) -> list[StepPlan]:
        place = self.place
        policy = create("market")
        return plan_steps(submission, policy, catalog=place.catalog, snapshot=snapshot, calibration=place.calibration)

    def _step(
        self, spec: WorkloadSpec, plan: StepPlan, reference: str | None, device: DeviceType | None
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"name": spec.name, "kind": spec.kind, "message": ""}
        work = replace(plan.work, declared_s=None)
        if reference is None or work.profile is None or work.samples is None or work.tokens_per_sample is None:
            return answer | {"message": work.note if reference is not None and work.note else _no_model(spec)}
        facts, configuration = _facts(self.place, device), self._configuration(spec, plan, device)
        calibration = self.place.calibration
        times = [
            step_times(work, self._operators(work, reference, facts, name), name, number, facts, calibration)
            for name, number in configuration.groups
        ]
        found = advise(work, configuration, facts, calibration, variants(work, reference))
        answer |= _work_view(work, reference) | {"estimate": _estimate(found[0].before)}
        answer["devices"] = [_device(each, facts) for each in times if each is not None]
        answer["advice"] = [_advice(each) for each in found if each.helps]
        answer["would_not_help"] = [_advice(each) for each in found if not each.helps]
        return answer

    def _configuration(self, spec: WorkloadSpec, plan: StepPlan, device: DeviceType | None) -> Configuration:
        """What was asked for, and for the rest what the plan says."""
        chosen = plan.explanation.chosen or _any(plan)
        if device is not None:
            return Configuration.of({device.name: self.count or spec.resources.count_range.low})
        if self.count is None:
            return chosen
        if len(chosen.groups) > 1:
            names = ", ".join(name for name, _ in chosen.groups)
            raise SpecError(
                Problem(f"{spec.name} would use several types together: {names}", "--count", "add --device")
            )
        return Configuration.of({chosen.groups[0][0]: self.count})

    @staticmethod
    def _operators(work: Work, reference: str, facts: Facts, name: str) -> Any:
        kind = facts.device_types[name]
        return traced_operators(work, reference, host=kind.kind == "cpu" or kind.emulated)


def _any(plan: StepPlan) -> Configuration:
    """Where the plan takes none (no speed is known): the first that is possible."""
    return next(
        (each.configuration for each in plan.estimates if each.infeasible is None), plan.estimates[0].configuration
    )


def _with_room(snapshot: Snapshot) -> Snapshot:
    types = {name: replace(kind, memory_bytes=None) for name, kind in snapshot.device_types.items()}
    return replace(snapshot, device_types=types)


def _no_model(spec: WorkloadSpec) -> str:
    """Why there is nothing to look into."""
    if getattr(spec, "entrypoint", None) is not None:
        return "it runs code of your own, which is not traced: its speed is learnt from its runs"
    if spec.kind == "preprocess":
        return "preparing rows runs no model: its speed is sampled on the rows themselves"
    return f"a {spec.kind} runs no model that can be looked into"


# What is printed as JSON.


def _work_view(work: Work, reference: str) -> dict[str, Any]:
    assert work.profile is not None
    return {
        "model": reference,
        "family": work.profile.family,
        "parameters": work.profile.parameters,
        "precision": work.precision,
        "batch_size": work.batch_size,
        "samples": work.samples,
        "evaluation_samples": work.evaluation_samples,
        "tokens_per_sample": work.tokens_per_sample,
    }


def _estimate(value: Estimate) -> dict[str, Any]:
    reason = value.infeasible
    infeasible = None if reason is None else {"code": reason.code, "message": reason.message}
    return views.estimate(value) | {"infeasible": infeasible}


def _device(times: StepTimes, facts: Facts) -> dict[str, Any]:
    kind = facts.device_types[times.device]
    operators = [asdict(each) | {"share": each.seconds / times.step_s} for each in times.operators]
    found: Mapping[str, Any] = asdict(times)
    return {**found, "memory_bytes": kind.memory_bytes, "operators": operators}


def _advice(value: Advice) -> dict[str, Any]:
    return {
        "change": value.alternative.change,
        "setting": value.alternative.setting or None,
        "available": value.available,
        "assumption": value.alternative.assumption,
        "helps": value.helps,
        "fits": value.fits,
        "makes_it_fit": value.makes_it_fit,
        "trade_off": value.trade_off,
        "gain_s": value.gain_s,
        "gain_percent": value.gain_percent,
        "step_gain_percent": value.step_gain_percent,
        "gain_usd": value.gain_usd,
        "gain_usd_percent": value.gain_usd_percent,
        "reason": value.reason,
        "before": _estimate(value.before),
        "after": None if value.after is None else _estimate(value.after),
    }
