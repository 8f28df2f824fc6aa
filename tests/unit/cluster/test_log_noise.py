"""What is left out of a log, and what is not."""

from __future__ import annotations

import pytest

from cluster.log_noise import without_noise

SETTING_UP = "2026-11-21 08:24:02,556\tINFO job_manager.py:581 -- Runtime env is setting up."
ENTRYPOINT = "Running entrypoint for job fresh-qvetk.r2: python -P -m raywise_workloads"
WATCHER = (
    "(TrainController pid=11715) [2026-11-21 08:25:15,281 E 11715 11788] core_worker.cc:2465: Actor with class name: "
    "'PreemptionWatcher' and ID: 'f18af44c78740c8371a918ed03000000' has constructor arguments in the object store and "
    "max_restarts > 0. If the arguments in the object store go out of scope or are lost, the actor restart will fail. "
    "See https://github.com/ray-project/ray/issues/53727 for more details."
)


PROGRESS_BARS = (
    "2026-11-21 08:41:14,056\tWARNING __init__.py:28 -- Progress bars disabled. To enable, set "
    "`ray.data.DataContext.get_current().enable_progress_bars = True`."
)
COLOURED = "\x1b[36m" + WATCHER.replace(")", ")\x1b[0m", 1)


@pytest.mark.parametrize("line", [SETTING_UP, ENTRYPOINT, PROGRESS_BARS, WATCHER, COLOURED])
def test_rays_own_lines_are_left_out(line: str) -> None:
    assert without_noise(f"{line}\n") == without_noise(line) == ""
    assert without_noise(f"{line}\n{line}\nafter") == "after"
    assert without_noise(f"before\n{line}\nafter\n") == "before\nafter\n"


@pytest.mark.parametrize(
    "line",
    [
        f"I saw: {SETTING_UP}",
        f"{ENTRYPOINT} and more",
        "Running entrypoint for job mine: python train.py",
        "2026-11-21 08:24:02,556\tINFO job_manager.py:581 -- my own words",
        "(RayTrainWorker pid=7) [2026-11-21 08:25:15,281 E 11715 11788] core_worker.cc:2465: Something else is wrong",
        WATCHER.replace("PreemptionWatcher", "MyActor"),
        "loading: 10%\rloading: 20%",
        "\x1b[31mmy own red\x1b[0m",
        "",
    ],
)
def test_every_other_line_stays_as_it_is(line: str) -> None:
    text = f"{SETTING_UP}\n{line}\n{line}"
    assert without_noise(text) == f"{line}\n{line}"


def test_rays_colours_go_and_the_users_stay() -> None:
    ours = "\x1b[36m(RayTrainWorker pid=3, ip=10.0.0.2)\x1b[0m \x1b[31mred\x1b[0m"
    repeated = "(w pid=4) a line\x1b[32m [repeated 2x across cluster]\x1b[0m"
    advice = "(w pid=4) more\x1b[32m [repeated 3x across cluster] (Ray deduplicates logs by default. Set ...)\x1b[0m"
    assert without_noise("\n".join([ours, repeated, advice])).split("\n") == [
        "(RayTrainWorker pid=3, ip=10.0.0.2) \x1b[31mred\x1b[0m",
        "(w pid=4) a line [repeated 2x across cluster]",
        "(w pid=4) more [repeated 3x across cluster]",
    ]
