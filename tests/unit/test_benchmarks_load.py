"""The page that the load benchmark writes: its own section, and no other."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from benchmarks.service_load_report import HEADING, Arrays, Load, Round, section, steady_rate, with_section

LOAD = Load(
    commands=10,
    raw=[Round(10, 0, 20.0, 1.0, [5.0, 7.0], 20.0), Round(10, 0, 10.0, 1.0, [2.0, 4.0], 10.0)],
    service=[Round(10, 0, 22.0, 1.0, [6.0, 8.0], 21.0), Round(10, 1, 9.9, 1.0, [3.0, 4.0], None)],
    single_raw=[1.0, 2.0, 3.0],
    single_service=[2.2],
    states={"succeeded": 19, "failed": 1},
)
ARRAYS = Arrays(
    {"python": 2000, "shell": 100},
    raw={"python": [1000.0], "shell": [50.0]},
    service={"python": [3000.0], "shell": [45.0]},
    whole_s={"python": [9.0], "shell": [12.0]},
)


def test_the_section_says_what_was_measured() -> None:
    text = section(LOAD, ARRAYS, datetime.date(2026, 1, 2))
    assert "| seconds a command, in a burst | 1.50 (1.00-2.00) | 1.65 (1.10-2.20) | +10% |" in text
    assert "| submission to start, one alone (s) | 2.00 (1.00-3.00) | 2.20 (2.20-2.20) | +10% |" in text
    assert "Of 20 commands through the service, 1 were lost." in text
    assert "1 failed, 19 succeeded" in text
    assert "| 2,000 Python calls | 1,000 (1,000-1,000) | 3,000 (3,000-3,000) | 3.00 | 9.0 (9.0-9.0) |" in text


def test_an_array_is_as_fast_as_it_is_with_all_its_workers() -> None:
    def phase(name: str, t: float) -> dict[str, Any]:
        return {"kind": "phase", "phase": name, "t": t}

    def rows(count: int, t: float) -> dict[str, Any]:
        return {"kind": "rows", "rows": count, "t": t}

    late = [phase("starting", 0), phase("running", 10), rows(20, 12), phase("running", 13), rows(60, 16)]
    assert steady_rate([*late, phase("finishing", 20), rows(100, 20)], 100) == (100 - 20) / (20 - 12)
    quick = [phase("running", 10), rows(90, 12), phase("running", 13), phase("finishing", 14)]
    assert steady_rate(quick, 100) == 100 / 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("# R\n", f"# R\n\n{HEADING}\nnew\n", id="there is none yet"),
        pytest.param(
            f"# R\n\n## A\n\na\n\n{HEADING}\n\nold\n\n## B\n\nb\n",
            f"# R\n\n## A\n\na\n\n{HEADING}\nnew\n\n## B\n\nb\n",
            id="between others",
        ),
        pytest.param(f"# R\n\n{HEADING}\n\nold\n", f"# R\n\n{HEADING}\nnew\n", id="at the end"),
    ],
)
def test_other_sections_are_left_alone(before: str, after: str) -> None:
    assert with_section(before, f"{HEADING}\nnew\n") == after
