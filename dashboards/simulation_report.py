"""A simulation as one HTML file that needs nothing else: a table of the policies, plots of all and of each.

Reads, decides nothing. Names come from traces that others wrote: all text is escaped, and the page may load and send
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from scheduler.simulate.metrics import Bounds, Summary
from scheduler.simulate.types import SimulationResult

from .simulation_figures import (
    Figure,
    completion_figure,
    congestion,
    held_percent,
    jobs_of_family,
    policies_figure,
    types_figure,
    utilisation_figure,
)
from .simulation_gantt import gantt_figure
from .simulation_page import SCRIPT, STYLE
from .simulation_tables import Cells, cells, jobs_text, labels, notes

# plotly.js draws with inline scripts and styles and saves pictures by blobs; nothing is fetched.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

NO_BREAK = "\u00a0"

WORDS = (
    ("completion time (JCT)", "From a job's arrival to its end. Only of jobs that finished."),
    ("makespan", "From the start of the trace to the end of the last job."),
    (
        "lower bound",
        "No schedule of these jobs on these devices is better, whatever it knows: the best of what each job takes "
        "alone, of shortest remaining work first on one machine as large as the cluster, and of both together.",
    ),
    (
        "fairness",
        "Completion time over the time with an equal share of the cluster among the jobs there were. Up to 1 is fair, "
        "over 1.1 is counted as unfair.",
    ),
    ("in use", "Devices held, over devices that there were, until the makespan."),
    ("late", "Of the jobs with a deadline, those that were not finished by it."),
    ("restarts", "Attempts after the first, whatever ended the one before."),
    ("rented", "Dollars of rented nodes from their request to their end, whether anything ran on them or not."),
    (
        "idle rented",
        "The part of it for devices that no job held: boot, gaps, and the time until they were given back.",
    ),
    ("congestion price", "What a device is worth to those who wait for it, in dollars an hour on top of its price."),
    ("decision", "Real time that one plan of the policy took, on the machine that ran the simulation."),
)


def report_html(results: Sequence[SimulationResult], summaries: Sequence[Summary], bounds: Bounds | None = None) -> str:
    """The whole page: about 5 MB, most of it plotly.js, which the page carries with it."""
    names = labels(results)
    trace = summaries[0].trace if summaries else "nothing"
    columns, figures = cells(summaries, bounds), _figures(names, results, summaries, bounds)
    body = [
        f"<h1>Simulation of {escape(trace)}</h1>",
        f'<p class="dim about">{escape(_about(results, summaries))}</p>',
        _cards(columns, names, summaries),
        _table(columns, names, summaries, bounds),
        _list(notes(results, summaries, bounds)),
        _all_policies(),
        _one_policy(names),
        "<h2>The words</h2>",
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(means)}</dd>" for word, means in WORDS) + "</dl>",
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Simulation of {escape(trace)}</title>",
            f"<style>{STYLE}</style>",
            f"<script>{_plotly_js()}</script>",
            "</head><body><main>",
            *body,
            "</main>",
            f'<script type="application/json" id="figures">{_json(figures)}</script>',
            f"<script>{SCRIPT}</script>",
            "</body></html>",
            "",
        ]
    )


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _json(value: Any) -> str:
    """JSON that cannot end the script it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figures(
    names: Sequence[str], results: Sequence[SimulationResult], summaries: Sequence[Summary], bounds: Bounds | None
) -> dict[str, Any]:
    families = _families(results)
    waiting = "%{y:.4~g} waiting"
    every = {
        "completion": completion_figure(names, results, bounds),
        "queue": policies_figure(names, results, lambda each: float(each.queued), "jobs waiting", waiting),
        "dollars": policies_figure(names, results, lambda each: each.usd_h, "dollars an hour ($/h)", "$%{y:.2f}/h"),
        "utilisation": utilisation_figure(names, summaries),
    }
    return {"all": every, "one": [_of_one(result, families) for result in results]}


def _of_one(result: SimulationResult, families: Sequence[str]) -> dict[str, Figure | None]:
    price = "congestion price ($/h a device)"
    return {
        "gantt": gantt_figure(result, families),
        "held": types_figure(result, held_percent, "devices held (%)", "%{y:.1f}% held"),
        "prices": types_figure(result, congestion, price, "$%{y:.3f}/h"),
    }


def _families(results: Iterable[SimulationResult]) -> list[str]:
    """All families, those first that held devices the longest over all policies: one colour each on every plot."""
    held: dict[str, float] = {}
    for result in results:
        for name, seconds in jobs_of_family(result).items():
            held[name] = held.get(name, 0.0) + seconds
    return sorted(held, key=lambda name: (-held[name], name))


def _about(results: Sequence[SimulationResult], summaries: Sequence[Summary]) -> str:
    """How many policies, jobs and devices, and how it was simulated, where that is the same of all."""
    parts = [f"{len(results)} {'policy' if len(results) == 1 else 'policies'}"]
    parts += [f"{summaries[0].jobs:,} jobs"] if summaries else []
    most: dict[str, int] = {}
    for sample in (sample for result in results for sample in result.samples):
        for name, count in sample.total.items():
            most[name] = max(count, most.get(name, 0))
    if most:
        types = ", ".join(f"{count:,} {name}" for name, count in sorted(most.items()))
        parts.append(f"{sum(most.values()):,} devices ({types})")
    if len({result.seed for result in results}) == 1:
        parts.append(f"seed {results[0].seed}")
    if results and all(result.options == results[0].options for result in results):
        parts += [f"{name}: {value}" for name, value in results[0].options.items()]
    return "; ".join(parts)


def _leader(column: Cells, names: Sequence[str], summaries: Sequence[Summary]) -> tuple[str, str]:
    """The number to show, and whose it is: of those that finished as many jobs as any."""
    most = max(each.finished for each in summaries)
    able = [index for index, each in enumerate(summaries) if each.finished == most]
    best = [names[index] for index, is_best in enumerate(column.best) if is_best]
    shown = column.best.index(True) if best else able[0]
    if best or len(names) == 1:
        return column.texts[shown], ", ".join(best) or names[0]
    return column.texts[shown], "the same for all" if len(able) > 1 else f"{names[shown]}, which finished the most"


def _cards(columns: Sequence[Cells], names: Sequence[str], summaries: Sequence[Summary]) -> str:
    """The best policy by what matters most, and how much it could still gain."""
    made = []
    for column in columns:
        measure = column.measure
        if measure.headline and any(text != "-" for text in column.texts):
            text, said = _leader(column, names, summaries)
            number = f"${text}" if measure.unit == "$" else f"{text}{NO_BREAK}{measure.unit}"
            bound = f"; lower bound {column.bound}{NO_BREAK}{measure.unit}" if column.bound else ""
            made.append(
                f'<div class="card"><b>{escape(number)}</b><span class="who">{escape(said)}</span>'
                f'<div class="dim">{escape(measure.means + bound)}</div></div>'
            )
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def _table(columns: Sequence[Cells], names: Sequence[str], summaries: Sequence[Summary], bounds: Bounds | None) -> str:
    heads = "".join(_head(each) for each in columns)
    rows = []
    for index, (name, one) in enumerate(zip(names, summaries, strict=True)):
        numbers = "".join(_cell(each.texts[index], each.best[index]) for each in columns)
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{jobs_text(one)}</td>{numbers}</tr>')
    if bounds is not None and bounds.jobs:
        least = "".join(f"<td>{each.bound}</td>" for each in columns)
        rows.append(f'<tr class="bound"><th scope="row">lower bound</th><td></td>{least}</tr>')
    head = f'<tr><th scope="col">policy</th><th scope="col">done<small>jobs</small></th>{heads}</tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _head(column: Cells) -> str:
    measure = column.measure
    name = escape(measure.name.replace("-\n", ""))
    return f'<th scope="col" title="{escape(measure.means)}">{name}<small>{escape(measure.unit)}</small></th>'


def _cell(text: str, best: bool) -> str:
    return f'<td class="best">{text}</td>' if best else f"<td>{text}</td>"


def _list(sentences: Sequence[str]) -> str:
    return f'<ul class="dim">{"".join(f"<li>{escape(each)}</li>" for each in sentences)}</ul>' if sentences else ""


def _plot(kind: str, name: str, title: str, sentence: str, none: str) -> str:
    return (
        f"<section><h3>{title}</h3><p class='dim'>{sentence}</p>"
        f'<figure><div class="plot" data-{kind}="{name}" data-none="{none}"></div></figure></section>'
    )


def _all_policies() -> str:
    return "\n".join(
        [
            "<h2>All policies</h2>",
            _plot(
                "all",
                "completion",
                "Completion times",
                "How many jobs were complete some time after they came. Further left is better.",
                "No job finished.",
            ),
            '<div class="pair">',
            _plot("all", "queue", "Queue", "Jobs that had come and held no device.", "No cycle was recorded."),
            _plot(
                "all",
                "dollars",
                "Dollars an hour",
                "What the devices cost that were held.",
                "No prices are known for these devices.",
            ),
            "</div>",
            _plot(
                "all",
                "utilisation",
                "Utilisation by type",
                "Higher is not always better: a slow device that is held for long is in use too.",
                "No cycle was recorded.",
            ),
        ]
    )


def _one_policy(names: Sequence[str]) -> str:
    options = "".join(f'<option value="{number}">{escape(name)}</option>' for number, name in enumerate(names))
    return "\n".join(
        [
            "<h2>One policy</h2>",
            f'<div class="choose"><label for="policy">Policy</label><select id="policy">{options}</select></div>',
            _plot(
                "one",
                "gantt",
                "Who held which device",
                "Colours are job families. A shape is an attempt that did not succeed; below, how many.",
                "No device was ever held.",
            ),
            '<div class="pair">',
            _plot("one", "held", "Devices held", "Share of each type's devices.", "No cycle was recorded."),
            _plot(
                "one",
                "prices",
                "Congestion prices",
                "They rise where more is asked for than there is.",
                "This policy has no congestion prices.",
            ),
            "</div>",
        ]
    )
