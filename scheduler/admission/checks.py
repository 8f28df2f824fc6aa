"""Checks of one step against the cluster, its prices and the disk. Each returns the problems it finds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from cluster.catalog import Catalog
from cluster.types import Snapshot
from workloads.errors import Problem, SpecError
from workloads.quantities import exact_usd_text, usd_text
from workloads.spec import Resources, WorkloadSpec

from ..estimate.work import Work
from ..types import Estimate
from .code import code_files
from .entrypoint import missing_name

CHECKPOINTS_KEPT = 3
"""Two kept and one being written."""


def canonical_resources(resources: Resources, catalog: Catalog, snapshot: Snapshot) -> Resources | Problem:
    """Device types by the names that catalog and cluster use (`A100` becomes `A100-SXM4-40GB`, or whichever A100 the
    cluster has), or the problem with one that nobody knows."""
    devices = resources.devices
    if isinstance(devices, str):
        return resources
    names = {}
    for name in devices:
        found = _canonical(name, catalog, snapshot)
        if found is None:
            close = get_close_matches(name.lower(), [each.lower() for each in snapshot.device_types], n=1, cutoff=0.5)
            nearest = _canonical(close[0], catalog, snapshot) if close else catalog.nearest(name)
            here = ", ".join(sorted(snapshot.device_types))
            hint = (f"did you mean {nearest!r}? " if nearest else "") + f"the cluster has {here}"
            return Problem(f"no catalog knows the device type {name!r}", "resources.devices", hint)
        names[name] = found
    if isinstance(devices, dict):
        return resources.model_copy(update={"devices": {names[name]: count for name, count in devices.items()}})
    return resources.model_copy(update={"devices": [names[name] for name in devices]})


def _canonical(name: str, catalog: Catalog, snapshot: Snapshot) -> str | None:
    here = {device.lower(): device for device in snapshot.device_types}
    if name.lower() in here:
        return here[name.lower()]
    variants = [device for device in here.values() if device.lower().startswith(name.lower() + "-")]
    if len(variants) == 1:
        return variants[0]
    found = catalog.find(name)
    return None if found is None else found.name


def feasibility(estimates: Sequence[Estimate], snapshot: Snapshot) -> list[Problem]:
    """At least one configuration must be possible on this cluster, busy or not."""
    if any(estimate.infeasible is None for estimate in estimates):
        return []
    have = ", ".join(f"{snapshot.total(name)} {name}" for name in sorted(snapshot.device_types))
    reasons = "; ".join(_unique(e.infeasible.message for e in estimates if e.infeasible)) or "no device type is allowed"
    return [Problem(f"no configuration is possible: {reasons}", "resources", f"the cluster has {have}")]


def limits(spec: WorkloadSpec, estimates: Sequence[Estimate]) -> list[Problem]:
    """A budget or deadline that no configuration meets even on an idle cluster, with the closest that comes near."""
    possible = [estimate for estimate in estimates if estimate.infeasible is None]
    problems = []
    if spec.budget_usd is not None:
        priced = [(e.money.total_usd, e) for e in possible if e.money is not None]
        if priced and len(priced) == len(possible) and min(cost for cost, _ in priced) > spec.budget_usd:
            cost, nearest = min(priced, key=lambda item: item[0])
            hint = f"the cheapest is {nearest.configuration} at about {usd_text(cost)}"
            problems.append(
                Problem(f"no configuration costs {exact_usd_text(spec.budget_usd)} or less", "budget_usd", hint)
            )
    if spec.deadline is not None:
        timed = [(e.seconds, e) for e in possible if e.seconds is not None]
        if timed and len(timed) == len(possible) and min(seconds for seconds, _ in timed) > spec.deadline:
            seconds, nearest = min(timed, key=lambda item: item[0])
            hint = f"the fastest is {nearest.configuration} at about {seconds:.0f} s"
            problems.append(Problem(f"no configuration is done within {spec.deadline:g} s", "deadline", hint))
    return problems


def disk(work: Work, folders: Mapping[str, str]) -> list[Problem]:
    """Room for what will be written, by the folder it goes to."""
    checkpoint = work.profile.parameters * 12.0 if work.profile is not None and work.training else 0.0
    needed = {"output": work.output_bytes, "checkpoints": checkpoint * CHECKPOINTS_KEPT}
    problems = []
    by_disk: dict[int, list[tuple[str, Path]]] = {}
    for what, folder in folders.items():
        root = _existing(Path(folder))
        if not os.access(root, os.W_OK):
            problems.append(Problem(f"{what} folder {root} cannot be written to", "output", "choose another folder"))
        by_disk.setdefault(root.stat().st_dev, []).append((what, root))
    for places in by_disk.values():
        root, wanted = places[0][1], sum(needed[what] for what, _ in places)
        free = shutil.disk_usage(root).free
        if wanted > free:
            all_of_it = " and ".join(what for what, _ in places if needed[what])
            message = f"not enough disk for {all_of_it}: about {wanted / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free"
            problems.append(Problem(f"{message} at {root}", "output", "free some space or choose another output"))
    return problems


def code(spec: WorkloadSpec) -> list[Problem]:
    """The user's own code must be where the spec says."""
    entrypoint = getattr(spec, "entrypoint", None)
    if spec.code is None:
        return []
    folder = Path(spec.code)
    if not os.path.isdir(folder):
        return [Problem(f"code folder {folder} does not exist", "code")]
    try:
        code_files(folder)
    except SpecError as error:
        return error.problems
    if entrypoint is None:
        return []
    module, _, name = entrypoint.partition(":")
    inner = module.replace(".", "/")
    path = next((folder / each for each in (f"{inner}/__init__.py", f"{inner}.py") if (folder / each).is_file()), None)
    if path is None:
        here = ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "no Python file"
        return [Problem(f"{folder} has no module {module}", "entrypoint", f"it has: {here}")]
    problem = missing_name(path, name)
    return [problem] if problem is not None else []


def _existing(path: Path) -> Path:
    while not os.path.exists(path) and path != path.parent:  # False, not an OSError, for a name that is too long
        path = path.parent
    return path


def _unique(sentences: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(sentences))
