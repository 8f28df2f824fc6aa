"""What `raywise profile` says, as tables: operators of each step, what would help, what would not. Reads, decides
nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from .sheet import Column, Row, Sheet
from .text import configuration_text, dollars, duration, interval, size

Json = Mapping[str, Any]
BYTES_SHOWN = 3
DEVICES_SHOWN = 4
"""Of the device types that would help; `--json` has all."""
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PASS = {"communication": "-", "optimizer": "update"}
_NOT_YET = "not available in the built-in bodies yet"


def everything(answer: Json, top: int) -> Iterator[RenderableType]:
    """All steps of an answer, with the `top` operators of each."""
    yield Text(f"Profile of {answer['name']}, on {answer['cluster']}")
    for step in answer["steps"]:
        yield Text()
        if step["message"]:
            yield Text.assemble((f"{step['name']} ({step['kind']})", "bold"), f": {step['message']}")
        else:
            yield from _step(step, set(answer["emulated"]), top)


def _step(step: Json, emulated: set[str], top: int) -> Iterator[RenderableType]:
    now = step["estimate"]
    rows = f"batches of {step['batch_size']} rows of {step['tokens_per_sample']:.0f} tokens"
    model = f"{step['family']}, {amount(step['parameters'])} parameters, {step['precision']}, {rows}"
    yield Text.assemble((f"{step['name']} ({step['kind']})", "bold"), f": {model}")
    yield Text(f"on {configuration_text(now['configuration'], emulated)}: {_estimate_text(now)}")
    if now["infeasible"]:
        yield Text(f"not possible: {now['infeasible']['message']}", style="bold red")
    if not step["devices"] and now["note"]:
        yield Text(f"no operators: {now['note']}")
    for device in step["devices"]:
        yield operators_table(device, step["kind"], emulated, top, alone=len(step["devices"]) == 1)
    yield Text()
    yield advice_table(step)
    if step["would_not_help"]:
        yield Text("would not help", style="bold")
        kept, left_out = _shortened(step["would_not_help"])
        for advice in kept:
            yield Text(f"  {advice['change']}: {_why_not(advice)}", style="dim")
        if left_out:
            yield Text(f"  {left_out} more device types: --json has them", style="dim")


def _estimate_text(estimate: Json) -> str:
    """Time, interval, source, dollars, memory and bound, as far as they are known."""
    if estimate["seconds"] is None:
        return estimate["note"] or "no time is predicted"
    spread = interval(estimate["low_s"], estimate["high_s"])
    parts = [f"{duration(estimate['seconds'])} (likely {spread}, {estimate['source']})", _money(estimate)]
    parts += [f"{size(estimate['memory_bytes'])} a device"] if estimate["memory_bytes"] else []
    parts += [f"bound by {estimate['bound']}"] if estimate["bound"] else []
    text = ", ".join(parts)
    where = estimate["breakdown"]
    named = (("start-up", "startup_s"), ("checkpoints", "checkpoint_s"), ("rework", "rework_s"))
    beside = [f"{name} {duration(where[key])}" for name, key in named if where and where[key] >= 0.05]
    return f"{text}; of it {', '.join(beside)}" if beside else text


def operators_table(device: Json, kind: str, emulated: set[str], top: int, alone: bool = True) -> Sheet:
    """The longest operators of a step on one device type, and all others in one row."""
    columns = [
        Column("operator", "left"),
        Column("pass", "left", 1),
        Column("bound by", "left"),
        Column("time"),
        Column("share"),
        Column("bytes"),
        Column("FLOPs", rank=2),
    ]
    shown, rest = device["operators"][:top], device["operators"][top:]
    rows = [_operator(each) for each in shown]
    if rest:
        rows.append(_operator(_together(rest), "dim"))
    mark = " (emulated)" if device["device"] in emulated else ""
    unit = "step" if kind == "train" else "batch"
    title = f"one {unit} on {device['device']}{mark}: {short(device['step_s'])}, {device['samples']:.4g} rows a device"
    title += f"; {math.ceil(device['steps'])} to do" if alone else ""
    scaled = f"each operator's own roofline x {device['scale']:.2f}: they add up to the {unit} as it is estimated"
    return Sheet(columns, rows, "", title, [_most_bytes(device["operators"]), scaled])


def _operator(each: Json, style: str = "") -> Row:
    cells = [
        each["name"],
        _PASS.get(each["phase"], each["phase"]),
        "comms" if each["bound"] == "communication" else each["bound"],
        short(each["seconds"]),
        f"{each['share']:.1%}",
        amount(each["moved_bytes"]) if each["moved_bytes"] else "-",
        amount(each["flops"]) if each["flops"] else "-",
    ]
    return Row(cells, style=style)


def _together(rest: Sequence[Json]) -> dict[str, Any]:
    sums = {key: sum(each[key] for each in rest) for key in ("seconds", "share", "moved_bytes", "flops")}
    return {"name": f"{len(rest)} others", "phase": "", "bound": "", **sums}


def _most_bytes(operators: Sequence[Json]) -> str:
    """The operators that move most, with their share of all bytes."""
    kept = [each for each in operators if each["phase"] != "communication"]
    total = sum(each["moved_bytes"] for each in kept) or 1.0
    most = sorted(kept, key=lambda each: -each["moved_bytes"])[:BYTES_SHOWN]
    named = (
        f"{each['name']} ({_PASS.get(each['phase'], each['phase'])}) {each['moved_bytes'] / total:.0%}" for each in most
    )
    return f"most bytes: {', '.join(named)} of {size(total)}"


def advice_table(step: Json) -> Sheet:
    """What would help: time, dollars and memory after each change, and the difference."""
    columns = [Column("what would help", "left"), Column("time"), Column("dollars"), Column("memory\n/device")]
    now = step["estimate"]
    memory = size(now["memory_bytes"]) if now["memory_bytes"] else "-"
    time = duration(now["seconds"]) if now["seconds"] is not None else "-"
    rows = [Row(["as it is", time, _money(now), memory], style="dim")]
    kept, left_out = _shortened(step["advice"])
    rows += [_advised(each) for each in kept]
    captions = [f"{left_out} more device types would help: --json has them"] if left_out else []
    if not kept:
        captions.append("nothing that was tried would help by 3% or more")
    return Sheet(columns, rows, "note", "", captions)


def _shortened(advice: Iterable[Json]) -> tuple[list[Json], int]:
    """Without the device types after the best few."""
    kept, devices = [], 0
    for each in advice:
        devices += (each["setting"] or "").startswith("resources: {devices")
        if not (each["setting"] or "").startswith("resources: {devices") or devices <= DEVICES_SHOWN:
            kept.append(each)
    return kept, max(devices - DEVICES_SHOWN, 0)


def _advised(advice: Json) -> Row:
    before, after = advice["before"], advice["after"]
    first = "\n".join(filter(None, (advice["change"], advice["setting"])))
    time = duration(after["seconds"]) if after["seconds"] is not None else "-"
    if advice["gain_s"] is not None:
        time += f"\n{_signed(-advice['gain_s'], 's')}\n{-advice['gain_percent']:+.0f}%"
    money = _money(after)
    if advice["gain_usd"] is not None:
        money += f"\n{'-' if advice['gain_usd'] >= 0 else '+'}{dollars(abs(advice['gain_usd']))}"
        money += f"\n{-advice['gain_usd_percent']:+.0f}%" if advice["gain_usd_percent"] is not None else ""
    memory = size(after["memory_bytes"]) if after["memory_bytes"] else "-"
    if before["memory_bytes"] and after["memory_bytes"]:
        memory += f"\n{100 * (after['memory_bytes'] / before['memory_bytes'] - 1):+.0f}%"
    notes = ["makes it fit"] if advice["makes_it_fit"] else ["a trade-off"] if advice["trade_off"] else []
    notes += [] if advice["available"] else [_NOT_YET]
    notes += [advice["assumption"]] if advice["assumption"] else []
    return Row([first, time, money, memory], "; ".join(notes))


def _why_not(advice: Json) -> str:
    """The reason, or what it would change."""
    if advice["reason"]:
        return str(advice["reason"])
    pairs = ((advice["gain_percent"], "time"), (advice["gain_usd_percent"], "dollars"))
    step = advice["step_gain_percent"]
    longer = f" ({-step:+.0f}% of the work without start-up)" if step is not None and step >= 3 else ""
    known = [(f"{-gain:+.1f}%", what) for gain, what in pairs if gain is not None]
    if known and all(text in ("+0.0%", "-0.0%") for text, _ in known):
        return f"no change{longer}"
    return ", ".join(f"{text} {what}" for text, what in known) + longer or "nothing is known of it"


def _money(estimate: Json) -> str:
    return "unpriced" if estimate["money_usd"] is None else dollars(estimate["money_usd"])


def _signed(seconds: float, unit: str) -> str:
    return f"{seconds:+.1f} {unit}" if abs(seconds) < 1000 else f"{seconds:+.0f} {unit}"


def short(seconds: float) -> str:
    """`1.2 s`, `34.1 ms`, `5.6 us`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def amount(value: float) -> str:
    """A count with three digits: `22.7M`, `1.3T`."""
    for unit, name in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
