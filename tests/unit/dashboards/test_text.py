"""Numbers as people read them."""

from __future__ import annotations

import pytest

from dashboards.text import digits, dollars, duration, error_percent, interval, percent, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0.0 s"),
        (8.24, "8.2 s"),
        (59.9, "59.9 s"),
        (59.97, "1m 00s"),
        (60.0, "1m 00s"),
        (185.4, "3m 05s"),
        (3599.6, "1h 00m"),
        (7800.0, "2h 10m"),
        (90000.0, "25h 00m"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "?"), (0.0, "$0"), (0.00012, "$0.0001"), (0.00004, "<$0.0001"), (0.52, "$0.5200"), (9.99994, "$9.9999"), (12.345, "$12.35"), (1e4, "$10000.00")],
)  # fmt: skip
def test_dollars(value: float | None, text: str) -> None:
    assert dollars(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (0.0, "0.0 MB"), (5e5, "0.5 MB"), (9.99e7, "99.9 MB"), (1e8, "0.10 GB"), (16e9, "16.00 GB")]
)  # fmt: skip
def test_sizes(value: float | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("measured", "predicted", "text"),
    [(None, 1.0, "?"), (0.0, 1.0, "?"), (10.0, None, "?"), (10.0, 10.0, "0%"), (10.0, 15.0, "50%"), (10.0, 5.0, "50%"), (1.0, 11.0, "1000%")],
)  # fmt: skip
def test_how_far_off(measured: float | None, predicted: float | None, text: str) -> None:
    assert percent(error_percent(measured, predicted)) == text


@pytest.mark.parametrize(
    ("low_s", "high_s", "text"),
    [(0.04, 0.11, "0.0..0.1 s"), (4.0, 8.25, "4.0..8.2 s"), (9.96, 119.9, "10 s..2m 00s"), (40.4, 120.0, "40 s..2m 00s"), (600.0, 7199.0, "10m 00s..1h 59m"), (3600.0, 7200.0, "1h 00m..2h 00m"), (90_000.0, 900_000.0, "25h 00m..250h 00m")],
)  # fmt: skip
def test_the_ends_of_an_interval_are_written_like_durations(low_s: float, high_s: float, text: str) -> None:
    assert interval(low_s, high_s) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0000194, "0.000019"), (0.00234, "0.0023"), (0.4, "0.40"), (4.25, "4.2"), (42.4, "42"), (1600.0, "1600")],
)  # fmt: skip
def test_two_digits_at_least(value: float, text: str) -> None:
    assert digits(value) == text
