"""The demo's example on clusters that have real accelerators."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.cli.demo import EXAMPLE, adapted
from workloads.loading import load_file


def kind(name: str, total: int, what: str = "gpu", emulated: bool = False) -> dict[str, Any]:
    return {"name": name, "total": total, "kind": what, "emulated": emulated}


@pytest.mark.parametrize(
    ("types", "train", "label"),
    [
        pytest.param([kind("T4", 2, emulated=True), kind("cpu", 2, "cpu")], "2..3", {"T4", "A100"}, id="emulated"),
        pytest.param([kind("L4", 4), kind("cpu", 8, "cpu")], "2", {"L4", "cpu"}, id="four real GPUs"),
        pytest.param([kind("L4", 1), kind("cpu", 8, "cpu")], "2", {"L4", "cpu"}, id="one real GPU"),
        pytest.param(
            [kind("cpu", 8, "cpu")], "2..3", {"T4", "A100"}, id="none: refused at submission, with the reason"
        ),
    ],
)
def test_the_example_fits_the_accelerators_that_are_there(
    types: list[dict[str, Any]], train: str, label: set[str]
) -> None:
    steps = {step.name: step for step in load_file(EXAMPLE, adapted({"device_types": types})).steps}
    assert str(steps["train"].resources.count) == train
    assert set(steps["label"].resources.devices) == label
