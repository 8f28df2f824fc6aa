"""`raywise plan` without a service: the same admission and policy on a cluster definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from scheduler.admission import plan_steps
from scheduler.estimate.calibration import Calibration
from scheduler.policy import create
from scheduler.service import views
from scheduler.service.home import Home
from scheduler.service.runtime import host_rates
from scheduler.store import Store
from workloads.loading import load_file


def offline_plan(
    file: Path, overrides: list[str], definition: Path | None, home: Home, own_catalog: Path | None = None
) -> tuple[dict[str, Any], set[str]]:
    """The plan on the definition's cluster (the one that ships where None), and its emulated device types. What an
    earlier service of this home has learnt is used."""
    submission = load_file(file, overrides)
    catalog = Catalog.load(own_catalog)
    cluster = ClusterDefinition.load(definition, catalog)
    snapshot = cluster.snapshot(host_rates(home), catalog)
    steps = plan_steps(submission, create("market"), catalog=catalog, snapshot=snapshot, calibration=_calibration(home))
    emulated = {name for name, kind in snapshot.device_types.items() if kind.emulated}
    where = f"the cluster of {definition}" if definition else "the local emulated cluster (no service is running)"
    answer = {"name": submission.name, "policy": "market", "cluster": where}
    return answer | {"steps": [views.step_plan(step) for step in steps]}, emulated


def _calibration(home: Home) -> Calibration:
    if not home.database.is_file():
        return Calibration()
    store = Store(home.database)
    try:
        return store.load_calibration()
    finally:
        store.close()
