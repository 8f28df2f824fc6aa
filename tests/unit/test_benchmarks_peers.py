"""What stands between our allocation core and the simulators of others, as far as it needs no simulator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import sia_estimates, sia_hours, table
from benchmarks.peers.sia_estimates import GRID, HORIZON_S, Estimates, Family


class OneSecond:
    """A throughput model by which every step takes a second, and the batch size costs nothing."""

    def __init__(self, *_: Any) -> None: ...

    def throughput(self, nodes: Any, replicas: Any, batch: Any, extra: Any) -> Any:
        return replicas * batch * (extra + 1) + 0.0 * nodes


CONFIGURATIONS = [("a", 1, 1), ("a", 1, 2), ("b", 1, 1)]
APP = SimpleNamespace(init_batch_size=100, max_batch_size=400, min_local_bsz=10, max_local_bsz=400)


def job(progress: float = 0.0) -> Any:
    applications = {"a": APP, "b": APP}
    return SimpleNamespace(app_name="net", applications=applications, progress=progress, calibration_factor=1.0)


def family(gradients: dict[int, tuple[float, float, float]], measured: Any = None) -> Family:
    return Family({"a": measured or {}, "b": {}}, {"a": "fitted", "b": None}, gradients)


def estimates() -> Estimates:
    return Estimates(SimpleNamespace(GoodputFunction=OneSecond), CONFIGURATIONS, {"net": {"b": {"a": 0.5}}})


def test_of_a_family_that_nobody_ran_only_single_devices_are_thought_possible():
    seconds = estimates().seconds(job(), family({}), 1000.0)
    assert np.isfinite(seconds).tolist() == [True, False, True]


def test_a_type_without_measurements_has_the_others_speed_by_their_ratio():
    seconds = estimates().seconds(job(), family({0: (0.0, 1.0, 1.0)}), 1000.0)
    assert seconds[2] == pytest.approx(2 * seconds[0])


def test_half_of_the_work_takes_half_of_the_time_where_nothing_changes():
    whole, half = (estimates().seconds(job(at), family({0: (0.0, 1.0, 1.0)}), 1000.0) for at in (0.0, 500.0))
    assert half == pytest.approx(whole / 2)


def test_gradients_of_later_epochs_that_others_showed_make_the_end_nearer():
    """Noisier gradients make large batches worth more, so fewer of these steps are needed."""
    same, noisier = ({0: (0.0, 1.0, 1.0), 1: (500.0, 1.0, variance)} for variance in (1.0, 50.0))
    same_s, noisier_s = (estimates().seconds(job(), family(seen), 1000.0)[0] for seen in (same, noisier))
    assert noisier_s < 0.8 * same_s


def test_what_was_measured_beats_what_was_fitted():
    slow = {(1, 2, 50): (3.0, 1.0)}
    plain, measured = (estimates().seconds(job(), family({0: (0.0, 1.0, 1.0)}, seen), 1000.0) for seen in (None, slow))
    assert measured[1] == pytest.approx(3 * plain[1])
    assert measured[0] == plain[0]


def test_misfits_are_geometric_means_over_batch_sizes_and_one_where_nothing_was_measured():
    measured = {(1, 1, 8): (2.0, 0.0), (1, 1, 16): (0.5, 0.0), (1, 2, 8): (4.0, 1.0)}
    found = sia_estimates.misfits(measured, OneSecond(), np.array([1, 1, 2]), np.array([1, 2, 8]))
    assert found.tolist() == pytest.approx([1.0, 4.0, 1.0])


def test_a_far_end_is_judged_by_the_speed_until_the_horizon():
    """The first half is ten times as slow as the second."""
    each = np.where(np.arange(GRID) < GRID / 2, 10.0, 1.0)[:, None] * HORIZON_S
    left = np.vstack([np.cumsum(each[::-1], axis=0)[::-1], [[0.0]]])
    assert sia_estimates._at_the_next_speed(left, left[0], 0.0) == pytest.approx([GRID * 10 * HORIZON_S])
    near = left[GRID - 1]
    assert sia_estimates._at_the_next_speed(left, near, GRID - 1.0) == near


def test_hours_are_put_down_to_their_causes_and_nothing_is_lost():
    """Two slow devices, 60 s of which 15 restart: half the work that the fast type would have done on one."""
    app = SimpleNamespace(
        init_batch_size=100,
        max_batch_size=100,
        max_epochs=1,
        get_grad_stats=lambda *_: (1.0, 1.0),
        get_throughput_with_accum=lambda *_: 100.0,
    )
    fast = SimpleNamespace(**{**vars(app), "get_throughput_with_accum": lambda *_: 200.0})
    ran = SimpleNamespace(
        app_name="net", applications={"slow": app, "fast": fast}, reference_app=app, calibration_factor=1.0,
        completion_time=None, submission_time=0.0, attained_service=120.0, wasted_gpu_seconds=30.0, progress=60.0,
    )  # fmt: skip
    seen = sia_hours.Watch(("slow", "fast"))
    seen.round(ran, sia_hours.Before(0.0, 2, "slow", 0.0, 0.0, 0.0, 0, 100.0), 60.0)
    assert seen.device_s == pytest.approx(
        {"least": 30.0, "restarts": 30.0, "slower_type": 30.0, "communication": 30.0, "large_batches": 0.0}
    )
    assert seen.job_s == {"waiting": 0.0, "restarting": 15.0, "training": 45.0}


def record(policy: str, trace: str, jct_h: float, setting: str | None = None, *, declared: bool = False) -> dict:
    return {
        "policy": policy, "setting": setting, "declared_epochs": declared, "trace": trace, "mean_jct_h": jct_h,
        "p99_jct_h": 10 * jct_h, "gpu_hours_per_job": 2 * jct_h, "restarts_per_job": 1.0,
        "gpu_hours_by_cause": dict.fromkeys(sia_hours.CAUSES, 1.0),
        "jct_h_by_phase": dict.fromkeys(sia_hours.PHASES, 0.5),
    }  # fmt: skip


def test_the_page_has_ratios_over_all_traces_and_over_those_not_tuned_on():
    records = [
        record("sia", "philly-1", 1.0),
        record("sia", "philly-2", 1.0),
        record("raywise", "philly-1", 0.5, "thrifty", declared=True),
        record("raywise", "philly-2", 0.9, "thrifty", declared=True),
    ]
    page = table.page(records, {}, {"thrifty": {"device": 0.05}}, "2026-01-01", "x86_64")
    assert "no more GPU-hours than Sia (`device` 0.05)" in page
    assert "| No more GPU-hours than Sia | 0.700 | 0.900 | 0.700 | 0.900 | 0.700 | 0.900 | 1.00 | 2 |" in page
    assert "philly-1 (tuned on) | 0.500 | 1.000 | 0.500 |" in page
    assert "| all | 5.000 | 5.000 |" in page
    assert "Least JCT" not in page


def test_the_page_has_the_policies_of_the_service_family_by_family():
    summary = {"mean_jct_s": 3600.0, "p99_jct_s": 7200.0, "device_hours": 6.0, "jobs": 2, "restarts_per_job": 1.5}
    jobs = [
        {"family": name, "arrived_s": 0.0, "ended_s": hours * 3600} for name, hours in (("bert", 0.5), ("net", 1.5))
    ]
    result = {
        "bounds": {"mean_jct_s": 1800.0},
        "policies": [{"policy": "market", "summary": summary, "jobs": jobs}],
    }
    page = table.page([record("sia", "philly-1", 1.0)], {"philly-1": result}, {}, "2026-01-01", "x86_64")
    assert "| philly-1, market | 1.000 | 2.00 | 3.00 | 1.5 | 0.50 | 1.50 |" in page
    assert "below 0.500 (philly-1) h" in page
