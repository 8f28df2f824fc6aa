"""`raywise simulate`: a trace of jobs under one or several policies on a virtual clock. Needs no service and no Ray."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.types import CPU, Snapshot
from dashboards import simulation_tables
from dashboards.simulation_report import report_html
from scheduler import policy as policies
from scheduler.queues import rules_of
from scheduler.simulate import traces
from scheduler.simulate.bounds import lower_bounds
from scheduler.simulate.metrics import summary
from scheduler.simulate.simulator import Options, simulate
from scheduler.simulate.types import SimulationResult, Trace
from scheduler.types import QueueRules
from workloads.errors import Problem, SpecError
from workloads.refusals import nearest

from .common import CatalogOption, JsonFlag, WideFlag, console, errors, friendly, print_json, screen

TraceArgument = Annotated[
    Path, typer.Argument(metavar="TRACE", help="Jobs: a Gavel, Sia or Alibaba trace, or a store.")
]


def simulate_command(
    trace: TraceArgument,
    cluster: Annotated[Path, typer.Option(help="The cluster's definition.")],
    policy: Annotated[str, typer.Option(help="Policies, with commas between them.")] = "market",
    throughputs: Annotated[Path | None, typer.Option(help="A Gavel trace's throughputs; found beside it.")] = None,
    objective: Annotated[str | None, typer.Option(help="Of all jobs: cost, balanced or time.")] = None,
    seed: Annotated[int, typer.Option(help="Of noise and failures.")] = 0,
    round_s: Annotated[float | None, typer.Option("--round", min=1.0, help="Plan only every so many seconds.")] = None,
    noise: Annotated[float, typer.Option(min=0.0, max=2.0, help="Error of the estimates: 0.2 is about 20 %.")] = 0.0,
    learns: Annotated[bool, typer.Option("--learns", help="What ran for a minute is predicted without error.")] = False,
    restart: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds that every attempt takes to start; the trace's else.")
    ] = None,
    failures: Annotated[float, typer.Option(min=0.0, help="Of each node, an hour.")] = 0.0,
    launch: Annotated[float, typer.Option(min=0.0, help="Seconds until a lost node is back.")] = 180.0,
    launch_failures: Annotated[float, typer.Option(min=0.0, max=0.99, help="Share of launches that fail.")] = 0.0,
    limit: Annotated[float | None, typer.Option(min=1.0, help="Cut off after so many simulated seconds.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Only the first so many jobs.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    wide: WideFlag = False,
) -> None:
    """Run the jobs of a trace under one or several policies and compare what would have happened."""
    with friendly():
        names = _policies(policy)
        known = Catalog.load(catalog)
        definition = ClusterDefinition.load(cluster, known)
        whole, queues = definition.snapshot(None, known), rules_of(definition)
        if objective not in (None, "cost", "balanced", "time"):
            raise SpecError(Problem(f"there is no objective {objective!r}", "--objective", "cost, balanced or time"))
        wanted = _first(traces.read(trace, throughputs=throughputs, objective=objective), jobs, restart)
        snapshot = _devices(whole, wanted)
        options = Options(
            round_s=round_s,
            noise=noise,
            learns=learns,
            node_failures_per_h=failures,
            launch_s=launch,
            launch_failures=launch_failures,
            limit_s=math.inf if limit is None else limit,
        )
        most = snapshot.with_rentable()
        totals = {name: most.total(name) for name in most.device_types}
        _check_held(wanted, totals, cluster)
        _check_report(report)
        results = _run(wanted, snapshot, names, options, seed, queues, quiet=json_)
        bounds = lower_bounds(wanted, totals)
        summaries = [summary(result) for result in results]
        if report is not None:
            _write(report, report_html(results, summaries, bounds))
    if json_:
        print_json(simulation_tables.to_json(results, summaries, bounds))
        return
    screen(wide).print(simulation_tables.comparison_table(results, summaries, bounds))
    if report is not None:
        console.print(f"report: {report}")


def _write(report: Path, page: str) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(Problem(f"cannot be written: {error.strerror}", "--report", file=str(report))) from None


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in policies.names():
            raise SpecError(Problem(f"there is no policy {name!r}", "--policy", nearest(name, policies.names())))
    if not names:
        raise SpecError(Problem("no policy is named", "--policy", f"policies are {', '.join(policies.names())}"))
    return list(dict.fromkeys(names))


def _devices(snapshot: Snapshot, trace: Trace) -> Snapshot:
    """The cluster without cores, unless a job can run on them: traces of others have none that does."""
    if any(name == CPU for job in trace.jobs for each in job.configurations for name, _ in each.groups):
        return snapshot
    nodes = tuple(
        replace(node, devices=kept)
        for node in snapshot.nodes
        if (kept := tuple(each for each in node.devices if each.device_type != CPU))
    )
    types = {name: kind for name, kind in snapshot.device_types.items() if name != CPU}
    offers = tuple(each for each in snapshot.node_types if any(name != CPU for name, _ in each.devices))
    return replace(snapshot, nodes=nodes, device_types=types, node_types=offers)


def _first(trace: Trace, number: int | None, startup_s: float | None) -> Trace:
    jobs = trace.jobs[:number]
    if startup_s is not None:
        jobs = tuple(replace(job, startup_s=startup_s) for job in jobs)
    name = trace.name if startup_s is None else f"{trace.name}, restarts of {startup_s:g} s"
    return replace(trace, name=name, jobs=jobs)


def _check_held(trace: Trace, totals: Mapping[str, int], cluster: Path) -> None:
    """Raises SpecError where no job of the trace can run on the cluster."""
    wanted = {c for job in trace.jobs for c in job.configurations}
    if any(all(totals.get(name, 0) >= count for name, count in each.groups) for each in wanted):
        return
    asked = sorted({name for each in wanted for name, _ in each.groups})
    hint = f"the trace asks for {', '.join(asked)}; the cluster has {', '.join(totals) or 'no devices'}"
    raise SpecError(Problem("can hold no job of the trace", "nodes", hint, str(cluster)))


def _check_report(report: Path | None) -> None:
    if report is not None and not report.resolve().parent.is_dir():
        raise SpecError(Problem(f"there is no folder {report.resolve().parent}", "--report", "make it first"))


def _run(
    trace: Trace,
    snapshot: Snapshot,
    names: list[str],
    options: Options,
    seed: int,
    queues: Mapping[str, QueueRules],
    *,
    quiet: bool,
) -> list[SimulationResult]:
    results = []
    with _bar(quiet) as bar:
        for name in names:
            task = bar.add_task(name, total=len(trace.jobs))

            def told(ended: int, _: float, task: object = task) -> None:
                bar.update(task, completed=ended)  # type: ignore[arg-type]

            results.append(simulate(trace, snapshot, policies.create(name), options, seed, told, queues))
            bar.update(task, completed=len(trace.jobs))
    return results


@contextmanager
def _bar(quiet: bool) -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal) as bar:
        yield bar
