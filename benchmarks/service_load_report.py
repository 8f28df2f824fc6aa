"""What `service_load` measured, put into words: the section of docs/reliability.md. Other sections are left alone."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADING = "## Short commands and task arrays"


@dataclass(frozen=True)
class Round:
    """One burst of commands. `waits_s` are seconds from each submission to the command's first instruction."""

    commands: int
    lost: int
    makespan_s: float
    submitting_s: float
    waits_s: Sequence[float]
    cpu_s: float | None

    @property
    def per_s(self) -> float:
        """Commands begun in a second, from the first submission to the last start."""
        return (self.commands - self.lost) / self.makespan_s


@dataclass
class Load:
    """Bursts through Ray alone and through the service, and single commands on the idle cluster."""

    commands: int
    raw: list[Round]
    service: list[Round]
    single_raw: list[float]
    single_service: list[float]
    singles: int = 15
    states: dict[str, int] = field(default_factory=dict)


@dataclass
class Arrays:
    """Items a second by kind, raw Ray tasks and one workload with items; and seconds of the whole workload."""

    items: dict[str, int]
    raw: dict[str, list[float]] = field(default_factory=dict)
    service: dict[str, list[float]] = field(default_factory=dict)
    whole_s: dict[str, list[float]] = field(default_factory=dict)


def steady_rate(records: Sequence[Mapping[str, Any]], items: int) -> float:
    """Items a second of an array once its last worker is ready, as those of raw tasks are; or from its first worker on,
    where most are done before the last one is there."""
    ready = [each["t"] for each in records if each["kind"] == "phase" and each["phase"] == "running"]
    end_s = next(each["t"] for each in records if each["kind"] == "phase" and each["phase"] == "finishing")
    done = [(each["t"], each["rows"]) for each in records if each["kind"] == "rows"]
    from_s, before = max(((t, rows) for t, rows in done if t <= ready[-1]), default=(ready[0], 0))
    return items / (end_s - ready[0]) if before > items / 2 else (items - before) / (end_s - from_s)


def write_section(path: Path, load: Load, arrays: Arrays, now: datetime.date) -> str:
    """Put the section into the file, in the place of the one that is there. Returns it."""
    text = section(load, arrays, now)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else "# Reliability\n"
    path.write_text(with_section(before, text))
    return text


def with_section(document: str, text: str) -> str:
    """A document with this section in the place of the one of its heading, or at its end."""
    pattern = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(document):
        return pattern.sub(lambda _: text + "\n", document).rstrip() + "\n"
    return f"{document.rstrip()}\n\n{text}"


def section(load: Load, arrays: Arrays, now: datetime.date) -> str:
    """The whole section, with the heading."""
    commands = sum(each.commands for each in load.service)
    lost = sum(each.lost for each in load.service)
    ended = ", ".join(f"{count} {state}" for state, count in sorted(load.states.items()))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        HEADING,
        "",
        f"`python -m benchmarks.service_load`, {now.isoformat()}, on {machine},",
        "with whatever else the machine did: a head and two nodes of two emulated devices each, a service with its own",
        "token and event log. Raw Ray Jobs ask for the same device (`entrypoint_resources`) on the same cluster;",
        f"rounds of {load.commands} commands alternate, medians with the least and the most of {len(load.service)}",
        "rounds. A command writes the time at which it starts, and ends.",
        "",
        *_commands(load),
        "",
        f"Of {commands} commands through the service, {lost} were lost. All workloads of the run, arrays and warm-ups",
        f"included: {ended}.",
        "",
        f"Task arrays, {len(arrays.raw['python'])} alternating rounds, four workers. Raw is",
        "`ray.get([f.remote(i) for i in range(n)])` with tasks that hold a device, on workers that have run before;",
        "its shell tasks call `subprocess.run`. The rate of an array is that from its last worker being ready (the",
        "first, where most items are done before that) to its last result being on disk.",
        "",
        *_arrays(arrays),
        "",
    ]
    return "\n".join(lines)


def _commands(load: Load) -> list[str]:
    rows = [
        "| | raw Ray Jobs | through the service | overhead |",
        "| --- | --- | --- | --- |",
        _row("seconds a command, in a burst", _each(load.raw), _each(load.service), "{:.2f}"),
    ]
    raw_cpu, service_cpu = _cpu(load.raw), _cpu(load.service)
    if raw_cpu and service_cpu:
        rows.append(_row("CPU seconds a command", raw_cpu, service_cpu, "{:.2f}"))
    waits = [[statistics.median(each.waits_s) for each in rounds] for rounds in (load.raw, load.service)]
    rows.append(_row("submission to start in a burst, median (s)", waits[0], waits[1], "{:.1f}"))
    rows.append(_row("submission to start, one alone (s)", load.single_raw, load.single_service, "{:.2f}"))
    return rows


def _arrays(arrays: Arrays) -> list[str]:
    rows = [
        "| items | raw tasks, items/s | array, items/s | array / raw | whole workload, submission to end (s) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, count in arrays.items.items():
        raw, ours = arrays.raw[kind], arrays.service[kind]
        name = f"{count:,} {'Python calls' if kind == 'python' else 'shell commands'}"
        ratio = statistics.median(ours) / statistics.median(raw)
        whole = _spread(arrays.whole_s[kind], "{:.1f}")
        rows.append(f"| {name} | {_spread(raw, '{:,.0f}')} | {_spread(ours, '{:,.0f}')} | {ratio:.2f} | {whole} |")
    return rows


def _row(name: str, raw: Sequence[float], service: Sequence[float], form: str) -> str:
    more = statistics.median(service) / statistics.median(raw) - 1
    return f"| {name} | {_spread(raw, form)} | {_spread(service, form)} | {more:+.0%} |"


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(each) for each in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high})"


def _each(rounds: Sequence[Round]) -> list[float]:
    return [1 / each.per_s for each in rounds]


def _cpu(rounds: Sequence[Round]) -> list[float]:
    return [each.cpu_s / each.commands for each in rounds if each.cpu_s is not None]
