"""The script by which rented nodes of a local cluster behave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.scenario import Behaviour, Scenario, Script
from workloads.errors import SpecError

BAD_SCENARIOS = {
    "types: {spot: {boots: 3}}": "types.spot.boots: Extra inputs are not permitted",
    "types: {spot: {notice_s: -1}}": "types.spot.notice_s: Input should be greater than or equal to 0",
    "types: [": "cannot be read",
    "types: {other: {}}": "types.other: other is no type that is rented",
}


@pytest.mark.parametrize(("text", "message"), BAD_SCENARIOS.items(), ids=BAD_SCENARIOS)
def test_a_bad_scenario_names_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as raised:
        Scenario.load(path).check(["spot"], path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_the_documented_script_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "autoscaling.md").read_text()
    begin = page.index("    types:\n")
    path = tmp_path / "scenario.yaml"
    path.write_text(page[begin : page.index("\n\n", begin)])
    assert set(Scenario.load(path).of("t4-spot").model_fields_set) == set(Behaviour.model_fields)


def test_a_script_that_is_not_there_is_no_script(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        Scenario.load(tmp_path / "none.yaml")


def test_a_script_is_followed_while_it_changes_and_a_bad_one_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scenario.yaml"
    script = Script(path)
    assert script.now() == Scenario(), "nothing happens"
    for number, (text, refuse) in enumerate({"types: {t4: {refuse: 2}}": 2, "types: [": 2, "types: {}": 0}.items(), 1):
        path.write_text(text)
        os.utime(path, ns=(number, number))
        assert [script.now().of("t4").refuse for _ in range(3)] == [refuse] * 3
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["the scenario stays as it was"]
