"""The plots of a simulation's report as plotly figures: plain dicts, to go into a page as JSON. Reads, decides nothing.

Colours `@text`, `@dim`, `@grid` and `@back` are the page's own, light or dark, put in where the figure is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.simulate.metrics import Bounds, Summary
from scheduler.simulate.types import Sample, SimulationResult

from .simulation_tables import time_unit

Figure = dict[str, Any]
Floats = NDArray[np.float64]
COLOURS = (
    "#4c8dd6", "#f08c2e", "#3fa66b", "#d9568f", "#9b7be0", "#c9a227", "#29a3a8", "#c8634a", "#7d9a3c", "#8c7b6b",
)  # fmt: skip
"""Of medium lightness: readable on white and on near black."""
DASHES = ("solid", "dash", "dot", "dashdot")
POINTS = 600
"""Of a line: a longer one is drawn as the means of as many equal parts of the time."""

NAME = 40


def colour(index: int) -> str:
    """The colour of the index-th policy or type; after the last they begin again."""
    return COLOURS[index % len(COLOURS)]


def plain(text: str) -> str:
    """Text that plotly shows as it is: it would take `<b>` for bold."""
    return escape(text, quote=False)


def short(text: str) -> str:
    """As `plain`, cut where it would take a legend for itself."""
    return plain(text if len(text) <= NAME else f"{text[: NAME - 1]}…")


def layout(x_title: str, y_title: str, **more: Any) -> Figure:
    """What all plots share. Titles have their unit in them."""
    axis: Figure = {"gridcolor": "@grid", "zerolinecolor": "@grid", "linecolor": "@grid", "tickcolor": "@grid"}
    axis |= {"automargin": True, "ticks": "outside", "ticklen": 4}
    return {
        "font": {
            "family": "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
            "size": 13,
            "color": "@text",
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 44, "t": 8, "b": 48},
        "height": 340,
        "hoverlabel": {"bgcolor": "@back", "bordercolor": "@grid", "font": {"color": "@text"}, "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": "@dim", "activecolor": "@text"},
        "showlegend": True,
        "xaxis": axis | {"title": {"text": x_title}, "zeroline": False},
        "yaxis": axis | {"title": {"text": y_title}, "rangemode": "tozero"},
        **more,
    }


def end_s(result: SimulationResult) -> float:
    """The last moment that a result tells of."""
    ends = [job.ended_s for job in result.jobs if job.ended_s is not None]
    ends += [span.ended_s for job in result.jobs for span in job.spans]
    return max([*ends, *(sample.at_s for sample in result.samples[-1:])], default=0.0)


def _line(name: str, number: int, x: Iterable[float], y: Iterable[float | None], **more: Any) -> Figure:
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": short(name),
        "x": [round(each, 4) for each in x],
        "y": [None if each is None else float(f"{each:.4g}") for each in y],
        "line": {"color": colour(number), "width": 2, "dash": dash, "shape": "hv"},
        **more,
    }


def over_time(
    samples: Sequence[Sample], value: Callable[[Sample], float | None], until_s: float, scale: float
) -> tuple[list[float], list[float | None]]:
    """Times / `scale` and values that hold from each on; None where a value is not known."""
    if not samples:
        return [], []
    at = np.array([each.at_s for each in samples])
    found = [value(each) for each in samples]
    if len(samples) <= POINTS:
        return [*(at / scale).tolist(), until_s / scale], [*found, found[-1]]
    known = np.array([each is not None for each in found], dtype=float)
    values = np.array([0.0 if each is None else each for each in found])
    ends = np.append(at, max(until_s, float(at[-1])))
    edges = np.linspace(ends[0], ends[-1], POINTS + 1)
    lengths = np.diff(ends)

    def means(each: Floats) -> Floats:
        return np.diff(np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(each * lengths)])))

    seconds, sums = means(known), means(values * known)
    least = 1e-9 * float(ends[-1] - ends[0])
    return (edges[:-1] / scale).tolist(), [
        float(total / length) if length > least else None for total, length in zip(sums, seconds, strict=True)
    ]


def completion_figure(
    names: Sequence[str], results: Sequence[SimulationResult], bounds: Bounds | None
) -> Figure | None:
    """Share of all jobs that were complete some time after they came; None where none was."""
    times = [
        sorted(
            job.ended_s - job.arrived_s for job in result.jobs if job.state == "succeeded" and job.ended_s is not None
        )
        for result in results
    ]
    if not any(times):
        return None
    unit, scale = time_unit(each[-1] for each in times if each)
    data = []
    for number, (name, jcts, result) in enumerate(zip(names, times, results, strict=True)):
        steps = np.linspace(0, len(jcts) - 1, min(len(jcts), POINTS))
        picked = sorted({int(step) for step in steps})
        x = [float(f"{max(jcts[index], 1e-3) / scale:.4g}") for index in picked]
        y = [100 * (index + 1) / len(result.jobs) for index in picked]
        hover = f"%{{y:.1f}}% of jobs within %{{x:.4~g}} {unit}"
        line = _line(name, number, [], y, hovertemplate=hover)
        data.append(line | {"x": x})
    shown = layout(f"time from arrival to completion ({unit}, logarithmic)", "jobs complete (%)")
    shown["xaxis"] |= {"type": "log", "dtick": "D1" if _decades(times) < 2 else "D2", "exponentformat": "none"}
    shown["yaxis"] |= {"range": [0, 101]}
    if bounds is not None and bounds.mean_jct_s:
        shown |= _marked(bounds.mean_jct_s / scale, "least possible mean")
    return {"data": data, "layout": shown}


def _decades(times: Sequence[Sequence[float]]) -> float:
    least, greatest = min(max(each[0], 1e-3) for each in times if each), max(each[-1] for each in times if each)
    return float(np.log10(max(greatest, least) / least))


def _marked(x: float, text: str) -> Figure:
    """A vertical line on a logarithmic axis."""
    line = {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    note = {"x": float(np.log10(x)), "y": 0.03, "yref": "paper", "text": text, "showarrow": False, "xanchor": "left"}
    return {
        "shapes": [line | {"line": {"color": "@text", "width": 1, "dash": "dot"}}],
        "annotations": [note | {"xshift": 4, "yanchor": "bottom", "font": {"size": 12, "color": "@text"}}],
    }


def policies_figure(
    names: Sequence[str],
    results: Sequence[SimulationResult],
    value: Callable[[Sample], float | None],
    y_title: str,
    hover: str,
) -> Figure | None:
    """One number of the samples over time, a line a policy; None where no policy has it."""
    unit, scale = time_unit(end_s(result) for result in results)
    data = []
    for number, (name, result) in enumerate(zip(names, results, strict=True)):
        x, y = over_time(result.samples, value, end_s(result), scale)
        if any(each is not None for each in y):
            data.append(_line(name, number, x, y, hovertemplate=hover))
    shown = layout(f"time since the start of the trace ({unit})", y_title, hovermode="x unified")
    shown["xaxis"] |= {"hoverformat": ".2f", "unifiedhovertitle": {"text": f"%{{x}} {unit}"}}
    return {"data": data, "layout": shown} if data else None


def utilisation_figure(names: Sequence[str], summaries: Sequence[Summary]) -> Figure | None:
    """Share of each type's device time that was held, a bar a policy."""
    types = sorted({name for each in summaries for name in each.utilisation_by_type})
    if not types:
        return None
    data = [
        {
            "type": "bar",
            "name": short(name),
            "x": [plain(each) for each in types],
            "y": [round(100 * one.utilisation_by_type.get(each, 0.0), 2) for each in types],
            "marker": {"color": colour(number), "line": {"width": 0}},
            "hovertemplate": "%{x}: %{y:.1f}% of device time held",
        }
        for number, (name, one) in enumerate(zip(names, summaries, strict=True))
    ]
    shown = layout("device type", "device time held until the makespan (%)", barmode="group", bargap=0.25)
    shown["yaxis"] |= {"range": [0, 101]}
    shown["xaxis"] |= {"type": "category"}
    return {"data": data, "layout": shown}


def types_figure(
    result: SimulationResult, value: Callable[[Sample, str], float | None], y_title: str, hover: str
) -> Figure | None:
    """One number of the samples of one policy over time, a line a device type; None where there is none."""
    last_s = end_s(result)
    unit, scale = time_unit([last_s])
    data = []
    for number, name in enumerate(device_types(result)):
        x, y = over_time(result.samples, lambda sample, name=name: value(sample, name), last_s, scale)  # type: ignore[misc]
        if any(each is not None for each in y):
            data.append(_line(name, number, x, y, hovertemplate=hover))
    shown = layout(f"time since the start of the trace ({unit})", y_title, hovermode="x unified")
    shown["xaxis"] |= {"hoverformat": ".2f", "unifiedhovertitle": {"text": f"%{{x}} {unit}"}}
    return {"data": data, "layout": shown} if data else None


def device_types(result: SimulationResult) -> list[str]:
    """All that there ever were."""
    return sorted({name for sample in result.samples for name in sample.total})


def held_percent(sample: Sample, name: str) -> float | None:
    """Share of a type's devices that is held; None while there are none."""
    total = sample.total.get(name, 0)
    return 100 * sample.busy.get(name, 0) / total if total else None


def congestion(sample: Sample, name: str) -> float | None:
    """Dollars an hour of one device on top of its price; None from a policy that has no such prices."""
    return sample.congestion_usd_h.get(name, 0.0) if sample.congestion_usd_h else None


def jobs_of_family(result: SimulationResult) -> Mapping[str, float]:
    """Device-seconds by family, most first."""
    held: dict[str, float] = {}
    for job in result.jobs:
        held[job.family] = held.get(job.family, 0.0) + sum(
            span.count * (span.ended_s - span.began_s) for span in job.spans
        )
    return dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))
