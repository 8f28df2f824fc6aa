"""`raywise doctor`: what is wrong with this machine, the service and its cluster, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.markup import escape

from scheduler.doctor import Finding, judge, worst
from scheduler.doctor.gather import Target, gather
from scheduler.service.config import ServiceConfig
from scheduler.service.home import Home
from scheduler.service.tls import TlsFiles

from .common import FAILED, CatalogOption, HomeOption, JsonFlag, console, friendly, home_of, print_json
from .serve import ConfigOption

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SUBJECT_CHARS = 18


def doctor(
    config: ConfigOption = None,
    catalog: CatalogOption = None,
    json_: JsonFlag = False,
    home: HomeOption = None,
) -> None:
    """Look at this machine, the service and its cluster; say what is wrong and what to do. Exit code 1 if anything
    fails."""
    with friendly():
        target = Target(home_of(home), catalog=catalog) if config is None else target_of(config, home_of(home))
        findings = judge(gather(target))
    if json_:
        print_json({"level": worst(findings), "findings": [asdict(each) for each in findings]})
    else:
        _show(findings)
    if worst(findings) == "fail":
        raise typer.Exit(FAILED)


def target_of(file: Path, default: Home) -> Target:
    """What a configuration names. Raises SpecError."""
    config = ServiceConfig.load(file)
    home = default if config.home is None else Home(Path(config.home))
    return Target(
        home=Home(home.path, None if config.runs is None else Path(config.runs)),
        store=config.read_store(file=str(file)),
        host=config.listen.host,
        port=config.listen.port,
        tls=None if config.tls is None else TlsFiles(Path(config.tls.cert), Path(config.tls.key)),
        address=config.cluster.address,
        dashboard_url=config.dashboard_url,
        token_file=None if config.cluster.token_file is None else Path(config.cluster.token_file),
        catalog=None if config.catalog is None else Path(config.catalog),
    )


def _show(findings: Sequence[Finding]) -> None:
    for each in findings:
        colour = _COLOURS[each.level]
        subject = each.subject.ljust(_SUBJECT_CHARS)
        console.print(f"[{colour}]{each.level:<4}[/{colour}]  {escape(subject)} {escape(each.found)}", soft_wrap=True)
        if each.do:
            console.print(f"{'':6}{'':{_SUBJECT_CHARS}} do: {each.do}", markup=False, soft_wrap=True)
    counts = {level: sum(each.level == level for each in findings) for level in _COLOURS}
    console.print(f"{counts['ok']} ok, {counts['warn']} to be seen to, {counts['fail']} failed", markup=False)
