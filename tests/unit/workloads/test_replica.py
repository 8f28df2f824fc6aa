"""A bad row costs only itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workloads.bodies.replica import Columns, bisect, join
from workloads.errors import WorkloadFailed


@pytest.mark.parametrize("bad", [set(), {0}, {7}, {3, 4}, set(range(8))], ids=str)
def test_bisecting_finds_exactly_the_rows_that_raise(bad: set[int]) -> None:
    def predict(places: Sequence[int]) -> Columns:
        if bad & set(places):
            raise ValueError("boom")
        return {"prediction": [f"p{place}" for place in places]}

    kept, columns, errors = bisect(range(8), predict)
    assert kept == [place for place in range(8) if place not in bad]
    assert columns.get("prediction", []) == [f"p{place}" for place in kept]
    assert errors == dict.fromkeys(sorted(bad), "ValueError: boom")


def test_a_reason_to_stop_is_not_taken_for_a_bad_row() -> None:
    def predict(places: Sequence[int]) -> Columns:
        raise WorkloadFailed("the model is gone")

    with pytest.raises(WorkloadFailed):
        bisect(range(4), predict)


def test_join_keeps_the_order_and_ignores_what_is_empty() -> None:
    assert join({"a": [1]}, {"a": [2, 3]}) == {"a": [1, 2, 3]}
    assert join({}, {"a": [2]}) == {"a": [2]}
