"""Who held which device when, as a plotly figure: a bar for each attempt where there are few, cells coloured by the
family that held them most where there are many. Reads, decides nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.simulate.types import Ending, JobResult, SimulationResult, Span

from .simulation_figures import COLOURS, Figure, end_s, layout, plain, short
from .simulation_tables import time_unit

BARS = 4000
"""More of them, or more rows than `ROWS`, and cells are drawn instead."""
ROWS = 128
COLUMNS = 600
MARKS = 1500
"""More ends than these are only counted below."""
STOP_BINS = 120
LABELS = 40
OTHERS = "other families"
GREY = "#8f969e"
SAME_S = 1e-6


@dataclass(frozen=True)
class Mark:
    """How ends of one sort are drawn: told apart by shape and pattern, whatever colours one sees."""

    name: str
    symbol: str
    size: int
    fill: str
    line: str
    pattern: str
    """Of the bars that count them."""


FAILED_RED = "#e0502a"
MARKED: dict[Ending, Mark] = {
    "stopped": Mark("preempted or moved", "diamond", 8, "@back", "@text", ""),
    "failed": Mark("failed, or lost its node", "x", 9, FAILED_RED, "@back", "/"),
    "running": Mark("still running", "triangle-right", 9, "@text", "@back", ""),
}
"""An attempt's ends that are not its job's success."""
COUNTED: tuple[Ending, ...] = ("stopped", "failed")


@dataclass(frozen=True)
class Piece:
    """Neighbouring devices of a node that one job held for a time."""

    job: str
    family: str
    node: str
    device_type: str
    lane: int
    """The first of them, counted over the cluster."""
    count: int
    began_s: float
    ended_s: float
    ended: Ending = "succeeded"


@dataclass(frozen=True)
class Stop:
    """An attempt's end that was not its job's success."""

    job: str
    at_s: float
    lane: float
    """The middle of the first devices that it held."""
    ended: Ending
    moved: bool
    """It went on at once, elsewhere."""


@dataclass(frozen=True)
class Lanes:
    """A row a device; nodes of one type stand together."""

    pieces: Sequence[Piece]
    stops: Sequence[Stop]
    nodes: Sequence[tuple[str, str, int, int]]
    """Type, node, first lane, lanes."""

    @property
    def count(self) -> int:
        """All lanes."""
        return sum(lanes for *_, lanes in self.nodes)


def lanes_of(result: SimulationResult) -> Lanes:
    """Every span on devices of its node that nobody else held then; a node has as many as were held at once."""
    by_node: dict[tuple[str, str], list[tuple[Span, JobResult]]] = defaultdict(list)
    for job in result.jobs:
        for span in job.spans:
            if span.count > 0:
                by_node[span.device_type, span.node].append((span, job))
    pieces: list[Piece] = []
    nodes: list[tuple[str, str, int, int]] = []
    first = 0
    for kind, node in sorted(by_node, key=lambda key: (key[0], _natural(key[1]))):
        spans = sorted(by_node[kind, node], key=lambda each: (each[0].began_s, each[0].ended_s))
        found = [Piece(job.id, job.family, node, kind, first + lane, count, span.began_s, span.ended_s, span.ended)
                 for lane, count, span, job in _assigned(spans)]  # fmt: skip
        lanes = max(piece.lane + piece.count for piece in found) - first
        pieces += _merged(found)
        nodes.append((kind, node, first, lanes))
        first += lanes
    return Lanes(pieces, list(_stops(result.jobs, pieces)), nodes)


def _natural(name: str) -> list[tuple[int, str]]:
    """`n2` before `n10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _assigned(spans: Sequence[tuple[Span, JobResult]]) -> Iterator[tuple[int, int, Span, JobResult]]:
    """(lane, count, span, job): the lowest lanes that are free then, in runs of neighbours; a job that goes on where it
    was keeps its lanes."""
    until: list[float] = []
    last: list[str] = []
    for span, job in spans:
        free = [lane for lane, end in enumerate(until) if end <= span.began_s + SAME_S]
        free.sort(key=lambda lane: (last[lane] != job.id, lane))
        missing = max(span.count - len(free), 0)
        free += range(len(until), len(until) + missing)
        until += [0.0] * missing
        last += [""] * missing
        taken = sorted(free[: span.count])
        for lane in taken:
            until[lane], last[lane] = span.ended_s, job.id
        start = taken[0]
        for lane, following in zip(taken, [*taken[1:], -1], strict=True):
            if following != lane + 1:
                yield start, lane + 1 - start, span, job
                start = following


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """With those in one that go on at once on the same devices."""
    done: list[Piece] = []
    last: dict[tuple[str, int, int], int] = {}
    for piece in sorted(pieces, key=lambda each: each.began_s):
        key = (piece.job, piece.lane, piece.count)
        index = last.get(key)
        before = None if index is None else done[index]
        if index is not None and before is not None and _goes_on(before, piece):
            done[index] = replace(before, ended_s=piece.ended_s, ended=piece.ended)
        else:
            last[key] = len(done)
            done.append(piece)
    return done


def _goes_on(before: Piece, after: Piece) -> bool:
    return abs(before.ended_s - after.began_s) <= SAME_S and before.ended != "failed"


def _stops(jobs: Sequence[JobResult], pieces: Sequence[Piece]) -> Iterator[Stop]:
    """Ends of drawn attempts that succeeded in nothing, job by job; an attempt on several nodes ends once."""
    ends: dict[str, dict[tuple[float, Ending], Piece]] = defaultdict(dict)
    begins: dict[str, set[float]] = defaultdict(set)
    for piece in sorted(pieces, key=lambda each: each.lane):
        begins[piece.job].add(round(piece.began_s, 3))
        if piece.ended in MARKED:
            ends[piece.job].setdefault((round(piece.ended_s, 3), piece.ended), piece)
    for job in jobs:
        for (at_s, ended), piece in sorted(ends[job.id].items(), key=lambda each: each[0]):
            yield Stop(job.id, at_s, piece.lane + piece.count / 2, ended, at_s in begins[job.id])


def gantt_figure(result: SimulationResult, families: Sequence[str]) -> Figure | None:
    """Devices by time, coloured by family: the first of `families` have their own colour. None where no device was
    held."""
    lanes = lanes_of(result)
    if not lanes.pieces:
        return None
    last_s = end_s(result)
    unit, scale = time_unit([last_s])
    few = len(lanes.pieces) <= BARS and lanes.count <= ROWS
    rows = lanes.count if few else min(lanes.count, ROWS)
    named = list(families[: len(COLOURS)])
    data = _bars(lanes, named, scale, unit) if few else _cells(lanes, named, rows, last_s, scale, unit)
    if few and len(lanes.stops) <= MARKS:
        data += _marks(lanes.stops, scale, unit)
    data += _stop_counts(lanes.stops, last_s, scale, keys=not few or len(lanes.stops) > MARKS)
    return {"data": data, "layout": _layout(lanes, rows, last_s / scale, unit)}


def _bars(lanes: Lanes, named: Sequence[str], scale: float, unit: str) -> list[Figure]:
    groups: dict[str, list[Piece]] = {name: [] for name in [*named, OTHERS]}
    for piece in lanes.pieces:
        groups[piece.family if piece.family in named else OTHERS].append(piece)
    hover = "job %{customdata[0]}, %{customdata[1]}<br>%{customdata[2]}<br>"
    hover += f"from %{{base:.2f}} to %{{customdata[3]}} {unit}<extra></extra>"
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": short(name),
            "base": [round(piece.began_s / scale, 4) for piece in group],
            "x": [round((piece.ended_s - piece.began_s) / scale, 4) for piece in group],
            "y": [piece.lane + piece.count / 2 for piece in group],
            "width": [piece.count - 0.12 for piece in group],
            "customdata": [
                [plain(piece.job), plain(piece.family), plain(_devices(piece)), f"{piece.ended_s / scale:.2f}"]
                for piece in group
            ],
            "marker": {"color": _colour(name, named), "line": {"width": 0.6, "color": "@back"}},
            "hovertemplate": hover,
        }
        for name, group in groups.items()
        if group
    ]


def _devices(piece: Piece) -> str:
    return f"{piece.device_type} x{piece.count} on {piece.node}"


def _colour(name: str, named: Sequence[str]) -> str:
    return COLOURS[named.index(name)] if name in named else GREY


def _cells(lanes: Lanes, named: Sequence[str], rows: int, last_s: float, scale: float, unit: str) -> list[Figure]:
    """Rows of one or more devices and columns of time; a cell that was idle for half or more stays empty.

    `meta.names` are the families by z: the page makes the texts of the cells from them."""
    names = [*named, OTHERS]
    held = np.zeros((rows, COLUMNS, len(names)))
    number = {name: index for index, name in enumerate(names)}
    width_s, per_row = last_s / COLUMNS, lanes.count / rows
    edges = np.arange(COLUMNS + 1) * width_s
    for piece in lanes.pieces:
        family = number.get(piece.family, len(names) - 1)
        first, last = int(piece.began_s / width_s), min(int(piece.ended_s / width_s), COLUMNS - 1)
        seconds = np.minimum(edges[first + 1 : last + 2], piece.ended_s) - np.maximum(
            edges[first : last + 1], piece.began_s
        )
        for lane in range(piece.lane, piece.lane + piece.count):
            held[int(lane / per_row), first : last + 1, family] += seconds
    most, share = held.argmax(axis=2), held.sum(axis=2) / (width_s * per_row)
    z = [
        [int(index) if part > 0.5 else None for index, part in zip(*row, strict=True)]
        for row in zip(most, share, strict=True)
    ]
    steps = [(index + side) / len(names) for index in range(len(names)) for side in (0, 1)]
    scaled = [[step, _colour(names[index // 2], named)] for index, step in enumerate(steps)]
    grid = {
        "type": "heatmap",
        "z": z,
        "x0": width_s / scale / 2,
        "dx": width_s / scale,
        "y0": per_row / 2,
        "dy": per_row,
        "zmin": -0.5,
        "zmax": len(names) - 0.5,
        "colorscale": scaled,
        "showscale": False,
        "hoverongaps": False,
        "meta": {"names": [plain(name) for name in names]},
        "hovertemplate": f"mostly %{{text}}<br>at %{{x:.2f}} {unit}<extra></extra>",
        "showlegend": False,
    }
    used = sorted({index for row in z for index in row if index is not None})
    keys = [
        {"type": "scatter", "mode": "markers", "name": short(names[index]), "x": [None], "y": [None],
         "marker": {"symbol": "square", "size": 11, "color": _colour(names[index], named)}}
        for index in used
    ]  # fmt: skip
    return [grid, *keys]


_SAID = {
    "stopped": "was stopped for the plan, to go on later",
    "moved": "was moved by the plan",
    "failed": "failed, or lost its node",
    "running": "still ran at the end",
}


def _marks(stops: Sequence[Stop], scale: float, unit: str) -> list[Figure]:
    """A shape at each end, the sorts of ends in a legend of their own."""
    made = []
    for ended, mark in MARKED.items():
        group = [stop for stop in stops if stop.ended == ended]
        if not group:
            continue
        said = ["moved" if stop.ended == "stopped" and stop.moved else stop.ended for stop in group]
        trace: Figure = {
            "type": "scatter",
            "mode": "markers",
            "name": mark.name,
            "legend": "legend2",
            "x": [round(stop.at_s / scale, 4) for stop in group],
            "y": [round(stop.lane, 2) for stop in group],
            "text": [f"job {plain(stop.job)} {_SAID[word]}" for stop, word in zip(group, said, strict=True)],
            "marker": {
                "symbol": mark.symbol,
                "size": mark.size,
                "color": mark.fill,
                "line": {"width": 1.2, "color": mark.line},
            },
            "cliponaxis": False,
            "hovertemplate": f"%{{text}}<br>at %{{x:.2f}} {unit}<extra></extra>",
        }
        made.append(trace)
    return made


def _stop_counts(stops: Sequence[Stop], last_s: float, scale: float, *, keys: bool) -> list[Figure]:
    """How many attempts were stopped or failed, in equal parts of the time: below the devices, one upon the other.
    `keys`: with a legend, as no marks have one."""
    below = np.zeros(STOP_BINS)
    made = []
    for ended in COUNTED:
        at = [stop.at_s for stop in stops if stop.ended == ended]
        counts, edges = np.histogram(at, bins=STOP_BINS, range=(0.0, max(last_s, SAME_S)))
        middles = (edges[:-1] + edges[1:]) / 2 / scale
        mark = MARKED[ended]
        bar: Figure = {
            "type": "bar",
            "name": mark.name,
            "legend": "legend2",
            "meta": {"ended": ended},
            "x": [round(float(each), 4) for each in middles],
            "y": [int(each) for each in counts],
            "base": [int(each) for each in below],
            "width": float(edges[1] - edges[0]) / scale,
            "yaxis": "y2",
            "showlegend": keys and bool(at),
            "marker": {
                "color": "@dim" if ended == "stopped" else FAILED_RED,
                "line": {"width": 0},
                "pattern": {"shape": mark.pattern, "fillmode": "overlay", "fgcolor": "@back", "size": 5},
            },
            "hovertemplate": f"%{{y}} {mark.name}<extra></extra>",
        }
        made.append(bar)
        below = below + counts
    return made


def _layout(lanes: Lanes, rows: int, last: float, unit: str) -> Figure:
    height = int(min(max(rows * 15 + 190, 380), 900))
    shown = layout(
        f"time since the start of the trace ({unit})", "", height=height, barmode="overlay", hovermode="closest"
    )
    ticks = [
        (node if kind.split("-")[0].lower() in node.lower() else f"{kind} {node}", first + count / 2)
        for kind, node, first, count in lanes.nodes
    ]
    borders = [
        first for (kind, _, first, _), before in zip(lanes.nodes[1:], lanes.nodes, strict=False) if kind != before[0]
    ]
    if len(ticks) > LABELS:
        kinds = dict.fromkeys(kind for kind, *_ in lanes.nodes)
        spans = {kind: [(first, count) for each, _, first, count in lanes.nodes if each == kind] for kind in kinds}
        ticks = [(kind, (each[0][0] + each[-1][0] + each[-1][1]) / 2) for kind, each in spans.items()]
    below = 84 / height
    shown["xaxis"] |= {"range": [0, last], "anchor": "y2"}
    shown["yaxis"] |= {
        "domain": [below + 0.04, 1],
        "range": [lanes.count, 0],
        "tickvals": [at for _, at in ticks],
        "ticktext": [plain(text) for text, _ in ticks],
        "showgrid": False,
        "zeroline": False,
        "tickfont": {"size": 11},
        "title": {"text": "node" if len(lanes.nodes) <= LABELS else "device type", "standoff": 12},
    }
    shown["yaxis2"] = {
        **shown["yaxis"],
        "domain": [0, below],
        "title": {"text": "stops", "standoff": 12},
        "rangemode": "tozero",
        "nticks": 3,
    }
    for name in ("range", "tickvals", "ticktext"):
        shown["yaxis2"].pop(name)
    line = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "line": {"color": "@text", "width": 1, "dash": "dot"}}
    shown["legend2"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"}
    shown["legend2"] |= {"title": {"text": "attempts without success: "}}
    shown["shapes"] = [line | {"y0": each, "y1": each} for each in borders]
    return shown
