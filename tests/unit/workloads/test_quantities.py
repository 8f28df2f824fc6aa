"""Durations, sizes and counts as people write them."""

from __future__ import annotations

import pytest

from workloads.quantities import CountRange, exact_usd_text, parse_bytes, parse_duration_s, usd_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800), (45, 45), ("1 h", 3600)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "-5m", "0s", 0, True, "5m!", "11000d"])
def test_what_is_not_a_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "size"), [("512MiB", 2**29), ("4GB", 4 * 10**9), ("1.5 kib", 1536), (7, 7), ("9", 9)])
def test_sizes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 XB", 0, True, None])
def test_what_is_not_a_size(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_bytes(text)


def test_counts() -> None:
    assert CountRange.model_validate("1..4") == CountRange(low=1, high=4)
    assert CountRange.model_validate(2) == CountRange(low=2, high=2)
    assert str(CountRange.model_validate(" 1 .. 4 ")) == "1..4"
    assert 3 in CountRange(low=1, high=4)
    assert 5 not in CountRange(low=1, high=4)


@pytest.mark.parametrize("text", ["0", "4..1", "a", "1..", True, -1])
def test_what_is_not_a_count(text: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        CountRange.model_validate(text)


@pytest.mark.parametrize(
    ("value", "exact", "rounded"),
    [(5.0, "$5", "$5.0000"), (0.00001, "$0.00001", "<$0.0001"), (0.25, "$0.25", "$0.2500"), (0.0, "$0", "$0"), (1e6, "$1000000", "$1000000.00"), (12.345, "$12.345", "$12.35")],
)  # fmt: skip
def test_dollars_have_no_power_of_ten(value: float, exact: str, rounded: str) -> None:
    assert (exact_usd_text(value), usd_text(value)) == (exact, rounded)
