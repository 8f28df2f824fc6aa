"""Gavel's traces and throughput tables (Narayanan et al., OSDI 2020; github.com/stanford-futuredata/gavel).

A trace has one job a line, ten fields separated by tabs:

    type, command, folder, steps argument, needs data, total steps, scale factor, priority weight, SLO, arrival s

A table is JSON: device kind -> "('type', scale factor)" -> {"null": steps a second of the gang alone, ...}. Kinds that
end in `_unconsolidated` were measured with the gang on several servers. Gavel does not resize: a job runs on as many
devices as its scale factor says, or not at all. A rate of zero is a combination that does not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.catalog import Catalog

from ...types import Configuration
from ..types import Phase, Trace, TraceJob
from .tables import Problems, Row, nearest, numbered, read_json, read_text, refused

COLUMNS = (
    "type",
    "command",
    "folder",
    "steps argument",
    "needs data",
    "total steps",
    "scale factor",
    "priority weight",
    "SLO",
    "arrival time",
)
ALONE = "null"
SPREAD = "_unconsolidated"
REFERENCE = "v100"
"""What Gavel's SLO is a multiple of: the time alone on this kind."""
PHYSICAL, SIMULATED = "physical_cluster_throughputs.json", "simulation_throughputs.json"
_KEY = re.compile(r"^\('(?P<type>.*)', (?P<scale>\d+)\)$")


@dataclass(frozen=True)
class Throughputs:
    """Steps a second of gangs that have their devices alone."""

    file: Path
    rates: Mapping[str, Mapping[tuple[str, int], float]]
    """By device kind as in the file, then by (job type, scale factor)."""
    devices: Mapping[str, str]
    """The catalog's names of the kinds."""

    @property
    def types(self) -> set[str]:
        """Job types that were measured on any kind."""
        return {name for table in self.rates.values() for name, _ in table}

    def phase(self, job_type: str, scale: int) -> Phase:
        """What a job can run on, and how fast."""
        packed, spread = dict[Configuration, float](), dict[Configuration, float]()
        for kind, device in self.devices.items():
            held = Configuration.of({device: scale})
            rate = self.rates[kind].get((job_type, scale), 0.0)
            apart = self.rates.get(kind + SPREAD, {}).get((job_type, scale), 0.0)
            if rate > 0:
                packed[held] = rate
                if apart > 0 and scale > 1:
                    spread[held] = apart
        return Phase(0.0, packed, spread)


def read_throughputs(path: Path) -> Throughputs:
    """A table. Raises SpecError."""
    raw = read_json(path)
    if not isinstance(raw, dict) or not raw or not all(isinstance(table, dict) for table in raw.values()):
        raise refused(path, "is not a table of throughputs", "expected {device kind: {\"('type', 1)\": {...}}}")
    problems = Problems(str(path))
    rates = {kind: _table(kind, table, problems) for kind, table in raw.items()}
    problems.check()
    catalog = Catalog.load()
    kinds = [kind for kind in sorted(rates) if not kind.endswith(SPREAD)]
    found = {kind: catalog.find(kind) for kind in kinds}
    names = {kind: kind.upper() if device is None else device.name for kind, device in found.items()}
    return Throughputs(path, rates, names)


def _table(kind: str, table: Mapping[str, Any], problems: Problems) -> dict[tuple[str, int], float]:
    rates: dict[tuple[str, int], float] = {}
    for key, row in table.items():
        match = _KEY.match(key)
        rate = row.get(ALONE) if isinstance(row, dict) else None
        if match is None:
            problems.add(None, kind, f"expected a key like \"('ResNet-18 (batch size 16)', 1)\", got {key!r}")
        elif isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < float("inf"):
            problems.add(None, f"{kind}, {key}", f"expected steps a second under {ALONE!r}, got {rate!r}")
        else:
            rates[match["type"], int(match["scale"])] = float(rate)
    return rates


def default_throughputs(path: Path) -> Path:
    """The table beside a trace that belongs to its kind: measured on the physical cluster, or made for simulations."""
    return path.parent / (PHYSICAL if path.name.startswith("physical") else SIMULATED)


def read(path: Path, throughputs: Path | None = None, objective: str = "balanced", startup_s: float = 0.0) -> Trace:
    """A trace with the rates of its table (beside it unless given). Raises SpecError.

    Ids count from 0 in the file's order, as in Gavel. A weight of 1 is priority 0, 5 is 4: more goes first, where Gavel
    gives a larger share. Gavel's simulator charges no start-up, so neither does this unless told to.
    """
    text = read_text(path)
    where = throughputs or default_throughputs(path)
    if not where.exists():
        raise refused(where, "there is no such file", "a trace needs its table of throughputs: beside it, or named")
    table, problems, jobs = read_throughputs(where), Problems(str(path)), list[TraceJob]()
    last = max((number for number, _ in numbered(text)), default=0)
    for number, line in numbered(text):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            cut = number == last and len(cells) < len(COLUMNS) and number > 1
            hint = "the file looks cut off" if cut else f"fields are {', '.join(COLUMNS)}"
            problems.add(number, "", f"has {len(cells)} fields separated by tabs, expected {len(COLUMNS)}", hint)
            continue
        row = Row(number, dict(zip(COLUMNS, (cell.strip() for cell in cells), strict=True)), problems)
        job = _job(f"job-{len(jobs)}", row, table, objective, startup_s)
        if job is not None:
            jobs.append(job)
    problems.check()
    return Trace(path.stem, tuple(sorted(jobs, key=lambda job: job.arrives_s)))


def _job(name: str, row: Row, table: Throughputs, objective: str, startup_s: float) -> TraceJob | None:
    steps, scale = row.number("total steps", 1, whole=True), row.number("scale factor", 1, whole=True)
    weight, arrives_s = row.number("priority weight", above=True), row.number("arrival time")
    slo = row.number("SLO", float("-1e9"))
    job_type = row.text("type")
    if job_type not in table.types:
        row.wrong("type", f"unknown model {job_type!r}", nearest(job_type, table.types, "models"))
        return None
    if steps is None or scale is None or weight is None or arrives_s is None or slo is None:
        return None
    phase = table.phase(job_type, int(scale))
    if not phase.rates:
        runs = ((t, n) for kind in table.devices for (t, n), rate in table.rates[kind].items() if rate > 0)
        measured = sorted({n for t, n in runs if t == job_type})
        message = f"no device type can hold {job_type!r} on {int(scale)} device{'s' if scale > 1 else ''}"
        where = f"on {', '.join(map(str, measured))}" if measured else "at zero steps a second everywhere"
        row.wrong("scale factor", message, f"{table.file.name} has it {where}")
        return None
    reference = table.rates.get(REFERENCE, {}).get((job_type, int(scale)), 0.0)
    deadline_s = arrives_s + slo * steps / reference if slo > 0 and reference > 0 else None
    return TraceJob(
        name,
        job_type,
        arrives_s,
        steps,
        (phase,),
        priority=round(weight) - 1,
        objective=objective,
        deadline_s=deadline_s,
        startup_s=startup_s,
    )


def looks_like(text: str) -> bool:
    """Whether a file begins like a trace of Gavel's."""
    return text.split("\n", 1)[0].count("\t") >= len(COLUMNS) // 2
