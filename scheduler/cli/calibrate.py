"""`raywise calibrate`: measures the devices that are there, and a workload's own first steps, and shows what that
changes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from dashboards import calibration_tables as tables
from scheduler.admission.trial import Devices, Limits, Trial, trial
from scheduler.client import Client, Refused
from workloads.errors import Problem, SpecError
from workloads.loading import Submission, load_file

from .common import BAD_INPUT, FAILED, HomeOption, JsonFlag, SetOption, client_of, console, fail, print_json
from .waiting import wait_for

MOST_DEVICES = 2
"""Of each type that are measured together: with two there is an all-reduce."""
_TRIAL_FIELD = re.compile(r"steps\.([a-z0-9-]+)\.(?:resources|budget_usd)")


def calibrate(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Also try the first steps of this workload or pipeline.")
    ] = None,
    set_: SetOption = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="TYPE", help="Only this device type. Repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(min=4, help="Training steps of a trial.")] = 12,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch-inference trial; 8 batches at least.")] = 256,
    show: Annotated[bool, typer.Option("--show", help="Only show what is known.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Forget everything that was learnt and measured.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before forgetting.")] = False,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Measure the devices that are there, and a workload's first steps on them; show predictions before and after."""
    if show + reset + (file is not None) > 1:
        fail("FILE, --show and --reset exclude each other", BAD_INPUT)
    with client_of(home) as client:
        if reset:
            _reset(client, json_, asks=not yes and _asks())
        elif show:
            _show(client, json_)
        else:
            submission = None if file is None else load_file(file, set_ or [])
            plans = _Plans(client, file, set_ or [])
            report = _calibrate(client, submission, plans, device or [], Limits(steps, rows), quiet=json_)
            _finish(report, json_)


def _asks() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty()


def _reset(client: Client, as_json: bool, *, asks: bool) -> None:
    if asks and not typer.confirm("Forget all corrections, start-up times and measured rates?"):
        raise typer.Exit(FAILED)
    forgotten = client.reset_calibration()["forgotten"]
    if as_json:
        print_json({"forgotten": forgotten})
        return
    console.print(
        f"forgotten: {forgotten['points']} measured operating points, {forgotten['times']} start-up and run times, "
        f"rates of {forgotten['device_types']} device types"
    )


def _show(client: Client, as_json: bool) -> None:
    known = client.calibration()
    if as_json:
        print_json(known)
        return
    measured = [kind for kind in known["device_types"] if kind["measured"]]
    console.print("[bold]Rates of device types[/bold]" + ("" if measured else ": none is measured yet"))
    if measured:
        console.print(tables.rates_table(measured))
    console.print("[bold]Measured / predicted[/bold]" + ("" if known["subjects"] else ": nothing has run yet"))
    if known["subjects"]:
        console.print(tables.factors_table(known["subjects"]))
    if known["overheads"] or known["history"]:
        console.print("[bold]Times[/bold]")
        console.print(tables.times_table(known))


@dataclass(frozen=True)
class _Plans:
    """Asks for the plan of the file, if there is one."""

    client: Client
    file: Path | None
    overrides: list[str]

    def steps(self) -> list[Any]:
        """The steps with their options."""
        return [] if self.file is None else list(self.client.plan(self.file, self.overrides)["steps"])


@dataclass
class _Report:
    """What a calibration did."""

    device_types: list[Any]
    steps: list[Any]
    left_out: dict[str, str]
    workloads: list[Any]
    budgets: dict[str, str]

    @property
    def failed(self) -> list[Any]:
        """Workloads that did not succeed."""
        return [workload for workload in self.workloads if workload["state"] != "succeeded"]


def _calibrate(
    client: Client, submission: Submission | None, plans: _Plans, wanted: Sequence[str], limits: Limits, *, quiet: bool
) -> _Report:
    """Run benchmarks, then trials."""
    here = _chosen(client.devices()["device_types"], wanted)
    before = plans.steps()
    left_out = {kind["name"]: f"a {kind['kind']} cannot be measured yet" for kind in here if not _measurable(kind)}
    budgets: dict[str, str] = {}
    kinds = [kind for kind in here if _measurable(kind)]
    workloads = _run(client, _benchmarks(kinds), quiet) if kinds else []
    if submission is not None:
        devices = _devices(kinds, before)
        found, workload_id = _submit_trials(client, submission, devices, limits)
        left_out |= found.left_out
        budgets |= found.budgets
        if workload_id is not None:
            workloads += _wait(client, workload_id, quiet)
    names = {kind["name"] for kind in kinds}
    measured = [kind for kind in client.calibration()["device_types"] if kind["name"] in names]
    return _Report(measured, _changes(before, plans.steps()), left_out, workloads, budgets)


def _chosen(kinds: list[Any], wanted: Sequence[str]) -> list[Any]:
    """The device types to measure: all that are there, or those that are named. Raises SpecError."""
    here = {kind["name"]: kind for kind in kinds if kind["total"] > 0}
    if not wanted:
        return list(here.values())
    chosen = {}
    for name in wanted:
        exact = [known for known in here if known.lower() == name.lower()]
        found = exact or [known for known in here if known.lower().startswith(f"{name.lower()}-")]
        if len(found) != 1:
            near = get_close_matches(name.lower(), [known.lower() for known in here], n=1, cutoff=0.5)
            close = [known for known in here if known.lower() in near]
            hint = (f"did you mean {close[0]!r}? " if close else "") + f"the cluster has {', '.join(sorted(here))}"
            raise SpecError(Problem(f"the cluster has no device type {name!r}", "--device", hint))
        chosen[found[0]] = here[found[0]]
    return list(chosen.values())


def _measurable(kind: Any) -> bool:
    return bool(kind["emulated"]) or kind["kind"] in ("cpu", "gpu")


def _on_host(kind: Any) -> bool:
    """Whether it is the host's cores: measured one after the other, since they would take speed from each other."""
    return bool(kind["emulated"]) or kind["kind"] == "cpu"


def _benchmarks(kinds: Sequence[Any]) -> dict[str, Any]:
    """One benchmark for each device type."""
    steps: list[dict[str, Any]] = []
    last: str | None = None
    for kind in kinds:
        name = f"measure-{re.sub(r'[^a-z0-9]+', '-', kind['name'].lower()).strip('-')[:38].rstrip('-')}"
        resources = {"devices": [kind["name"]], "count": min(kind["total"], MOST_DEVICES)}
        step = {"kind": "benchmark", "name": name, "resources": resources}
        if _on_host(kind):
            step |= {"needs": [last]} if last else {}
            last = name
        steps.append(step)
    return {"kind": "pipeline", "name": "calibrate", "steps": steps}


def _devices(kinds: Sequence[Any], plan: Sequence[Any]) -> Devices:
    """What each step may run on, of what is there: the plan knows what its resources mean on this cluster."""
    totals = {kind["name"]: kind["total"] for kind in kinds}
    allowed = {
        step["name"]: [
            n for n in dict.fromkeys(n for option in step["options"] for n in option["configuration"]) if n in totals
        ]
        for step in plan
    }
    return Devices(allowed, totals, {kind["name"] for kind in kinds if _on_host(kind)})


def _submit_trials(
    client: Client, submission: Submission, devices: Devices, limits: Limits
) -> tuple[Trial, str | None]:
    """Submit what fits: a trial whose device is too small for it, or that its budget does not reach for, is left out,
    with the others' references changed."""
    refused: dict[str, str] = {}
    while True:
        found = trial(submission, devices, limits, refused)
        if not found.trials:
            return found, None
        try:
            return found, str(client.submit(found.pipeline)["id"])
        except Refused as error:
            more = _refused_trials(error, found)
            if not more:
                raise
            refused |= more


def _refused_trials(error: Refused, found: Trial) -> dict[str, str]:
    """Trials that no configuration is possible for, with the reason; nothing where anything else is wrong."""
    names = {name for trials in found.trials.values() for name in trials}
    fields = [(_TRIAL_FIELD.fullmatch(problem.get("field") or ""), problem["message"]) for problem in error.problems]
    if not all(match and match[1] in names for match, _ in fields):
        return {}
    return {match[1]: message for match, message in fields if match}


def _run(client: Client, pipeline: dict[str, Any], quiet: bool) -> list[Any]:
    return _wait(client, str(client.submit(pipeline)["id"]), quiet)


def _wait(client: Client, workload_id: str, quiet: bool) -> list[Any]:
    if not quiet:
        console.print(f"submitted [bold]{workload_id}[/bold]")
    return list(wait_for(client, workload_id, quiet=quiet)["workloads"])


def _changes(before: Sequence[Any], after: Sequence[Any]) -> list[dict[str, Any]]:
    """Predictions of each step's configurations, where there is one before or after."""
    steps = []
    for old, new in zip(before, after, strict=True):
        later = {tuple(sorted(option["configuration"].items())): option for option in new["options"]}
        pairs = [(each, later.get(tuple(sorted(each["configuration"].items())))) for each in old["options"]]
        changes = [
            {"configuration": one["configuration"], "before": _prediction(one), "after": _prediction(two)}
            for one, two in pairs
            if one["seconds"] is not None or (two is not None and two["seconds"] is not None)
        ]
        steps.append({"name": old["name"], "kind": old["kind"], "changes": changes})
    return steps


def _prediction(option: Any) -> dict[str, Any] | None:
    return None if option is None else {name: option[name] for name in ("seconds", "low_s", "high_s", "source")}


def _finish(report: _Report, as_json: bool) -> None:
    failed = [f"{workload['id']} {workload['state']}: {workload['message']}" for workload in report.failed]
    if as_json:
        fields = {"device_types": report.device_types, "steps": report.steps, "left_out": report.left_out}
        print_json(fields | {"budgets": report.budgets, "workloads": report.workloads})
    else:
        console.print(tables.rates_table(report.device_types))
        emulated = [kind["name"] for kind in report.device_types if kind["emulated_speed"] is not None]
        for step in report.steps:
            if step["changes"]:
                console.print(tables.changes_table(step, emulated))
        for name, reason in report.left_out.items():
            console.print(f"left out: {name}: {reason}", markup=False)
        for name, limit in report.budgets.items():
            console.print(f"budget: {name}: {limit}", markup=False)
    if failed:
        fail("\n".join(failed), FAILED)
