"""Policies side by side: what fits, what is bold, what the notes say."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from dashboards.simulation_tables import cells, comparison_table, labels, notes, time_unit, to_json
from scheduler.simulate.metrics import Bounds, Summary, lower_bounds, summary
from scheduler.simulate.types import JobResult, SimulationResult
from simulated import POLICIES, made_result, made_trace

HOUR = 3600.0
BOUNDS = Bounds(2, 1, 1800.0, 1800.0, 1800.0, 900.0, 1800.0, 2 * HOUR)


def job(name: str, ended_h: float | None, usd: float | None = 1.0) -> JobResult:
    state, ended_s = ("queued", None) if ended_h is None else ("succeeded", ended_h * HOUR)
    return JobResult(name, "f", 0.0, 0.0, ended_s, state, usd, 1, 0, 0, HOUR, HOUR)


def result(policy: str, *jobs: JobResult, notes: tuple[str, ...] = ()) -> SimulationResult:
    return SimulationResult(policy, "hand", 0, jobs, (), notes=notes)


def summaries(*results: SimulationResult) -> list[Summary]:
    return [summary(each) for each in results]


def column(name: str, results: list[SimulationResult]) -> tuple[list[str], list[bool]]:
    found = next(each for each in cells(summaries(*results)) if each.measure.name.replace("\n", " ") == name)
    return list(found.texts), list(found.best)


def drawn(width: int, *results: SimulationResult, bounds: Bounds | None = BOUNDS) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(comparison_table(results, summaries(*results), bounds))
    return console.export_text()


@pytest.fixture(scope="module")
def made() -> list[SimulationResult]:
    trace = made_trace()
    return [made_result(policy, trace) for policy in POLICIES]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_longer_than_the_window(made: list[SimulationResult], width: int) -> None:
    lines = drawn(width, *made).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    for policy in (*POLICIES, "lower bound"):
        assert any(line.strip().startswith(policy) for line in lines)


def test_in_120_columns_all_that_matters_has_room(made: list[SimulationResult]) -> None:
    head = "".join(drawn(120, *made).split("──")[0])
    for name in ("mean", "median", "p99", "span", "cost", "in use", "late", "restarts", "decision"):
        assert name in head


def test_numbers_are_in_the_unit_of_the_head() -> None:
    lines = [" ".join(line.split()) for line in drawn(200, result("fifo", job("a", 3), job("b", 5))).splitlines()]
    assert "policy done h h h h h $ h ratio ratio % /job /job" in lines
    assert "fifo 2 4.00 4.00 4.98 5.00 0 2.00 0 4.00 5.00 100.0 0 0" in lines
    assert "lower bound 0.50 2.00" in lines


def test_the_best_of_a_column_is_bold_and_ties_are_all() -> None:
    results = [result("a", job("1", 2)), result("b", job("1", 1)), result("c", job("1", 1.0001))]
    assert column("mean JCT", results) == (["2.00", "1.00", "1.00"], [False, True, True])
    sheet = comparison_table(results, summaries(*results))
    assert [isinstance(row.cells[2], Text) and row.cells[2].style for row in sheet.rows] == ["", "bold", "bold"]


def test_where_all_are_equal_none_is_best() -> None:
    results = [result("a", job("1", 2)), result("b", job("1", 2))]
    assert column("mean JCT", results)[1] == [False, False]


def test_of_use_more_is_better() -> None:
    both = summaries(result("a", job("1", 2)), result("b", job("1", 2)))
    shown = cells([replace(both[0], utilisation=0.5), replace(both[1], utilisation=0.625)])
    assert next((each.texts, each.best) for each in shown if each.measure.name == "in use") == (
        ["50.0", "62.5"],
        [False, True],
    )


def test_a_policy_that_finished_fewer_jobs_is_not_the_best() -> None:
    results = [
        result("slow", job("1", 5), job("2", 6)),
        result("medium", job("1", 4), job("2", 6)),
        result("lazy", job("1", 1), job("2", None)),
    ]
    assert column("mean JCT", results) == (["5.50", "5.00", "1.00"], [False, True, False])
    text = drawn(200, *results)
    assert "1/2" in text
    assert "lazy: 1 job did not finish" in text
    assert "Only policies that finished the most jobs are compared" in text


def test_what_no_policy_has_a_number_of_has_no_column() -> None:
    names = [each.measure.name for each in cells(summaries(result("a", job("1", 1, usd=None))))]
    assert "cost" not in names and "late" not in names and "mean\nJCT" in names


def test_notes_of_all_policies_are_said_once_and_others_with_their_policy() -> None:
    results = [
        result("a", job("1", 1), notes=("Speeds are exact.",)),
        result("b", job("1", 1, usd=None), notes=("Speeds are exact.", "Cut off after 9 h.")),
    ]
    assert notes(results, summaries(*results), BOUNDS) == [
        "Speeds are exact.",
        "b: 1 job without known dollars: not in the cost.",
        "b: Cut off after 9 h.",
        "Lower bound: no schedule of these jobs on these devices is better, whatever it knows.",
        "The lower bound leaves out 1 job that the cluster cannot hold.",
    ]


def test_results_of_one_policy_are_told_apart() -> None:
    one = result("market", job("1", 1))
    noisy = replace(one, options={"error": "20%"})
    assert labels([one, result("fifo")]) == ["market", "fifo"]
    assert labels([one, replace(one, seed=1), result("fifo")]) == ["market, seed 0", "market, seed 1", "fifo"]
    assert labels([one, noisy]) == ["market, no options", "market, error 20%"]
    assert labels([one, one]) == ["market (1)", "market (2)"]


@pytest.mark.parametrize(
    ("seconds", "unit"), [([7200.0, 1.0], "h"), ([7199.0], "min"), ([119.0], "s"), ([], "s"), ([None, 8000], "h")]
)
def test_the_unit_suits_the_greatest(seconds: list[float | None], unit: str) -> None:
    assert time_unit(seconds)[0] == unit


def test_markup_in_names_is_text() -> None:
    assert "[bold]x" in drawn(120, result("[bold]x", job("1", 1)))


@pytest.mark.parametrize("bounds", [None, lower_bounds(made_trace(0), {})], ids=["no bounds", "empty bounds"])
def test_where_nothing_finished_there_is_still_a_table(bounds: Bounds | None) -> None:
    text = drawn(120, result("fifo", job("1", None)), result("none"), bounds=bounds)
    assert "0/1" in text and "did not finish" in text
    assert "lower bound" not in text
    assert "no results" in drawn(120, bounds=bounds)


def test_json_comes_back_as_it_went(made: list[SimulationResult]) -> None:
    out = to_json(made, summaries(*made), BOUNDS)
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    assert [each["label"] for each in out["policies"]] == list(POLICIES)
    assert out["bounds"]["mean_jct_s"] == 1800.0
    first = out["policies"][0]
    assert first["summary"] == summary(made[0]).to_json()
    assert len(first["jobs"]) == 240 and first["jobs"][0]["id"] == "0" and "spans" not in first["jobs"][0]


def test_json_of_nothing() -> None:
    assert to_json([], []) == {"trace": None, "bounds": None, "policies": []}
