"""Alibaba's GPU cluster of 2023: nodes and tasks that share devices (cluster-trace-gpu-v2023; Weng et al., USENIX ATC
2023).

    node list   sn,cpu_milli,memory_mib,gpu,model
    task list   name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec,qos,pod_phase,creation_time,deletion_time,
                scheduled_time]

`read_nodes` and `read_tasks` give all of it, for packing. `convert` makes of it what a simulation of whole devices can
hold, and counts what it left out or rounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.catalog import Catalog
from cluster.types import DeviceType, Node, NodeDevices, Snapshot
from workloads.errors import Problem, SpecError

from ...types import Configuration
from ..types import Phase, Trace, TraceJob
from .tables import Row, nearest, read_csv

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
TASK_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
TIME_COLUMNS = ("creation_time", "deletion_time", "scheduled_time")
NODE_LIST = "openb_node_list_gpu_node.csv"
WHOLE = 1000
MIB = 2.0**20
CATALOG_NAMES = {"V100M16": "V100-16GB", "V100M32": "V100-32GB"}
"""What the lists call what the catalog knows by another name. G1, G2 and G3 are undisclosed and stay as they are."""
Fractions = Literal["whole", "skip"]


@dataclass(frozen=True)
class AlibabaNode:
    """One machine."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True)
class AlibabaTask:
    """One task (a pod): `gpu_milli` thousandths of each of `num_gpu` devices, all on one node."""

    name: str
    cpu_milli: int
    memory_mib: int
    num_gpu: int
    gpu_milli: int
    models: tuple[str, ...] = ()
    """Device models that it may have; empty: any."""
    qos: str = ""
    phase: str = ""
    created_s: float | None = None
    deleted_s: float | None = None
    scheduled_s: float | None = None
    """None where it was never scheduled, or the list does not say."""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Converted:
    """What a simulation of whole devices can hold of a task list."""

    trace: Trace
    skipped: Mapping[str, int]
    """Tasks left out, by why."""
    rounded: int
    """Tasks that ask a share of a device and hold a whole one here."""
    rounded_devices: float
    """Devices that these hold beyond what they asked for, all together."""


def read_nodes(path: Path) -> list[AlibabaNode]:
    """A node list. Raises SpecError."""
    rows, nodes = read_csv(path, NODE_COLUMNS, "nodes"), list[AlibabaNode]()
    for row in rows:
        cpu, memory, gpus = (row.number(name, whole=True) for name in NODE_COLUMNS[1:4])
        if cpu is not None and memory is not None and gpus is not None:
            nodes.append(AlibabaNode(row.text("sn"), int(cpu), int(memory), int(gpus), row.text("model")))
    rows[0].problems.check()
    return nodes


def read_tasks(path: Path) -> list[AlibabaTask]:
    """A task list, in its order. Raises SpecError."""
    rows = read_csv(path, TASK_COLUMNS, "tasks")
    tasks = [_task(row) for row in rows]
    rows[0].problems.check()
    return [task for task in tasks if task is not None]


def _task(row: Row) -> AlibabaTask | None:
    cpu, memory, count, milli = (row.number(name, whole=True) for name in TASK_COLUMNS[1:])
    times = [row.number(name) if row.text(name) else None for name in TIME_COLUMNS]
    if cpu is None or memory is None or count is None or milli is None:
        return None
    if count and not 0 < milli <= WHOLE:
        row.wrong("gpu_milli", f"expected 1 to {WHOLE} thousandths of a device, got {milli:g}")
    if count > 1 and milli != WHOLE:
        row.wrong("gpu_milli", "a share of several devices", "only a task of one device may ask a share of it")
    begins = times[2] if times[2] is not None else times[0]
    if begins is not None and times[1] is not None and times[1] < begins:
        row.wrong("deletion_time", f"is {begins - times[1]:g} s before its start: a negative duration")
    models = tuple(dict.fromkeys(name for name in row.text("gpu_spec").split("|") if name))
    return AlibabaTask(
        row.text("name"),
        int(cpu),
        int(memory),
        int(count),
        int(milli),
        models,
        row.text("qos"),
        row.text("pod_phase"),
        created_s=times[0],
        deleted_s=times[1],
        scheduled_s=times[2],
        line=row.line,
    )


def read(path: Path, nodes: Path | None = None, objective: str = "balanced", fractions: Fractions = "whole") -> Trace:
    """A task list as a trace, for the cluster of the node list (beside it unless given). Raises SpecError."""
    where = nodes or path.parent / NODE_LIST
    return convert(path, read_tasks(path), read_nodes(where), objective, fractions).trace


def convert(
    path: Path,
    tasks: Sequence[AlibabaTask],
    nodes: Sequence[AlibabaNode],
    objective: str = "balanced",
    fractions: Fractions = "whole",
) -> Converted:
    """Jobs of whole devices; `path` is where the tasks are from.

    The lists know no speeds: on every model it may have a task takes as long as it really took. A task of a share of a
    device holds a whole one (`fractions="skip"` leaves it out instead): more than it asked for, so waiting and cost
    come out too high. Tasks without devices, and those that were never scheduled, are left out. CPU and memory limit
    nothing here. Raises SpecError where no node can hold a task, or the list has no times.
    """
    if not any(task.deleted_s is not None for task in tasks):
        hint = f"a trace needs the columns {','.join(TIME_COLUMNS)}; without them it can only be packed"
        raise SpecError(Problem("says not when its tasks ran", hint=hint, file=str(path)))
    kept, skipped = list[AlibabaTask](), Counter[str]()
    for task in tasks:
        why = _left_out(task, fractions)
        if why:
            skipped[why] += 1
        else:
            kept.append(task)
    _check_holdable(path, kept, nodes)
    shares = [task for task in kept if task.gpu_milli < WHOLE]
    jobs = _jobs(kept, nodes, objective)
    name = path.stem + (" (shares of devices as whole ones)" if shares else "")
    beyond = sum(WHOLE - task.gpu_milli for task in shares) / WHOLE
    return Converted(Trace(name, jobs), dict(skipped), len(shares), beyond)


def _left_out(task: AlibabaTask, fractions: Fractions) -> str:
    if task.num_gpu == 0:
        return "no device"
    if task.scheduled_s is None or task.deleted_s is None or task.deleted_s <= task.scheduled_s:
        return "never ran"
    return "a share of a device" if task.gpu_milli < WHOLE and fractions == "skip" else ""


def _check_holdable(path: Path, tasks: Sequence[AlibabaTask], nodes: Sequence[AlibabaNode]) -> None:
    problems, checked = list[Problem](), set[tuple[object, ...]]()
    known = {node.model for node in nodes}
    for task in tasks:
        shape = (task.num_gpu, task.models, task.cpu_milli, task.memory_mib)
        if shape in checked:
            continue
        checked.add(shape)
        strange = [name for name in task.models if name not in known]
        if strange and len(strange) == len(task.models):
            message, hint = f"no node has the model {'|'.join(strange)}", nearest(strange[0], known, "models")
        elif not any(holds(node, task) for node in nodes):
            message = (
                f"no node can hold it: {task.num_gpu} devices{' of ' + '|'.join(task.models) if task.models else ''}, "
                f"{task.cpu_milli / 1000:g} cores and {task.memory_mib} MiB on one node"
            )
            hint = "all its devices are on one node: see gpu, cpu_milli and memory_mib of the node list"
        else:
            continue
        problems.append(Problem(f"task {task.name}: {message}", field=f"line {task.line}", hint=hint, file=str(path)))
    if problems:
        raise SpecError(problems[:20])


def holds(node: AlibabaNode, task: AlibabaTask) -> bool:
    """Whether a task fits on an idle node."""
    fits = node.gpus >= task.num_gpu and node.cpu_milli >= task.cpu_milli and node.memory_mib >= task.memory_mib
    return fits and (not task.models or node.model in task.models)


def _jobs(tasks: Sequence[AlibabaTask], nodes: Sequence[AlibabaNode], objective: str) -> tuple[TraceJob, ...]:
    largest: dict[str, int] = {}
    for node in nodes:
        largest[node.model] = max(largest.get(node.model, 0), node.gpus)
    catalog, begin_s = Catalog.load(), min((task.created_s or 0.0 for task in tasks), default=0.0)
    phases: dict[tuple[int, tuple[str, ...]], tuple[Phase, ...]] = {}
    jobs = list[TraceJob]()
    for task in tasks:
        shape = (task.num_gpu, task.models)
        if shape not in phases:
            names = [model for model in task.models or sorted(largest) if largest.get(model, 0) >= task.num_gpu]
            held = [Configuration.of({device_name(model, catalog): task.num_gpu}) for model in names]
            phases[shape] = (Phase(0.0, dict.fromkeys(held, float(task.num_gpu))),)
        assert task.deleted_s is not None and task.scheduled_s is not None
        work = task.num_gpu * (task.deleted_s - task.scheduled_s)
        arrives_s = (task.created_s or 0.0) - begin_s
        jobs.append(TraceJob(task.name, "task", arrives_s, work, phases[shape], objective=objective))
    return tuple(sorted(jobs, key=lambda job: job.arrives_s))


def device_name(model: str, catalog: Catalog) -> str:
    """The catalog's name of a model, or the model where the catalog has none."""
    found = catalog.find(CATALOG_NAMES.get(model, model))
    return model if found is None else found.name


def snapshot(nodes: Sequence[AlibabaNode], catalog: Catalog | None = None) -> Snapshot:
    """The machines as an idle cluster. Models that the catalog does not know are unpriced."""
    catalog = catalog or Catalog.load()
    types: dict[str, DeviceType] = {}
    machines = list[Node]()
    for node in nodes:
        name = device_name(node.model, catalog)
        types.setdefault(name, catalog.find(name) or DeviceType(name, "gpu", "NVIDIA"))
        devices = (NodeDevices(name, name, node.gpus, node.gpus),) if node.gpus else ()
        machines.append(Node(node.name, node.name, devices=devices, memory_bytes=node.memory_mib * MIB))
    return Snapshot(0.0, tuple(machines), types)
