"""`raywise plan` without a service: the same admission and policy on a cluster definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.types import Snapshot
from scheduler.admission import plan_steps
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.device_rates import DeviceRates, LearntAgainst, in_terms_of, with_measured_rates
from scheduler.estimate.model_profile import use_cache
from scheduler.policy import create
from scheduler.service import views
from scheduler.service.home import Home
from scheduler.service.runtime import host_rates
from scheduler.store import Store
from workloads.loading import load_file


class OfflineCluster(NamedTuple):
    """A cluster that nobody started, with what an earlier service of this home has learnt."""

    catalog: Catalog
    snapshot: Snapshot
    calibration: Calibration
    name: str

    @classmethod
    def of(cls, definition: Path | None, home: Home, own_catalog: Path | None = None) -> OfflineCluster:
        """The definition's, the one that ships where None. Raises SpecError."""
        use_cache(home.profiles)
        catalog = Catalog.load(own_catalog)
        cluster = ClusterDefinition.load(definition, catalog)
        calibration, rates, against = _learnt(home)
        snapshot = with_measured_rates(cluster.snapshot(host_rates(home), catalog), rates)
        in_terms_of(calibration, against, snapshot)
        return cls(catalog, snapshot, calibration, f"the cluster of {definition}" if definition else LOCAL)


LOCAL = "the local emulated cluster"


def offline_plan(
    file: Path, overrides: list[str], definition: Path | None, home: Home, own_catalog: Path | None = None
) -> tuple[dict[str, Any], set[str]]:
    """The plan on such a cluster, and its emulated device types."""
    submission = load_file(file, overrides)
    catalog, snapshot, calibration, where = OfflineCluster.of(definition, home, own_catalog)
    steps = plan_steps(submission, create("market"), catalog=catalog, snapshot=snapshot, calibration=calibration)
    emulated = {name for name, kind in snapshot.device_types.items() if kind.emulated}
    where = where if definition else f"{where} (no service is running)"
    return views.plan(submission, "market", steps) | {"cluster": where}, emulated


def _learnt(home: Home) -> tuple[Calibration, dict[str, DeviceRates], LearntAgainst]:
    if not home.database.is_file():
        return Calibration(), {}, {}
    store = Store(home.database)
    try:
        return store.load_calibration(), store.load_device_rates(), store.load_learnt_against()
    finally:
        store.close()
