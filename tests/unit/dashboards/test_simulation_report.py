"""The report is whole, safe and of bounded size, and plotly accepts its figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
import pytest

from dashboards.simulation_figures import POINTS, over_time
from dashboards.simulation_gantt import BARS, COLUMNS, ROWS, Stop, gantt_figure, lanes_of
from dashboards.simulation_report import report_html
from scheduler.simulate.metrics import lower_bounds, summary
from scheduler.simulate.types import Ending, JobResult, Sample, SimulationResult, Span
from simulated import POLICIES, made_result, made_trace, nodes

EVIL = "</script><b>x&amp;"


class Page(HTMLParser):
    """Tags, the text outside scripts and styles, and the scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)

    @property
    def figures(self) -> Any:
        numbers = [index for index, (_, attrs) in enumerate(t for t in self.tags if t[0] == "script") if "id" in attrs]
        return json.loads(self.scripts[numbers[0]])

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def made() -> list[SimulationResult]:
    trace = made_trace()
    return [made_result(policy, trace) for policy in POLICIES]


@pytest.fixture(scope="module")
def text(made: list[SimulationResult]) -> str:
    bounds = lower_bounds(made_trace(), {"k80": 12, "p100": 12, "v100": 12})
    return report_html(made, [summary(each) for each in made], bounds)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def figures_of(page: Page) -> Iterator[tuple[str, Any]]:
    yield from page.figures["all"].items()
    for index, each in enumerate(page.figures["one"]):
        yield from ((f"{name} {index}", figure) for name, figure in each.items())


def job(name: str, *spans: Span, family: str = "f") -> JobResult:
    return JobResult(
        name, family, 0.0, 0.0, spans[-1].ended_s, "succeeded", 1.0, len(spans), 0, 0, 1.0, 1.0, spans=spans
    )


def span(
    began_s: float,
    ended_s: float,
    count: int = 1,
    node: str = "n1",
    kind: str = "T4",
    ended: Ending = "succeeded",
) -> Span:
    return Span(node, kind, count, began_s, ended_s, ended)


def result(*jobs: JobResult, samples: tuple[Sample, ...] = ()) -> SimulationResult:
    return SimulationResult("fifo", "hand", 0, jobs, samples)


def test_every_policy_is_in_the_table_and_can_be_chosen(page: Page) -> None:
    said = " ".join(page.words)
    assert all(said.count(policy) >= 2 for policy in POLICIES)
    assert page.count("option") == len(POLICIES)
    assert "lower bound" in said and "Simulation of made-240" in said


def test_every_plot_has_a_place_and_a_figure(page: Page) -> None:
    places = {attrs["data-all"] for _, attrs in page.tags if "data-all" in attrs}
    single = {attrs["data-one"] for _, attrs in page.tags if "data-one" in attrs}
    assert places == set(page.figures["all"]) == {"completion", "queue", "dollars", "utilisation"}
    assert all(single == set(each) == {"gantt", "held", "prices"} for each in page.figures["one"])
    assert all(figure for _, figure in figures_of(page))


def test_plotly_accepts_every_figure_and_axes_have_titles(page: Page) -> None:
    for name, figure in figures_of(page):
        colours = re.sub(r"@(text|dim|grid|back)", "#888888", json.dumps(figure))
        shown = go.Figure(json.loads(colours))
        assert shown.layout.xaxis.title.text and shown.layout.yaxis.title.text, name


def test_it_needs_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "href" in attrs]
    assert page.count("link") == 0
    assert text.count("plotly.js v") == 1
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy


def test_names_that_others_gave_are_text() -> None:
    jobs = [replace(job(EVIL, span(0, 9, node=EVIL, kind=EVIL), span(12, 20)), family=EVIL)]
    busy = {EVIL: 1}
    one = SimulationResult(
        EVIL, EVIL, 0, jobs, [Sample(0, 0, 1, busy, busy, 1.0, {EVIL: 1.0}, (0.1,))], {EVIL: EVIL}, [EVIL]
    )
    whole = report_html([one, one], [summary(one), summary(one)])
    page = Page(whole)
    cards = sum(attrs.get("class") == "card" for _, attrs in page.tags)
    assert page.count("script") == 3 and page.count("b") == cards
    assert EVIL in "".join(page.words)
    shown = json.dumps(page.figures)
    assert "<b>" not in shown and "&lt;/script&gt;&lt;b&gt;x&amp;amp;" in shown


@pytest.mark.parametrize(
    "results",
    [
        [],
        [result()],
        [replace(result(), jobs=[JobResult("a", "f", 0, None, None, "queued", None, 0, 0, 0, None, None)])],
    ],
    ids=["no policy", "no job", "no job finished"],
)
def test_where_nothing_finished_there_is_a_page_that_says_so(results: list[SimulationResult]) -> None:
    page = Page(report_html(results, [summary(each) for each in results]))
    assert page.figures["all"]["completion"] is None
    assert page.count("table") == 1
    assert any(attrs.get("data-none") == "No job finished." for _, attrs in page.tags)


def test_of_policies_that_finished_unequally_the_one_that_finished_the_most_is_shown() -> None:
    few = result(job("a", span(0, 3600)), replace(job("b", span(0, 9)), state="running", ended_s=None))
    all_ = replace(few, policy="better", jobs=[job("a", span(0, 7200)), job("b", span(0, 7200))])
    page = Page(report_html([few, all_], [summary(few), summary(all_)]))
    said = " ".join(page.words)
    assert "better, which finished the most" in said
    assert "the same for all" not in said


def test_a_job_gets_devices_that_nobody_else_holds() -> None:
    lanes = lanes_of(
        result(job("a", span(0, 10, 2)), job("b", span(2, 6)), job("c", span(6, 9, 1)), job("d", span(0, 5, node="n0")))
    )
    assert lanes.nodes == [("T4", "n0", 0, 1), ("T4", "n1", 1, 3)]
    placed = {piece.job: (piece.lane, piece.count) for piece in lanes.pieces}
    assert placed == {"a": (1, 2), "b": (3, 1), "c": (3, 1), "d": (0, 1)}
    assert lanes.count == 4


def test_nodes_are_in_the_order_that_people_count_in() -> None:
    lanes = lanes_of(result(job("a", *[span(n, n + 1, node=f"n{n}") for n in (10, 2, 1)])))
    assert [node for _, node, *_ in lanes.nodes] == ["n1", "n2", "n10"]


def test_no_device_is_drawn_twice_at_a_time(made: list[SimulationResult]) -> None:
    for each in made:
        lanes = lanes_of(each)
        assert lanes.count == sum(count for _, count in nodes().values())
        held: dict[int, list[tuple[float, float]]] = {}
        for piece in lanes.pieces:
            for lane in range(piece.lane, piece.lane + piece.count):
                held.setdefault(lane, []).append((piece.began_s, piece.ended_s))
        for times in held.values():
            ordered = sorted(times)
            assert all(after[0] >= before[1] - 1e-3 for before, after in pairwise(ordered))
        drawn = sum(piece.count * (piece.ended_s - piece.began_s) for piece in lanes.pieces)
        assert drawn == pytest.approx(summary(each).device_hours * 3600)


def test_an_attempt_that_did_not_succeed_is_marked_and_a_job_that_goes_on_at_once_is_not() -> None:
    moved = job("moved", span(0, 4, ended="stopped"), span(4, 8, node="n2"))
    paused = job("paused", span(0, 3, 2, ended="stopped"), span(5, 8, 2))
    stayed = job("stayed", span(0, 4, node="n3", ended="stopped"), span(4, 9, node="n3"))
    broken = job("broken", span(0, 4, node="n4", ended="failed"), span(4, 9, node="n4"))
    apart = job("apart", *[span(0, 9, node=name, ended="running") for name in ("n5", "n6")])
    stops = {stop.job: stop for stop in lanes_of(result(moved, paused, stayed, broken, apart)).stops}
    assert {name: (stop.at_s, stop.ended, stop.moved) for name, stop in stops.items()} == {
        "moved": (4, "stopped", True),
        "paused": (3, "stopped", False),
        "broken": (4, "failed", True),
        "apart": (9, "running", False),
    }
    assert isinstance(stops["paused"], Stop)


def ends_of(figure: Any) -> dict[str, dict[str, Any]]:
    """The traces that show ends, by what they are called."""
    return {each["name"]: each for each in figure["data"] if each["type"] == "scatter" and each.get("text")}


def test_preempted_failed_and_running_attempts_look_different() -> None:
    jobs = [
        job("p", span(0, 3, ended="stopped"), span(5, 8)),
        job("f", span(0, 4, node="n2", ended="failed"), span(6, 9, node="n2")),
        job("r", span(0, 9, node="n3", ended="running")),
    ]
    figure = gantt_figure(result(*jobs), ["f"])
    assert figure is not None
    marks = ends_of(figure)
    assert list(marks) == ["preempted or moved", "failed, or lost its node", "still running"]
    assert len({each["marker"]["symbol"] for each in marks.values()}) == 3, "whatever colours one sees"
    assert {each["legend"] for each in marks.values()} == {"legend2"} and figure["layout"]["legend2"]["title"]["text"]
    assert [each["text"] for each in marks.values()] == [
        ["job p was stopped for the plan, to go on later"],
        ["job f failed, or lost its node"],
        ["job r still ran at the end"],
    ]
    stopped, failed = counts_of(figure)
    assert (sum(stopped["y"]), sum(failed["y"])) == (1, 1)
    assert stopped["marker"]["pattern"]["shape"] != failed["marker"]["pattern"]["shape"]
    assert failed["marker"]["pattern"]["fillmode"] == "overlay", (
        "else only the stripes are drawn, in the page's own colour"
    )
    assert not stopped["showlegend"] and not failed["showlegend"], "their marks have a legend"


def counts_of(figure: Any) -> list[dict[str, Any]]:
    """The bars that count ends below the devices."""
    return [each for each in figure["data"] if each.get("yaxis") == "y2"]


def test_where_there_is_no_room_for_marks_the_counts_have_a_legend() -> None:
    jobs = [job(str(n), span(0, 3, node=f"n{n}", ended="failed"), span(5, 8, node=f"n{n}")) for n in range(ROWS + 1)]
    figure = gantt_figure(result(*jobs), ["f"])
    assert figure is not None and not ends_of(figure)
    assert [(sum(each["y"]), each["showlegend"]) for each in counts_of(figure)] == [(0, False), (ROWS + 1, True)]


def test_counts_are_stacked() -> None:
    jobs = [job(end, span(0, 3, node=end, ended=end), span(5, 8, node=end)) for end in ("stopped", "failed")]  # type: ignore[arg-type]
    figure = gantt_figure(result(*jobs), ["f"])
    assert figure is not None
    stopped, failed = counts_of(figure)
    assert failed["base"] == stopped["y"]


def test_all_preemptions_are_counted_below_the_devices(made: list[SimulationResult]) -> None:
    for each in made:
        figure = gantt_figure(each, ["A3C (batch size 16)"])
        assert figure is not None
        counted = sum(sum(bar["y"]) for bar in counts_of(figure))
        assert counted == len(lanes_of(each).stops)
        assert (summary(each).preemptions == 0) == (counted == 0)
        assert counted <= summary(each).preemptions


def test_tens_of_thousands_of_spans_become_cells_of_bounded_number() -> None:
    jobs = [
        job(str(n), *[span(10 * k, 10 * k + 9, node=f"n{n}") for k in range(50)], family="odd" if n % 2 else "even")
        for n in range(400)
    ]
    figure = gantt_figure(result(*jobs), ["even", "odd"])
    assert figure is not None
    grid = figure["data"][0]
    assert grid["type"] == "heatmap"
    assert len(grid["z"]) == ROWS and {len(row) for row in grid["z"]} == {COLUMNS}
    assert len(json.dumps(figure)) < 1_000_000
    few = gantt_figure(result(*jobs[:70]), ["even"])
    assert (
        few is not None and sum(len(trace["x"]) for trace in few["data"] if trace.get("orientation")) == 70 * 50 <= BARS
    )


def test_a_cell_has_the_family_that_held_it_most_and_is_empty_where_it_was_idle() -> None:
    jobs = [
        job(str(n), span(0, 30, node=f"n{n}"), span(60, 100, node=f"n{n}"), family="ab"[n % 2]) for n in range(ROWS + 2)
    ]
    jobs = [replace(each, family="a") for each in jobs]
    figure = gantt_figure(result(*jobs), ["b", "a"])
    assert figure is not None
    row = figure["data"][0]["z"][0]
    assert (row[0], row[COLUMNS // 2], row[-1]) == (1, None, 1)
    assert figure["data"][0]["meta"]["names"][1] == "a"


def sample(at_s: float, queued: int, usd_h: float | None = None) -> Sample:
    return Sample(at_s, queued, 0, {}, {}, usd_h, {}, (0.0,))


def test_few_samples_are_drawn_as_they_are() -> None:
    x, y = over_time([sample(0, 3), sample(60, 1)], lambda each: float(each.queued), 120.0, 60.0)
    assert (x, y) == ([0.0, 1.0, 2.0], [3.0, 1.0, 1.0])


def test_many_samples_are_drawn_as_means_over_time() -> None:
    samples = [sample(float(n), n % 2 * 4, None if n < 3000 else 2.0) for n in range(6000)]
    x, y = over_time(samples, lambda each: float(each.queued), 6000.0, 1.0)
    assert len(x) == len(y) == POINTS
    assert x[1] == pytest.approx(10.0)
    assert y == pytest.approx([2.0] * POINTS)
    _, dollars = over_time(samples, lambda each: each.usd_h, 6000.0, 1.0)
    assert dollars[:300] == [None] * 300
    assert dollars[300:] == pytest.approx([2.0] * 300)
