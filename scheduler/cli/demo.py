"""`raywise demo`: the whole thread on this machine, from a YAML file to a priced, measured result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dashboards import terminal
from dashboards.text import dollars, duration, percent
from scheduler.client import Client
from scheduler.service.home import Home, ServiceInfo

from . import lifecycle
from .common import FAILED, HomeOption, SetOption, console, fail, friendly, home_of
from .waiting import follow

STOP_PATIENCE_S = 30.0
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "support-triage.yaml"


def demo(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Another pipeline than the example.")] = None,
    set_: SetOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service and the cluster running.")] = False,
    home: HomeOption = None,
) -> None:
    """Start a local cluster with emulated accelerators, run a pipeline on it, and show what was decided and why."""
    folder, spec = home_of(home), file or EXAMPLE
    if not spec.is_file():
        fail(f"{spec} does not exist; the example pipeline comes with the source tree", 2)
    with friendly(), _service(folder, keep=keep), Client(home=folder.path) as client:
        devices = client.devices()
        console.print(terminal.devices_table(devices))
        emulated = terminal.emulated_types(devices)
        fitting = adapted(devices) if file is None else []
        answer = client.submit(spec, [*fitting, *(set_ or [])])
        console.print(f"submitted [bold]{answer['id']}[/bold] from {spec}")
        try:
            view = follow(client, answer["id"], before=_Decisions(emulated))
        except KeyboardInterrupt:
            fail(_interrupt(client, answer["id"]), 130)
        ok = _report(client, folder, view)
    if not ok:
        raise typer.Exit(FAILED)


def _interrupt(client: Client, pipeline_id: str) -> str:
    """Cancel the pipeline; says how far that went."""
    client.cancel(pipeline_id)
    try:
        client.wait(pipeline_id, timeout_s=STOP_PATIENCE_S)
    except TimeoutError:
        return f"interrupted; {pipeline_id} was told to end and has not after {STOP_PATIENCE_S:g} s"
    return f"interrupted; {pipeline_id} is cancelled"


def adapted(devices: Any) -> list[str]:
    """Overrides for the example where the cluster has real accelerators in place of the emulated T4 and A100: train on
    two of them (or on CPU shards where there is only one), label on one accelerator and one CPU core at once."""
    totals = {kind["name"]: kind["total"] for kind in devices["device_types"] if kind["kind"] != "cpu"}
    if not totals or any(kind["emulated"] for kind in devices["device_types"]):
        return []
    name, total = max(totals.items(), key=lambda item: (item[1], item[0]))
    train = f"{{devices: [{name}], count: 2}}" if total >= 2 else "{devices: cpu, count: 2}"
    return [f"steps.train.resources={train}", f"steps.label.resources={{devices: {{{name}: 1, cpu: 1}}}}"]


@contextmanager
def _service(folder: Home, *, keep: bool) -> Iterator[ServiceInfo]:
    """The home folder's service: one that runs already is used and left alone, one started here is stopped again."""
    running = folder.service()
    if running is not None:
        console.print(f"using the service at {running.url}")
        yield running
        return
    console.print("starting a local Ray cluster (accelerators are emulated on the CPU unless there are real ones) ...")
    started = time.monotonic()
    try:
        info = lifecycle.start_detached(folder)
        console.print(
            f"service {info.url}, Ray dashboard {info.ray_dashboard_url}, up in {time.monotonic() - started:.0f} s"
        )
        yield info
    finally:
        if keep:
            console.print("the service and the cluster are left running; `raywise down` stops them")
        else:
            stopped = lifecycle.stop(folder)
            console.print(f"stopped: {', '.join(stopped)}")


class _Decisions:
    """Shows each step's table of configurations when it has been decided."""

    def __init__(self, emulated: set[str]) -> None:
        self._emulated = emulated
        self._shown: set[str] = set()

    def __call__(self, printer: Console, workload: Any) -> None:
        if workload["id"] not in self._shown and workload["started_s"] is not None:
            self._shown.add(workload["id"])
            title = f"{workload['name']} ({workload['kind']}): the configurations that were weighed"
            printer.print(terminal.options_table(title, _explanation(workload), self._emulated))


def _explanation(workload: Any) -> dict[str, Any]:
    chosen = None
    for option in workload["options"]:
        if " + ".join(f"{name} x{n}" for name, n in option["configuration"].items()) == workload["placement"]:
            chosen = option["configuration"]
    return {"chosen": chosen, "summary": workload["explanation"] or "", "options": workload["options"]}


def _report(client: Client, folder: Home, view: Any) -> bool:
    """The final table, where the outputs lie, and how far off the predictions were, this time and before."""
    workloads = view["workloads"]
    console.print(terminal.report_table(workloads))
    for line in terminal.output_lines(workloads):
        console.print(line, soft_wrap=True, markup=False)
    seconds = sum(workload["run_s"] for workload in workloads)
    cost = sum(workload["cost_usd"] or 0.0 for workload in workloads)
    console.print(f"devices held for {duration(seconds)} in all, {dollars(cost)}")
    console.print(_errors(client, folder, view))
    return all(workload["state"] == "succeeded" for workload in workloads)


def _errors(client: Client, folder: Home, view: Any) -> str:
    """How far predictions were off, this run and the runs of this pipeline before it on this home."""
    name = view["id"].rsplit("-", 1)[0]
    by_pipeline: dict[str, list[float]] = {}
    for workload in client.list(state="succeeded", limit=1000):
        pipeline = workload["pipeline_id"] or ""
        error = terminal.off_by(workload)
        if pipeline.rsplit("-", 1)[0] == name and error is not None:
            by_pipeline.setdefault(pipeline, []).append(error)
    means = [(pipeline, sum(errors) / len(errors)) for pipeline, errors in by_pipeline.items()]
    now = next((mean for pipeline, mean in means if pipeline == view["id"]), None)
    before = [mean for pipeline, mean in means if pipeline != view["id"]]
    text = f"predicted run times were off by {percent(now)} on average"
    if before:
        earlier = ", ".join(percent(mean) for mean in before[-3:])
        return f"{text}; in the run{'s' if len(before) > 1 else ''} before: {earlier}"
    return f"{text}; what was measured is kept in {folder.database} and corrects the next prediction"
